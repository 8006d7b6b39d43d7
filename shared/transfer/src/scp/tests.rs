//! Conversations with `scp`.

use proptest::prelude::*;

use crate::testing::Line::{Client, Server};
use crate::testing::{ALL, Line, Outcome, settings, talk};
use crate::{Direction, FileRecord, Missing, Record, Tool};

fn tool(direction: Direction) -> Tool {
    Tool::Scp { path: "x".into(), direction }
}

fn copied(outcome: &Outcome) -> Vec<(&str, u64, bool)> {
    let files = outcome.records.iter().filter_map(|record| match record {
        Record::File(file) => {
            Some((file.path.as_str(), file.read + file.written, file.sha256.is_ok()))
        }
        _ => None,
    });
    files.collect()
}

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// A folder with two files, one empty, and a file that is refused.
fn upload() -> Vec<Line> {
    vec![
        Server(text("\0")),
        Client(text("T1700000000 0 1700000000 0\n")),
        Server(text("\0")),
        Client(text("D0755 0 dir\n")),
        Server(text("\0")),
        Client(text("C0644 6 a b\n")),
        Server(text("\0")),
        Client(text("abcdef\0")),
        Server(text("\0")),
        Client(text("C0644 0 empty\n")),
        Server(text("\0")),
        Client(text("\0")),
        Server(text("\0")),
        Client(text("E\n")),
        Server(text("\0")),
        Client(text("C0600 3 no\n")),
        Server(text("\x01scp: no: Permission denied\n")),
        Client(text("C0600 3 end\n")),
        Server(text("\0")),
        Client(text("xyz\0")),
        Server(text("\0")),
    ]
}

/// The same from the server.
fn mirrored(lines: Vec<Line>) -> Vec<Line> {
    let mirror = |line| match line {
        Client(bytes) => Server(bytes),
        Server(bytes) => Client(bytes),
    };
    lines.into_iter().map(mirror).collect()
}

#[test]
fn files_are_told_both_ways() {
    for (direction, lines) in
        [(Direction::Upload, upload()), (Direction::Download, mirrored(upload()))]
    {
        let outcome = talk(&tool(direction), settings(ALL), &lines, || usize::MAX);
        assert_eq!(
            copied(&outcome),
            [("dir/a b", 6, true), ("dir/empty", 0, true), ("no", 0, false), ("end", 3, true)]
        );
        let refused = outcome.records.iter().find_map(|record| match record {
            Record::File(FileRecord { path, error, .. }) if path == "no" => error.clone(),
            _ => None,
        });
        assert_eq!(refused.as_deref(), Some("scp: no: Permission denied"));
    }
}

#[test]
fn a_file_that_does_not_arrive_has_no_hash() {
    let mut lines = upload();
    lines.truncate(8);
    let outcome = talk(&tool(Direction::Upload), settings(ALL), &lines, || 3);
    assert!(matches!(
        &outcome.records[..],
        [Record::File(FileRecord { sha256: Err(Missing::Interrupted), .. })]
    ));
    let mut lines = upload();
    lines[7] = Client(text("abcdef\x01scp: a: Input/output error\n"));
    let outcome = talk(&tool(Direction::Upload), settings(ALL), &lines, || usize::MAX);
    assert_eq!(copied(&outcome)[0], ("dir/a b", 6, false));
    assert_eq!(copied(&outcome).len(), 4, "{:?}", outcome.records);
}

#[test]
fn whoever_breaks_the_protocol_is_not_followed() {
    let folder = [Server(text("\0")), Client(text("D0755 0 d\n"))];
    let nested: Vec<_> = folder.into_iter().cycle().take(4000).collect();
    for (why, lines) in [
        ("ahead of the answer", vec![Client(text("C0644 3 a\nabc\0"))]),
        ("not of the protocol", vec![Client(text("hello\n"))]),
        ("not of the protocol", vec![Client(text("C0644 -3 a\n"))]),
        ("not of the protocol", vec![Client(text("C9999 3 a\n"))]),
        ("not of the protocol", vec![Server(text("motd"))]),
        ("answer to nothing", vec![Server(text("\0\0"))]),
        ("too long", vec![Client(vec![b'C'; 10_000])]),
        ("does not wait", vec![Client(text(&"E\n".repeat(100)))]),
        ("too deep", nested),
    ] {
        let outcome = talk(&tool(Direction::Upload), settings(ALL), &lines, || usize::MAX);
        assert!(
            matches!(outcome.records.last(), Some(Record::Untracked { reason }) if reason.contains(why)),
            "{why}: {:?}",
            outcome.records.last()
        );
    }
}

proptest! {
    #[test]
    fn how_it_is_cut_changes_nothing(
        extra in proptest::collection::vec(any::<u8>(), 0..20),
        at in 0..21_usize,
        sizes in proptest::collection::vec(1..30_usize, 1..20),
    ) {
        let mut lines = upload();
        lines.insert(at, Client(extra));
        let whole = talk(&tool(Direction::Upload), settings(ALL), &lines, || usize::MAX);
        let mut sizes = sizes.into_iter().cycle();
        let parts =
            talk(&tool(Direction::Upload), settings(ALL), &lines, || sizes.next().unwrap_or(1));
        prop_assert_eq!(whole, parts);
    }
}

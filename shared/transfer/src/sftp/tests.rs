//! Conversations with an SFTP server.

use std::time::Duration;

use proptest::prelude::*;

use super::wire::{self, FXF_APPEND, FXF_READ, FXF_TRUNC, FXF_WRITE};
use crate::testing::Line::{Client, Server};
use crate::testing::{
    ALL, DOWNLOAD, Line, Outcome, Packet, UPLOAD, after_versions, close, data, handle, open, read,
    settings, sftp, status, talk, write,
};
use crate::{
    Action, Direction, FileRecord, Limits, Missing, Observer, Operation, Record, Settings, Tool,
};

const CREATE: u32 = 0x08;
const NEW: u32 = FXF_WRITE | CREATE | FXF_TRUNC;
/// SHA-256 of `abcdef`.
const ABCDEF: &str = "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721";

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files(outcome: &Outcome) -> Vec<&FileRecord> {
    let files = outcome.records.iter().filter_map(|record| match record {
        Record::File(file) => Some(file),
        _ => None,
    });
    files.collect()
}

fn operations(outcome: &Outcome) -> Vec<&Operation> {
    let operations = outcome.records.iter().filter_map(|record| match record {
        Record::Operation(operation) => Some(operation),
        _ => None,
    });
    operations.collect()
}

fn only(lines: Vec<Line>) -> FileRecord {
    let outcome = sftp(ALL, lines);
    match files(&outcome)[..] {
        [file] => file.clone(),
        ref other => panic!("{other:?} of {:?}", outcome.records),
    }
}

/// `abcdef` written in two pieces.
fn upload() -> Vec<Line> {
    vec![
        Client(open(1, "to", NEW)),
        Server(handle(1, "h")),
        Client([write(2, "h", 0, b"abc"), write(3, "h", 3, b"def")].concat()),
        Server([status(2, 0), status(3, 0)].concat()),
        Client(close(4, "h")),
        Server(status(4, 0)),
    ]
}

/// `abcdef` read in two pieces, asked for at once.
fn download() -> Vec<Line> {
    vec![
        Client(open(1, "from", FXF_READ)),
        Server(handle(1, "h")),
        Client([read(2, "h", 0, 3), read(3, "h", 3, 30), read(4, "h", 6, 24)].concat()),
        Server([data(2, b"abc"), data(3, b"def"), status(4, 1)].concat()),
        Client(close(5, "h")),
        Server(status(5, 0)),
    ]
}

#[test]
fn an_upload_in_sequence_has_its_hash() {
    let file = only(upload());
    assert_eq!(
        (file.path.as_str(), file.direction, file.read, file.written),
        ("to", Direction::Upload, 0, 6)
    );
    assert_eq!((file.size, file.sequential, &file.error), (Some(6), true, &None));
    assert_eq!(hex(&file.sha256.unwrap()), ABCDEF);
    assert_eq!(file.duration, Duration::from_secs(4));
}

#[test]
fn a_download_in_sequence_has_its_hash() {
    let file = only(download());
    assert_eq!((file.direction, file.read, file.size), (Direction::Download, 6, Some(6)));
    assert_eq!(hex(&file.sha256.unwrap()), ABCDEF);
}

#[test]
fn a_file_is_whole_where_its_size_was_told_or_its_end_was_read() {
    let parts = |before: Vec<Line>, after: Vec<Line>| {
        let mut lines = before;
        lines.extend(download().drain(..2));
        lines.extend([Client(read(2, "h", 0, 6)), Server(data(2, b"abcdef"))]);
        lines.extend(after);
        lines.extend([Client(close(9, "h")), Server(status(9, 0))]);
        only(lines).sha256
    };
    let stat = |size: u64| {
        vec![
            Client(Packet::new(wire::STAT, 8).text("from").done()),
            Server(Packet::new(wire::ATTRS, 8).u32(1).u64(size).done()),
        ]
    };
    assert_eq!(parts(vec![], vec![]), Err(Missing::NotToEnd));
    assert_eq!(parts(stat(7), vec![]), Err(Missing::NotToEnd));
    assert!(parts(stat(6), vec![]).is_ok());
    let fstat = vec![
        Client(Packet::new(wire::FSTAT, 8).text("h").done()),
        Server(Packet::new(wire::ATTRS, 8).u32(1 | 4).u64(6).u32(0o644).done()),
    ];
    assert!(parts(vec![], fstat).is_ok());
    let end = vec![Client(read(3, "h", 6, 6)), Server(status(3, 1))];
    assert!(parts(vec![], end).is_ok());
}

#[test]
fn what_is_not_the_whole_file_in_sequence_says_why() {
    let up = |flags: u32, pieces: &[(u64, &str)], after: Vec<Line>| {
        let mut lines = vec![Client(open(1, "f", flags)), Server(handle(1, "h"))];
        for (id, (offset, data)) in (10..).zip(pieces) {
            lines.push(Client(write(id, "h", *offset, data.as_bytes())));
            lines.push(Server(status(id, 0)));
        }
        lines.extend(after);
        lines.extend([Client(close(2, "h")), Server(status(2, 0))]);
        only(lines).sha256.map(|hash| hex(&hash))
    };
    let whole = [(0, "abc"), (3, "def")];
    assert_eq!(up(NEW, &whole, vec![]).as_deref(), Ok(ABCDEF));
    assert_eq!(up(NEW, &[(0, "abc"), (4, "x")], vec![]), Err(Missing::OutOfSequence));
    assert_eq!(up(NEW, &[(0, "abc"), (0, "x")], vec![]), Err(Missing::OutOfSequence));
    assert_eq!(up(NEW, &[(5, "abc")], vec![]), Err(Missing::NotFromStart(5)));
    assert_eq!(up(FXF_WRITE | CREATE, &whole, vec![]), Err(Missing::KeptContent));
    // As OpenSSH resumes.
    let resumed = up(FXF_WRITE | CREATE | FXF_APPEND, &[(6, "ghi")], vec![]);
    assert_eq!(resumed, Err(Missing::NotFromStart(6)));
    assert_eq!(up(NEW | FXF_APPEND, &whole, vec![]), Err(Missing::Appended));
    let set = |size: u64| {
        let packet = Packet::new(wire::FSETSTAT, 7).text("h").u32(1).u64(size);
        vec![Client(packet.done()), Server(status(7, 0))]
    };
    assert_eq!(up(FXF_WRITE | CREATE, &whole, set(6)).as_deref(), Ok(ABCDEF));
    assert_eq!(up(NEW, &whole, set(2)), Err(Missing::Resized));
    let failed = vec![Client(write(7, "h", 6, b"x")), Server(status(7, 4))];
    assert_eq!(up(NEW, &whole, failed), Err(Missing::Failed));
    let also_read = vec![Client(read(7, "h", 0, 6)), Server(data(7, b"abcdef"))];
    assert_eq!(up(NEW | FXF_READ, &whole, also_read), Err(Missing::ReadAndWritten));
    let copy = Packet::new(wire::EXTENDED, 7).text("copy-data").text("h").u64(0).u64(0).text("h");
    let inside = vec![Client(copy.done()), Server(status(7, 0))];
    assert_eq!(up(NEW, &whole, inside), Err(Missing::CopiedInside));
    let mut cut_off = upload();
    cut_off.truncate(4);
    let file = only(cut_off);
    assert_eq!(file.sha256, Err(Missing::Interrupted));
    assert!(file.error.is_some());
    let mut from_the_middle = download();
    from_the_middle[2] = Client(read(2, "h", 100, 3));
    from_the_middle[3] = Server(data(2, b"abc"));
    assert_eq!(only(from_the_middle).sha256, Err(Missing::NotFromStart(100)));
}

#[test]
fn operations_are_told_with_their_outcome() {
    let request = |kind, id| Packet::new(kind, id);
    let outcome = sftp(
        ALL,
        vec![
            Client(request(wire::REALPATH, 1).text(".").done()),
            Server(request(wire::NAME, 1).u32(1).text("/home/joe").text("").u32(0).done()),
            Client(request(wire::REMOVE, 2).text("gone").done()),
            Server(request(wire::STATUS, 2).u32(2).text("No such file").text("").done()),
            Client(request(wire::MKDIR, 3).text("new").u32(4).u32(0o755).done()),
            Server(status(3, 0)),
            Client(request(wire::RENAME, 4).text("a").text("b").done()),
            Client(
                request(wire::EXTENDED, 5)
                    .text("posix-rename@openssh.com")
                    .text("c")
                    .text("d")
                    .done(),
            ),
            Server([status(5, 0), status(4, 0)].concat()),
            Client(request(wire::SYMLINK, 6).text("/etc").text("link").done()),
            Server(status(6, 0)),
            Client(request(wire::OPENDIR, 7).text(".").done()),
            Server(handle(7, "d")),
            Client(request(wire::READDIR, 8).text("d").done()),
            Server(request(wire::NAME, 8).u32(1).text("x".repeat(9000)).text("").u32(0).done()),
            Client(request(wire::READDIR, 9).text("d").done()),
            Server(status(9, 1)),
            Client(open(10, "none", FXF_READ)),
            Server(status(10, 3)),
        ],
    );
    let told: Vec<_> = operations(&outcome)
        .iter()
        .map(|one| (one.action, one.path.as_str(), one.target.as_deref(), one.error.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            (Action::Remove, "gone", None, Some("No such file")),
            (Action::MkDir, "new", None, None),
            (Action::Rename, "c", Some("d"), None),
            (Action::Rename, "a", Some("b"), None),
            (Action::Symlink, "link", Some("/etc"), None),
            (Action::OpenDir, ".", None, None),
            (Action::ReadDir, ".", None, None),
            (Action::Open, "none", None, Some("permission denied")),
        ]
    );
    assert_eq!(operations(&outcome)[1].attributes.and_then(|set| set.permissions), Some(0o755));
    let mut observer = Observer::new(&Tool::Sftp, settings(ALL));
    for line in after_versions(vec![
        Client(request(wire::REALPATH, 1).text(".").done()),
        Server(request(wire::NAME, 1).u32(1).text("/home/joe").text("").u32(0).done()),
    ]) {
        let _ = match line {
            Client(bytes) => observer.input(bytes.into(), Duration::ZERO),
            Server(bytes) => observer.output(bytes.into(), Duration::ZERO),
        };
    }
    assert_eq!(observer.working_directory(), "/home/joe");
}

#[test]
fn what_changes_the_server_is_refused_in_its_place_where_uploads_are_forbidden() {
    let request = |kind, id| Packet::new(kind, id);
    let forbidden = [
        open(20, "to", NEW),
        open(21, "to", FXF_READ | FXF_WRITE),
        open(22, "to", FXF_APPEND),
        open(23, "to", CREATE),
        write(24, "h", 0, b"data that must not arrive"),
        write(25, "h", 0, b""),
        request(wire::SETSTAT, 26).text("f").u32(0).done(),
        request(wire::FSETSTAT, 27).text("h").u32(1).u64(0).done(),
        request(wire::REMOVE, 28).text("f").done(),
        request(wire::MKDIR, 29).text("f").u32(0).done(),
        request(wire::RMDIR, 30).text("f").done(),
        request(wire::RENAME, 31).text("f").text("g").done(),
        request(wire::SYMLINK, 32).text("f").text("g").done(),
        request(wire::EXTENDED, 33).text("posix-rename@openssh.com").text("f").text("g").done(),
        request(wire::EXTENDED, 34).text("hardlink@openssh.com").text("f").text("g").done(),
        request(wire::EXTENDED, 35).text("lsetstat@openssh.com").text("f").u32(0).done(),
        request(wire::EXTENDED, 36).text("copy-data").text("h").u64(0).u64(0).text("i").done(),
        request(wire::EXTENDED, 37).text("unheard-of@example.com").text("f").done(),
    ];
    let allowed: Vec<u8> = [
        open(2, "from", FXF_READ),
        request(wire::STAT, 3).text("f").done(),
        request(wire::OPENDIR, 4).text("f").done(),
        request(wire::EXTENDED, 5).text("limits@openssh.com").done(),
    ]
    .concat();
    let mut said = vec![Client(forbidden.concat()), Client(allowed.clone())];
    said.push(Server([handle(2, "h"), status(3, 2), status(4, 2)].concat()));
    let lines = after_versions(said);
    for step in [usize::MAX, 1, 3, 17] {
        let outcome = talk(&Tool::Sftp, settings(DOWNLOAD), &lines, || step);
        assert_eq!(outcome.end, None);
        let init = Packet::new(wire::INIT, 3).done();
        assert_eq!(outcome.to_server, [init, allowed.clone()].concat(), "in steps of {step}");
        let refused: Vec<_> = operations(&outcome).into_iter().filter(|one| one.refused).collect();
        assert_eq!(refused.len(), forbidden.len());
        for (id, _) in (20_u32..).zip(forbidden.iter()) {
            let denied = wire::refusal(id, "file uploads are not permitted");
            let found = outcome.to_client.windows(denied.len()).any(|window| window == denied);
            assert!(found, "no answer to {id}");
        }
    }
}

#[test]
fn reading_content_is_refused_where_downloads_are_forbidden() {
    let mut lines = upload();
    lines.extend([
        Client(open(20, "from", FXF_READ)),
        // For both: its reads are refused.
        Client(open(21, "both", FXF_READ | FXF_WRITE)),
        Server(handle(21, "b")),
        Client(read(22, "b", 0, 100)),
        Client(read(23, "nobody gave this", 0, 100)),
    ]);
    let outcome = sftp(UPLOAD, lines);
    let refused: Vec<_> = operations(&outcome).into_iter().filter(|one| one.refused).collect();
    let told: Vec<_> = refused.iter().map(|one| (one.action, one.path.as_str())).collect();
    assert_eq!(told, [(Action::Open, "from"), (Action::Read, "both"), (Action::Read, "")]);
    assert_eq!(hex(&files(&outcome)[0].sha256.unwrap()), ABCDEF);
    assert!(!outcome.to_server.windows(4).any(|window| window == b"from"));
}

#[test]
fn a_refusal_comes_between_two_packets() {
    let mut observer = Observer::new(&Tool::Sftp, settings(DOWNLOAD));
    let now = Duration::ZERO;
    let mut seen = Vec::new();
    for line in after_versions(download()).drain(..5) {
        match line {
            Client(bytes) => drop(observer.input(bytes.into(), now).unwrap()),
            Server(bytes) => drop(observer.output(bytes.into(), now).unwrap()),
        }
    }
    let answers = [data(2, b"abc"), data(3, b"def")].concat();
    seen.extend(observer.output(answers[..10].to_vec().into(), now).unwrap().concat());
    let denied = Packet::new(wire::REMOVE, 50).text("f").done();
    assert!(observer.input(denied.into(), now).unwrap().is_empty());
    assert_eq!(observer.reply(), None, "in the middle of a packet");
    seen.extend(observer.output(answers[10..].to_vec().into(), now).unwrap().concat());
    let refusal = wire::refusal(50, "file uploads are not permitted");
    assert_eq!(seen, [&data(2, b"abc")[..], &refusal[..], &data(3, b"def")[..]].concat());
}

#[test]
fn a_newer_version_is_not_offered() {
    let lines = [Client(Packet::new(wire::INIT, 6).text("more").done())];
    let outcome = talk(&Tool::Sftp, settings(ALL), &lines, || 2);
    assert_eq!(outcome.to_server, Packet::new(wire::INIT, 3).text("more").done());
}

#[test]
fn whoever_breaks_the_protocol_is_not_followed_and_ends_where_something_is_forbidden() {
    let long = "x".repeat(300);
    let cases: Vec<(&str, Vec<Line>)> = vec![
        ("used twice", vec![Client([open(1, "a", NEW), open(1, "b", NEW)].concat())]),
        ("answer to nothing", vec![Server(status(9, 0))]),
        ("unknown type", vec![Client(Packet::new(99, 1).done())]),
        ("unknown type", vec![Server(Packet::new(99, 1).done())]),
        ("empty packet", vec![Client(vec![0, 0, 0, 0, 3])]),
        ("too long", vec![Client(vec![0x7f, 0xff, 0xff, 0xff, wire::OPEN])]),
        ("too early", vec![Client(Packet::new(wire::OPEN, 1).u32(u32::MAX).done())]),
        ("handle is too long", vec![Client(write(1, &long, 0, b""))]),
        ("handle is too long", vec![Client(open(1, "a", NEW)), Server(handle(1, &long))]),
        (
            "given twice",
            vec![
                Client([open(1, "a", NEW), open(2, "b", NEW)].concat()),
                Server([handle(1, "h"), handle(2, "h")].concat()),
            ],
        ),
        ("nobody asked", vec![Client(open(1, "a", NEW)), Server(data(1, b"x"))]),
        ("another version", vec![Server(Packet::new(wire::VERSION, 3).done())]),
    ];
    for (why, lines) in cases {
        let lines = after_versions(lines);
        let sent = |client: bool| -> Vec<u8> {
            let said = lines.iter().filter_map(|line| match line {
                Client(bytes) if client => Some(&bytes[..]),
                Server(bytes) if !client => Some(&bytes[..]),
                _ => None,
            });
            said.collect::<Vec<_>>().concat()
        };
        let open = talk(&Tool::Sftp, settings(ALL), &lines, || usize::MAX);
        assert_eq!(open.end, None, "{why}");
        assert!(
            matches!(open.records.last(), Some(Record::Untracked { reason }) if reason.contains(why)),
            "{why}: {:?}",
            open.records
        );
        assert_eq!((open.to_server, open.to_client), (sent(true), sent(false)), "{why}");
        let strict = talk(&Tool::Sftp, settings(UPLOAD), &lines, || usize::MAX);
        assert!(strict.end.is_some_and(|end| end.contains(why)), "{why}");
    }
}

#[test]
fn memory_is_bounded_by_the_limits() {
    let limits = Limits { requests: 10, handles: 5, names: 1000, request: 500, refusals: 7 };
    let lost = |policy, lines: Vec<Line>| {
        let small = Settings { policy, hash: true, limits };
        let outcome = talk(&Tool::Sftp, small, &after_versions(lines), || usize::MAX);
        outcome.records.into_iter().find_map(|record| match record {
            Record::Untracked { reason } => Some(reason),
            _ => None,
        })
    };
    let asking = |count: u32, path: &str| (0..count).map(|id| Client(open(id, path, 1))).collect();
    assert_eq!(lost(ALL, asking(10, "a")), None);
    assert!(lost(ALL, asking(11, "a")).unwrap().contains("too many requests"));
    assert!(lost(ALL, asking(5, &"a".repeat(300))).unwrap().contains("too many requests"));
    let opening = |count: u32| {
        let pair = |id: u32| [Client(open(id, "a", 1)), Server(handle(id, &id.to_string()))];
        (0..count).flat_map(pair).collect()
    };
    assert_eq!(lost(ALL, opening(5)), None);
    assert!(lost(ALL, opening(6)).unwrap().contains("too many open files"));
    let long = vec![Client(open(1, &"a".repeat(600), 1))];
    assert!(lost(ALL, long).unwrap().contains("request is too long"));
    let mut deaf: Vec<u8> = Vec::new();
    for id in 0..8 {
        deaf.extend(open(id, "a", NEW));
    }
    assert!(lost(DOWNLOAD, vec![Client(deaf)]).unwrap().contains("reads no refusal"));
}

#[test]
fn a_handle_may_be_given_again_once_it_is_closed() {
    let mut lines = upload();
    lines.extend(download());
    let outcome = sftp(ALL, lines);
    let found: Vec<_> = files(&outcome).iter().map(|file| hex(&file.sha256.unwrap())).collect();
    assert_eq!(found, [ABCDEF, ABCDEF]);
}

fn conversation() -> impl Strategy<Value = Vec<Line>> {
    let step = prop_oneof![
        Just(upload()),
        Just(download()),
        (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
            |(client, bytes)| { vec![if client { Client(bytes) } else { Server(bytes) }] }
        ),
        (wire::OPEN..=wire::SYMLINK, 0..6_u32, proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(kind, id, body)| vec![Client(
                Packet::new(kind, id).text(body).u32(3).u32(0).done()
            )]),
        (100..106_u8, 0..6_u32, 0..4_u32)
            .prop_map(|(kind, id, code)| vec![Server(Packet::new(kind, id).u32(code).done())]),
    ];
    proptest::collection::vec(step, 0..8).prop_map(|steps| after_versions(steps.concat()))
}

proptest! {
    #[test]
    fn how_it_is_cut_changes_nothing(
        lines in conversation(),
        sizes in proptest::collection::vec(1..50_usize, 1..20),
        policy in prop_oneof![Just(ALL), Just(UPLOAD), Just(DOWNLOAD)],
    ) {
        let whole = talk(&Tool::Sftp, settings(policy), &lines, || usize::MAX);
        let mut sizes = sizes.into_iter().cycle();
        let parts = talk(&Tool::Sftp, settings(policy), &lines, || sizes.next().unwrap_or(1));
        prop_assert_eq!(&whole.records, &parts.records);
        prop_assert_eq!(&whole.end, &parts.end);
        if whole.end.is_none() {
            prop_assert_eq!(whole, parts);
        }
    }
}

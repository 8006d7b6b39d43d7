use shared_events::{Resize, SessionPrint, SessionStart};

use super::*;

fn print(ms: i64, data: &str) -> AuditEvent {
    SessionPrint { ms, data: data.to_owned().into(), ..SessionPrint::default() }.into()
}

fn start(size: &str) -> AuditEvent {
    SessionStart { size: size.into(), ..SessionStart::default() }.into()
}

fn find(pattern: &str, events: Vec<AuditEvent>) -> Vec<(u64, String)> {
    let hits = Hits::new(events.into_iter().map(Ok), pattern.parse().unwrap());
    hits.map(|hit| hit.unwrap()).map(|hit| (hit.at_ms, hit.line)).collect()
}

fn lines(found: &[(u64, String)]) -> Vec<(u64, &str)> {
    found.iter().map(|(at, line)| (*at, line.as_str())).collect()
}

#[test]
fn a_line_that_is_typed_is_found_once_and_whole() {
    let typed = "$ ls -l\r\n".char_indices().map(|(at, c)| print(at as i64 * 100, &c.to_string()));
    let events: Vec<_> = std::iter::once(start("80:24")).chain(typed).collect();
    assert_eq!(lines(&find("ls", events)), [(300, "$ ls -l")]);
}

#[test]
fn lines_that_pass_in_one_piece_are_found() {
    let flood: String = (0..1000).map(|line| format!("line {line}\r\n")).collect();
    let found = find("line (7|77|777)$", vec![start("80:24"), print(5, &flood)]);
    assert_eq!(lines(&found), [(5, "line 7"), (5, "line 77"), (5, "line 777")]);
}

#[test]
fn a_repeated_line_counts_again_and_one_that_is_still_there_does_not() {
    let events = vec![
        start("80:24"),
        print(0, "error\r\n"),
        print(10, "fine\r\n"),
        print(20, "error\r\nerror\r\n"),
        print(30, "$ "),
    ];
    assert_eq!(lines(&find("error", events)), [(0, "error"), (20, "error"), (20, "error")]);
}

#[test]
fn full_screen_programs_are_searched_as_they_show() {
    let events = vec![
        start("40:5"),
        print(0, "$ vim notes\r\n"),
        print(100, "\x1b[?1049h\x1b[2J\x1b[Hfirst\x1b[2;1Hsecret plan"),
        print(200, "\x1b[1;1Hchanged"),
        print(300, "\x1b[2;1Hsecret plan B"),
        print(400, "\x1b[?1049l$ cat secret\r\n"),
    ];
    let found = find("secret", events);
    assert_eq!(
        lines(&found),
        [(100, "secret plan"), (300, "secret plan B"), (400, "$ cat secret")]
    );
}

#[test]
fn wrapped_lines_are_one_and_sizes_follow() {
    let resize = Resize { size: "12:4".into(), ..Resize::default() };
    let events =
        vec![start("6:4"), print(0, "abcdefghi\r\n"), resize.into(), print(9, "abcdefghi\r\n")];
    assert_eq!(lines(&find("ghi", events)), [(0, "abcdefghi"), (9, "abcdefghi")]);
}

#[test]
fn what_was_there_for_a_moment_and_at_the_end_is_found() {
    let events = vec![
        start("40:5"),
        print(0, "$ password"),
        print(50, "\r\x1b[K$ other"),
        print(60, "\r\nlast password"),
    ];
    assert_eq!(lines(&find("password", events)), [(0, "$ password"), (60, "last password")]);
}

#[test]
fn output_of_no_terminal_is_searched() {
    assert_eq!(lines(&find("^b$", vec![start(""), print(0, "a\nb\nc\n")])), [(0, "b")]);
}

#[test]
fn no_sequence_is_in_what_is_found() {
    let found = find(
        "x",
        vec![start("80:24"), print(0, "\x1b]0;x\x07\x1b[31mx\x1b]52;c;eA==\x07\u{9b}31my\r\n")],
    );
    assert_eq!(lines(&found), [(0, "x31my")]);
}

#[test]
fn patterns_are_bounded() {
    assert!("(".parse::<Pattern>().is_err());
    assert!("((((a{1000}){1000}){1000}){1000})".parse::<Pattern>().is_err());
}

#[test]
fn matches_are_highlighted() {
    let mut screen = Screen::new(Size::default());
    screen.feed("a漢字b e\u{301}漢".as_bytes());
    let row = "字b|e\u{301}".parse::<Pattern>().unwrap().highlight(&screen.row(0));
    let marked: Vec<&str> =
        row.cells().filter(|cell| cell.style.flags() != 0).map(|cell| cell.text).collect();
    assert_eq!(marked, ["字", "b", "e\u{301}"]);
    assert_eq!(row.text(), screen.row(0).text());
    let none = "x*".parse::<Pattern>().unwrap().highlight(&screen.row(0));
    assert_eq!(none, screen.row(0));
}

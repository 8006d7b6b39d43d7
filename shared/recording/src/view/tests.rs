use super::*;

fn size(columns: u16, rows: u16) -> Size {
    Size { columns, rows }
}

fn screen(columns: u16, rows: u16, output: &str) -> Screen {
    let mut screen = Screen::new(size(columns, rows));
    screen.feed(output.as_bytes());
    screen
}

fn texts(frame: &Frame) -> Vec<&str> {
    frame.rows.iter().map(Row::text).collect()
}

#[test]
fn a_larger_window_shows_all_of_it() {
    let screen = screen(10, 3, "one\r\n\x1b[31mtwo\x1b[0m");
    let frame = Frame::fit(&screen, size(100, 50));
    assert_eq!(texts(&frame), ["one", "two", ""]);
    assert_eq!(frame.cursor, Some((1, 3)));
}

#[test]
fn lines_wrap_in_a_narrower_window() {
    let screen = screen(12, 5, "0123456789abcdef\r\n漢字漢\r\n$ ");
    let frame = Frame::fit(&screen, size(5, 9));
    assert_eq!(texts(&frame)[..7], ["01234", "56789", "abcde", "f", "漢字", "漢", "$"]);
    assert_eq!(frame.cursor, Some((6, 2)));
    // What does not fit in height is older.
    let low = Frame::fit(&screen, size(5, 3));
    assert_eq!((texts(&low), low.cursor), (vec!["漢字", "漢", "$"], Some((2, 2))));
}

#[test]
fn a_cursor_behind_the_text_stays_in_the_window() {
    for (output, cursor) in [("abcd", (0, 4)), ("abcde", (1, 0)), ("ab\x1b[1;9H", (0, 4))] {
        let frame = Frame::fit(&screen(12, 3, output), size(5, 3));
        assert_eq!(frame.cursor, Some(cursor), "{output:?}");
    }
}

#[test]
fn a_full_screen_program_shows_the_part_around_the_cursor() {
    let text = "\x1b[?1049h\x1b[2J\x1b[H0123456789\x1b[2;1Ha漢字b漢\x1b[4;1Hend";
    let top = Frame::fit(&screen(10, 4, &format!("{text}\x1b[1;1H")), size(4, 2));
    assert_eq!((texts(&top), top.cursor), (vec!["0123", "a漢 "], Some((0, 0))));
    let right = Frame::fit(&screen(10, 4, &format!("{text}\x1b[2;10H")), size(4, 2));
    assert_eq!((texts(&right), right.cursor), (vec!["6789", "漢"], Some((1, 3))));
    let bottom = Frame::fit(&screen(10, 4, text), size(4, 2));
    assert_eq!((texts(&bottom), bottom.cursor), (vec!["", "end"], Some((1, 3))));
    assert_eq!(Frame::fit(&screen(10, 4, "\x1b[?25l"), size(4, 2)).cursor, None);
}

/// What is painted, over whatever was painted before, shows the same on a terminal of that size.
#[test]
fn painting_shows_the_frame() {
    let outputs = [
        "\x1b[31mred\x1b[0m 漢字 👍🏽x\r\nzwei\x1b[4;7Hx\x1b(0qqx\x1b(B",
        "\x1b[H\x1b[Kshort\x1b[2;1H\x1b[44m  blue  \x1b[0me\u{301}e",
        "\x1b[2J\x1b[5;1H0123456789012345678901234567890123456789",
        "\x1b[?1049hfull\x1b[3;3Hscreen\x1b[?25l",
        "\x1b[?1049l",
    ];
    for window in [size(20, 5), size(30, 9), size(7, 3), size(2, 1)] {
        let mut model = Screen::new(size(20, 5));
        let mut terminal = Screen::new(window);
        let mut painter = Painter::default();
        terminal.feed(b"something else");
        for output in outputs {
            model.feed(output.as_bytes());
            let frame = Frame::fit(&model, window);
            let painted = painter.paint(&frame, window);
            crate::fuzz::assert_harmless(painted.as_bytes());
            terminal.feed(painted.as_bytes());
            let shown: Vec<_> = terminal.rows().iter().map(|row| row.text().to_owned()).collect();
            let mut wanted = texts(&frame);
            wanted.resize(shown.len(), "");
            assert_eq!(shown, wanted, "{window} after {output:?}");
            if let Some(cursor) = frame.cursor {
                assert_eq!(terminal.cursor(), cursor, "{window} after {output:?}");
            }
            assert_eq!(terminal.is_cursor_shown(), frame.cursor.is_some());
        }
    }
}

#[test]
fn only_differences_are_painted() {
    let window = size(40, 3);
    let mut model = screen(40, 3, "first line\r\nsecond line");
    let mut painter = Painter::default();
    painter.paint(&Frame::fit(&model, window), window);
    model.feed(b" grows");
    let painted = painter.paint(&Frame::fit(&model, window), window);
    assert!(painted.contains("\x1b[2;12H") && painted.contains("grows"), "{painted:?}");
    assert!(!painted.contains("first") && !painted.contains("second"), "{painted:?}");
}

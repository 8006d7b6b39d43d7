use proptest::prelude::*;

use super::*;

fn passed(input: &[u8]) -> String {
    let whole = Filter::new().filter(input);
    crate::fuzz::assert_harmless(&whole);
    let mut filter = Filter::new();
    let mut pieces = Vec::new();
    for byte in input {
        filter.feed(&[*byte], &mut pieces);
    }
    assert_eq!(whole, pieces, "byte by byte it is the same");
    String::from_utf8(whole).unwrap()
}

#[test]
fn text_and_colours_pass() {
    for text in [
        "plain ü 漢字 🦀\r\n\ttab\x08",
        "\x1b[1;38;5;208mx\x1b[0m",
        "\x1b[38:2:1:2:3mx\x1b[4:3m",
        "\x1b[10;20H\x1b[2J\x1b[K\x1b[3A\x1b[2;10r\x1b[5L",
        "\x1b7\x1b8\x1b[?25l\x1b[?25h\x1b[?7l",
    ] {
        assert_eq!(passed(text.as_bytes()), text);
    }
    assert_eq!(passed(b"\x1b[H\x1b[m"), "\x1b[H\x1b[0m");
}

#[test]
fn nothing_that_acts_or_is_answered_passes() {
    let harmful: &[(&str, &[u8])] = &[
        ("title", b"\x1b]0;owned\x07"),
        ("title, ended by ST", b"\x1b]2;owned\x1b\\"),
        ("clipboard", b"\x1b]52;c;cm0gLXJmIC8=\x07"),
        ("clipboard question", b"\x1b]52;c;?\x1b\\"),
        ("hyperlink", b"\x1b]8;;https://example.test\x1b\\"),
        ("colour question", b"\x1b]10;?\x07"),
        ("palette", b"\x1b]4;1;rgb:00/00/00\x07"),
        ("notification", b"\x1b]777;notify;a;b\x07"),
        ("image", b"\x1b]1337;File=inline=1:AAAA\x07"),
        ("device attributes", b"\x1b[c\x1b[0c\x1b[>c\x1b[=c\x1bZ"),
        ("status", b"\x1b[5n\x1b[6n\x1b[?6n\x1b[?15n"),
        ("terminal parameters", b"\x1b[x\x1b[1x"),
        ("version", b"\x1b[>0q"),
        ("status string", b"\x1bP$qm\x1b\\"),
        ("termcap", b"\x1bP+q544e\x1b\\"),
        ("sixel", b"\x1bPq#0;2;0;0;0#0~~@@\x1b\\"),
        ("user keys", b"\x1bP0;1|17/0a\x1b\\"),
        ("application command", b"\x1b_Gf=24;AAAA\x1b\\"),
        ("privacy message", b"\x1b^x\x1b\\"),
        ("start of string", b"\x1bXx\x1b\\"),
        ("window", b"\x1b[8;10;10t\x1b[21t\x1b[14t\x1b[3;0;0t"),
        ("bracketed paste", b"\x1b[?2004h"),
        ("mouse", b"\x1b[?1000h\x1b[?1002;1003;1006h\x1b[1;2;3;4;5T"),
        ("focus", b"\x1b[?1004h"),
        ("cursor keys", b"\x1b[?1h\x1b=\x1b>"),
        ("mode question", b"\x1b[?2004$p\x1b[4$p"),
        ("keys", b"\x1b[>4;2m\x1b[?4m\x1b[>1u\x1b[?u\x1b[=1;1u"),
        ("keyboard lock", b"\x1b[2h"),
        ("newline mode", b"\x1b[20h"),
        ("columns", b"\x1b[?3h\x1b[?40h"),
        ("printer", b"\x1b[5i\x1b[?5i\x1b[i"),
        ("leds", b"\x1b[1q"),
        ("cursor shape", b"\x1b[5 q"),
        ("tab stops", b"\x1bH\x1b[3g"),
        ("scrollback", b"\x1b[3J"),
        ("areas", b"\x1b[1;1;5;5$z\x1b[1;1;1;1;1;1*y"),
        ("answerback", b"\x05"),
        ("bell", b"\x07"),
        ("character sets", b"\x1b(A\x1b%G\x1b%@\x1b*0\x1bn\x1bo\x1b~\x1bN\x1bO"),
        ("double height", b"\x1b#3\x1b#8"),
        ("too many intermediates", b"\x1b[   !\"m"),
        ("delete", b"\x7f"),
    ];
    for (what, sequence) in harmful {
        assert_eq!(passed(sequence), "", "{what}");
        let around = [b"a", *sequence, b"b"].concat();
        assert_eq!(passed(&around), "ab", "{what}");
    }
}

#[test]
fn eight_bit_controls_do_not_pass() {
    // Raw and in UTF-8: CSI, OSC, DCS, APC, ST. What follows them is text then.
    for byte in 0x80..=0x9f_u8 {
        assert_eq!(passed(&[byte]), "");
        assert_eq!(passed(&[0xc2, byte]), "");
    }
    assert_eq!(passed(b"\x9b6n"), "6n");
    assert_eq!(passed(b"\xc2\x9d52;c;?\x07"), "52;c;?");
    assert_eq!(passed(b"\x1b]0;a\xc2\x9cb\x07c"), "c");
}

#[test]
fn controls_inside_sequences_do_not_smuggle() {
    assert_eq!(passed(b"\x1b[3\x1b]0;x\x07m"), "m");
    assert_eq!(passed(b"\x1b[3\x05\x071m"), "\x1b[31m");
    assert_eq!(passed(b"\x1b\x1b\x1b[c"), "");
    assert_eq!(passed(b"\x1b]0;x\x18y"), "y");
    assert_eq!(passed(b"\x1b[1\x1ay"), "y");
}

#[test]
fn line_drawing_becomes_unicode() {
    assert_eq!(passed(b"\x1b(0lqk\x1b(Blqk"), "┌─┐lqk");
    assert_eq!(passed(b"\x1b)0\x0eqx\x0fqx"), "─│qx");
    assert_eq!(passed(b"\x1b(0\x1b7\x1b(B\x1b8q"), "\x1b7\x1b8─");
    assert_eq!(
        passed(b"\x1b(0\x1bcq"),
        format!("{}\x1b[2J\x1b[Hq", std::str::from_utf8(Filter::restore()).unwrap())
    );
}

#[test]
fn characters_cut_by_chunks_lose_nothing() {
    let input = "漢字=ü🦀x".as_bytes();
    for first in 0..=input.len() {
        for second in first..=input.len() {
            let mut filter = Filter::new();
            let mut out = Vec::new();
            for piece in [&input[..first], &input[first..second], &input[second..]] {
                filter.feed(piece, &mut out);
            }
            assert_eq!(out, input);
            assert!(filter.is_between_sequences());
        }
    }
    assert_eq!(passed(b"a\xe6\xbc\x1b[1mb\xffc"), "a\u{fffd}\x1b[1mb\u{fffd}c");
}

#[test]
fn the_alternate_screen_is_a_cleared_one() {
    let clear = "\x1b[0m\x1b[r\x1b[2J\x1b[H";
    assert_eq!(passed(b"a\x1b[?1049hb\x1b[?1049lc"), format!("a{clear}b{clear}c"));
}

#[test]
fn a_string_without_an_end_neither_hides_nor_grows() {
    let mut filter = Filter::new();
    let mut out = Vec::new();
    filter.feed(b"\x1b]0;", &mut out);
    assert!(!filter.is_between_sequences());
    for _ in 0..40 {
        filter.feed(&[b'x'; 65_536], &mut out);
    }
    assert!(out.len() > 1024 * 1024, "what comes behind a megabyte shows");
    assert!(filter.is_between_sequences());
}

#[test]
fn counts_are_bounded() {
    assert_eq!(passed(b"x\x1b[65535b"), "x\x1b[1000b");
    assert_eq!(passed(b"\x1b[99999999L"), "\x1b[1000L");
}

#[test]
fn what_is_filtered_twice_stays_as_it_is() {
    let once = passed("a\x1b(0q\x1b[?1049h\x1b[1;31mx\x1b[5;5H漢".as_bytes());
    assert_eq!(passed(once.as_bytes()), once);
}

proptest! {
    #[test]
    fn any_output_is_made_harmless(bytes: Vec<u8>) {
        crate::fuzz::output(&bytes);
    }

    #[test]
    fn any_sequences_are_made_harmless(
        parts in proptest::collection::vec(
            "(\u{1b}|\u{1b}\\[|\u{1b}\\]|\u{1b}P|\u{1b}_|\u{9b}|\u{9d}|\u{c2}|[?>=!$ ]|[0-9;:]{0,4}|[@-~]|[\u{0}-\u{1f}]|\u{7f}|漢)",
            0..50,
        ),
        cuts: Vec<u8>,
    ) {
        let input: Vec<u8> = parts.concat().into_bytes();
        let whole = Filter::new().filter(&input);
        crate::fuzz::assert_harmless(&whole);
        let mut filter = Filter::new();
        let mut pieces = Vec::new();
        let mut rest = &input[..];
        for cut in cuts {
            let (now, later) = rest.split_at(usize::from(cut % 9).min(rest.len()));
            filter.feed(now, &mut pieces);
            rest = later;
        }
        filter.feed(rest, &mut pieces);
        prop_assert_eq!(whole, pieces);
    }
}

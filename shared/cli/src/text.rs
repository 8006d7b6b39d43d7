//! Text that is safe to show, and what is known of the terminal.

use std::borrow::Cow;
use std::io::IsTerminal;

/// `text` with every control character (C0, DEL, C1 and bidirectional overrides) written as an
/// escape, so that a name from outside cannot drive the terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, false)
}

/// As [`printable`], but line ends stay.
pub(crate) fn printable_lines(text: &str) -> Cow<'_, str> {
    escape(text, true)
}

/// Whether a terminal shows it, and does nothing else.
pub(crate) fn is_harmless(c: char) -> bool {
    !(c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

fn escape(text: &str, keep_newlines: bool) -> Cow<'_, str> {
    let harmless = |c: char| (keep_newlines && c == '\n') || is_harmless(c);
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if harmless(c) {
            safe.push(c);
        } else {
            safe.extend(c.escape_default());
        }
    }
    Cow::Owned(safe)
}

/// Whether standard output is a terminal.
pub fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// The terminal's width in columns; 80 when unknown.
pub fn terminal_width() -> usize {
    if let Some(columns) = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()) {
        return columns;
    }
    match crossterm::terminal::size() {
        Ok((columns, _)) if columns > 0 && stdout_is_terminal() => usize::from(columns),
        _ => 80,
    }
}

/// Colour only on a terminal, and not when `NO_COLOR` is set.
pub(crate) fn colour_wanted(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_drives_a_terminal() {
        assert_eq!(
            printable("a\x1b[31m\u{9b}m\r\n\u{202e}z"),
            "a\\u{1b}[31m\\u{9b}m\\r\\n\\u{202e}z"
        );
        assert!(matches!(printable("北京 é"), Cow::Borrowed("北京 é")));
    }
}

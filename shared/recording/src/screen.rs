//! What was on a terminal's screen.

mod row;

use std::num::NonZeroU16;

use crate::filter::{Audience, Filter};
pub use row::{Cell, Colour, Row, Style};

/// Width and height in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// Larger terminals do not exist, and cost memory.
const MAX_COLUMNS: u16 = 1000;
const MAX_ROWS: u16 = 500;

/// A text that is no terminal size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid terminal size {0:?}")]
pub struct SizeError(String);

impl std::str::FromStr for Size {
    type Err = SizeError;

    /// Reads `width:height`, as events have it.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let parsed = text.split_once(':').and_then(|(columns, rows)| {
            Some(Self { columns: columns.parse().ok()?, rows: rows.parse().ok()? })
        });
        parsed.ok_or_else(|| SizeError(text.chars().take(32).collect()))
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.columns, self.rows)
    }
}

impl Default for Size {
    fn default() -> Self {
        Self { columns: 80, rows: 24 }
    }
}

impl Size {
    /// A size that a model can have. Two columns hold one wide character.
    fn clamped(self) -> (NonZeroU16, NonZeroU16) {
        let rows = self.rows.clamp(2, MAX_ROWS);
        let columns = self.columns.clamp(2, MAX_COLUMNS);
        (
            NonZeroU16::new(rows).unwrap_or(NonZeroU16::MIN),
            NonZeroU16::new(columns).unwrap_or(NonZeroU16::MIN),
        )
    }
}

/// Rows kept that scrolled off the top: a window that grows shows them again.
const SCROLLBACK: usize = 100;

/// A model of a terminal's screen.
pub struct Screen {
    model: vt100::Parser,
    filter: Filter,
    line_ends: LineEnds,
    scratch: Vec<u8>,
}

/// Who moves the cursor to the first column at the end of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineEnds {
    /// The output itself, or the terminal driver before it was recorded.
    #[default]
    Recorded,
    /// Nobody: the output of a program that had no terminal.
    Bare,
}

/// A screen as it was, to come back to.
#[derive(Clone)]
pub(crate) struct ScreenState {
    model: vt100::Screen,
    charsets: crate::filter::CharsetState,
    line_ends: LineEnds,
}

impl Screen {
    /// An empty screen.
    #[must_use]
    pub fn new(size: Size) -> Self {
        let (rows, columns) = size.clamped();
        Self {
            model: vt100::Parser::new(rows, columns, SCROLLBACK),
            filter: Filter::for_audience(Audience::Screen),
            line_ends: LineEnds::default(),
            scratch: Vec::new(),
        }
    }

    /// How lines end in what is fed from now on.
    pub fn set_line_ends(&mut self, line_ends: LineEnds) {
        self.line_ends = line_ends;
    }

    /// How lines end now.
    #[must_use]
    pub fn line_ends(&self) -> LineEnds {
        self.line_ends
    }

    /// Shows output.
    pub fn feed(&mut self, output: &[u8]) {
        self.feed_lines(output, |_| {});
    }

    /// Shows output, and stops before every line feed, when the line that the cursor is on is as
    /// whole as it will be before it may scroll away.
    pub fn feed_lines(&mut self, output: &[u8], mut line: impl FnMut(&Self)) {
        let mut shown = std::mem::take(&mut self.scratch);
        shown.clear();
        self.filter.feed(output, &mut shown);
        for piece in shown.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(before) => {
                    self.model.process(before);
                    line(self);
                    self.model.process(match self.line_ends {
                        LineEnds::Recorded => b"\n",
                        LineEnds::Bare => b"\r\n",
                    });
                }
                None => self.model.process(piece),
            }
        }
        self.scratch = shown;
    }

    /// Changes the size.
    pub fn resize(&mut self, size: Size) {
        let (rows, columns) = size.clamped();
        self.model.set_size(rows, columns);
    }

    /// The size.
    #[must_use]
    pub fn size(&self) -> Size {
        let (rows, columns) = self.model.screen().size();
        Size { columns: columns.get(), rows: rows.get() }
    }

    /// What is on it, line by line, without colours.
    #[must_use]
    pub fn text(&self) -> String {
        self.model.screen().contents()
    }

    /// Its rows, from the top.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        (0..self.size().rows).map(|index| self.row(index)).collect()
    }

    /// One row; an empty one where there is none.
    #[must_use]
    pub fn row(&self, index: u16) -> Row {
        Row::of(self.model.screen(), index)
    }

    /// The whole line that the cursor is on, which may have begun some rows above.
    #[must_use]
    pub fn line(&self) -> String {
        let screen = self.model.screen();
        let (last, _) = screen.cursor_position();
        let mut first = last;
        while first > 0 && screen.row_wrapped(first - 1) {
            first -= 1;
        }
        (first..=last).map(|index| self.row(index).text().to_owned()).collect()
    }

    /// Row and column of the cursor, from 0.
    #[must_use]
    pub fn cursor(&self) -> (u16, u16) {
        self.model.screen().cursor_position()
    }

    /// Whether the cursor shows.
    #[must_use]
    pub fn is_cursor_shown(&self) -> bool {
        !self.model.screen().hide_cursor()
    }

    /// Whether a full-screen program is on.
    #[must_use]
    pub fn is_alternate(&self) -> bool {
        self.model.screen().alternate_screen()
    }

    pub(crate) fn is_between_sequences(&self) -> bool {
        self.filter.is_between_sequences()
    }

    pub(crate) fn state(&self) -> ScreenState {
        ScreenState {
            model: self.model.screen().clone(),
            charsets: self.filter.charsets(),
            line_ends: self.line_ends,
        }
    }

    pub(crate) fn set_state(&mut self, state: &ScreenState) {
        *self = Self::new(Size::default());
        *self.model.screen_mut() = state.model.clone();
        self.filter = Filter::for_audience(Audience::Screen).with_charsets(state.charsets.clone());
        self.line_ends = state.line_ends;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(columns: u16, rows: u16) -> Size {
        Size { columns, rows }
    }

    #[test]
    fn sizes_are_width_then_height() {
        assert_eq!("120:40".parse(), Ok(size(120, 40)));
        assert_eq!(
            "120x40".parse::<Size>().unwrap_err().to_string(),
            "invalid terminal size \"120x40\""
        );
        assert_eq!(Screen::new(size(65_535, 65_535)).size(), size(1000, 500));
        assert_eq!(Screen::new(size(0, 0)).size(), size(2, 2));
    }

    #[test]
    fn leaving_the_alternate_screen_brings_the_shell_back() {
        let mut screen = Screen::new(Size::default());
        screen.feed(b"$ vim\r\n\x1b[?1049h\x1b[2J\x1b[Htext");
        assert!(screen.is_alternate());
        assert_eq!(screen.text().trim(), "text");
        screen.feed(b"\x1b[?1049l");
        assert_eq!(screen.text().trim(), "$ vim");
    }

    #[test]
    fn output_of_no_terminal_has_bare_line_ends() {
        let mut screen = Screen::new(size(10, 4));
        screen.set_line_ends(LineEnds::Bare);
        screen.feed(b"a\nb\r\nc");
        assert_eq!(screen.text(), "a\nb\nc");
    }

    #[test]
    fn lines_are_whole_before_they_scroll_away() {
        let mut screen = Screen::new(size(4, 2));
        let mut lines = Vec::new();
        screen.feed_lines(b"one\r\nlonger line\r\n\x1b[31mred\x1b[0m\r\nrest", |screen| {
            lines.push(screen.line());
        });
        assert_eq!(lines, ["one", "er line", "red"], "of a line longer than the screen, its end");
        let mut wide = Screen::new(size(4, 9));
        let mut lines = Vec::new();
        wide.feed_lines(b"longer line\n", |screen| lines.push(screen.line()));
        assert_eq!(lines, ["longer line"]);
    }

    #[test]
    fn what_scrolled_off_comes_back_when_the_window_grows() {
        let mut screen = Screen::new(size(10, 2));
        screen.feed(b"1\r\n2\r\n3\r\n4");
        screen.resize(size(10, 4));
        assert_eq!(screen.text(), "1\n2\n3\n4");
    }

    proptest::proptest! {
        #[test]
        fn no_output_makes_it_panic(
            chunks: Vec<Vec<u8>>,
            columns in 0..300u16,
            rows in 0..100u16,
        ) {
            let mut screen = Screen::new(size(columns, rows));
            for chunk in &chunks {
                screen.feed(chunk);
                screen.resize(size(rows, columns));
            }
            let _ = crate::view::Frame::fit(&screen, size(10, 10));
        }

        #[test]
        fn no_sequence_makes_it_panic(
            parts in proptest::collection::vec("(\u{1b}\\[[?!]?[0-9;:]{0,6}[@-~]|\u{1b}[(]?[0-~]|漢|e\u{301}|[a-z\r\n\t]{0,4})", 0..60),
            columns in 1..12u16,
            rows in 1..6u16,
        ) {
            let mut screen = Screen::new(size(columns, rows));
            for (index, part) in parts.iter().enumerate() {
                screen.feed(part.as_bytes());
                if index % 7 == 6 {
                    screen.resize(size(rows + 1, columns));
                }
            }
            let _ = crate::view::Frame::fit(&screen, size(rows, columns));
        }
    }
}

//! What was on a terminal's screen.

use std::num::NonZeroU16;

use crate::filter::{Audience, Filter};

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

/// A model of a terminal's screen.
pub struct Screen {
    model: vt100::Parser,
    filter: Filter,
    scratch: Vec<u8>,
}

/// A screen as it was, to come back to.
#[derive(Clone)]
pub(crate) struct ScreenState {
    model: vt100::Screen,
    charsets: crate::filter::CharsetState,
}

impl Screen {
    /// An empty screen.
    #[must_use]
    pub fn new(size: Size) -> Self {
        let (rows, columns) = size.clamped();
        Self {
            model: vt100::Parser::new(rows, columns, 0),
            filter: Filter::for_audience(Audience::Screen),
            scratch: Vec::new(),
        }
    }

    /// Shows output.
    pub fn feed(&mut self, output: &[u8]) {
        self.scratch.clear();
        self.filter.feed(output, &mut self.scratch);
        self.model.process(&self.scratch);
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

    /// Row and column of the cursor, from 0.
    #[must_use]
    pub fn cursor(&self) -> (u16, u16) {
        self.model.screen().cursor_position()
    }

    /// Whether a full-screen program is on.
    #[must_use]
    pub fn is_alternate(&self) -> bool {
        self.model.screen().alternate_screen()
    }

    /// What to write to a terminal to show this screen there, as far as it is large enough.
    #[must_use]
    pub fn repaint(&self, viewer: Size) -> Vec<u8> {
        let screen = self.model.screen();
        let own = self.size();
        let painted = if viewer.columns >= own.columns && viewer.rows >= own.rows {
            screen.contents_formatted()
        } else {
            clipped(screen, viewer)
        };
        let mut out = Filter::restore().to_vec();
        out.extend_from_slice(b"\x1b[2J\x1b[H");
        // What the model writes is harmless; it goes the way all output goes nevertheless.
        Filter::new().feed(painted.as_bytes(), &mut out);
        out
    }

    pub(crate) fn is_between_sequences(&self) -> bool {
        self.filter.is_between_sequences()
    }

    pub(crate) fn charsets(&self) -> crate::filter::CharsetState {
        self.filter.charsets()
    }

    pub(crate) fn state(&self) -> ScreenState {
        ScreenState { model: self.model.screen().clone(), charsets: self.filter.charsets() }
    }

    pub(crate) fn set_state(&mut self, state: &ScreenState) {
        *self = Self::new(Size::default());
        *self.model.screen_mut() = state.model.clone();
        self.filter = Filter::for_audience(Audience::Screen).with_charsets(state.charsets.clone());
    }
}

/// The part of the screen around the cursor that fits.
fn clipped(screen: &vt100::Screen, viewer: Size) -> String {
    let (row, column) = screen.cursor_position();
    let (own_rows, own_columns) = screen.size();
    let rows = viewer.rows.clamp(1, own_rows.get());
    let columns = viewer.columns.clamp(1, own_columns.get());
    let top = (row + 1).saturating_sub(rows);
    // A cursor that is about to wrap stands behind the last column.
    let column = column.min(own_columns.get() - 1);
    let left = (column + 1).saturating_sub(columns);
    let mut out = String::new();
    for (index, line) in screen
        .rows_formatted(left, columns)
        .skip(usize::from(top))
        .take(usize::from(rows))
        .enumerate()
    {
        out.push_str(&format!("\x1b[{};1H\x1b[0m{line}", index + 1));
    }
    out.push_str(&format!("\x1b[0m\x1b[{};{}H", row - top + 1, column - left + 1));
    out
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
    fn a_repaint_shows_the_same_screen() {
        let mut screen = Screen::new(size(20, 5));
        screen.feed("\x1b[31mrot\x1b[0m 漢字\r\nzwei\x1b[4;7Hx\x1b(0qqx\x1b(B".as_bytes());
        let mut other = Screen::new(size(20, 5));
        other.feed(b"something else\x1b[?25l");
        other.feed(&screen.repaint(size(20, 5)));
        assert_eq!(other.text(), screen.text());
        assert_eq!(other.cursor(), screen.cursor());
        assert!(screen.text().contains("──│"));
        let mut small = Screen::new(size(6, 3));
        small.feed(&screen.repaint(size(6, 3)));
        assert_eq!(small.cursor().0, 2);
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
            let _ = screen.repaint(size(10, 10));
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
            let _ = screen.repaint(size(rows, columns));
        }
    }
}

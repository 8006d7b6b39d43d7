//! A row of a screen: cells with their characters, width and style, ready to be written elsewhere.

/// A colour as programs name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Colour {
    /// The terminal's own.
    #[default]
    Default,
    /// One of the 256 of the palette.
    Index(u8),
    /// Red, green, blue.
    Rgb(u8, u8, u8),
}

impl From<vt100::Color> for Colour {
    fn from(colour: vt100::Color) -> Self {
        match colour {
            vt100::Color::Default => Self::Default,
            vt100::Color::Idx(index) => Self::Index(index),
            vt100::Color::Rgb(red, green, blue) => Self::Rgb(red, green, blue),
        }
    }
}

/// How characters look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Style {
    /// Colour of the characters.
    pub foreground: Colour,
    /// Colour behind them.
    pub background: Colour,
    flags: u8,
}

impl Style {
    const BOLD: u8 = 1;
    const DIM: u8 = 2;
    const ITALIC: u8 = 4;
    const UNDERLINE: u8 = 8;
    const INVERSE: u8 = 16;

    /// Bit 0 bold, 1 dim, 2 italic, 3 underlined, 4 colours swapped.
    #[must_use]
    pub fn flags(self) -> u8 {
        self.flags
    }

    /// The same with the colours swapped, or swapped back.
    #[must_use]
    pub fn inverted(self) -> Self {
        Self { flags: self.flags ^ Self::INVERSE, ..self }
    }

    fn of(cell: &vt100::Cell) -> Self {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        Self {
            foreground: cell.fgcolor().into(),
            background: cell.bgcolor().into(),
            flags: flag(cell.bold(), Self::BOLD)
                | flag(cell.dim(), Self::DIM)
                | flag(cell.italic(), Self::ITALIC)
                | flag(cell.underline(), Self::UNDERLINE)
                | flag(cell.inverse(), Self::INVERSE),
        }
    }

    /// The SGR sequence that sets exactly this style, whatever was set before.
    #[must_use]
    pub fn sgr(self) -> String {
        let mut out = String::from("\x1b[0");
        for (bit, code) in [
            (Self::BOLD, ";1"),
            (Self::DIM, ";2"),
            (Self::ITALIC, ";3"),
            (Self::UNDERLINE, ";4"),
            (Self::INVERSE, ";7"),
        ] {
            if self.flags & bit != 0 {
                out.push_str(code);
            }
        }
        colour(self.foreground, 30, &mut out);
        colour(self.background, 40, &mut out);
        out.push('m');
        out
    }
}

/// The parameters of a colour; `base` is 30 for characters and 40 for what is behind them.
fn colour(colour: Colour, base: u8, out: &mut String) {
    match colour {
        Colour::Default => {}
        Colour::Index(index @ 0..8) => out.push_str(&format!(";{}", base + index)),
        Colour::Index(index @ 8..16) => out.push_str(&format!(";{}", base + 52 + index)),
        Colour::Index(index) => out.push_str(&format!(";{};5;{index}", base + 8)),
        Colour::Rgb(red, green, blue) => {
            out.push_str(&format!(";{};2;{red};{green};{blue}", base + 8));
        }
    }
}

/// One place of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// The character with what combines with it; a blank where nothing is.
    pub text: &'a str,
    /// Columns it takes: 1 or 2.
    pub width: u16,
    /// How it looks.
    pub style: Style,
}

impl Cell<'_> {
    /// A blank of the terminal's own colours.
    pub const BLANK: Cell<'static> = Cell {
        text: " ",
        width: 1,
        style: Style { foreground: Colour::Default, background: Colour::Default, flags: 0 },
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Mark {
    end: u32,
    wide: bool,
    style: Style,
}

/// A row, without the blanks at its end that look like nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Row {
    text: String,
    cells: Vec<Mark>,
    columns: u16,
    wrapped: bool,
}

impl Row {
    /// Row `index` of a screen.
    pub(super) fn of(screen: &vt100::Screen, index: u16) -> Self {
        let mut row = Self { wrapped: screen.row_wrapped(index), ..Self::default() };
        let columns = screen.size().1.get();
        // Where the part ends that looks like something.
        let (mut cells, mut text, mut end) = (0, 0, 0);
        let mut column = 0;
        while let Some(cell) = (column < columns).then(|| screen.cell(index, column)).flatten() {
            let style = Style::of(cell);
            row.push_shown(cell.contents(), cell.is_wide(), style);
            column += if cell.is_wide() { 2 } else { 1 };
            if style != Cell::BLANK.style || !cell.contents().trim_matches(' ').is_empty() {
                (cells, text, end) = (row.cells.len(), row.text.len(), row.columns);
            }
        }
        row.cells.truncate(cells);
        row.text.truncate(text);
        row.columns = end;
        row
    }

    fn push_shown(&mut self, contents: &str, wide: bool, style: Style) {
        let start = self.text.len();
        self.text.extend(contents.chars().filter(|c| !reorders(*c)));
        if self.text.len() == start {
            self.text.push(' ');
        }
        self.mark(wide, style);
    }

    /// Adds a cell behind the last.
    pub fn push(&mut self, cell: Cell<'_>) {
        self.text.push_str(cell.text);
        self.mark(cell.width > 1, cell.style);
    }

    fn mark(&mut self, wide: bool, style: Style) {
        let end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.cells.push(Mark { end, wide, style });
        self.columns = self.columns.saturating_add(if wide { 2 } else { 1 });
    }

    /// What it says, without colours.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Columns up to the last cell that looks like something.
    #[must_use]
    pub fn columns(&self) -> u16 {
        self.columns
    }

    /// Whether the line goes on in the next row.
    #[must_use]
    pub fn wrapped(&self) -> bool {
        self.wrapped
    }

    /// What makes it look as it does, to be hashed.
    pub(crate) fn looks(&self) -> impl std::hash::Hash + '_ {
        (self.text.as_str(), self.cells.as_slice())
    }

    /// Whether both show the same.
    pub(crate) fn looks_like(&self, other: &Self) -> bool {
        (&self.text, &self.cells) == (&other.text, &other.cells)
    }

    /// Its cells, from the left.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let mut start = 0;
        self.cells.iter().map(move |mark| {
            let end = mark.end as usize;
            let text = self.text.get(start..end).unwrap_or(" ");
            start = end;
            Cell { text, width: if mark.wide { 2 } else { 1 }, style: mark.style }
        })
    }
}

/// Characters that reorder what stands around them, also beyond their own cell.
fn reorders(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::super::{Screen, Size};
    use super::*;

    fn rows(output: &str) -> Vec<Row> {
        let mut screen = Screen::new(Size { columns: 10, rows: 3 });
        screen.feed(output.as_bytes());
        screen.rows()
    }

    #[test]
    fn cells_have_width_style_and_what_combines() {
        let rows = rows("a\x1b[1;31m漢\x1b[0me\u{301} \u{202e}x   ");
        let cells: Vec<(&str, u16)> = rows[0].cells().map(|cell| (cell.text, cell.width)).collect();
        assert_eq!(cells, [("a", 1), ("漢", 2), ("e\u{301}", 1), (" ", 1), ("x", 1)]);
        assert_eq!(rows[0].cells().nth(1).unwrap().style.sgr(), "\x1b[0;1;31m");
        assert_eq!((rows[0].text(), rows[0].columns()), ("a漢e\u{301} x", 6));
        assert_eq!(rows[1], Row::default());
    }

    #[test]
    fn blanks_with_a_background_are_something() {
        let rows = rows("x\x1b[44m  \x1b[0m   \r\n0123456789ab");
        assert_eq!(rows[0].columns(), 3);
        assert!(rows[1].wrapped() && !rows[2].wrapped());
    }

    #[test]
    fn colours_have_their_shortest_form() {
        let sgr =
            |foreground, background| Style { foreground, background, flags: 0 }.inverted().sgr();
        assert_eq!(sgr(Colour::Index(7), Colour::Index(9)), "\x1b[0;7;37;101m");
        assert_eq!(sgr(Colour::Index(200), Colour::Rgb(1, 2, 3)), "\x1b[0;7;38;5;200;48;2;1;2;3m");
    }
}

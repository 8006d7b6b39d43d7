//! A screen as it fits somebody's window, and what to write to a terminal so that it shows it.
//!
//! What is written is made here, out of rows of the model; no recorded sequence is passed on.

mod painter;

use crate::screen::{Cell, Row, Screen, Size};
pub use painter::Painter;

/// What a window shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Rows, from the top; never wider than the window.
    pub rows: Vec<Row>,
    /// Row and column of the cursor, from 0, if it shows.
    pub cursor: Option<(u16, u16)>,
}

impl Frame {
    /// A screen in a window. Lines that are too long for a narrower window go on in the next row,
    /// as a shell's would; of a full-screen program, and of what is too high, it shows the part
    /// around the cursor.
    #[must_use]
    pub fn fit(screen: &Screen, window: Size) -> Self {
        let window = Size { columns: window.columns.max(1), rows: window.rows.max(1) };
        let own = screen.size();
        let (row, column) = screen.cursor();
        // A cursor that is about to wrap stands behind the last column.
        let cursor = (row, column.min(own.columns - 1));
        let whole = Layout { rows: screen.rows(), cursor };
        let laid = if window.columns >= own.columns {
            whole
        } else if screen.is_alternate() {
            whole.columns_around_cursor(window.columns)
        } else {
            whole.rewrapped(window.columns)
        };
        let (rows, cursor) = laid.rows_around_cursor(window.rows, screen.is_alternate());
        Self { rows, cursor: screen.is_cursor_shown().then_some(cursor) }
    }
}

/// Rows on their way into a window.
struct Layout {
    rows: Vec<Row>,
    cursor: (u16, u16),
}

impl Layout {
    fn columns_around_cursor(self, columns: u16) -> Self {
        let (row, column) = self.cursor;
        let left = (column + 1).saturating_sub(columns);
        let rows = self.rows.iter().map(|row| cut(row, left, columns)).collect();
        Self { rows, cursor: (row, column - left) }
    }

    /// Lines, whose rows belong together, broken anew.
    fn rewrapped(self, columns: u16) -> Self {
        let mut wrap = Wrap { columns, rows: Vec::new(), row: Row::default(), cursor: (0, 0) };
        let mut continued = false;
        for (index, row) in (0..).zip(&self.rows) {
            let mut cursor = (index == self.cursor.0).then_some(self.cursor.1);
            if !continued && index > 0 {
                wrap.end_row();
            }
            let mut at = 0;
            for cell in row.cells() {
                wrap.push(cell);
                if cursor.is_some_and(|column| column < at + cell.width) {
                    cursor = None;
                    wrap.mark_cursor(cell.width);
                }
                at += cell.width;
            }
            if let Some(column) = cursor {
                wrap.mark_cursor_behind(column.saturating_sub(at));
            }
            continued = row.wrapped();
        }
        wrap.end_row();
        Self { rows: wrap.rows, cursor: wrap.cursor }
    }

    /// The rows that fit, with the cursor among them: of a full-screen program from the top, or
    /// else the newest.
    fn rows_around_cursor(mut self, rows: u16, full_screen: bool) -> (Vec<Row>, (u16, u16)) {
        let (row, column) = self.cursor;
        let used = self.rows.iter().rposition(|row| row.columns() > 0).map_or(0, |last| last + 1);
        let newest = if full_screen { 0 } else { u16::try_from(used).unwrap_or(u16::MAX) };
        let top = newest.max(row + 1).saturating_sub(rows).min(row);
        let shown = self.rows.drain(usize::from(top)..).take(usize::from(rows)).collect();
        (shown, (row - top, column))
    }
}

/// Breaks lines at a width.
struct Wrap {
    columns: u16,
    rows: Vec<Row>,
    row: Row,
    cursor: (u16, u16),
}

impl Wrap {
    fn push(&mut self, cell: Cell<'_>) {
        if self.row.columns() > 0 && self.row.columns() + cell.width > self.columns {
            self.end_row();
        }
        self.row.push(if cell.width > self.columns { Cell::BLANK } else { cell });
    }

    fn end_row(&mut self) {
        self.rows.push(std::mem::take(&mut self.row));
    }

    fn here(&self) -> u16 {
        u16::try_from(self.rows.len()).unwrap_or(u16::MAX)
    }

    /// The cursor is on the cell that was pushed last.
    fn mark_cursor(&mut self, width: u16) {
        self.cursor = (self.here(), self.row.columns().saturating_sub(width));
    }

    /// The cursor is so many columns behind what was pushed.
    fn mark_cursor_behind(&mut self, blanks: u16) {
        let at = self.row.columns().saturating_add(blanks);
        if at < self.columns {
            self.cursor = (self.here(), at);
        } else if self.row.columns() < self.columns {
            self.cursor = (self.here(), self.columns - 1);
        } else {
            self.end_row();
            self.cursor = (self.here(), blanks.min(self.columns - 1));
        }
    }
}

/// The part of a row from column `left` on. Of a wide character that is cut, a blank is left.
fn cut(row: &Row, left: u16, columns: u16) -> Row {
    let mut part = Row::default();
    let mut at = 0;
    for cell in row.cells() {
        let (start, end) = (at, at + cell.width);
        at = end;
        if end <= left {
            continue;
        }
        if start >= left + columns {
            break;
        }
        if start < left || end > left + columns {
            part.push(Cell { style: cell.style, ..Cell::BLANK });
        } else {
            part.push(cell);
        }
    }
    part
}

#[cfg(test)]
mod tests;

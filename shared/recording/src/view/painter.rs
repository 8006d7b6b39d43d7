//! Brings a terminal from one frame to the next with as little as possible.

use std::fmt::Write as _;

use super::Frame;
use crate::screen::{Cell, Row, Size, Style};

/// Paints frames on one terminal.
#[derive(Debug, Default)]
pub struct Painter {
    shown: Vec<Row>,
    size: Option<Size>,
}

impl Painter {
    /// Forgets what the terminal shows: the next frame is painted whole.
    pub fn reset(&mut self) {
        self.size = None;
    }

    /// What to write so that a terminal of this size shows the frame. Rows below the frame are
    /// left alone.
    pub fn paint(&mut self, frame: &Frame, window: Size) -> String {
        let mut out = String::from("\x1b[?25l\x1b[?7l");
        if self.size != Some(window) {
            out.push_str("\x1b[0m\x1b[r\x1b[2J");
            self.shown.clear();
            self.size = Some(window);
        }
        let height = frame.rows.len().max(self.shown.len());
        let empty = Row::default();
        for index in 0..height {
            let old = self.shown.get(index).unwrap_or(&empty);
            let new = frame.rows.get(index).unwrap_or(&empty);
            if !old.looks_like(new) {
                row(index, old, new, window.columns, &mut out);
            }
        }
        self.shown.clone_from(&frame.rows);
        out.push_str("\x1b[0m");
        if let Some((row, column)) = frame.cursor {
            // Writing to a string cannot fail.
            let _ = write!(out, "\x1b[{};{}H\x1b[?25h", row + 1, column + 1);
        }
        out
    }
}

/// Rewrites a row from its first difference on.
fn row(index: usize, old: &Row, new: &Row, columns: u16, out: &mut String) {
    let mut left = 0;
    let mut cells = new.cells().peekable();
    for before in old.cells() {
        match cells.next_if(|cell| *cell == before) {
            Some(cell) => left += cell.width,
            None => break,
        }
    }
    let mut at = left;
    let _ = write!(out, "\x1b[{};{}H", index + 1, at + 1);
    let mut style: Option<Style> = None;
    for cell in cells {
        if at + cell.width > columns {
            break;
        }
        if style != Some(cell.style) {
            out.push_str(&cell.style.sgr());
            style = Some(cell.style);
        }
        out.push_str(cell.text);
        at += cell.width;
        // Terminals differ about the width of some characters; what follows stays in its column.
        if is_doubtful(cell) && at < columns {
            let _ = write!(out, "\x1b[{}G", at + 1);
        }
    }
    if at < columns {
        out.push_str("\x1b[0m\x1b[K");
    }
}

/// Whether terminals may not agree how wide it is.
fn is_doubtful(cell: Cell<'_>) -> bool {
    let mut chars = cell.text.chars();
    chars.next().is_some_and(|first| first >= '\u{1f000}') || chars.next().is_some()
}

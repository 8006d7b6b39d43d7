//! What the page's script reads: arrays of operations in JSON, in several blocks so that none is
//! large.
//!
//! - `[0, ROW…]` rows, numbered from 1 in the order they come: a string, or text and style number in
//!   turn. In boxes (see the style) characters are separated by tabs.
//! - `[1, [FG, BG, FLAGS, BOX]…]` styles, numbered from 1.
//! - `[2, MS, CURSOR ROW, CURSOR COLUMN, UP, ROW, NUMBER…]` a step: milliseconds since the step
//!   before, the cursor (or -1), by how many rows everything moved up, then the rows that are
//!   another.
//! - `[3, COLUMNS, ROWS]` the size from the next step on; all rows are empty then.
//! - `[4, MS, TEXT]` a note, with milliseconds since the step before.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::rows::{News, Rows};
use crate::screen::{Screen, Size};

/// A block is written when it is larger.
const BLOCK: usize = 64 * 1024;

#[derive(Default)]
pub(super) struct Blocks {
    rows: Rows,
    shown: Vec<u32>,
    size: Option<Size>,
    cursor: (i64, i64),
    step_ms: u64,
    pending: String,
}

impl Blocks {
    /// Tells what `screen` shows at a time, if that is something else than before.
    pub(super) fn step(&mut self, at_ms: u64, screen: &Screen) {
        let size = screen.size();
        let resized = self.size != Some(size);
        if resized {
            self.push(&json!([3, size.columns, size.rows]));
            self.size = Some(size);
            self.shown = vec![0; usize::from(size.rows)];
        }
        let mut news = News::default();
        let now: Vec<u32> =
            screen.rows().iter().map(|row| self.rows.number(row, &mut news)).collect();
        let cursor: (i64, i64) = match (screen.is_cursor_shown(), screen.cursor()) {
            (true, (row, column)) => (row.into(), column.min(size.columns - 1).into()),
            (false, _) => (-1, -1),
        };
        if now == self.shown && cursor == self.cursor && !resized {
            return;
        }
        for (operation, told) in [(1, news.styles), (0, news.rows)] {
            if !told.is_empty() {
                self.push(&std::iter::once(json!(operation)).chain(told).collect());
            }
        }
        let up = moved_up(&self.shown, &now);
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let passed = i64::try_from(at_ms.saturating_sub(self.step_ms)).unwrap_or(i64::MAX);
        let mut step = vec![2, passed, cursor.0, cursor.1, number(up)];
        let before = |index: usize| self.shown.get(index + up).copied().unwrap_or(0);
        for (index, row) in now.iter().enumerate().filter(|(index, row)| before(*index) != **row) {
            step.extend([number(index), i64::from(*row)]);
        }
        self.push(&json!(step));
        (self.shown, self.cursor, self.step_ms) = (now, cursor, at_ms);
    }

    pub(super) fn note(&mut self, at_ms: u64, text: &str) {
        self.push(&json!([4, at_ms.saturating_sub(self.step_ms), text]));
    }

    fn push(&mut self, operation: &Value) {
        self.pending.push_str(if self.pending.is_empty() { "[" } else { ",\n" });
        self.pending.push_str(&in_page(&operation.to_string()));
    }

    /// Writes what has come together if it is much.
    pub(super) fn write_full(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.pending.len() > BLOCK { self.write_rest(out) } else { Ok(()) }
    }

    /// Writes what has come together.
    pub(super) fn write_rest(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "<script type=\"application/json\" class=\"data\">{}]</script>",
            self.pending
        )?;
        self.pending.clear();
        Ok(())
    }
}

/// By how many rows the screen moved up, so that the fewest rows are another.
fn moved_up(before: &[u32], now: &[u32]) -> usize {
    let same = |up: usize| {
        let moved = before.iter().skip(up).chain(std::iter::repeat(&0));
        moved.zip(now).filter(|(old, new)| old == new).count()
    };
    // What changed in two rows at most did not move.
    if same(0) + 2 >= now.len() {
        return 0;
    }
    (0..now.len()).rev().max_by_key(|up| same(*up)).unwrap_or(0)
}

/// JSON as it may stand in a page: nothing in it ends or begins an element.
pub(super) fn in_page(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

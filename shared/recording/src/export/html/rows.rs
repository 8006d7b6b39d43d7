//! Rows and styles as the page's script knows them: each is told once and then goes by a number.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use serde_json::{Value, json};

use crate::screen::{Cell, Colour, Row, Style};

/// Rows of which the number is remembered, twice: those of late, and those before them. A row that
/// is forgotten is told again under a new number.
const REMEMBERED: usize = 32 * 1024;

/// How the characters of a run are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Placed {
    /// One after the other, a column each.
    Run,
    /// Each in a box of one column, since a font may draw it wider.
    Narrow,
    /// Each in a box of two columns.
    Wide,
}

/// Numbers of rows. Keyed by 128 bits of hashes that nobody outside can foresee.
#[derive(Default)]
pub(super) struct Rows {
    late: HashMap<u128, u32>,
    before: HashMap<u128, u32>,
    keys: [RandomState; 2],
    next: u32,
    styles: HashMap<(Style, Placed), usize>,
    styles_told: usize,
}

/// What must be told before a row's number means anything.
#[derive(Default)]
pub(super) struct News {
    pub(super) styles: Vec<Value>,
    pub(super) rows: Vec<Value>,
}

impl Rows {
    /// The number of a row. 0 is the empty one.
    pub(super) fn number(&mut self, row: &Row, news: &mut News) -> u32 {
        if row.columns() == 0 {
            return 0;
        }
        let [high, low] = self.keys.each_ref().map(|key| u128::from(key.hash_one(row.looks())));
        let key = high << 64 | low;
        if let Some(number) = self.late.get(&key).or_else(|| self.before.get(&key)).copied() {
            self.remember(key, number);
            return number;
        }
        self.next += 1;
        let told = self.told(row, news);
        news.rows.push(told);
        self.remember(key, self.next);
        self.next
    }

    fn remember(&mut self, key: u128, number: u32) {
        if self.late.len() >= REMEMBERED {
            self.before = std::mem::take(&mut self.late);
        }
        self.late.insert(key, number);
    }

    /// A string where nothing is special, or else runs and their styles in turn.
    fn told(&mut self, row: &Row, news: &mut News) -> Value {
        let mut runs: Vec<(String, usize)> = Vec::new();
        let mut last = None;
        for cell in row.cells() {
            let placed = placed(cell);
            if last == Some((cell.style, placed))
                && let Some((text, _)) = runs.last_mut()
            {
                if placed != Placed::Run {
                    text.push('\t');
                }
                text.push_str(cell.text);
            } else {
                last = Some((cell.style, placed));
                runs.push((cell.text.to_owned(), self.style(cell.style, placed, news)));
            }
        }
        match &runs[..] {
            [(text, 0)] => json!(text),
            _ => runs.into_iter().flat_map(|(text, style)| [json!(text), json!(style)]).collect(),
        }
    }

    /// The number of a style. 0 is the terminal's own, in a run.
    fn style(&mut self, style: Style, placed: Placed, news: &mut News) -> usize {
        if (style, placed) == (Style::default(), Placed::Run) {
            return 0;
        }
        if self.styles.len() >= REMEMBERED {
            self.styles.clear();
        }
        let told = &mut self.styles_told;
        *self.styles.entry((style, placed)).or_insert_with(|| {
            let placed = match placed {
                Placed::Run => 0,
                Placed::Narrow => 1,
                Placed::Wide => 2,
            };
            news.styles.push(json!([
                colour(style.foreground),
                colour(style.background),
                style.flags(),
                placed
            ]));
            *told += 1;
            *told
        })
    }
}

fn placed(cell: Cell<'_>) -> Placed {
    let mut chars = cell.text.chars();
    let first = chars.next().unwrap_or(' ');
    match cell.width {
        2 => Placed::Wide,
        _ if chars.next().is_some() || first >= '\u{2e80}' => Placed::Narrow,
        _ => Placed::Run,
    }
}

/// -1, an index, or 2²⁴ and the three bytes.
fn colour(colour: Colour) -> i32 {
    match colour {
        Colour::Default => -1,
        Colour::Index(index) => i32::from(index),
        Colour::Rgb(red, green, blue) => i32::from_be_bytes([1, red, green, blue]),
    }
}

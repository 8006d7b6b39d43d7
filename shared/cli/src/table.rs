//! Tables as users of the commands know them: titles, dashes, one blank between columns, widths
//! that fit the longest cell; one column may be shortened to fit the terminal.

use std::io::Write;

use unicode_width::UnicodeWidthStr;

use crate::text::printable;

/// A table under construction.
#[derive(Debug, Clone)]
pub struct Table {
    titles: Option<Vec<String>>,
    rows: Vec<Vec<String>>,
    elastic: Option<usize>,
}

impl Table {
    /// A table with a head line.
    pub fn new(titles: &[&str]) -> Self {
        Self {
            titles: Some(titles.iter().map(|&title| title.to_owned()).collect()),
            rows: Vec::new(),
            elastic: None,
        }
    }

    /// A table without head lines.
    pub fn headless() -> Self {
        Self { titles: None, rows: Vec::new(), elastic: None }
    }

    /// Lets the column of this title be shortened to fit the terminal.
    #[must_use]
    pub fn elastic(mut self, title: &str) -> Self {
        self.elastic =
            self.titles.as_ref().and_then(|titles| titles.iter().position(|have| have == title));
        self
    }

    /// Adds a row; cells are made harmless for a terminal.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows
            .push(cells.into_iter().map(|cell| printable(cell.as_ref()).into_owned()).collect());
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the table for a terminal of `width` columns.
    pub fn write(&self, width: usize, out: &mut dyn Write) -> std::io::Result<()> {
        let columns = self.titles.iter().chain(&self.rows).map(Vec::len).max().unwrap_or_default();
        let mut widths = vec![0_usize; columns];
        for line in self.titles.iter().chain(&self.rows) {
            for (at, cell) in widths.iter_mut().zip(line) {
                *at = (*at).max(cell.width());
            }
        }
        if let Some(elastic) = self.elastic {
            let total: usize = widths.iter().sum::<usize>() + columns.saturating_sub(1);
            if let Some(at) = widths.get_mut(elastic) {
                *at = (*at).saturating_sub(total.saturating_sub(width)).max(MIN_ELASTIC.min(*at));
            }
        }
        if let Some(titles) = &self.titles {
            self.line(titles.iter().map(String::as_str), &widths, out)?;
            let dashes: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
            self.line(dashes.iter().map(String::as_str), &widths, out)?;
        }
        for row in &self.rows {
            self.line(row.iter().map(String::as_str), &widths, out)?;
        }
        Ok(())
    }

    fn line<'a>(
        &self,
        cells: impl Iterator<Item = &'a str>,
        widths: &[usize],
        out: &mut dyn Write,
    ) -> std::io::Result<()> {
        let mut line = String::new();
        for (cell, &width) in cells.zip(widths) {
            if !line.is_empty() || width == 0 {
                line.push(' ');
            }
            let cell = shorten(cell, width);
            line.push_str(&cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width())));
        }
        writeln!(out, "{}", line.trim_end())
    }
}

const MIN_ELASTIC: usize = 8;

fn shorten(cell: &str, width: usize) -> String {
    if cell.width() <= width {
        return cell.to_owned();
    }
    let mut short = String::new();
    for c in cell.chars() {
        if short.width() + unicode_width::UnicodeWidthChar::width(c).unwrap_or(0) + 3 > width {
            break;
        }
        short.push(c);
    }
    short + "..."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(table: &Table, width: usize) -> String {
        let mut out = Vec::new();
        table.write(width, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fits_the_longest_cell_and_counts_wide_characters() {
        let mut table = Table::new(&["Node Name", "Address"]);
        table.row(["北京", "10.0.0.1:22"]);
        assert_eq!(
            shown(&table, 80),
            "Node Name Address\n--------- -----------\n北京      10.0.0.1:22\n"
        );
    }

    #[test]
    fn only_the_elastic_column_is_shortened() {
        let mut table = Table::new(&["Name", "Labels"]).elastic("Labels");
        table.row(["web-1", "environment=production,team=blue"]);
        assert_eq!(shown(&table, 20), "Name  Labels\n----- --------------\nweb-1 environment...\n");
    }
}

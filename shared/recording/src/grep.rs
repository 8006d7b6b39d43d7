//! Searching what was on the screen.
//!
//! A line counts when it appears, not when it is drawn anew: a line that is still on the screen, or
//! that grows while it is typed, is one.

use std::collections::{HashMap, VecDeque};

use shared_events::AuditEvent;

use crate::database::{Shown, shown};
use crate::decoder::DecodeError;
use crate::export::Events;
use crate::player::line_ends;
use crate::screen::{Cell, Row, Screen, Size};
use crate::timeline::{Clock, size_of};

/// Largest compiled pattern, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// A regular expression, in the syntax of the `regex` crate.
#[derive(Clone, Debug)]
pub struct Pattern(regex::Regex);

/// A text that is no pattern.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(#[from] regex::Error);

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Ok(Self(regex::RegexBuilder::new(text).size_limit(MAX_PATTERN).build()?))
    }
}

impl Pattern {
    /// The row with every match in swapped colours.
    #[must_use]
    pub fn highlight(&self, row: &Row) -> Row {
        let mut found = self.0.find_iter(row.text()).filter(|found| !found.is_empty()).peekable();
        if found.peek().is_none() {
            return row.clone();
        }
        let (mut marked, mut at) = (Row::default(), 0);
        for cell in row.cells() {
            while found.next_if(|found| found.end() <= at).is_some() {}
            let hit = found.peek().is_some_and(|found| found.start() < at + cell.text.len());
            let style = if hit { cell.style.inverted() } else { cell.style };
            marked.push(Cell { style, ..cell });
            at += cell.text.len();
        }
        marked
    }

    /// Whether a line has it.
    #[must_use]
    pub fn matches(&self, line: &str) -> bool {
        self.0.is_match(line)
    }
}

/// A line that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// When the screen first showed it with the pattern, in milliseconds since the first output.
    pub at_ms: u64,
    /// The line as it was when it was whole.
    pub line: String,
}

/// Lines that match, and how often each is there.
type Lines = HashMap<String, u32>;

/// Reads a recording and gives out the lines that match, about in the order they were seen.
pub struct Hits<E> {
    events: Shown<E>,
    finder: Finder,
    clock: Clock,
    screen: Screen,
    ended: bool,
}

impl<E: Events> Hits<E> {
    /// Searches a recording from its start.
    pub fn new(events: E, pattern: Pattern) -> Self {
        let finder = Finder {
            pattern,
            at_ms: 0,
            main: Lines::new(),
            alternate: Lines::new(),
            passed: Lines::new(),
            growing: None,
            found: VecDeque::new(),
        };
        let screen = Screen::new(Size::default());
        Self { events: shown(events), finder, clock: Clock::default(), screen, ended: false }
    }

    fn take(&mut self, event: &AuditEvent) {
        self.clock.advance(event);
        self.finder.at_ms = self.clock.at_ms();
        self.screen.set_line_ends(line_ends(event, self.screen.line_ends()));
        if let Some(size) = size_of(event) {
            self.screen.resize(size);
            // Lines may be cut or broken now, which makes them no new ones.
            self.finder.settle(&self.screen, false);
        }
        if let AuditEvent::SessionPrint(print) = event {
            let finder = &mut self.finder;
            self.screen.feed_lines(&print.data, |screen| finder.line_ends(screen));
            finder.settle(&self.screen, true);
        }
    }
}

impl<E: Events> Iterator for Hits<E> {
    type Item = Result<Hit, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(hit) = self.finder.found.pop_front() {
                return Some(Ok(hit));
            }
            if self.ended {
                return None;
            }
            match self.events.next() {
                Some(Ok(event)) => self.take(&event),
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                None => {
                    self.ended = true;
                    self.finder.found.extend(self.finder.growing.take());
                }
            }
        }
    }
}

/// Tells lines that appear from lines that are still there.
struct Finder {
    pattern: Pattern,
    at_ms: u64,
    /// What was given out and still shows, on either screen.
    main: Lines,
    alternate: Lines,
    /// What was given out while the present event passed.
    passed: Lines,
    /// The line with the cursor, which may not be whole yet.
    growing: Option<Hit>,
    found: VecDeque<Hit>,
}

impl Finder {
    /// Before a line feed: below the last line, that is a line that may scroll away at once.
    fn line_ends(&mut self, screen: &Screen) {
        let below = screen.cursor().0.saturating_add(1);
        if screen.is_alternate() || screen.row(below).columns() > 0 {
            return;
        }
        let line = screen.line();
        let began = self.growing.take();
        if !self.pattern.matches(&line) {
            // It was there, if only for a while.
            self.found.extend(began);
            return;
        }
        let at_ms = match began {
            Some(began) if grew(&began.line, &line) => began.at_ms,
            began => {
                self.found.extend(began);
                self.at_ms
            }
        };
        add(&mut self.passed, &line);
        self.found.push_back(Hit { at_ms, line });
    }

    /// After an event: what is new on the screen, to be told or only remembered.
    fn settle(&mut self, screen: &Screen, tell: bool) {
        let cursor = screen.cursor().0;
        let mut before = match screen.is_alternate() {
            true => std::mem::take(&mut self.alternate),
            false => std::mem::take(&mut self.main),
        };
        let mut passed = std::mem::take(&mut self.passed);
        let mut shown = Lines::new();
        let mut began = self.growing.take();
        let mut row = 0;
        while row < screen.size().rows {
            let first = row;
            let mut line = String::new();
            let mut goes_on = true;
            while goes_on && row < screen.size().rows {
                let part = screen.row(row);
                line.push_str(part.text());
                goes_on = part.wrapped();
                row += 1;
            }
            if !self.pattern.matches(&line) {
                continue;
            }
            if !tell || take(&mut before, &line) || take(&mut passed, &line) {
                add(&mut shown, &line);
                continue;
            }
            let grows = (first..row).contains(&cursor) && !screen.is_alternate();
            let same = began.take_if(|began| grew(&began.line, &line));
            let hit = Hit { at_ms: same.map_or(self.at_ms, |began| began.at_ms), line };
            if grows {
                self.growing = Some(hit);
            } else {
                add(&mut shown, &hit.line);
                self.found.push_back(hit);
            }
        }
        // It was there, if only for a while.
        self.found.extend(began);
        match screen.is_alternate() {
            true => self.alternate = shown,
            false => self.main = shown,
        }
    }
}

/// Whether a line is an earlier one with more behind it.
fn grew(before: &str, line: &str) -> bool {
    line.starts_with(before.trim_end())
}

fn add(lines: &mut Lines, line: &str) {
    *lines.entry(line.to_owned()).or_default() += 1;
}

fn take(lines: &mut Lines, line: &str) -> bool {
    match lines.get_mut(line) {
        Some(count) if *count > 1 => *count -= 1,
        Some(_) => {
            lines.remove(line);
        }
        None => return false,
    }
    true
}

#[cfg(test)]
mod tests;

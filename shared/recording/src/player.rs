//! Plays a recording: steps with their times, and seeking. The caller keeps the clock, the keys and
//! the terminal.
//!
//! While it plays, it keeps a model of the screen, and now and then a snapshot of it between two
//! slices, so that going back costs a few seconds of recording and not all of it.

use std::io::{Read, Seek};

use bytes::Bytes;
use shared_events::{AuditEvent, OutputGap};

use crate::decoder::{DecodeError, Decoder, Mark};
use crate::filter::Filter;
use crate::screen::{Screen, ScreenState, Size};
use crate::timeline::size_of;

/// Snapshots kept. When there are more, every other one goes and they are taken half as often.
const SNAPSHOTS: usize = 24;
const FIRST_INTERVAL_MS: u64 = 5_000;

/// What to do next.
#[derive(Debug)]
pub struct Step {
    /// When, in milliseconds since the first output.
    pub at_ms: u64,
    /// What.
    pub action: Action,
}

/// What a step does.
#[derive(Debug)]
pub enum Action {
    /// Output, as it was recorded and as much of it as may reach a terminal.
    Output {
        /// Exactly what was recorded.
        raw: Bytes,
        /// What is harmless.
        shown: Vec<u8>,
    },
    /// The terminal has this size now.
    Resize(Size),
    /// Output is missing here on purpose.
    Gap(OutputGap),
    /// Any other event.
    Event(Box<AuditEvent>),
}

struct Snapshot {
    at_ms: u64,
    mark: Mark,
    screen: ScreenState,
}

/// Plays one recording.
pub struct Player<R> {
    decoder: Decoder<R>,
    screen: Screen,
    filter: Filter,
    at_ms: u64,
    peeked: Option<AuditEvent>,
    snapshots: Vec<Snapshot>,
    interval_ms: u64,
}

impl<R: Read + Seek> Player<R> {
    /// A player at the recording's start.
    pub fn new(decoder: Decoder<R>) -> Self {
        Self {
            decoder,
            screen: Screen::new(Size::default()),
            filter: Filter::new(),
            at_ms: 0,
            peeked: None,
            snapshots: Vec::new(),
            interval_ms: FIRST_INTERVAL_MS,
        }
    }

    /// Where it is, in milliseconds since the first output.
    #[must_use]
    pub fn position_ms(&self) -> u64 {
        self.at_ms
    }

    /// What is on the screen now.
    #[must_use]
    pub fn screen(&self) -> &Screen {
        &self.screen
    }

    /// The decoder, to ask about the chain.
    #[must_use]
    pub fn decoder(&self) -> &Decoder<R> {
        &self.decoder
    }

    /// The next step; nothing at the end.
    pub fn step(&mut self) -> Result<Option<Step>, DecodeError> {
        let Some(event) = self.pull()? else { return Ok(None) };
        self.advance_clock(&event);
        let action = self.apply(event);
        Ok(Some(Step { at_ms: self.at_ms, action }))
    }

    fn pull(&mut self) -> Result<Option<AuditEvent>, DecodeError> {
        if let Some(event) = self.peeked.take() {
            return Ok(Some(event));
        }
        self.snapshot();
        self.decoder.next_event()
    }

    fn advance_clock(&mut self, event: &AuditEvent) {
        self.at_ms = self.at_ms.max(time_of(event).unwrap_or(0));
    }

    fn apply(&mut self, event: AuditEvent) -> Action {
        if let Some(size) = size_of(&event) {
            self.screen.resize(size);
            return Action::Resize(size);
        }
        match event {
            AuditEvent::SessionPrint(print) => {
                self.screen.feed(&print.data);
                let shown = self.filter.filter(&print.data);
                Action::Output { raw: print.data, shown }
            }
            event => match OutputGap::from_event(&event) {
                Some(gap) => Action::Gap(gap),
                None => Action::Event(Box::new(event)),
            },
        }
    }

    /// Goes to a time, forward to the end at most. Returns what to write to a terminal of the
    /// viewer's size so that it shows what was on the screen then.
    pub fn seek(&mut self, to_ms: u64, viewer: Size) -> Result<Vec<u8>, DecodeError> {
        if to_ms < self.at_ms {
            self.rewind(to_ms)?;
        }
        while let Some(event) = self.pull()? {
            if time_of(&event).is_some_and(|time| time > to_ms) {
                self.peeked = Some(event);
                // Behind an early event comes a wait: that is where we are.
                self.at_ms = self.at_ms.max(to_ms);
                break;
            }
            self.advance_clock(&event);
            self.apply(event);
        }
        self.filter = Filter::new().with_charsets(self.screen.charsets());
        Ok(self.screen.repaint(viewer))
    }

    /// Back to the last snapshot that is not later than `to_ms`.
    fn rewind(&mut self, to_ms: u64) -> Result<(), DecodeError> {
        self.peeked = None;
        // The first snapshot is that of the start.
        let found = self.snapshots.iter().rev().find(|snapshot| snapshot.at_ms <= to_ms);
        if let Some(snapshot) = found.or(self.snapshots.first()) {
            self.decoder.seek(&snapshot.mark)?;
            self.screen.set_state(&snapshot.screen);
            self.at_ms = snapshot.at_ms;
        }
        Ok(())
    }

    fn snapshot(&mut self) {
        let due = match self.snapshots.last() {
            None => true,
            Some(last) => self.at_ms >= last.at_ms.saturating_add(self.interval_ms),
        };
        if !due || !self.screen.is_between_sequences() {
            return;
        }
        let Some(mark) = self.decoder.mark() else { return };
        if self.snapshots.len() >= SNAPSHOTS {
            let mut index = 0;
            self.snapshots.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.interval_ms = self.interval_ms.saturating_mul(2);
        }
        self.snapshots.push(Snapshot { at_ms: self.at_ms, mark, screen: self.screen.state() });
    }
}

/// The time an event has of its own.
fn time_of(event: &AuditEvent) -> Option<u64> {
    match event {
        AuditEvent::SessionPrint(print) => u64::try_from(print.ms).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

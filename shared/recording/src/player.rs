//! Plays a recording: steps with their times, and seeking. The caller keeps the clock, the keys and
//! the terminal.
//!
//! While it plays, it keeps a model of the screen, and now and then a snapshot of it between two
//! slices, so that going back costs a few seconds of recording and not all of it.

use std::io::{Read, Seek};

use bytes::Bytes;
use shared_events::{AuditEvent, OutputGap};

use crate::database::Translator;
use crate::decoder::{DecodeError, Decoder, Mark};
use crate::screen::{LineEnds, Screen, ScreenState, Size};
use crate::timeline::{Clock, size_of};

/// Snapshots kept. When there are more, every other one goes and they are taken half as often.
const SNAPSHOTS: usize = 24;
/// The least kept, however large the screen is.
const FEWEST_SNAPSHOTS: usize = 4;
/// Cells of all snapshots together; each takes 32 bytes, with the alternate screen twice.
const SNAPSHOT_CELLS: usize = 1 << 20;
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
    /// Output, exactly as it was recorded: nothing for a terminal.
    Output(Bytes),
    /// The terminal has this size now.
    Resize(Size),
    /// Output is missing here on purpose.
    Gap(OutputGap),
    /// Any other event.
    Event(Box<AuditEvent>),
}

struct Snapshot {
    clock: Clock,
    mark: Mark,
    screen: ScreenState,
    translator: Translator,
}

/// Plays one recording.
pub struct Player<R> {
    decoder: Decoder<R>,
    screen: Screen,
    clock: Clock,
    translator: Translator,
    /// What the last event of a database session shows, which comes right behind it.
    shown: Option<AuditEvent>,
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
            clock: Clock::default(),
            translator: Translator::default(),
            shown: None,
            peeked: None,
            snapshots: Vec::new(),
            interval_ms: FIRST_INTERVAL_MS,
        }
    }

    /// Where it is, in milliseconds since the first output.
    #[must_use]
    pub fn position_ms(&self) -> u64 {
        self.clock.at_ms()
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

    /// When the next step is, which is not taken yet; nothing at the end.
    pub fn next_at(&mut self) -> Result<Option<u64>, DecodeError> {
        if self.peeked.is_none() {
            self.peeked = self.next_event()?;
        }
        Ok(self.peeked.as_ref().map(|event| self.clock.when(event)))
    }

    fn next_event(&mut self) -> Result<Option<AuditEvent>, DecodeError> {
        if let Some(print) = self.shown.take() {
            return Ok(Some(print));
        }
        self.snapshot();
        let event = self.decoder.next_event()?;
        self.shown =
            event.as_ref().and_then(|event| self.translator.print(event)).map(AuditEvent::from);
        Ok(event)
    }

    /// The next step; nothing at the end.
    pub fn step(&mut self) -> Result<Option<Step>, DecodeError> {
        self.next_at()?;
        let Some(event) = self.peeked.take() else { return Ok(None) };
        self.clock.advance(&event);
        let action = self.apply(event);
        Ok(Some(Step { at_ms: self.clock.at_ms(), action }))
    }

    fn apply(&mut self, event: AuditEvent) -> Action {
        if let Some(size) = size_of(&event) {
            self.screen.resize(size);
            return Action::Resize(size);
        }
        match event {
            AuditEvent::SessionPrint(print) => {
                self.screen.feed(&print.data);
                Action::Output(print.data)
            }
            event => {
                self.screen.set_line_ends(line_ends(&event, self.screen.line_ends()));
                match OutputGap::from_event(&event) {
                    Some(gap) => Action::Gap(gap),
                    None => Action::Event(Box::new(event)),
                }
            }
        }
    }

    /// Goes to a time, forward to the end at most.
    pub fn seek(&mut self, to_ms: u64) -> Result<(), DecodeError> {
        if to_ms < self.clock.at_ms() {
            self.rewind(to_ms)?;
        }
        while let Some(next) = self.next_at()? {
            if next > to_ms {
                // Behind an early event comes a wait: that is where we are.
                self.clock.advance_to(to_ms);
                break;
            }
            self.step()?;
        }
        Ok(())
    }

    /// Back to the last snapshot that is not later than `to_ms`.
    fn rewind(&mut self, to_ms: u64) -> Result<(), DecodeError> {
        (self.peeked, self.shown) = (None, None);
        // The first snapshot is that of the start.
        let found = self.snapshots.iter().rev().find(|snapshot| snapshot.clock.at_ms() <= to_ms);
        if let Some(snapshot) = found.or(self.snapshots.first()) {
            self.decoder.seek(&snapshot.mark)?;
            self.screen.set_state(&snapshot.screen);
            self.clock = snapshot.clock.clone();
            self.translator = snapshot.translator.clone();
        }
        Ok(())
    }

    fn snapshot(&mut self) {
        let due = match self.snapshots.last() {
            None => true,
            Some(last) => self.clock.at_ms() >= last.clock.at_ms().saturating_add(self.interval_ms),
        };
        if !due || !self.screen.is_between_sequences() {
            return;
        }
        let Some(mark) = self.decoder.mark() else { return };
        if self.snapshots.len() >= self.most_snapshots() {
            let mut index = 0;
            self.snapshots.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.interval_ms = self.interval_ms.saturating_mul(2);
        }
        let clock = self.clock.clone();
        let (screen, translator) = (self.screen.state(), self.translator.clone());
        self.snapshots.push(Snapshot { clock, mark, screen, translator });
    }

    fn most_snapshots(&self) -> usize {
        let Size { columns, rows } = self.screen.size();
        let cells = usize::from(columns).saturating_mul(usize::from(rows)).max(1);
        (SNAPSHOT_CELLS / cells).clamp(FEWEST_SNAPSHOTS, SNAPSHOTS)
    }
}

/// How lines end after this event: a session that starts without a size has no terminal.
pub(crate) fn line_ends(event: &AuditEvent, before: LineEnds) -> LineEnds {
    match event {
        AuditEvent::SessionStart(start) if start.size.is_empty() => LineEnds::Bare,
        AuditEvent::SessionStart(_) => LineEnds::Recorded,
        _ => before,
    }
}

#[cfg(test)]
mod tests;

//! The server's direction.

use super::Malformed;
use super::capability::{DEPRECATE_EOF, LOCAL_FILES};
use super::conversation::{Conversation, Expected};
use super::frame::{Framer, Piece};
use super::read::Reader;
use super::reply::{Done, Failure, is_end};
use super::text::Capture;

/// Kept of an answer; more than an error's text.
const KEEP: usize = 2048;

/// How a command ended; one of each that is told of and is answered, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Well; so many rows were changed or returned, by all its statements together.
    Done(u64),
    /// With an error.
    Failed(Failure),
}

/// Sees what a server sends.
#[derive(Debug)]
pub struct Answers {
    conversation: Conversation,
    capabilities: u64,
    framer: Framer,
    capture: Capture,
    phase: Phase,
    /// Rows of the results before, of the same command.
    rows: u64,
    /// The message is of interest.
    reads: bool,
    /// Number of the last packet of an answer that has begun.
    sequence: Option<u8>,
}

/// What the server says next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The begin of an answer, or of the next result.
    Start,
    /// So many descriptions of columns.
    Columns(u64),
    /// What ends them.
    ColumnsEnd,
    /// Rows, of which so many have come.
    Rows(u64),
    /// Descriptions of a prepared statement's parameters, then columns, each group with an end if it is not empty.
    Described { parameters: u16, columns: u16, ends: bool },
}

impl Answers {
    pub(super) fn new(conversation: Conversation, capabilities: u64) -> Self {
        let (framer, capture) = (Framer::default(), Capture::default());
        Self {
            conversation,
            capabilities,
            framer,
            capture,
            phase: Phase::Start,
            rows: 0,
            reads: false,
            sequence: None,
        }
    }

    /// Whether the bytes so far end with a message, so that an error of ours is understood as the next.
    pub fn is_settled(&self) -> bool {
        self.framer.is_settled()
    }

    /// Number of the packet that follows what the server has sent.
    pub fn next(&self) -> u8 {
        self.sequence.map_or(1, |before| before.wrapping_add(1))
    }

    /// Sees a chunk, and adds how statements ended to `outcomes`.
    ///
    /// # Errors
    /// The server does not speak the protocol; it cannot be followed any more.
    pub fn see(&mut self, chunk: &[u8], outcomes: &mut Vec<Outcome>) -> Result<(), Malformed> {
        let mut rest = chunk;
        while let Some(piece) = self.framer.next(&mut rest)? {
            if piece.first {
                self.sequence = Some(piece.sequence);
                self.reads = self.begin(&piece, outcomes)?;
            }
            if !self.reads {
                continue;
            }
            if piece.first && piece.last {
                self.message(piece.data, piece.sequence, outcomes)?;
                continue;
            }
            if piece.first {
                self.capture.begin(KEEP, false);
            }
            self.capture.push(piece.data);
            if piece.last {
                let capture = std::mem::take(&mut self.capture);
                self.message(capture.text().bytes, piece.sequence, outcomes)?;
            }
        }
        Ok(())
    }

    /// A message begins; whether it has to be read.
    fn begin(&mut self, piece: &Piece<'_>, outcomes: &mut Vec<Outcome>) -> Result<bool, Malformed> {
        if self.phase == Phase::Start {
            self.start();
        }
        let Some(&first) = piece.data.first() else {
            return Err(Malformed::new("answer without a byte"));
        };
        if first == 0xff {
            return Ok(true);
        }
        Ok(match &mut self.phase {
            Phase::Rows(rows) if !is_end(first, piece.length, self.capabilities) => {
                *rows += 1;
                false
            }
            Phase::Columns(left) => {
                *left -= 1;
                if *left == 0 {
                    self.phase = match self.capabilities & DEPRECATE_EOF {
                        0 => Phase::ColumnsEnd,
                        _ => Phase::Rows(0),
                    };
                }
                false
            }
            Phase::Described { .. } => {
                self.described(outcomes);
                false
            }
            _ => true,
        })
    }

    /// Some answers have no begin of their own.
    fn start(&mut self) {
        if let Some(Expected::Rows | Expected::Fields) = self.conversation.state().expected() {
            self.phase = Phase::Rows(0);
        }
    }

    fn message(
        &mut self,
        payload: &[u8],
        sequence: u8,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Malformed> {
        if payload.first() == Some(&0xff) {
            self.failed(Failure::parse(payload)?, outcomes);
            return Ok(());
        }
        match self.phase {
            Phase::Start => self.head(payload, sequence, outcomes),
            Phase::ColumnsEnd => {
                let end = self.end(payload)?;
                // The flag alone says nothing: procedures leave it set for cursors of their own.
                let expected = self.conversation.state().expected();
                if end.has_cursor() && expected == Some(Expected::Cursor) {
                    self.result(0, end, outcomes);
                } else {
                    self.phase = Phase::Rows(0);
                }
                Ok(())
            }
            Phase::Rows(rows) => {
                let end = self.end(payload)?;
                self.result(rows, end, outcomes);
                Ok(())
            }
            // They are not read.
            Phase::Columns(_) | Phase::Described { .. } => Ok(()),
        }
    }

    fn end(&self, payload: &[u8]) -> Result<Done, Malformed> {
        payload
            .first()
            .filter(|&&first| first == 0xfe)
            .and_then(|_| Done::end(payload, self.capabilities))
            .ok_or_else(|| Malformed::new("end of rows or columns"))
    }

    /// The begin of an answer.
    fn head(
        &mut self,
        payload: &[u8],
        sequence: u8,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Malformed> {
        let expected = {
            let state = self.conversation.state();
            if state.file.is_some() {
                return Err(Malformed::new("answer before the file that the database asked for"));
            }
            state.expected().ok_or_else(|| Malformed::new("answer to nothing"))?
        };
        match expected {
            Expected::Results | Expected::Cursor | Expected::List => {
                self.results(payload, sequence, outcomes)
            }
            Expected::Prepared => self.prepared(payload, outcomes),
            Expected::Words => {
                self.finish(Outcome::Done(0), outcomes);
                Ok(())
            }
            _ if !matches!(payload.first(), Some(0 | 0xfe)) => {
                Err(Malformed::new("answer to a command"))
            }
            expected => {
                if expected == Expected::Forgotten {
                    self.conversation.state().statements.clear();
                }
                self.finish(Outcome::Done(0), outcomes);
                Ok(())
            }
        }
    }

    fn results(
        &mut self,
        payload: &[u8],
        sequence: u8,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Malformed> {
        match payload.first() {
            Some(0) => {
                let done = Done::ok(payload).ok_or_else(|| Malformed::new("OK packet"))?;
                self.result(done.affected, done, outcomes);
                Ok(())
            }
            Some(0xfb) if self.capabilities & LOCAL_FILES == 0 => {
                Err(Malformed::new("request for a file, which the client has not allowed"))
            }
            Some(0xfb) => {
                self.conversation.state().file = Some(sequence.wrapping_add(1));
                Ok(())
            }
            _ => {
                let mut reader = Reader::new(payload);
                let columns =
                    reader.length().filter(|&columns| columns > 0 && reader.rest().is_empty());
                self.phase =
                    Phase::Columns(columns.ok_or_else(|| Malformed::new("number of columns"))?);
                Ok(())
            }
        }
    }

    fn prepared(&mut self, payload: &[u8], outcomes: &mut Vec<Outcome>) -> Result<(), Malformed> {
        let mut reader = Reader::new(payload);
        let (Some(0), Some(id), Some(columns), Some(parameters)) =
            (reader.u8(), reader.u32(), reader.u16(), reader.u16())
        else {
            return Err(Malformed::new("prepared statement"));
        };
        self.conversation.state().statements.born(id, parameters)?;
        self.phase = Phase::Described { parameters, columns, ends: false };
        self.settle_described(outcomes);
        Ok(())
    }

    /// One more of the messages that describe a prepared statement.
    fn described(&mut self, outcomes: &mut Vec<Outcome>) {
        let Phase::Described { parameters, columns, ends } = &mut self.phase else { return };
        let eof = self.capabilities & DEPRECATE_EOF == 0;
        if *ends {
            *ends = false;
        } else if *parameters > 0 {
            *parameters -= 1;
            *ends = eof && *parameters == 0;
        } else {
            *columns = columns.saturating_sub(1);
            *ends = eof && *columns == 0;
        }
        self.settle_described(outcomes);
    }

    fn settle_described(&mut self, outcomes: &mut Vec<Outcome>) {
        if self.phase == (Phase::Described { parameters: 0, columns: 0, ends: false }) {
            self.finish(Outcome::Done(0), outcomes);
        }
    }

    /// A result ends; another may follow.
    fn result(&mut self, rows: u64, done: Done, outcomes: &mut Vec<Outcome>) {
        self.rows = self.rows.saturating_add(rows);
        let expected = self.conversation.state().expected();
        if done.more_results()
            && matches!(expected, Some(Expected::Results | Expected::Cursor | Expected::List))
        {
            self.phase = Phase::Start;
        } else {
            self.finish(Outcome::Done(self.rows), outcomes);
        }
    }

    fn failed(&mut self, failure: Failure, outcomes: &mut Vec<Outcome>) {
        if self.phase == Phase::Start {
            let mut state = self.conversation.state();
            if state.expected() == Some(Expected::Prepared) {
                state.statements.stillborn();
            }
        }
        self.finish(Outcome::Failed(failure), outcomes);
    }

    /// The answer is complete.
    fn finish(&mut self, outcome: Outcome, outcomes: &mut Vec<Outcome>) {
        self.phase = Phase::Start;
        self.rows = 0;
        self.sequence = None;
        // A server that ends, or has lost patience, says so unasked: that is no outcome of anything.
        if self.conversation.state().answered().is_some_and(Expected::is_told) {
            outcomes.push(outcome);
        }
    }
}

#[cfg(test)]
mod tests;

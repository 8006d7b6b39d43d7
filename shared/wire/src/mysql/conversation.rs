//! What both directions of a connection know of each other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::statements::Statements;
use super::{Answers, Malformed, Requests};

/// Commands that are sent ahead, at most; more than a server's socket takes from a client that does not read.
const MAX_AHEAD: usize = 1 << 17;

/// One connection after its handshake.
#[derive(Debug, Clone)]
pub struct Conversation(Arc<Mutex<State>>);

/// What the server is to answer, and whether it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// OK, or results.
    Results,
    /// The same, and a cursor may be opened instead of sending rows.
    Cursor,
    /// OK, or results, not told.
    List,
    /// OK, or an EOF.
    Done,
    /// OK, or an EOF, not told.
    Quiet,
    /// OK, after which nothing prepared is there any more.
    Forgotten,
    /// A statement.
    Prepared,
    /// Rows of a cursor.
    Rows,
    /// Descriptions of columns.
    Fields,
    /// A line of text.
    Words,
}

impl Expected {
    /// Whether what it answers was told of.
    pub(super) fn is_told(self) -> bool {
        matches!(self, Self::Results | Self::Cursor | Self::Done | Self::Prepared | Self::Rows)
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) statements: Statements,
    /// Of commands that are not answered, oldest first.
    ahead: VecDeque<Expected>,
    /// The server waits for a file; the client's next packet of it has this number.
    pub(super) file: Option<u8>,
    /// For the parameters of one statement, in bytes.
    pub(super) room: usize,
}

impl Conversation {
    /// Both directions of a connection whose sides have agreed to `capabilities`. The parameters of a statement are
    /// told in about `room` bytes.
    pub fn start(capabilities: u64, room: usize) -> (Requests, Answers) {
        let state =
            State { statements: Statements::default(), ahead: VecDeque::new(), file: None, room };
        let conversation = Self(Arc::new(Mutex::new(state)));
        (Requests::new(conversation.clone()), Answers::new(conversation, capabilities))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn expect(&mut self, expected: Expected) -> Result<(), Malformed> {
        if self.ahead.len() >= MAX_AHEAD {
            return Err(Malformed::new("too many commands before the answer to the first"));
        }
        self.ahead.push_back(expected);
        Ok(())
    }

    /// What the next answer is to.
    pub(super) fn expected(&self) -> Option<Expected> {
        self.ahead.front().copied()
    }

    /// It has come.
    pub(super) fn answered(&mut self) -> Option<Expected> {
        self.ahead.pop_front()
    }
}

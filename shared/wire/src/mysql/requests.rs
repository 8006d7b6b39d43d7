//! The client's direction.

use std::ops::Range;

use super::command::{self, Request};
use super::conversation::Conversation;
use super::frame::Framer;
use super::text::{Capture, Text};
use super::{Malformed, frame};

/// Kept of a command that comes in pieces.
const KEEP: usize = 64 * 1024;
/// Kept of a parameter sent ahead: its statement and number.
const KEEP_HEAD: usize = 6;

/// Sees what a client sends.
#[derive(Debug)]
pub struct Requests {
    conversation: Conversation,
    framer: Framer,
    capture: Capture,
    opcode: u8,
    /// The message is a part of a file.
    file: bool,
    /// Where the message begins in the chunk; at its begin if it came before.
    from: usize,
}

/// A whole command.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Where in the chunk it begins, header and all; 0 when it began in a chunk before.
    pub from: usize,
    /// What it asks for.
    pub request: Request<'a>,
}

/// Where the body of a whole command is.
enum Body {
    Chunk(Range<usize>),
    Captured,
    None,
}

impl Requests {
    pub(super) fn new(conversation: Conversation) -> Self {
        Self {
            conversation,
            framer: Framer::default(),
            capture: Capture::default(),
            opcode: 0,
            file: false,
            from: 0,
        }
    }

    /// Whether the bytes so far end with a command.
    pub fn is_settled(&self) -> bool {
        self.framer.is_settled()
    }

    /// Where in the chunk the command begins that is not whole, or cannot be read; 0 when it began in a chunk before.
    pub fn from(&self) -> usize {
        self.from
    }

    /// The next command that ends in `chunk` behind `at`, which is moved on; none when there is no more.
    ///
    /// # Errors
    /// The client does not speak the protocol; it cannot be followed any more.
    pub fn next<'a>(
        &'a mut self,
        chunk: &'a [u8],
        at: &mut usize,
    ) -> Result<Option<Seen<'a>>, Malformed> {
        let Some(body) = self.advance(chunk, at)? else { return Ok(None) };
        let body = match body {
            Body::Chunk(range) => {
                let bytes = chunk.get(range).unwrap_or_default();
                Text { bytes, size: bytes.len() as u64, cut: None }
            }
            Body::Captured => self.capture.text(),
            Body::None => return Ok(Some(Seen { from: self.from, request: Request::Quiet })),
        };
        let request = command::read(self.opcode, body, &mut self.conversation.state())?;
        Ok(Some(Seen { from: self.from, request }))
    }

    fn advance(&mut self, chunk: &[u8], at: &mut usize) -> Result<Option<Body>, Malformed> {
        loop {
            if self.framer.is_settled() {
                self.from = *at;
            } else if *at == 0 {
                self.from = 0;
            }
            let mut rest = chunk.get(*at..).unwrap_or_default();
            let piece = self.framer.next(&mut rest)?;
            *at = chunk.len() - rest.len();
            let Some(piece) = piece else { return Ok(None) };
            if piece.first {
                self.begin(&piece)?;
            }
            if self.file {
                if piece.last {
                    self.file_packet(&piece);
                    return Ok(Some(Body::None));
                }
                continue;
            }
            let head = usize::from(piece.first);
            if piece.first && piece.last {
                return Ok(Some(Body::Chunk(*at - piece.data.len() + head..*at)));
            }
            self.capture.push(piece.data.get(head..).unwrap_or_default());
            if piece.last {
                return Ok(Some(Body::Captured));
            }
        }
    }

    /// A message begins: a command, or a part of the file that the server waits for.
    fn begin(&mut self, piece: &frame::Piece<'_>) -> Result<(), Malformed> {
        let file = self.conversation.state().file;
        self.file = file.is_some();
        // A command in the place of a file, or the other way round, would be taken for what it is not.
        let expected = file.unwrap_or_default();
        if piece.sequence != expected {
            let sequence = piece.sequence;
            return Err(Malformed::new(format!(
                "packet {sequence} is out of order: {expected} is expected"
            )));
        }
        if self.file {
            return Ok(());
        }
        let opcode = piece.data.first();
        self.opcode = *opcode.ok_or_else(|| Malformed::new("command without a byte"))?;
        if !piece.last {
            match self.opcode {
                command::LONG_DATA => self.capture.begin(KEEP_HEAD, false),
                _ => self.capture.begin(KEEP, true),
            }
        }
        Ok(())
    }

    fn file_packet(&mut self, piece: &frame::Piece<'_>) {
        let ends = piece.first && piece.length == 0;
        self.conversation.state().file = (!ends).then(|| piece.sequence.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests;

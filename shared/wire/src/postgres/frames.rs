//! Messages in a stream that comes in pieces ("Message Formats": a type byte, then a length that counts itself).

use std::ops::Range;

use sha2::{Digest as _, Sha256};

/// A stream that cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A type that this side does not send.
    #[error("message type {:?} is unknown", char::from(*.0))]
    Unknown(u8),
    /// A length that no message of the type has.
    #[error("message {:?} of {length} bytes, between 4 and {limit} are possible", char::from(*.tag))]
    Length {
        /// The message's type.
        tag: u8,
        /// What it says, as an unsigned number.
        length: u32,
        /// The most the type may have.
        limit: usize,
    },
}

/// What the two sides send: the types, how long they get, and what somebody who looks wants of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Frontend,
    /// Until it is ready for the first statement.
    Opening,
    Backend,
}

/// The part of a body that a digest is of, when the body is too long to be kept.
#[derive(Debug, Clone, Copy)]
enum Span {
    /// All of it.
    Whole,
    /// The string behind so many others.
    String(u8),
}

#[derive(Debug, Clone, Copy)]
struct Class {
    /// The most the length may say, itself counted.
    limit: usize,
    /// Whether anybody wants the body.
    wanted: bool,
    span: Span,
}

impl Class {
    const fn new(limit: usize, wanted: bool) -> Option<Self> {
        Some(Self { limit, wanted, span: Span::Whole })
    }
}

/// What a server takes in one message: a little less than 1 GiB, the most that fits a value.
const LARGE: usize = 0x3fff_ffff;
/// And in messages that carry no data.
const SMALL: usize = 10_004;
/// What a server says while a session opens.
const OPENING: usize = 64 << 10;

impl Side {
    fn class(self, tag: u8) -> Option<Class> {
        match (self, tag) {
            (Self::Frontend, b'Q') => {
                Some(Class { limit: LARGE, wanted: true, span: Span::String(0) })
            }
            (Self::Frontend, b'P') => {
                Some(Class { limit: LARGE, wanted: true, span: Span::String(1) })
            }
            (Self::Frontend, b'B' | b'F') => Class::new(LARGE, true),
            (Self::Frontend, b'E' | b'C' | b'X') => Class::new(SMALL, true),
            (Self::Frontend, b'D' | b'H' | b'S' | b'c' | b'f') => Class::new(SMALL, false),
            (Self::Frontend, b'd') => Class::new(LARGE, false),
            (Self::Opening, b'R' | b'K' | b'E' | b'Z') => Class::new(OPENING, true),
            (Self::Opening, b'S' | b'N' | b'v') => Class::new(OPENING, false),
            (Self::Backend, b'C' | b'E' | b'Z' | b'R' | b'K') => Class::new(LARGE, true),
            (
                Self::Backend,
                b'1' | b'2' | b'3' | b'A' | b'D' | b'G' | b'H' | b'I' | b'N' | b'S' | b'T' | b'V'
                | b'W' | b'c' | b'd' | b'n' | b's' | b't' | b'v',
            ) => Class::new(LARGE, false),
            _ => None,
        }
    }
}

/// Stands for what was too long to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// All bytes of the statement; of a message without one, of its body.
    pub length: u64,
    /// SHA-256 of the same bytes.
    pub sha256: [u8; 32],
}

/// A message that has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its type.
    pub tag: u8,
    /// Its body, or the first part where `cut` is set.
    pub body: &'a [u8],
    /// Set when the body is longer than what is kept of one.
    pub cut: Option<Cut>,
}

/// The digest of a body that goes by.
#[derive(Debug)]
struct Passing {
    /// Strings still to go by.
    skip: u8,
    /// Whether a NUL is the end.
    string: bool,
    over: bool,
    length: u64,
    hash: Sha256,
}

impl Passing {
    fn new(span: Span) -> Self {
        let (skip, string) = match span {
            Span::Whole => (0, false),
            Span::String(skip) => (skip, true),
        };
        Self { skip, string, over: false, length: 0, hash: Sha256::new() }
    }

    fn see(&mut self, mut bytes: &[u8]) {
        while self.skip > 0 {
            let Some(end) = bytes.iter().position(|byte| *byte == 0) else { return };
            bytes = bytes.get(end + 1..).unwrap_or_default();
            self.skip -= 1;
        }
        if self.over {
            return;
        }
        if let Some(end) = bytes.iter().position(|byte| *byte == 0).filter(|_| self.string) {
            bytes = bytes.get(..end).unwrap_or_default();
            self.over = true;
        }
        self.length += bytes.len() as u64;
        self.hash.update(bytes);
    }

    fn end(self) -> Cut {
        Cut { length: self.length, sha256: self.hash.finalize().into() }
    }
}

/// A message whose end has not come yet.
#[derive(Debug)]
struct Open {
    tag: u8,
    left: usize,
    wanted: bool,
    passing: Option<Passing>,
}

/// Where the body of a complete message is.
enum Found {
    Chunk(Range<usize>),
    Kept,
}

/// Follows one direction of a connection behind its start-up.
#[derive(Debug)]
pub struct Frames {
    side: Side,
    keep: usize,
    head: [u8; 5],
    headed: usize,
    open: Option<Open>,
    kept: Vec<u8>,
}

/// More memory than this is given back when the message has gone.
const ROOM: usize = 8 << 10;

impl Frames {
    /// What a client sends. Of a body, `keep` bytes are kept at most.
    #[must_use]
    pub fn frontend(keep: usize) -> Self {
        Self::new(Side::Frontend, keep)
    }

    /// What a server sends.
    #[must_use]
    pub fn backend(keep: usize) -> Self {
        Self::new(Side::Backend, keep)
    }

    /// What a server sends until it is ready for the first statement.
    #[must_use]
    pub fn opening(keep: usize) -> Self {
        Self::new(Side::Opening, keep)
    }

    fn new(side: Side, keep: usize) -> Self {
        Self { side, keep, head: [0; 5], headed: 0, open: None, kept: Vec::new() }
    }

    /// Whether the stream stands between two messages.
    #[must_use]
    pub fn between(&self) -> bool {
        self.headed == 0 && self.open.is_none()
    }

    /// The next message somebody may want that ends in `chunk` at or behind `at`, which moves behind it; none when the
    /// chunk is used up.
    ///
    /// # Errors
    /// The stream is not PostgreSQL's; it must not be asked again.
    pub fn next<'a>(
        &'a mut self,
        chunk: &'a [u8],
        at: &mut usize,
    ) -> Result<Option<Message<'a>>, FrameError> {
        let (tag, found, cut) = loop {
            if self.open.is_none() && !self.begin(chunk, at)? {
                return Ok(None);
            }
            let Some(open) = &mut self.open else { return Ok(None) };
            let from = (*at).min(chunk.len());
            let here = open.left.min(chunk.len() - from);
            *at = from + here;
            open.left -= here;
            let piece = chunk.get(from..*at).unwrap_or_default();
            if let Some(passing) = &mut open.passing {
                passing.see(piece);
            }
            let complete = open.left == 0;
            let in_chunk = complete && self.kept.is_empty();
            if open.wanted && !in_chunk {
                let room = self.keep.saturating_sub(self.kept.len()).min(piece.len());
                self.kept.extend_from_slice(piece.get(..room).unwrap_or_default());
            }
            if !complete {
                return Ok(None);
            }
            let Some(open) = self.open.take() else { return Ok(None) };
            if open.wanted {
                let found = if in_chunk {
                    Found::Chunk(from..from + here.min(self.keep))
                } else {
                    Found::Kept
                };
                break (open.tag, found, open.passing.map(Passing::end));
            }
        };
        let body = match found {
            Found::Chunk(range) => chunk.get(range).unwrap_or_default(),
            Found::Kept => &self.kept,
        };
        Ok(Some(Message { tag, body, cut }))
    }

    /// Reads a head; whether it is complete.
    fn begin(&mut self, chunk: &[u8], at: &mut usize) -> Result<bool, FrameError> {
        if self.kept.capacity() > ROOM {
            self.kept = Vec::new();
        }
        self.kept.clear();
        let rest = chunk.get(*at..).unwrap_or_default();
        let part = rest.len().min(5 - self.headed);
        for (to, from) in self.head.iter_mut().skip(self.headed).zip(rest) {
            *to = *from;
        }
        *at += part;
        self.headed += part;
        if self.headed < 5 {
            // A type that nobody sends is refused without the rest of its head.
            let [tag, ..] = self.head;
            if self.headed > 0 && self.side.class(tag).is_none() {
                return Err(FrameError::Unknown(tag));
            }
            return Ok(false);
        }
        self.headed = 0;
        let [tag, length @ ..] = self.head;
        let length = u32::from_be_bytes(length);
        let class = self.side.class(tag).ok_or(FrameError::Unknown(tag))?;
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size < 4 || size > class.limit {
            return Err(FrameError::Length { tag, length, limit: class.limit });
        }
        let left = size - 4;
        let passing = (class.wanted && left > self.keep).then(|| Passing::new(class.span));
        self.open = Some(Open { tag, left, wanted: class.wanted, passing });
        Ok(true)
    }
}

#[cfg(test)]
mod tests;

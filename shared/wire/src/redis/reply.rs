//! Replies on their way to the client.
//!
//! They are counted, not built: nesting costs a number and no memory, whatever a server claims.

use super::Malformed;
use super::number::{self, DIGITS};

/// How much of a line or of a short element is kept, in bytes.
const KEPT: usize = 512;
/// How many errors inside of one reply are kept, as a transaction or a script may bring them.
const KEPT_ERRORS: usize = 16;

/// What a whole reply is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `+`: a word such as `OK`; also a line of MONITOR.
    Simple,
    /// `-` or `!`: an error.
    Error,
    /// `>`: sent on the server's own account, in version 3.
    Push,
    /// `*`, `~` or `%`: several elements.
    Aggregate,
    /// Any other: one value.
    #[default]
    Value,
}

/// Reads replies from bytes in pieces of any size, in bounded memory.
#[derive(Debug, Default)]
pub struct Replies {
    state: State,
    /// Elements still to come; 0 between replies.
    left: u64,
    /// Elements whose type was read; the reply itself is the first.
    index: u64,
    /// Elements still to come of an attribute in front of the reply.
    attribute: u64,
    /// The type of the element that is being read.
    mark: u8,
    line: Vec<u8>,
    reply: Reply,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Mark,
    Line(LastByte),
    Data(u64),
    DataEnd(LastByte),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum LastByte {
    #[default]
    Other,
    Cr,
}

/// What is known of a reply that has passed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What it is.
    pub kind: Kind,
    /// The text of a word or an error, or its beginning.
    pub line: Vec<u8>,
    /// Of several elements the first, or its beginning.
    pub first: Vec<u8>,
    /// Of several elements the third, if it is a number.
    pub third: Option<i64>,
    /// The errors inside of it, the first few of them, each with its beginning.
    pub errors: Vec<Vec<u8>>,
}

impl Replies {
    /// Reads on. Returns how many bytes were taken and whether they complete a reply; the next call begins the next one.
    ///
    /// # Errors
    /// When the bytes are no reply; nothing can be read after that.
    pub fn scan(&mut self, input: &[u8]) -> Result<(usize, bool), Malformed> {
        if self.between() && !input.is_empty() {
            (self.index, self.left) = (0, 1);
            self.reply = Reply::default();
        }
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            at += self.step(rest)?;
            if self.left == 0 {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// The reply that the last call of [`Replies::scan`] completed.
    pub fn reply(&self) -> &Reply {
        &self.reply
    }

    /// Whether nothing of a reply has passed yet, or all of it: something else may be written here.
    pub fn between(&self) -> bool {
        self.left == 0
    }

    fn step(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        match self.state {
            State::Mark => {
                let mark = input.first().copied().unwrap_or_default();
                if !b"+-:_#,($!=*~%>|".contains(&mark) {
                    return Err(Malformed::Type(mark));
                }
                self.mark = mark;
                self.index += 1;
                self.line.clear();
                self.state = State::Line(LastByte::Other);
                Ok(1)
            }
            State::Line(last) => self.read_line(input, last),
            State::Data(left) => Ok(self.data(input, left)),
            State::DataEnd(last) => {
                match (last, input.first()) {
                    (LastByte::Other, Some(b'\r')) => self.state = State::DataEnd(LastByte::Cr),
                    (LastByte::Cr, Some(b'\n')) => self.element_done(),
                    _ => return Err(Malformed::LineEnd("a value")),
                }
                Ok(1)
            }
        }
    }

    /// Up to CR LF. Only the text of words, errors and numbers may be long.
    fn read_line(&mut self, input: &[u8], last: LastByte) -> Result<usize, Malformed> {
        if last == LastByte::Cr {
            if input.first() != Some(&b'\n') {
                return Err(Malformed::LineEnd("a line of a reply"));
            }
            self.line_done()?;
            return Ok(1);
        }
        let end = input.iter().position(|byte| *byte == b'\r');
        let piece = input.get(..end.unwrap_or(input.len())).unwrap_or_default();
        let room = KEPT.saturating_sub(self.line.len());
        self.line.extend_from_slice(piece.get(..room).unwrap_or(piece));
        if self.line.len() > DIGITS && b"$!=*~%>|".contains(&self.mark) {
            return Err(Malformed::Length);
        }
        let Some(end) = end else { return Ok(input.len()) };
        self.state = State::Line(LastByte::Cr);
        Ok(end + 1)
    }

    fn line_done(&mut self) -> Result<(), Malformed> {
        match self.mark {
            b'$' | b'!' | b'=' => return self.value(),
            b'*' | b'~' | b'>' => return self.aggregate(1),
            b'%' | b'|' => return self.aggregate(2),
            b'+' if self.index == 1 => self.reply.kind = Kind::Simple,
            b'-' => self.error(),
            b':' if self.index == 4 => self.reply.third = number::parse(&self.line),
            _ => {}
        }
        if self.index == 1 {
            self.reply.line.clone_from(&self.line);
        }
        self.element_done();
        Ok(())
    }

    fn value(&mut self) -> Result<(), Malformed> {
        let length = number::parse(&self.line).ok_or(Malformed::Length)?;
        self.line.clear();
        match (u64::try_from(length), length) {
            (Ok(0), _) => self.state = State::DataEnd(LastByte::Other),
            (Ok(length), _) => self.state = State::Data(length),
            (Err(_), -1) if self.mark == b'$' => self.element_done(),
            _ => return Err(Malformed::Length),
        }
        Ok(())
    }

    fn data(&mut self, input: &[u8], left: u64) -> usize {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        if self.index == 2 || self.mark == b'!' {
            let room = KEPT.saturating_sub(self.line.len());
            self.line.extend_from_slice(input.get(..take.min(room)).unwrap_or_default());
        }
        self.state = match left - take as u64 {
            0 => {
                match self.mark {
                    b'!' => self.error(),
                    _ if self.index == 2 => self.reply.first.clone_from(&self.line),
                    _ => {}
                }
                State::DataEnd(LastByte::Other)
            }
            left => State::Data(left),
        };
        take
    }

    /// `each` elements for each of the number in the line. Attributes come in front of an element and are none.
    fn aggregate(&mut self, each: u64) -> Result<(), Malformed> {
        let number = number::parse(&self.line).ok_or(Malformed::Count)?;
        let count = match u64::try_from(number) {
            Ok(count) => count.checked_mul(each).ok_or(Malformed::Elements)?,
            Err(_) if number == -1 && self.mark == b'*' => 0,
            Err(_) => return Err(Malformed::Count),
        };
        self.left = self.left.checked_add(count).ok_or(Malformed::Elements)?;
        if self.attribute > 0 {
            // No more than `left`, which has been checked.
            self.attribute += count;
        }
        if self.mark == b'|' {
            if self.index == 1 {
                self.attribute = count;
                self.index = if count == 0 { 0 } else { 1 };
            }
            self.state = State::Mark;
            return Ok(());
        }
        if self.index == 1 {
            self.reply.kind = if self.mark == b'>' { Kind::Push } else { Kind::Aggregate };
        }
        self.element_done();
        Ok(())
    }

    fn error(&mut self) {
        if self.index == 1 {
            self.reply.kind = Kind::Error;
            self.reply.line.clone_from(&self.line);
        } else if self.reply.errors.len() < KEPT_ERRORS {
            self.reply.errors.push(self.line.clone());
        }
    }

    fn element_done(&mut self) {
        self.left -= 1;
        self.state = State::Mark;
        if self.attribute > 0 {
            self.attribute -= 1;
            if self.attribute == 0 {
                // The reply itself begins here.
                self.index = 0;
                self.reply = Reply::default();
            }
        }
    }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;

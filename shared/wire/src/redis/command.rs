//! Commands on their way to the server.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::number::{self, DIGITS};
use super::{Malformed, inline};

/// The longest inline command in bytes, as servers have it.
pub const INLINE_LIMIT: usize = 64 * 1024;
/// How many bytes of a command's arguments are kept; the rest passes by, counted and hashed.
pub const KEPT_BYTES: usize = 32 * 1024;
/// How many arguments of a command are kept; the rest passes by, counted.
pub const KEPT_ARGS: usize = 4096;
/// The largest number of arguments that any server takes.
const MAX_ARGS: i64 = i32::MAX as i64;
/// The longest argument in bytes: far above what servers can be configured for, far below an overflow.
const MAX_LENGTH: i64 = 1 << 40;

/// Reads commands from bytes in pieces of any size. Its memory is bounded by [`KEPT_BYTES`], [`KEPT_ARGS`] and
/// [`INLINE_LIMIT`].
#[derive(Debug, Default)]
pub struct Commands {
    state: State,
    /// The digits of a header, or the inline command.
    line: Vec<u8>,
    kept: Vec<u8>,
    args: Vec<Span>,
    /// Arguments whose headers were read.
    begun: u64,
    /// Arguments still to come.
    left: u64,
    /// Of the argument that is too long to be kept whole.
    hash: Option<Sha256>,
    inline: bool,
    complete: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Start,
    Count,
    Mark,
    Length,
    Data(u64),
    DataEnd(u8),
    Inline,
}

#[derive(Debug)]
struct Span {
    kept: Range<usize>,
    len: u64,
    sha256: Option<[u8; 32]>,
}

impl Commands {
    /// Reads on. Returns how many bytes were taken and whether they complete a command; the next call begins the next one.
    ///
    /// # Errors
    /// When the bytes are no command; nothing can be read after that.
    pub fn scan(&mut self, input: &[u8]) -> Result<(usize, bool), Malformed> {
        if self.complete {
            self.reset();
        }
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            at += self.step(rest)?;
            if self.complete {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// The command that the last call of [`Commands::scan`] completed, or as much as there is of the current one.
    pub fn command(&self) -> Command<'_> {
        Command { commands: self }
    }

    /// The name of the command that is being read, as soon as it is whole.
    pub fn name(&self) -> Option<&[u8]> {
        let whole = self.args.len() > 1
            || self.complete
            || matches!(self.state, State::Mark | State::Length);
        self.args.first().filter(|_| whole).map(|span| self.bytes(span))
    }

    /// Whether nothing of a command was read yet, or all of it.
    pub fn between(&self) -> bool {
        self.complete || matches!(self.state, State::Start)
    }

    fn bytes(&self, span: &Span) -> &[u8] {
        self.kept.get(span.kept.clone()).unwrap_or_default()
    }

    fn reset(&mut self) {
        self.state = State::Start;
        self.line.clear();
        self.kept.clear();
        self.args.clear();
        (self.begun, self.left) = (0, 0);
        self.hash = None;
        (self.inline, self.complete) = (false, false);
    }

    /// One step over a piece that is not empty; returns what was taken.
    fn step(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        match self.state {
            State::Start => Ok(self.start(input)),
            State::Count => self.header(input, "the number of arguments", Self::count),
            State::Mark => match input.first() {
                Some(b'$') => {
                    self.state = State::Length;
                    Ok(1)
                }
                other => Err(Malformed::Mark(other.copied().unwrap_or_default())),
            },
            State::Length => self.header(input, "a length", Self::length),
            State::Data(left) => Ok(self.data(input, left)),
            State::DataEnd(seen) => self.data_end(input, seen),
            State::Inline => self.inline(input),
        }
    }

    fn start(&mut self, input: &[u8]) -> usize {
        if input.first() == Some(&b'*') {
            self.state = State::Count;
            1
        } else {
            self.state = State::Inline;
            0
        }
    }

    /// A number up to CR LF.
    fn header(
        &mut self,
        input: &[u8],
        what: &'static str,
        done: fn(&mut Self, i64) -> Result<(), Malformed>,
    ) -> Result<usize, Malformed> {
        for (at, byte) in input.iter().enumerate() {
            let after_cr = self.line.last() == Some(&b'\r');
            match byte {
                b'\n' if after_cr => {
                    self.line.pop();
                    let number = number::parse(&self.line);
                    self.line.clear();
                    done(self, number.unwrap_or(i64::MIN))?;
                    return Ok(at + 1);
                }
                _ if after_cr => return Err(Malformed::LineEnd(what)),
                _ if self.line.len() > DIGITS => return Err(Malformed::LineEnd(what)),
                _ => self.line.push(*byte),
            }
        }
        Ok(input.len())
    }

    fn count(&mut self, number: i64) -> Result<(), Malformed> {
        match number {
            // Servers take these for no command at all.
            0 | -1 => self.reset(),
            1..=MAX_ARGS => {
                self.left = number.unsigned_abs();
                self.state = State::Mark;
            }
            _ => return Err(Malformed::Count),
        }
        Ok(())
    }

    fn length(&mut self, number: i64) -> Result<(), Malformed> {
        let len = u64::try_from(number).map_err(|_| Malformed::Length)?;
        if number > MAX_LENGTH {
            return Err(Malformed::Length);
        }
        self.begun += 1;
        if self.args.len() < KEPT_ARGS {
            let from = self.kept.len();
            let room = KEPT_BYTES.saturating_sub(from);
            self.hash = usize::try_from(len).map_or(true, |len| len > room).then(Sha256::new);
            self.args.push(Span { kept: from..from, len, sha256: None });
        }
        self.state = if len == 0 { State::DataEnd(0) } else { State::Data(len) };
        Ok(())
    }

    fn data(&mut self, input: &[u8], left: u64) -> usize {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let piece = input.get(..take).unwrap_or_default();
        if self.begun == self.args.len() as u64 {
            let room = KEPT_BYTES.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(piece.get(..room).unwrap_or(piece));
            if let Some(span) = self.args.last_mut() {
                span.kept.end = self.kept.len();
            }
            if let Some(hash) = &mut self.hash {
                hash.update(piece);
            }
        }
        self.state = match left - take as u64 {
            0 => State::DataEnd(0),
            left => State::Data(left),
        };
        take
    }

    fn data_end(&mut self, input: &[u8], seen: u8) -> Result<usize, Malformed> {
        match (seen, input.first()) {
            (0, Some(b'\r')) => self.state = State::DataEnd(1),
            (1, Some(b'\n')) => self.arg_done(),
            _ => return Err(Malformed::LineEnd("an argument")),
        }
        Ok(1)
    }

    fn arg_done(&mut self) {
        if let Some(hash) = self.hash.take()
            && let Some(span) = self.args.last_mut()
        {
            span.sha256 = Some(hash.finalize().into());
        }
        self.left -= 1;
        self.complete = self.left == 0;
        self.state = State::Mark;
    }

    fn inline(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let piece = input.get(..end.unwrap_or(input.len())).unwrap_or_default();
        if self.line.len() + piece.len() > INLINE_LIMIT {
            return Err(Malformed::InlineTooLong);
        }
        self.line.extend_from_slice(piece);
        let Some(end) = end else { return Ok(input.len()) };
        let line = std::mem::take(&mut self.line);
        let words = inline::words(line.strip_suffix(b"\r").unwrap_or(&line))?;
        self.reset();
        for word in &words {
            let from = self.kept.len();
            self.kept.extend_from_slice(word);
            let kept = from..self.kept.len();
            self.args.push(Span { kept, len: word.len() as u64, sha256: None });
        }
        self.begun = words.len() as u64;
        (self.inline, self.complete) = (true, !words.is_empty());
        Ok(end + 1)
    }
}

/// A command with what was kept of its arguments; the first is its name.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    commands: &'a Commands,
}

/// An argument, or the beginning of a long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arg<'a> {
    /// What was kept of it.
    pub kept: &'a [u8],
    /// Its length in bytes.
    pub len: u64,
    /// The SHA-256 of all of it, where it was not kept whole.
    pub sha256: Option<[u8; 32]>,
}

impl Arg<'_> {
    /// Whether all of it was kept.
    pub fn whole(&self) -> bool {
        self.kept.len() as u64 == self.len
    }
}

impl<'a> Command<'a> {
    /// The name as it was sent. Case does not matter to servers: see [`Command::is`].
    pub fn name(&self) -> &'a [u8] {
        self.arg(0).map_or(&[], |arg| arg.kept)
    }

    /// Whether the command's name is `name`.
    pub fn is(&self, name: &str) -> bool {
        self.word(0, name)
    }

    /// Whether the argument at `at` is `word`, in any case.
    pub fn word(&self, at: usize, word: &str) -> bool {
        self.arg(at)
            .is_some_and(|arg| arg.whole() && arg.kept.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The argument at `at`, if it was kept; the name is at 0.
    pub fn arg(&self, at: usize) -> Option<Arg<'a>> {
        let span = self.commands.args.get(at)?;
        Some(Arg { kept: self.commands.bytes(span), len: span.len, sha256: span.sha256 })
    }

    /// The arguments that were kept, with the name.
    pub fn args(&self) -> impl ExactSizeIterator<Item = Arg<'a>> + use<'a> {
        let commands = self.commands;
        commands.args.iter().map(|span| Arg {
            kept: commands.bytes(span),
            len: span.len,
            sha256: span.sha256,
        })
    }

    /// How many arguments it has, with the name, kept or not.
    pub fn count(&self) -> u64 {
        self.commands.begun
    }

    /// Whether all of it was kept.
    pub fn whole(&self) -> bool {
        self.count() == self.args().len() as u64 && self.args().all(|arg| arg.whole())
    }

    /// Whether it came as a line of words. It is sent on in the other form, so that the server reads what we read.
    pub fn inline(&self) -> bool {
        self.commands.inline
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;

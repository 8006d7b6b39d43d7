//! Slices in, events out, one at a time.
//!
//! Whatever the input is, what comes out is a prefix of whole slices, and then the name of the
//! fault: the body of a slice is read, its chain link checked, its content unpacked once to see
//! that it is sound, before its first event is given out. Memory is bounded by the largest body
//! (stored, 64 MiB) and a window, whatever a header claims and however well the content packs.

pub(crate) mod parts;
pub(crate) mod records;

use std::io::{self, Read, Seek};

use shared_events::{AuditEvent, EventError};
use shared_types::SessionId;

use crate::chain::{ChainFault, ChainState, ChainStatus, Hash, Header};
use crate::gzip::GzipFault;
use crate::seal::Seal;
use parts::Parts;
use records::Records;

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Reading failed.
    #[error("read recording")]
    Read(#[source] io::Error),
    /// A version that does not exist.
    #[error("unsupported protocol version {0}")]
    Version(u64),
    /// An archive of the time before the container.
    #[error(
        "to review events in format of Teleport before version 4.4, extract the tarball and look inside"
    )]
    OldArchive,
    /// The file ends within a header.
    #[error("recording is cut off within a part header")]
    ShortHeader,
    /// The file ends within a body.
    #[error("recording is cut off: part has {found} of {expected} bytes")]
    ShortBody {
        /// Bytes the header says.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The file ends within padding.
    #[error("data truncated, expected to read {expected} bytes, but got {found}")]
    ShortPadding {
        /// Bytes the header says.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A header that nobody writes.
    #[error("part of {0} bytes is larger than any that is written")]
    Large(u64),
    /// Flags that do not exist.
    #[error("part has unknown flags")]
    Flags,
    /// An encrypted part.
    #[error("reading encrypted protos without decrypter")]
    Encrypted,
    /// The content does not unpack.
    #[error("{0}")]
    Content(#[from] GzipFault),
    /// The content is larger than any that is written.
    #[error("content of the part unpacks to more than is allowed")]
    Bomb,
    /// A record of no length, or longer than any.
    #[error("unexpected message size {0}")]
    RecordSize(u32),
    /// The content ends within a record.
    #[error("content of the part ends within a record")]
    ShortRecord,
    /// A record that is no event.
    #[error("record is no event")]
    Event(#[source] EventError),
    /// The chain is broken.
    #[error("{0}")]
    Chain(#[from] ChainFault),
    /// Padding that is not zero, in a chained recording.
    #[error("padding is not zero")]
    Padding,
}

/// A fault and where it is.
#[derive(Debug, thiserror::Error)]
#[error("recording part {slice} at byte {offset}")]
pub struct DecodeError {
    /// Where the part begins.
    pub offset: u64,
    /// Which part it is, from 0; empty ones do not count.
    pub slice: u64,
    /// What is wrong.
    #[source]
    pub what: Fault,
}

/// A place between two slices, to come back to.
#[derive(Clone, Debug)]
pub struct Mark {
    offset: u64,
    slice: u64,
    last_index: i64,
    chain: ChainState,
}

/// Reads a recording.
pub struct Decoder<R> {
    parts: Parts<R>,
    place: Mark,
    records: Records,
    failed: Option<(u64, Option<String>)>,
    finished: bool,
    skipped: u64,
}

impl<R: Read> Decoder<R> {
    /// Reads a recording from its start.
    pub fn new(source: R) -> Self {
        Self::with_chain(source, ChainState::default())
    }

    /// Reads a recording that must be that of `session`, as far as it has a chain.
    pub fn of_session(source: R, session: SessionId) -> Self {
        Self::with_chain(source, ChainState::of_session(session))
    }

    fn with_chain(source: R, chain: ChainState) -> Self {
        Self {
            parts: Parts::new(source),
            place: Mark { offset: 0, slice: 0, last_index: -1, chain },
            records: Records::new(),
            failed: None,
            finished: false,
            skipped: 0,
        }
    }

    /// The next event; nothing at the end, and nothing after an error.
    pub fn next_event(&mut self) -> Result<Option<AuditEvent>, DecodeError> {
        if self.failed.is_some() {
            return Ok(None);
        }
        self.advance().map_err(|failure| self.fail(failure))
    }

    /// Reads and checks the next part, and passes over its events. False at the end, and after an error.
    pub fn next_slice(&mut self) -> Result<bool, DecodeError> {
        if self.failed.is_some() {
            return Ok(false);
        }
        self.records.clear();
        let started = Some((self.place.offset, self.place.slice));
        match self.read_slice() {
            Ok(more) => {
                self.finished |= !more;
                Ok(more)
            }
            Err(what) => Err(self.fail(Failure { started, what })),
        }
    }

    fn fail(&mut self, Failure { started, what }: Failure) -> DecodeError {
        let torn = matches!(
            what,
            Fault::ShortHeader
                | Fault::ShortBody { .. }
                | Fault::ShortPadding { .. }
                | Fault::Read(_)
        );
        // Within a slice, the place is already behind it.
        let (offset, slice) = started.unwrap_or((self.place.offset, self.place.slice));
        self.failed = Some((slice, (!torn).then(|| what.to_string())));
        DecodeError { offset, slice, what }
    }

    fn advance(&mut self) -> Result<Option<AuditEvent>, Failure> {
        loop {
            match self.records.next(self.parts.body()) {
                Err(what) => {
                    let slice = self.place.slice.saturating_sub(1);
                    return Err(Failure { started: Some((self.records.offset, slice)), what });
                }
                Ok(Some(event)) => {
                    let index = event.metadata().index;
                    // A resumed upload repeats events.
                    if index > self.place.last_index {
                        self.place.last_index = index;
                        return Ok(Some(event));
                    }
                    self.skipped += 1;
                }
                Ok(None) => {
                    let started = Some((self.place.offset, self.place.slice));
                    let more = self.read_slice();
                    if !more.map_err(|what| Failure { started, what })? {
                        self.finished = true;
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Reads and checks the next part. False at a clean end.
    fn read_slice(&mut self) -> Result<bool, Fault> {
        if !self.parts.next()? {
            return Ok(false);
        }
        let filled = !self.parts.body().is_empty();
        if filled {
            if let Err(fault) = self.check() {
                self.records.clear();
                return Err(fault);
            }
            self.records.offset = self.place.offset;
        } else if self.place.chain.closed() {
            return Err(ChainFault::BehindEnd.into());
        }
        if !self.parts.zero() && self.place.chain.ended().is_some() {
            self.records.clear();
            return Err(Fault::Padding);
        }
        self.place.offset = self.parts.end();
        self.place.slice += u64::from(filled);
        Ok(true)
    }

    /// Checks the content and the chain of the body, and makes its records ready.
    fn check(&mut self) -> Result<(), Fault> {
        let body = self.parts.body();
        if Seal::is_meant(body) {
            return Ok(self.place.chain.accept_seal(body)?);
        }
        let end = self.records.open(body)?;
        let (content, rest) = body.split_at_checked(end).ok_or(GzipFault::Short)?;
        Ok(self.place.chain.accept(self.parts.header(), content, rest)?)
    }

    /// How far the chain holds, as far as the recording was read.
    #[must_use]
    pub fn chain_status(&self) -> ChainStatus {
        match (self.place.chain.ended(), &self.failed) {
            (Some(_), Some((slice, Some(why)))) => {
                ChainStatus::Broken { slice: *slice, why: why.clone() }
            }
            (Some(true), None) if self.finished => ChainStatus::Intact,
            (Some(_), _) => ChainStatus::MissingEnd,
            (None, _) => ChainStatus::Unsigned,
        }
    }

    /// What the recording says it is, once its first slice was read.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.place.chain.origin()
    }

    /// Number of chained slices and the chain's head, so far.
    #[must_use]
    pub fn head(&self) -> Option<(u64, Hash)> {
        self.place.chain.head()
    }

    /// Whether reading ended with an error.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Events that were left out because they repeated earlier ones.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The place, if it is between two slices.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        (self.records.is_empty() && self.failed.is_none()).then(|| self.place.clone())
    }
}

impl<R: Read + Seek> Decoder<R> {
    /// Goes back, or forward, to a place of the same recording.
    pub fn seek(&mut self, mark: &Mark) -> Result<(), DecodeError> {
        self.records.clear();
        self.failed = None;
        self.finished = false;
        self.place = mark.clone();
        self.parts.seek(mark.offset).map_err(|error| DecodeError {
            offset: mark.offset,
            slice: mark.slice,
            what: Fault::Read(error),
        })
    }
}

impl<R: Read> Iterator for Decoder<R> {
    type Item = Result<AuditEvent, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_event().transpose()
    }
}

struct Failure {
    started: Option<(u64, u64)>,
    what: Fault,
}

#[cfg(test)]
mod tests;

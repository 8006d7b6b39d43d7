//! Slices in, events out, one at a time.
//!
//! Whatever the input is, what comes out is a prefix of whole slices, and then the name of the
//! fault: the body of a slice is read, its chain link checked, its content unpacked once to see
//! that it is sound, before its first event is given out. Memory is bounded by the largest body
//! (stored, 64 MiB) and a window, whatever a header claims and however well the content packs.

mod records;

use std::io::{self, Read, Seek, SeekFrom};

use shared_events::{AuditEvent, EventError};
use shared_types::SessionId;

use crate::chain::{ChainFault, ChainState, ChainStatus, Hash, Header};
use crate::format::{self, HEADER, HEADER_V2, MAX_BODY};
use crate::gzip::GzipFault;
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
    source: R,
    place: Mark,
    body: Vec<u8>,
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
            source,
            place: Mark { offset: 0, slice: 0, last_index: -1, chain },
            body: Vec::new(),
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
        let (offset, slice) = (self.place.offset, self.place.slice);
        match self.advance() {
            Ok(event) => Ok(event),
            Err(Failure { started, what }) => {
                let torn = matches!(
                    what,
                    Fault::ShortHeader
                        | Fault::ShortBody { .. }
                        | Fault::ShortPadding { .. }
                        | Fault::Read(_)
                );
                // Within a slice, the place is already behind it.
                let (offset, slice) = started.unwrap_or((offset, slice));
                self.failed = Some((slice, (!torn).then(|| what.to_string())));
                Err(DecodeError { offset, slice, what })
            }
        }
    }

    fn advance(&mut self) -> Result<Option<AuditEvent>, Failure> {
        loop {
            match self.records.next(&self.body) {
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
                    let more = self.next_slice();
                    if !more.map_err(|what| Failure { started, what })? {
                        self.finished = true;
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Reads and checks the next part. False at a clean end.
    fn next_slice(&mut self) -> Result<bool, Fault> {
        let mut header = [0; HEADER_V2];
        let len = match self.read_header(&mut header)? {
            None => return Ok(false),
            Some(len) => len,
        };
        let header = header.get(..len).unwrap_or_default();
        let (body, padding) = (number(header, 8), number(header, 16));
        if body > MAX_BODY {
            return Err(Fault::Large(body));
        }
        self.body.clear();
        // Grows with what is there, not with what the header says.
        (&mut self.source).take(body).read_to_end(&mut self.body).map_err(Fault::Read)?;
        let found = self.body.len() as u64;
        if found < body {
            return Err(Fault::ShortBody { expected: body, found });
        }
        let (found, zero) = self.skip_padding(padding)?;
        if found < padding {
            return Err(Fault::ShortPadding { expected: padding, found });
        }
        if body > 0 {
            self.check(header)?;
            self.records.offset = self.place.offset;
        } else if self.place.chain.ended() == Some(true) {
            return Err(ChainFault::BehindEnd.into());
        }
        if !zero && self.place.chain.ended().is_some() {
            self.records.clear();
            return Err(Fault::Padding);
        }
        self.place.offset += header.len() as u64 + body + padding;
        self.place.slice += u64::from(body > 0);
        Ok(true)
    }

    /// Checks the content and the chain of the body, and makes its records ready.
    fn check(&mut self, header: &[u8]) -> Result<(), Fault> {
        let end = match self.records.open(&self.body) {
            Ok(end) => end,
            Err(what) => {
                self.records.clear();
                return Err(what);
            }
        };
        let (content, rest) = self.body.split_at_checked(end).ok_or(GzipFault::Short)?;
        if let Err(fault) = self.place.chain.accept(header, content, rest) {
            self.records.clear();
            return Err(fault.into());
        }
        Ok(())
    }

    fn read_header(&mut self, header: &mut [u8; HEADER_V2]) -> Result<Option<usize>, Fault> {
        let (first, rest) = header.split_at_mut(8);
        match fill(&mut self.source, first)? {
            0 => return Ok(None),
            8 => {}
            _ => return Err(Fault::ShortHeader),
        }
        let version = number(first, 0);
        let len = match version {
            format::VERSION => HEADER,
            format::VERSION_FLAGS => HEADER_V2,
            // A tar header begins with a file name.
            _ if self.place.offset == 0 && first.iter().all(u8::is_ascii_graphic) => {
                return Err(Fault::OldArchive);
            }
            _ => return Err(Fault::Version(version)),
        };
        let rest = rest.get_mut(..len - 8).unwrap_or_default();
        if fill(&mut self.source, rest)? < rest.len() {
            return Err(Fault::ShortHeader);
        }
        match rest.get(16..) {
            Some([flags, ..]) if flags & format::FLAG_ENCRYPTED != 0 => Err(Fault::Encrypted),
            Some([flags, reserved @ ..]) if *flags != 0 || reserved.iter().any(|b| *b != 0) => {
                Err(Fault::Flags)
            }
            _ => Ok(Some(len)),
        }
    }

    /// Reads over padding; says how much there was, and whether it was zero.
    fn skip_padding(&mut self, padding: u64) -> Result<(u64, bool), Fault> {
        let (mut found, mut zero) = (0, true);
        let mut chunk = [0; 4096];
        while found < padding {
            let want = usize::try_from(padding - found).unwrap_or(usize::MAX).min(chunk.len());
            let part = chunk.get_mut(..want).unwrap_or_default();
            let got = fill(&mut self.source, part)?;
            zero &= part.iter().take(got).all(|byte| *byte == 0);
            found += got as u64;
            if got < want {
                break;
            }
        }
        Ok((found, zero))
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
        self.source.seek(SeekFrom::Start(mark.offset)).map(drop).map_err(|error| DecodeError {
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

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// Reads until the buffer is full or the source at its end.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Fault> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::Read(error)),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;

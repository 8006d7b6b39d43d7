//! Gzip members (RFC 1952), as far as recordings need them: written without name or time, read with
//! whatever a header may hold, unpacked with one window whatever the content's size.

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};
use std::sync::{Mutex, PoisonError};

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
const FLAGS: u8 = 31;
/// Compressed with speed in mind; system unknown.
const FASTEST_UNKNOWN: [u8; 2] = [4, 255];
/// An empty last block of fixed codes.
const EMPTY_BLOCK: [u8; 2] = [3, 0];

/// What is wrong with a gzip member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GzipFault {
    /// No gzip header where one should be.
    #[error("no gzip header")]
    Header,
    /// The member goes on behind the end of the body.
    #[error("compressed data ends early")]
    Short,
    /// The deflate stream is malformed.
    #[error("compressed data is malformed")]
    Deflate,
    /// Checksum or length of the content differ.
    #[error("checksum of the content differs")]
    Checksum,
}

/// Length of the header at the start of `bytes`, and its extra field.
pub(crate) fn header(bytes: &[u8]) -> Result<(usize, Option<&[u8]>), GzipFault> {
    let fixed = bytes.get(..10).ok_or(GzipFault::Header)?;
    let flags = fixed.get(3).copied().unwrap_or(0xff);
    if !fixed.starts_with(&MAGIC) || flags & !FLAGS != 0 {
        return Err(GzipFault::Header);
    }
    let mut at = 10;
    let mut extra = None;
    if flags & FLAG_EXTRA != 0 {
        let len = bytes.get(at..at + 2).ok_or(GzipFault::Short)?;
        let len = usize::from(u16::from_le_bytes(len.try_into().map_err(|_| GzipFault::Short)?));
        extra = Some(bytes.get(at + 2..at + 2 + len).ok_or(GzipFault::Short)?);
        at += 2 + len;
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            let rest = bytes.get(at..).ok_or(GzipFault::Short)?;
            at += rest.iter().position(|byte| *byte == 0).ok_or(GzipFault::Short)? + 1;
        }
    }
    if flags & FLAG_HEADER_CRC != 0 {
        let mut crc = Crc::new();
        crc.update(bytes.get(..at).ok_or(GzipFault::Short)?);
        let stored = bytes.get(at..at + 2).ok_or(GzipFault::Short)?;
        if stored != crc.sum().to_le_bytes().get(..2).unwrap_or_default() {
            return Err(GzipFault::Checksum);
        }
        at += 2;
    }
    Ok((at, extra))
}

/// An empty member with an extra field of at most 65,535 bytes.
pub(crate) fn empty_member(extra: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    out.push(FLAG_EXTRA);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&FASTEST_UNKNOWN);
    let len = u16::try_from(extra.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(extra.get(..usize::from(len)).unwrap_or_default());
    out.extend_from_slice(&EMPTY_BLOCK);
    out.extend_from_slice(&[0; 8]);
}

/// Length of [`empty_member`].
pub(crate) fn empty_member_len(extra: usize) -> usize {
    10 + 2 + extra + EMPTY_BLOCK.len() + 8
}

/// The member that [`empty_member`] wrote at the start of `bytes`, if it is whole.
pub(crate) fn empty_member_at(bytes: &[u8]) -> Option<&[u8]> {
    let (header, _) = header(bytes).ok()?;
    bytes.get(..header + EMPTY_BLOCK.len() + 8)
}

/// A compressor and its output, used again: making one costs more than a small slice.
pub(crate) struct Compressor {
    deflate: Compress,
    pub(crate) out: Vec<u8>,
}

static POOL: Mutex<Vec<Compressor>> = Mutex::new(Vec::new());
/// Kept compressors, of about 300 KiB each. A session holds none between slices.
const POOLED: usize = 16;

impl Compressor {
    /// Runs `work` with a compressor whose output is empty.
    pub(crate) fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        let pooled = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut compressor = pooled.unwrap_or_else(|| Self {
            deflate: Compress::new(Compression::fast(), false),
            out: Vec::new(),
        });
        compressor.out.clear();
        let result = work(&mut compressor);
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < POOLED {
            pool.push(compressor);
        }
        result
    }

    /// Appends `content` as one member.
    pub(crate) fn member(&mut self, content: &[u8]) {
        self.out.extend_from_slice(&MAGIC);
        self.out.extend_from_slice(&[0; 5]);
        self.out.extend_from_slice(&FASTEST_UNKNOWN);
        self.deflate.reset();
        loop {
            let done = usize::try_from(self.deflate.total_in()).unwrap_or(usize::MAX);
            let rest = content.get(done..).unwrap_or_default();
            self.out.reserve(rest.len() / 2 + 256);
            // The only error is a stream used after its end, and it was just reset.
            match self.deflate.compress_vec(rest, &mut self.out, FlushCompress::Finish) {
                Ok(Status::Ok | Status::BufError) => {}
                Ok(Status::StreamEnd) | Err(_) => break,
            }
        }
        let mut crc = Crc::new();
        crc.update(content);
        self.out.extend_from_slice(&crc.sum().to_le_bytes());
        self.out.extend_from_slice(&crc.amount().to_le_bytes());
    }
}

/// Unpacks the members at the start of a body, one after the other, up to one with an extra field,
/// which is a chain link, or to bytes that are no member.
pub(crate) struct Unpacker {
    inflate: Decompress,
    crc: Crc,
    at: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// At the start of the body.
    Start,
    /// In a member's data.
    Data,
    /// Behind the last member.
    Done,
}

impl Unpacker {
    pub(crate) fn new() -> Self {
        Self { inflate: Decompress::new(false), crc: Crc::new(), at: 0, state: State::Start }
    }

    /// Ready for another body.
    pub(crate) fn reset(&mut self) {
        self.at = 0;
        self.state = State::Start;
    }

    /// How far into the body the unpacking came.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Unpacks into `out`; 0 says that the content is at its end.
    pub(crate) fn read(&mut self, body: &[u8], out: &mut [u8]) -> Result<usize, GzipFault> {
        loop {
            match self.state {
                State::Done => return Ok(0),
                State::Start => {
                    let (len, _) = header(body)?;
                    self.begin(len);
                }
                State::Data => {
                    let rest = body.get(self.at..).ok_or(GzipFault::Short)?;
                    let (before_in, before_out) =
                        (self.inflate.total_in(), self.inflate.total_out());
                    let status = self
                        .inflate
                        .decompress(rest, out, FlushDecompress::None)
                        .map_err(|_| GzipFault::Deflate)?;
                    let used = self.inflate.total_in() - before_in;
                    self.at += usize::try_from(used).map_err(|_| GzipFault::Deflate)?;
                    let made = usize::try_from(self.inflate.total_out() - before_out)
                        .map_err(|_| GzipFault::Deflate)?;
                    self.crc.update(out.get(..made).ok_or(GzipFault::Deflate)?);
                    if status == Status::StreamEnd {
                        self.end(body)?;
                    } else if made == 0 && used == 0 {
                        return Err(GzipFault::Short);
                    }
                    if made > 0 {
                        return Ok(made);
                    }
                }
            }
        }
    }

    fn begin(&mut self, header: usize) {
        self.at += header;
        self.inflate.reset(false);
        self.crc.reset();
        self.state = State::Data;
    }

    /// Checks the trailer; looks at what follows.
    fn end(&mut self, body: &[u8]) -> Result<(), GzipFault> {
        let trailer = body.get(self.at..self.at + 8).ok_or(GzipFault::Short)?;
        let (crc, amount) = trailer.split_at(4);
        if crc != self.crc.sum().to_le_bytes() || amount != self.crc.amount().to_le_bytes() {
            return Err(GzipFault::Checksum);
        }
        self.at += 8;
        let rest = body.get(self.at..).unwrap_or_default();
        match header(rest) {
            Ok((len, None)) => self.begin(len),
            _ => self.state = State::Done,
        }
        Ok(())
    }
}

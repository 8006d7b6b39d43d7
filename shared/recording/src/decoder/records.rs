//! The records of one body.

use shared_events::AuditEvent;

use super::Fault;
use crate::format::{MAX_CONTENT, MAX_RECORD};
use crate::gzip::Unpacker;

/// Content up to this size is unpacked once and kept; larger content is unpacked a second time,
/// piece by piece.
const KEEP: usize = 1024 * 1024;
const CHUNK: usize = 64 * 1024;

pub(crate) struct Records {
    /// Where the part begins that the records are of.
    pub(crate) offset: u64,
    unpacker: Unpacker,
    chunk: Vec<u8>,
    window: Vec<u8>,
    at: usize,
    /// Whether the window is only the beginning.
    more: bool,
}

impl Records {
    pub(crate) fn new() -> Self {
        Self {
            offset: 0,
            unpacker: Unpacker::new(),
            chunk: Vec::new(),
            window: Vec::new(),
            at: 0,
            more: false,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.window.clear();
        self.at = 0;
        self.more = false;
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.more && self.at >= self.window.len()
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.window.capacity() + self.chunk.capacity()
    }

    /// Unpacks a body to see that it is sound and its records are whole. Says where its content
    /// ends in the body.
    pub(crate) fn open(&mut self, body: &[u8]) -> Result<usize, Fault> {
        self.clear();
        self.unpacker.reset();
        self.chunk.resize(CHUNK, 0);
        let mut framing = Framing::default();
        let (mut total, mut kept) = (0_u64, true);
        loop {
            let len = self.unpacker.read(body, &mut self.chunk)?;
            let piece = self.chunk.get(..len).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            total += len as u64;
            if total > MAX_CONTENT {
                return Err(Fault::Bomb);
            }
            framing.take(piece)?;
            kept &= self.window.len() + len <= KEEP;
            if kept {
                self.window.extend_from_slice(piece);
            }
        }
        framing.end()?;
        let end = self.unpacker.position();
        if !kept {
            self.window.clear();
            self.unpacker.reset();
            self.more = true;
        }
        Ok(end)
    }

    /// The next event of the body that was opened.
    pub(crate) fn next(&mut self, body: &[u8]) -> Result<Option<AuditEvent>, Fault> {
        if self.is_empty() || !self.need(body, 4)? {
            return Ok(None);
        }
        let prefix = self.window.get(self.at..self.at + 4).and_then(|bytes| bytes.try_into().ok());
        let len = u32::from_be_bytes(prefix.ok_or(Fault::ShortRecord)?) as usize;
        if !self.need(body, 4 + len)? {
            return Err(Fault::ShortRecord);
        }
        let start = self.at + 4;
        let record = self.window.get(start..start + len).ok_or(Fault::ShortRecord)?;
        let event = AuditEvent::decode_one_of(record).map_err(Fault::Event)?;
        self.at = start + len;
        if self.is_empty() {
            self.clear();
        }
        Ok(Some(event))
    }

    /// Sees that `len` bytes are in the window.
    fn need(&mut self, body: &[u8], len: usize) -> Result<bool, Fault> {
        while self.window.len() < self.at + len {
            if !self.more {
                return Ok(false);
            }
            self.window.drain(..self.at);
            self.at = 0;
            let read = self.unpacker.read(body, &mut self.chunk)?;
            self.window.extend_from_slice(self.chunk.get(..read).unwrap_or_default());
            self.more = read > 0;
        }
        Ok(true)
    }
}

/// Follows record lengths through content that comes in pieces.
#[derive(Default)]
struct Framing {
    prefix: [u8; 4],
    have: usize,
    left: usize,
}

impl Framing {
    fn take(&mut self, mut piece: &[u8]) -> Result<(), Fault> {
        while !piece.is_empty() {
            if self.left > 0 {
                let skip = self.left.min(piece.len());
                self.left -= skip;
                piece = piece.get(skip..).unwrap_or_default();
                continue;
            }
            let Some((byte, rest)) = piece.split_first() else { break };
            if let Some(place) = self.prefix.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            piece = rest;
            if self.have == 4 {
                let size = u32::from_be_bytes(self.prefix);
                self.have = 0;
                self.left = size as usize;
                if self.left == 0 || self.left > MAX_RECORD {
                    return Err(Fault::RecordSize(size));
                }
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Fault> {
        if self.have == 0 && self.left == 0 { Ok(()) } else { Err(Fault::ShortRecord) }
    }
}

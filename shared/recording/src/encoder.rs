//! Events in, slices out. A slice is one part of the container: header, records in one gzip member,
//! and the link to the slice before it.
//!
//! Records gather uncompressed and are compressed when the slice is cut, with a compressor from a
//! pool: an idle session costs the records of at most a second, and no compressor.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use shared_events::AuditEvent;

use crate::chain::{Hash, Header, Link};
use crate::checkpoint::{Draft, Signer, Signing};
use crate::format::{self, MAX_RECORD};
use crate::gzip::Compressor;

/// When a slice is cut by size. By time, the caller cuts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records gathered before a slice is cut, in bytes.
    pub raw: usize,
}

impl Default for Limits {
    /// 128 KiB: what may be lost when the recorder is killed.
    fn default() -> Self {
        Self { raw: 128 * 1024 }
    }
}

/// A finished slice.
#[derive(Clone, Debug)]
pub struct Slice {
    /// A complete part of the container.
    pub bytes: Bytes,
    /// Index of its last event; −1 when there was none so far.
    pub last_index: i64,
    /// Its number, from 0.
    pub seq: u64,
    /// Whether the recording ends with it.
    pub end: bool,
    /// The chain's head with it.
    pub head: Hash,
}

/// An event that cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It does not fit a record, even with its texts cut.
    #[error("record size {0} exceeds max message size of 65536 bytes")]
    TooLarge(usize),
    /// It came after the end.
    #[error("recording is at its end")]
    Ended,
}

/// Makes a recording of prepared, numbered events.
#[derive(Debug)]
pub struct Encoder {
    header: Header,
    limits: Limits,
    raw: Vec<u8>,
    last_index: i64,
    seq: u64,
    origin: Hash,
    head: Hash,
    ended: bool,
    signing: Signing,
}

impl Encoder {
    /// Begins a recording.
    #[must_use]
    pub fn new(header: Header, limits: Limits) -> Self {
        let origin = header.origin();
        Self {
            header,
            limits,
            raw: Vec::new(),
            last_index: -1,
            seq: 0,
            origin,
            head: origin,
            ended: false,
            signing: Signing::default(),
        }
    }

    /// Signs each slice from here on, as long as the signer has a key.
    #[must_use]
    pub fn signed(mut self, signer: Arc<Signer>) -> Self {
        self.signing = Signing::with(signer);
        self
    }

    /// Bytes of records that are in no slice yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.raw.len()
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.raw.capacity()
    }

    /// Takes an event. The slice that comes out, if one does, ends before it.
    ///
    /// Texts of an event that is too large are cut; prints must be at most
    /// [`MAX_PRINT`](crate::format::MAX_PRINT) long.
    pub fn push(&mut self, event: &AuditEvent) -> Result<Option<Slice>, EncodeError> {
        if self.ended {
            return Err(EncodeError::Ended);
        }
        if event.inner_len() <= shared_events::MAX_RECORD {
            return Ok(self.append(event));
        }
        let mut shorter = event.clone();
        if !shorter.trim() {
            return Err(EncodeError::TooLarge(event.inner_len()));
        }
        Ok(self.append(&shorter))
    }

    fn append(&mut self, event: &AuditEvent) -> Option<Slice> {
        let len = event.one_of_len().min(MAX_RECORD);
        let slice = if self.raw.len() + 4 + len > self.limits.raw { self.flush() } else { None };
        if len > 0 {
            self.raw.extend_from_slice(&u32::try_from(len).unwrap_or(0).to_be_bytes());
            event.encode_one_of_into(&mut self.raw);
            self.last_index = self.last_index.max(event.metadata().index);
        }
        slice
    }

    /// Cuts a slice, if there is anything in it.
    pub fn flush(&mut self) -> Option<Slice> {
        (!self.raw.is_empty()).then(|| self.seal(false))
    }

    /// Ends the recording. Its last slice may hold no event; it marks the end.
    pub fn finish(&mut self) -> Option<Slice> {
        if self.ended {
            return None;
        }
        self.ended = true;
        Some(self.seal(true))
    }

    fn seal(&mut self, end: bool) -> Slice {
        let draft = self.signing.draft();
        let (bytes, head, signed) = Compressor::with(|compressor| {
            compressor.out.extend_from_slice(&[0; format::HEADER]);
            compressor.member(&self.raw);
            // A key that does not sign leaves a slice without a checkpoint, which has another header.
            let signed = draft.as_ref().and_then(|draft| {
                let mut link = self.link(&mut compressor.out, end, Some(draft));
                link.checkpoint = Some(draft.sign(&self.origin, &link)?);
                Some(link)
            });
            let is_signed = signed.is_some();
            let link = signed.unwrap_or_else(|| self.link(&mut compressor.out, end, None));
            link.encode(&mut compressor.out);
            (Bytes::copy_from_slice(&compressor.out), link.head(), is_signed)
        });
        if let Some(draft) = draft.filter(|_| signed) {
            self.signing.written(draft);
        }
        let slice = Slice { bytes, last_index: self.last_index, seq: self.seq, end, head };
        self.seq += 1;
        self.head = head;
        // A session that had a burst does not keep its buffer while it idles.
        if self.raw.capacity() > 16 * 1024 && self.raw.len() < self.raw.capacity() / 4 {
            self.raw = Vec::new();
        }
        self.raw.clear();
        slice
    }

    /// Writes the part header in front of the content, and makes the link behind it, which will have this checkpoint.
    fn link(&self, part: &mut [u8], end: bool, checkpoint: Option<&Draft>) -> Link {
        let origin = (self.seq == 0).then(|| self.header.clone());
        let link = Link::encoded_len(origin.as_ref(), checkpoint.map(Draft::encoded_len));
        let header = format::header((part.len() - format::HEADER + link) as u64);
        if let Some(place) = part.get_mut(..format::HEADER) {
            place.copy_from_slice(&header);
        }
        let slice = Sha256::digest(part).into();
        Link { seq: self.seq, end, previous: self.head, slice, origin, checkpoint: None }
    }
}

//! What is kept of messages that are longer than a chunk, or than anybody wants to keep.

use std::borrow::Cow;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// A text that a client sent; only its beginning when it was long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// The bytes, or the first of them.
    pub bytes: &'a [u8],
    /// Bytes in all.
    pub size: u64,
    /// SHA-256 of the whole, when it is not whole here.
    pub cut: Option<[u8; 32]>,
}

impl<'a> Text<'a> {
    /// As text. Bytes that are not UTF-8 appear as `\xNN`, so that none is lost.
    pub fn to_text(self) -> Cow<'a, str> {
        match std::str::from_utf8(self.bytes) {
            Ok(text) => Cow::Borrowed(text),
            // The cut went through a character.
            Err(error) if self.cut.is_some() && error.error_len().is_none() => {
                String::from_utf8_lossy(self.bytes.get(..error.valid_up_to()).unwrap_or_default())
            }
            Err(_) => Cow::Owned(escaped(self.bytes)),
        }
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Collects a message that comes in pieces; its memory has a limit.
#[derive(Debug, Default)]
pub(super) struct Capture {
    kept: Vec<u8>,
    keep: usize,
    size: u64,
    hashes: bool,
    hash: Option<Sha256>,
}

impl Capture {
    /// Begins with a new message, of which `keep` bytes are kept; `hashes`: the rest counts for a hash.
    pub(super) fn begin(&mut self, keep: usize, hashes: bool) {
        // What a long message needed is not held for the short ones after it.
        self.kept = Vec::new();
        self.keep = keep;
        self.size = 0;
        self.hashes = hashes;
        self.hash = None;
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        let room = self.keep - self.kept.len();
        let (kept, beyond) = data.split_at(room.min(data.len()));
        self.kept.extend_from_slice(kept);
        self.size += data.len() as u64;
        if beyond.is_empty() || !self.hashes {
            return;
        }
        self.hash.get_or_insert_with(|| Sha256::new_with_prefix(&self.kept)).update(beyond);
    }

    pub(super) fn text(&self) -> Text<'_> {
        let cut = self.hash.as_ref().map(|hash| hash.clone().finalize().into());
        Text { bytes: &self.kept, size: self.size, cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_hash() {
        let mut capture = Capture::default();
        capture.begin(5, true);
        for piece in ["grü", "ß", "e an alle"] {
            capture.push(piece.as_bytes());
        }
        let text = capture.text();
        assert_eq!(text.to_text(), "grü");
        assert_eq!((text.size, text.bytes.len()), (15, 5));
        assert_eq!(text.cut, Some(Sha256::digest("grüße an alle").into()));
    }

    #[test]
    fn bytes_that_are_no_text_are_shown() {
        let text = Text { bytes: b"select '\xe4\xff'", size: 11, cut: None };
        assert_eq!(text.to_text(), r"select '\xe4\xff'");
    }
}

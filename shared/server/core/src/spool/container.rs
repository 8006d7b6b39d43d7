//! The container of recordings as far as the spool needs it: where its parts begin and end.
//!
//! A part is a header (version, body size, padding size; 24 bytes, 32 from version 2 on), a gzip body, padding.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

/// Larger parts are not written by anybody; a header that claims one is damage.
const MAX_BODY: u64 = 256 * 1024 * 1024;

/// Length of the part that begins at `offset`, where it is all there.
pub(super) fn part_at(file: &File, offset: u64, len: u64) -> io::Result<Option<Part>> {
    let mut head = [0_u8; 32];
    let room = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX).min(head.len());
    let Some(window) = head.get_mut(..room) else { return Ok(None) };
    file.read_exact_at(window, offset)?;
    let number = |at: usize| {
        let bytes = head.get(at..at + 8)?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    };
    let (header, encrypted) = match number(0) {
        Some(1) if room >= 24 => (24, false),
        Some(2) if room >= 32 => (32, head.get(24).is_some_and(|flags| flags & 1 == 1)),
        _ => return Ok(None),
    };
    let (Some(body), Some(padding)) = (number(8), number(16)) else { return Ok(None) };
    if body > MAX_BODY || padding > MAX_BODY {
        return Ok(None);
    }
    let end = offset + header + body + padding;
    Ok((end <= len).then_some(Part { body: offset + header, body_len: body, end, encrypted }))
}

/// One whole part in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    body: u64,
    body_len: u64,
    /// Where the next one begins.
    pub(super) end: u64,
    encrypted: bool,
}

impl Part {
    /// Neither body nor padding.
    fn holds_nothing(&self) -> bool {
        self.body == self.end
    }

    /// Whether the body unpacks to its end. An encrypted one cannot be looked into.
    fn unpacks(&self, file: &File) -> bool {
        if self.encrypted || self.body_len == 0 {
            return true;
        }
        let body = Window { file, at: self.body, end: self.body + self.body_len };
        io::copy(&mut flate2::read::MultiGzDecoder::new(io::BufReader::new(body)), &mut io::sink())
            .is_ok()
    }
}

struct Window<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room =
            usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buf.len());
        let n = self.file.read_at(buf.get_mut(..room).unwrap_or_default(), self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// How much of a file that was cut off at any point is whole parts.
///
/// Parts are synced one after the other, so only the last can be damaged: a file system may have kept its length and
/// not its bytes. It is unpacked to see; going back further would hide damage of another kind.
pub(super) fn whole(file: &File) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let (mut at, mut before, mut end, mut last) = (0, 0, 0, None);
    while let Some(part) = part_at(file, at, len)? {
        at = part.end;
        // A header of which only the version came to the disk reads as a part that holds nothing.
        if !part.holds_nothing() {
            before = end;
            end = part.end;
            last = Some(part);
        }
    }
    match last {
        Some(part) if !part.unpacks(file) => Ok(before),
        _ => Ok(end),
    }
}

/// Where a piece for the store ends that begins at `offset`: behind whole parts, at least `size` bytes further on, or at
/// the end. What is no part is taken as it is, so that a damaged file arrives as it is.
pub(super) fn cut(file: &File, offset: u64, size: u64, max: u64) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let mut end = offset;
    while end < len && end - offset < size {
        match part_at(file, end, len)? {
            Some(part) if part.end - offset <= max => end = part.end,
            _ => return Ok(len.min(offset + size.max(end - offset))),
        }
    }
    Ok(end.min(len))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;

    use super::*;

    /// A part of version 1 around some bytes.
    pub(crate) fn part(data: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(data).unwrap();
        let body = gzip.finish().unwrap();
        let mut out = Vec::new();
        out.extend(1_u64.to_be_bytes());
        out.extend((body.len() as u64).to_be_bytes());
        out.extend(0_u64.to_be_bytes());
        out.extend(body);
        out
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn every_truncation_leaves_whole_parts() {
        let parts = [part(b"one"), part(&[7; 5000]), part(b"three")];
        let ends: Vec<u64> = parts
            .iter()
            .scan(0, |end, part| {
                *end += part.len() as u64;
                Some(*end)
            })
            .collect();
        let all = parts.concat();
        for at in 0..=all.len() {
            let want = ends.iter().copied().filter(|end| *end <= at as u64).max().unwrap_or(0);
            assert_eq!(whole(&file(&all[..at])).unwrap(), want, "{at}");
            // The length came to the disk, the bytes did not.
            let mut zeros = all[..at].to_vec();
            zeros.resize(all.len(), 0);
            // Bytes that were zero anyway are not missed.
            let same =
                zeros.iter().zip(&all).take_while(|(kept, wanted)| kept == wanted).count() as u64;
            let want = ends.iter().copied().filter(|end| *end <= same).max().unwrap_or(0);
            assert_eq!(whole(&file(&zeros)).unwrap(), want, "{at}, zeros behind");
        }
    }

    #[test]
    fn a_header_of_any_size_is_no_reason_to_allocate() {
        let mut bytes = part(b"one");
        let good = bytes.len() as u64;
        bytes.extend(1_u64.to_be_bytes());
        bytes.extend(u64::MAX.to_be_bytes());
        bytes.extend(u64::MAX.to_be_bytes());
        assert_eq!(whole(&file(&bytes)).unwrap(), good);
    }

    #[test]
    fn pieces_end_behind_parts_and_cover_everything() {
        let parts: Vec<Vec<u8>> = (0..40).map(|n| part(&vec![n; 300 * usize::from(n)])).collect();
        let mut all = parts.concat();
        for tail in [&b""[..], b"damage that is no part"] {
            all.extend(tail);
            let file = file(&all);
            let (mut at, mut pieces) = (0, 0);
            while at < all.len() as u64 {
                let end = cut(&file, at, 200, 100_000).unwrap();
                assert!(end > at);
                at = end;
                pieces += 1;
            }
            assert_eq!(at, all.len() as u64);
            assert!(pieces > 3);
        }
    }
}

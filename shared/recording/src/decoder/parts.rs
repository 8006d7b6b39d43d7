//! The parts of the container, one after the other, without a look into their content.

use std::io::{self, Read, Seek, SeekFrom};

use super::Fault;
use crate::format::{self, HEADER, HEADER_V2, MAX_BODY};

/// Reads parts. Memory is bounded by the largest body, and grows with what is there.
pub(crate) struct Parts<R> {
    source: R,
    /// Where the part in hand begins.
    start: u64,
    /// Where the next one begins, when the one in hand is whole.
    end: u64,
    header: [u8; HEADER_V2],
    header_len: usize,
    body: Vec<u8>,
    zero: bool,
}

impl<R: Read> Parts<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            start: 0,
            end: 0,
            header: [0; HEADER_V2],
            header_len: 0,
            body: Vec::new(),
            zero: true,
        }
    }

    /// Where the part in hand begins.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Where it ends.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Its header, as far as it was read.
    pub(crate) fn header(&self) -> &[u8] {
        self.header.get(..self.header_len).unwrap_or_default()
    }

    /// Its body, as far as it was read.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether its padding is zero, as far as it was read.
    pub(crate) fn zero(&self) -> bool {
        self.zero
    }

    /// Reads the next part. False at a clean end. After a fault, what was read of the part is in hand.
    pub(crate) fn next(&mut self) -> Result<bool, Fault> {
        self.start = self.end;
        self.body.clear();
        self.zero = true;
        if !self.read_header()? {
            return Ok(false);
        }
        let (body, padding) = (number(&self.header, 8), number(&self.header, 16));
        if body > MAX_BODY {
            return Err(Fault::Large(body));
        }
        // Grows with what is there, not with what the header says.
        (&mut self.source).take(body).read_to_end(&mut self.body).map_err(Fault::Read)?;
        let found = self.body.len() as u64;
        if found < body {
            return Err(Fault::ShortBody { expected: body, found });
        }
        let found = self.skip_padding(padding)?;
        if found < padding {
            return Err(Fault::ShortPadding { expected: padding, found });
        }
        self.end = self.start + self.header_len as u64 + body + padding;
        Ok(true)
    }

    fn read_header(&mut self) -> Result<bool, Fault> {
        self.header_len = 0;
        let (first, rest) = self.header.split_at_mut(8);
        match fill(&mut self.source, first)? {
            0 => return Ok(false),
            8 => self.header_len = 8,
            _ => return Err(Fault::ShortHeader),
        }
        let version = number(first, 0);
        let len = match version {
            format::VERSION => HEADER,
            format::VERSION_FLAGS => HEADER_V2,
            // A tar header begins with a file name.
            _ if self.start == 0 && first.iter().all(u8::is_ascii_graphic) => {
                return Err(Fault::OldArchive);
            }
            _ => return Err(Fault::Version(version)),
        };
        let rest = rest.get_mut(..len - 8).unwrap_or_default();
        if fill(&mut self.source, rest)? < rest.len() {
            return Err(Fault::ShortHeader);
        }
        self.header_len = len;
        match rest.get(16..) {
            Some([format::FLAG_ENCRYPTED, reserved @ ..]) if reserved.iter().all(|b| *b == 0) => {
                Err(Fault::Encrypted)
            }
            Some([flags, reserved @ ..]) if *flags != 0 || reserved.iter().any(|b| *b != 0) => {
                Err(Fault::Flags)
            }
            _ => Ok(true),
        }
    }

    /// Reads over padding; says how much there was.
    fn skip_padding(&mut self, padding: u64) -> Result<u64, Fault> {
        let mut found = 0;
        let mut chunk = [0; 4096];
        while found < padding {
            let want = usize::try_from(padding - found).unwrap_or(usize::MAX).min(chunk.len());
            let part = chunk.get_mut(..want).unwrap_or_default();
            let got = fill(&mut self.source, part)?;
            self.zero &= part.iter().take(got).all(|byte| *byte == 0);
            found += got as u64;
            if got < want {
                break;
            }
        }
        Ok(found)
    }
}

impl<R: Read + Seek> Parts<R> {
    /// Goes to where a part begins.
    pub(crate) fn seek(&mut self, offset: u64) -> io::Result<()> {
        self.source.seek(SeekFrom::Start(offset))?;
        self.end = offset;
        Ok(())
    }
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
mod tests {
    use super::*;
    use crate::format::header;

    #[test]
    fn what_a_header_claims_is_not_allocated() {
        let mut part = header(MAX_BODY).to_vec();
        part.extend([0; 100]);
        let mut parts = Parts::new(&part[..]);
        assert!(matches!(parts.next(), Err(Fault::ShortBody { found: 100, .. })));
        assert!(parts.body.capacity() < 64 * 1024);
        let mut parts = Parts::new(&part[..24]);
        assert!(matches!(parts.next(), Err(Fault::ShortBody { found: 0, .. })));
        let mut padded = header(0).to_vec();
        padded[16..24].fill(0xff);
        let mut parts = Parts::new(&padded[..]);
        assert!(matches!(parts.next(), Err(Fault::ShortPadding { found: 0, .. })));
    }
}

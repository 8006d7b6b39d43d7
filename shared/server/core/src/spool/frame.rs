//! Frames of the event spool: length, CRC-32 of length and bytes, bytes. All numbers big-endian.
//!
//! A crash leaves a prefix of what was written, perhaps with zeros behind it; every frame is checked, so a torn one is
//! never taken for an event.

/// No event is longer: a record is at most 64 KiB, and events that are no records are bounded by the request size.
pub(crate) const MAX_FRAME: usize = 4 * 1024 * 1024;

const TABLE: [u32; 256] = {
    let mut table = [0_u32; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// CRC-32 (ISO 3309), over several pieces.
fn crc(pieces: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for byte in pieces.iter().flat_map(|piece| piece.iter()) {
        let at = usize::from((crc as u8) ^ byte);
        crc = TABLE.get(at).copied().unwrap_or_default() ^ (crc >> 8);
    }
    !crc
}

/// Appends one frame. What is too long is refused.
pub(crate) fn write(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let Some(len) =
        u32::try_from(bytes.len()).ok().filter(|len| (1..=MAX_FRAME as u32).contains(len))
    else {
        return false;
    };
    let len = len.to_be_bytes();
    out.extend_from_slice(&len);
    out.extend_from_slice(&crc(&[&len, bytes]).to_be_bytes());
    out.extend_from_slice(bytes);
    true
}

/// What stands at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read<'a> {
    /// A whole frame, and what is behind it.
    Frame(&'a [u8], &'a [u8]),
    /// The end, or a torn end: nothing whole follows.
    End {
        /// Bytes that are no frame.
        torn: usize,
    },
    /// A frame whose bytes are damaged, with more behind it.
    Damaged(&'a [u8]),
}

/// Reads one frame.
pub(crate) fn read(bytes: &[u8]) -> Read<'_> {
    let end = Read::End { torn: bytes.len() };
    let Some((len, rest)) = bytes.split_first_chunk::<4>() else { return end };
    let Some((sum, rest)) = rest.split_first_chunk::<4>() else { return end };
    let size = u32::from_be_bytes(*len) as usize;
    if size == 0 || size > MAX_FRAME {
        return end;
    }
    match rest.split_at_checked(size) {
        Some((body, rest)) if crc(&[len, body]) == u32::from_be_bytes(*sum) => {
            Read::Frame(body, rest)
        }
        Some((_, [])) | None => end,
        Some((_, rest)) => Read::Damaged(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc(&[b"1234", b"56789"]), 0xcbf4_3926);
    }

    fn all(mut bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let mut found = Vec::new();
        loop {
            match read(bytes) {
                Read::Frame(frame, rest) => {
                    found.push(frame.to_vec());
                    bytes = rest;
                }
                Read::Damaged(rest) => bytes = rest,
                Read::End { torn } => return (found, torn),
            }
        }
    }

    #[test]
    fn every_truncation_gives_a_prefix_and_every_bent_byte_loses_no_other_frame() {
        let frames = [&b"first"[..], b"the second", b"3"];
        let mut bytes = Vec::new();
        for frame in frames {
            assert!(write(&mut bytes, frame));
        }
        assert!(!write(&mut bytes, b""));
        for end in 0..=bytes.len() {
            let (found, torn) = all(&bytes[..end]);
            assert_eq!(found, frames[..found.len()], "{end}");
            assert_eq!(torn + found.iter().map(|frame| frame.len() + 8).sum::<usize>(), end);
            // A file system may have grown the file before the bytes came.
            let mut zeros = bytes[..end].to_vec();
            zeros.extend([0; 40]);
            assert_eq!(all(&zeros).0, found, "{end}");
        }
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            let (found, _) = all(&bent);
            assert!(found.iter().all(|frame| frames.contains(&frame.as_slice())), "{at}");
            assert!(found.len() < 3);
        }
    }
}

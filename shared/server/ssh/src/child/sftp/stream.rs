//! Packets out of a stream of bytes.

use std::io::{Error, ErrorKind, Read, Result};

use super::wire::MAX_PACKET;

/// Bytes of a packet's length.
const HEADER: usize = 4;

/// Room for two packets: one is worked on while the next ones arrive in one read.
const BUFFER: usize = 2 * (HEADER + MAX_PACKET);

/// Reads packets, as many per system call as there are.
pub(super) struct Packets<R> {
    from: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<R: Read> Packets<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, buffer: vec![0; BUFFER].into(), start: 0, end: 0 }
    }

    /// The length of the next packet, if all of it is here.
    fn complete(&self) -> Result<Option<usize>> {
        let here = &self.buffer[self.start..self.end];
        let Some(header) = here.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*header) as usize;
        if !(1..=MAX_PACKET).contains(&length) {
            return Err(Error::new(ErrorKind::InvalidData, format!("packet of {length} bytes")));
        }
        Ok((here.len() - HEADER >= length).then_some(length))
    }

    /// Whether the next packet can be had without waiting.
    pub(super) fn ready(&self) -> bool {
        !matches!(self.complete(), Ok(None))
    }

    /// The next packet; None at the end of the stream.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>> {
        let length = loop {
            if let Some(length) = self.complete()? {
                break length;
            }
            if !self.fill()? {
                return Ok(None);
            }
        };
        let from = self.start + HEADER;
        self.start = from + length;
        Ok(Some(&self.buffer[from..from + length]))
    }

    fn fill(&mut self) -> Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.start < HEADER + MAX_PACKET {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        loop {
            match self.from.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                count => {
                    let count = count?;
                    self.end += count;
                    return Ok(count > 0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what it has in pieces of the given sizes.
    struct Pieces<'a>(&'a [u8], Vec<usize>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            let size = self.1.pop().unwrap_or(7).clamp(1, buffer.len()).min(self.0.len());
            let (now, later) = self.0.split_at(size);
            buffer[..size].copy_from_slice(now);
            self.0 = later;
            Ok(size)
        }
    }

    proptest::proptest! {
        #[test]
        fn packets_come_as_they_were_sent(
            sizes in proptest::collection::vec(1_usize..200_000, 0..20),
            pieces in proptest::collection::vec(1_usize..300_000, 0..100),
        ) {
            let packets: Vec<Vec<u8>> = sizes.iter().map(|&size| vec![size.to_le_bytes()[0]; size]).collect();
            let mut bytes = Vec::new();
            for packet in &packets {
                bytes.extend_from_slice(&u32::try_from(packet.len()).unwrap().to_be_bytes());
                bytes.extend_from_slice(packet);
            }
            let pieces: Vec<usize> = pieces.into_iter().chain([usize::MAX; 40]).collect();
            let mut stream = Packets::new(Pieces(&bytes, pieces));
            for packet in &packets {
                assert!(stream.next().unwrap() == Some(packet.as_slice()));
            }
            assert!(stream.next().unwrap().is_none());
        }
    }

    #[test]
    fn lengths_that_cannot_be_end_it() {
        for bytes in [&[0, 0, 0, 0][..], &[0, 4, 0, 1], &[0xff; 4]] {
            assert!(Packets::new(bytes).next().is_err());
        }
        assert!(Packets::new(&[0, 0, 0, 9, 1][..]).next().unwrap().is_none());
    }
}

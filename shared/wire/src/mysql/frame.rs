//! Packets: three bytes of length, one of sequence, the payload; a payload of 16 MiB − 1 goes on in the next packet
//! ("MySQL Packets").
//!
//! What must stay true: any cut of the bytes gives the same messages, nothing of a payload is copied or kept here, and
//! a length means no memory.

use super::Malformed;

/// The longest payload of one packet. A message whose packet is that long goes on in the next one, even if that is
/// empty.
pub const MAX_PAYLOAD: usize = 0xff_ffff;
/// Bytes before a payload.
pub const HEADER: usize = 4;

/// A part of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// Whether a message begins with it.
    pub(super) first: bool,
    /// Whether a message ends with it.
    pub(super) last: bool,
    /// Sequence number of its packet.
    pub(super) sequence: u8,
    /// Length of the payload of its packet, in bytes.
    pub(super) length: usize,
    /// The bytes; empty only when the packet is.
    pub(super) data: &'a [u8],
}

/// Finds the packets in a stream, and joins those that belong together.
#[derive(Debug, Default)]
pub(super) struct Framer {
    header: [u8; HEADER],
    have: usize,
    left: usize,
    /// The message has begun in an earlier piece.
    inside: bool,
    /// The packet before was full, so this one continues it.
    sequence: Option<u8>,
}

impl Framer {
    /// Whether the bytes so far end with a message.
    pub(super) fn is_settled(&self) -> bool {
        self.have == 0 && !self.inside
    }

    /// The next piece of `input`, which is moved on behind it; none when it is used up.
    ///
    /// # Errors
    /// A packet that continues another has not the number that follows.
    pub(super) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<Piece<'a>>, Malformed> {
        if self.have < HEADER && !self.read_header(input)? {
            return Ok(None);
        }
        let [a, b, c, sequence] = self.header;
        let length = length(a, b, c);
        if self.left > 0 && input.is_empty() {
            return Ok(None);
        }
        let (data, rest) = input.split_at(self.left.min(input.len()));
        *input = rest;
        self.left -= data.len();
        let ends_packet = self.left == 0;
        let last = ends_packet && length < MAX_PAYLOAD;
        let piece = Piece { first: !self.inside, last, sequence, length, data };
        self.inside = !last;
        if ends_packet {
            self.have = 0;
            self.sequence = (!last).then_some(sequence);
        }
        Ok(Some(piece))
    }

    fn read_header(&mut self, input: &mut &[u8]) -> Result<bool, Malformed> {
        let (taken, rest) = input.split_at((HEADER - self.have).min(input.len()));
        if let Some(room) = self.header.get_mut(self.have..self.have + taken.len()) {
            room.copy_from_slice(taken);
        }
        self.have += taken.len();
        *input = rest;
        if self.have < HEADER {
            return Ok(false);
        }
        let [a, b, c, sequence] = self.header;
        if self.sequence.is_some_and(|before| before.wrapping_add(1) != sequence) {
            return Err(Malformed::new(format!(
                "packet {sequence} continues another out of order"
            )));
        }
        self.left = length(a, b, c);
        Ok(true)
    }
}

fn length(a: u8, b: u8, c: u8) -> usize {
    usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16
}

/// Length and sequence number of a packet, of its header.
pub fn read_header(header: [u8; HEADER]) -> (usize, u8) {
    let [a, b, c, sequence] = header;
    (length(a, b, c), sequence)
}

/// Puts a packet around `payload`; as many as it takes, numbered from `sequence` on.
pub fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + HEADER);
    let mut sequence = sequence;
    let mut rest = payload;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD));
        let [a, b, c, ..] = (now.len() as u32).to_le_bytes();
        out.extend_from_slice(&[a, b, c, sequence]);
        out.extend_from_slice(now);
        if now.len() < MAX_PAYLOAD {
            return out;
        }
        rest = later;
        sequence = sequence.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages(framer: &mut Framer, mut chunk: &[u8], into: &mut Vec<(u8, Vec<u8>, bool)>) {
        while let Some(piece) = framer.next(&mut chunk).unwrap() {
            if piece.first {
                into.push((piece.sequence, Vec::new(), false));
            }
            let message = into.last_mut().unwrap();
            assert!(!message.2, "a piece follows the end of its message");
            message.1.extend_from_slice(piece.data);
            message.2 = piece.last;
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_messages(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            cuts in proptest::collection::vec(1usize..9, 1..20),
        ) {
            let bytes: Vec<u8> =
                payloads.iter().enumerate().flat_map(|(at, payload)| packet(at as u8, payload)).collect();
            let mut framer = Framer::default();
            let mut seen = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                messages(&mut framer, now, &mut seen);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let want: Vec<_> = payloads.into_iter().enumerate().map(|(at, it)| (at as u8, it, true)).collect();
            prop_assert_eq!(seen, want);
            prop_assert!(framer.is_settled());
        }
    }

    #[test]
    fn a_full_packet_goes_on_in_the_next_one_even_if_empty() {
        for length in [MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 2 * MAX_PAYLOAD] {
            let payload = vec![7; length];
            let bytes = packet(254, &payload);
            assert_eq!(bytes.len(), length + HEADER * (length / MAX_PAYLOAD + 1));
            let mut framer = Framer::default();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(1 << 20) {
                messages(&mut framer, chunk, &mut seen);
            }
            assert!(framer.is_settled());
            assert_eq!(seen.len(), 1);
            assert_eq!(seen[0].1.len(), length);
        }
    }

    #[test]
    fn a_continuation_out_of_order_is_refused() {
        let mut bytes = packet(0, &vec![0; MAX_PAYLOAD]);
        let at = bytes.len() - 1;
        bytes[at] = 5;
        let mut framer = Framer::default();
        let mut rest = bytes.as_slice();
        let refused = loop {
            match framer.next(&mut rest) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("passed"),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.to_string(), "packet 5 continues another out of order");
    }
}

//! Reads the numbers and strings of payloads ("Integer Types", "String Types"); every read is checked.

/// What is left of a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length-encoded integer.
    pub(super) fn length(&mut self) -> Option<u64> {
        match self.u8()? {
            0xfc => self.u16().map(u64::from),
            0xfd => {
                let [a, b, c] = self.array::<3>()?;
                Some(u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]))
            }
            0xfe => self.u64(),
            0xfb | 0xff => None,
            small => Some(u64::from(small)),
        }
    }

    /// A length-encoded string.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(usize::try_from(length).ok()?)
    }

    /// A string that ends with a zero byte.
    pub(super) fn terminated(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| byte == 0)?;
        let string = self.take(end)?;
        self.u8()?;
        Some(string)
    }
}

/// Writes a length-encoded integer.
pub(super) fn put_length(out: &mut Vec<u8>, length: u64) {
    let bytes = length.to_le_bytes();
    match length {
        0..0xfb => out.extend_from_slice(&bytes[..1]),
        0xfb..0x1_0000 => {
            out.push(0xfc);
            out.extend_from_slice(&bytes[..2]);
        }
        0x1_0000..0x100_0000 => {
            out.push(0xfd);
            out.extend_from_slice(&bytes[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Writes a length-encoded string.
pub(super) fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    put_length(out, string.len() as u64);
    out.extend_from_slice(string);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lengths_come_back(length: u64, shift in 0u32..64) {
            let length = length >> shift;
            let mut out = Vec::new();
            put_length(&mut out, length);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.length(), Some(length));
            prop_assert!(reader.rest().is_empty());
            prop_assert_eq!(Reader::new(&out[..out.len() - 1]).length(), None);
        }
    }

    #[test]
    fn a_string_longer_than_the_payload_is_none() {
        assert!(Reader::new(&[0xfe, 255, 255, 255, 255, 255, 255, 255, 255, 1]).string().is_none());
        assert!(Reader::new(b"abc").terminated().is_none());
    }
}

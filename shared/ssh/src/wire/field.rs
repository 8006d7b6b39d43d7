//! The data types of RFC 4251 §5, read from a slice and written to a vector.

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than a field or a length announces.
    #[error("message is too short")]
    Short,
    /// Bytes behind the last field.
    #[error("{0} spare bytes at the end of the message")]
    Spare(usize),
    /// A boolean that is neither 0 nor 1.
    #[error("boolean is neither 0 nor 1")]
    Boolean,
    /// A text field that is not UTF-8.
    #[error("text is not utf-8")]
    Text,
    /// A message longer than allowed.
    #[error("message of {0} bytes is too long")]
    Long(usize),
    /// A message type that does not belong here.
    #[error("unexpected message type {0}")]
    Type(u8),
    /// A userauth method that no agent signs for.
    #[error("authentication method is not a public key")]
    Method,
    /// A key, certificate or signature that cannot be read.
    #[error("key, certificate or signature cannot be read")]
    Key,
}

/// Reads fields from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    /// `byte`.
    pub fn byte(&mut self) -> Result<u8, WireError> {
        let (head, rest) = self.rest.split_first().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    /// `boolean`, strictly 0 or 1: two spellings of one request would be one too many.
    pub fn boolean(&mut self) -> Result<bool, WireError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Boolean),
        }
    }

    /// `uint32`.
    pub fn uint32(&mut self) -> Result<u32, WireError> {
        let (head, rest) = self.rest.split_first_chunk::<4>().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*head))
    }

    /// `string`: a length and as many bytes.
    pub fn string(&mut self) -> Result<&'a [u8], WireError> {
        let len = usize::try_from(self.uint32()?).map_err(|_| WireError::Short)?;
        self.take(len)
    }

    /// A `string` that holds UTF-8.
    pub fn text(&mut self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.string()?).map_err(|_| WireError::Text)
    }

    /// What is left.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Demands that nothing is left.
    pub fn end(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            spare => Err(WireError::Spare(spare)),
        }
    }
}

/// Appends fields to a vector.
pub trait Put {
    /// `byte`.
    fn put_byte(&mut self, value: u8);
    /// `boolean`.
    fn put_boolean(&mut self, value: bool) {
        self.put_byte(u8::from(value));
    }
    /// `uint32`.
    fn put_uint32(&mut self, value: u32);
    /// `string`.
    fn put_string(&mut self, value: &[u8]);
}

impl Put for Vec<u8> {
    fn put_byte(&mut self, value: u8) {
        self.push(value);
    }

    fn put_uint32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_string(&mut self, value: &[u8]) {
        // Our own values: keys, names, signatures; a length beyond 4 GiB cannot come up, and would be cut.
        let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.put_uint32(len);
        self.extend_from_slice(value.get(..len as usize).unwrap_or(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_beyond_the_message_is_short_and_allocates_nothing() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        assert_eq!(Fields::new(&bytes).string(), Err(WireError::Short));
    }

    #[test]
    fn two_is_no_boolean() {
        assert_eq!(Fields::new(&[2]).boolean(), Err(WireError::Boolean));
    }

    proptest! {
        #[test]
        fn fields_round_trip(byte: u8, flag: bool, number: u32, text in ".{0,40}", blob: Vec<u8>) {
            let mut out = Vec::new();
            out.put_byte(byte);
            out.put_boolean(flag);
            out.put_uint32(number);
            out.put_string(text.as_bytes());
            out.put_string(&blob);
            let mut fields = Fields::new(&out);
            prop_assert_eq!(fields.byte().unwrap(), byte);
            prop_assert_eq!(fields.boolean().unwrap(), flag);
            prop_assert_eq!(fields.uint32().unwrap(), number);
            prop_assert_eq!(fields.text().unwrap(), text);
            prop_assert_eq!(fields.string().unwrap(), &blob[..]);
            prop_assert!(fields.end().is_ok());
        }

        #[test]
        fn no_prefix_of_a_string_reads_as_one(blob in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut out = Vec::new();
            out.put_string(&blob);
            for cut in 0..out.len() {
                prop_assert_eq!(Fields::new(&out[..cut]).string(), Err(WireError::Short));
            }
        }
    }
}

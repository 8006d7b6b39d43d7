//! The little DER (X.690) that is written and taken apart by hand: tag, length, value.

pub(crate) const OID: u8 = 0x06;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// Appends one value with its tag and length.
pub(crate) fn push(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let used =
            bytes.iter().position(|byte| *byte != 0).map_or(&bytes[..0], |first| &bytes[first..]);
        out.push(0x80 | used.len() as u8);
        out.extend_from_slice(used);
    }
    out.extend_from_slice(content);
}

/// One value with its tag and length.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    push(&mut out, tag, content);
    out
}

/// An object identifier's content from its numbers, the first two already joined.
pub(crate) fn oid_content(first_two: u8, rest: &[u64]) -> Vec<u8> {
    let mut out = vec![first_two];
    for number in rest {
        let mut groups = [0u8; 10];
        let mut at = groups.len();
        let mut left = *number;
        loop {
            at -= 1;
            groups[at] = (left & 0x7f) as u8 | if at == groups.len() - 1 { 0 } else { 0x80 };
            left >>= 7;
            if left == 0 {
                break;
            }
        }
        out.extend_from_slice(&groups[at..]);
    }
    out
}

/// The first value of `bytes` (tag, content, the value with its header) and what follows it.
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
    pub(crate) rest: &'a [u8],
}

/// Splits the first value off.
pub(crate) fn split(bytes: &[u8]) -> Option<Element<'_>> {
    let tag = *bytes.first()?;
    let short = *bytes.get(1)?;
    let (length, header) = if short < 0x80 {
        (usize::from(short), 2)
    } else {
        let count = usize::from(short & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let digits = bytes.get(2..2 + count)?;
        (digits.iter().fold(0usize, |sum, digit| (sum << 8) | usize::from(*digit)), 2 + count)
    };
    let end = header.checked_add(length)?;
    Some(Element {
        tag,
        content: bytes.get(header..end)?,
        whole: bytes.get(..end)?,
        rest: bytes.get(end..)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_encodings() {
        assert_eq!(tlv(SEQUENCE, &[]), [0x30, 0x00]);
        assert_eq!(tlv(OCTET_STRING, &[7; 0x80])[..3], [0x04, 0x81, 0x80]);
        assert_eq!(tlv(OCTET_STRING, &[7; 0x1234])[..4], [0x04, 0x82, 0x12, 0x34]);
        // 1.3.9999.2.15 and 2.5.4.3
        assert_eq!(oid_content(0x2b, &[9999, 2, 15]), [0x2b, 0xce, 0x0f, 2, 15]);
        assert_eq!(oid_content(0x55, &[4, 3]), [0x55, 4, 3]);
    }

    proptest! {
        #[test]
        fn written_is_read(content in proptest::collection::vec(any::<u8>(), 0..70_000), behind in proptest::collection::vec(any::<u8>(), 0..4)) {
            let mut bytes = tlv(0x30, &content);
            let whole = bytes.len();
            bytes.extend_from_slice(&behind);
            let element = split(&bytes).unwrap();
            prop_assert_eq!((element.tag, element.content, element.whole.len(), element.rest), (0x30, &content[..], whole, &behind[..]));
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = split(&bytes);
        }
    }
}

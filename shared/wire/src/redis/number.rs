//! The numbers of RESP headers, read as servers do: no plus sign, no blanks, no leading zeros.

/// The most characters that a number of a header may have: the digits of an `i64` and its sign.
pub(super) const DIGITS: usize = 20;

/// `text` as a number, if it is written the one way a number is.
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let plain = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    plain.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn one_spelling_for_each_number() {
        assert_eq!(parse(b"0"), Some(0));
        assert_eq!(parse(b"-1"), Some(-1));
        assert_eq!(parse(b"9223372036854775807"), Some(i64::MAX));
        for wrong in ["", "-", "-0", "01", "+1", " 1", "1 ", "9223372036854775808", "0x1", "?"] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}

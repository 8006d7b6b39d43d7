//! Names that peers gave, as text.

/// The longest name that is kept; a path of Linux is shorter.
pub(crate) const MAX_NAME: usize = 4096;

/// A name as text. Bytes that are no UTF-8 become `\xNN`; what is too long is cut and ends in `…`.
pub(crate) fn name(bytes: &[u8]) -> String {
    let kept = bytes.get(..MAX_NAME).unwrap_or(bytes);
    let mut text = String::with_capacity(kept.len());
    for chunk in kept.utf8_chunks() {
        text.push_str(chunk.valid());
        // The end of a name that is cut may be half a character.
        if chunk.invalid().is_empty()
            || kept.len() < bytes.len() && ends_with(kept, chunk.invalid())
        {
            continue;
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    if kept.len() < bytes.len() {
        text.push('…');
    }
    text
}

fn ends_with(whole: &[u8], part: &[u8]) -> bool {
    std::ptr::eq(whole.as_ptr_range().end, part.as_ptr_range().end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_what_they_say() {
        assert_eq!(name("Grüße".as_bytes()), "Grüße");
        assert_eq!(name(b"a\xffb"), "a\\xffb");
        assert_eq!(name(b"../x\n"), "../x\n");
        let long = name("ä".repeat(5000).as_bytes());
        assert!(long.ends_with("ä…") && long.len() <= MAX_NAME + 4, "{}", long.len());
        let odd = name(format!("a{}", "ä".repeat(5000)).as_bytes());
        assert!(odd.ends_with("ä…"), "half a character was escaped");
    }
}

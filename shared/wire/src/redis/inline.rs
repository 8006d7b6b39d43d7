//! Inline commands: a line of words, as a person types them into a bare connection.

use super::Malformed;

/// The words of a line, with quotes and escapes taken off as servers do. Empty for a blank line.
pub(super) fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    if line.contains(&0) {
        return Err(Malformed::InlineNul);
    }
    let mut rest = line;
    let mut words = Vec::new();
    loop {
        while let [first, after @ ..] = rest
            && is_space(*first)
        {
            rest = after;
        }
        if rest.is_empty() {
            return Ok(words);
        }
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after;
    }
}

/// What C calls a space, which is more than Rust's ASCII whitespace has.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// One word, and what follows it. Quotes may begin inside of a word, and a word ends where they close.
fn word(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), Malformed> {
    let mut word = Vec::new();
    loop {
        rest = match rest {
            [] => return Ok((word, rest)),
            [b' ' | b'\n' | b'\r' | b'\t', after @ ..] => return Ok((word, after)),
            [b'"', after @ ..] => return closed(double_quoted(after, &mut word)?, word),
            [b'\'', after @ ..] => return closed(single_quoted(after, &mut word)?, word),
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

/// After a closing quote comes a space or the end.
fn closed(after: &[u8], word: Vec<u8>) -> Result<(Vec<u8>, &[u8]), Malformed> {
    match after.first() {
        Some(byte) if !is_space(*byte) => Err(Malformed::Quotes),
        _ => Ok((word, after)),
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    loop {
        rest = match rest {
            [] => return Err(Malformed::Quotes),
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(nibble(*high) << 4 | nibble(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    loop {
        rest = match rest {
            [] => return Err(Malformed::Quotes),
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Malformed;
    use super::words;

    fn shown(line: &str) -> Vec<String> {
        let words = words(line.as_bytes()).unwrap();
        words.iter().map(|word| word.escape_ascii().to_string()).collect()
    }

    #[test]
    fn words_quotes_and_escapes() {
        assert_eq!(shown("SET  k\tv "), ["SET", "k", "v"]);
        assert_eq!(shown(r#"SET k "a b\x00\n\q""#), ["SET", "k", r"a b\x00\nq"]);
        assert_eq!(shown(r"SET k 'it\'s \n'"), ["SET", "k", r"it\'s \\n"]);
        assert_eq!(shown(r#"a"b c""#), ["ab c"]);
        assert_eq!(shown(r#"SET k """#), ["SET", "k", ""]);
        assert!(shown("   ").is_empty());
    }

    #[test]
    fn what_servers_refuse_is_malformed() {
        for line in [r#""open"#, "'open", r#""a"b"#, "'a'b", r#""a\"#] {
            assert_eq!(words(line.as_bytes()), Err(Malformed::Quotes), "{line}");
        }
        assert_eq!(words(b"GET a\0b"), Err(Malformed::InlineNul));
    }
}

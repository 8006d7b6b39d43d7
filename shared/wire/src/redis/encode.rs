//! What we write ourselves: commands and errors.

/// A command as an array of bulk strings.
pub fn encode<'a>(args: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// An error reply: a code as clients know it (`ERR`, `NOPERM`, `NOAUTH`), and a text on one line.
pub fn error(code: &str, text: &str) -> Vec<u8> {
    let line = text.replace(|c: char| c.is_control(), " ");
    format!("-{code} {line}\r\n").into_bytes()
}

/// What a client reads that may not come in at all.
pub fn refuse(text: &str) -> Vec<u8> {
    error("NOPERM", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_errors() {
        let args = [b"GET".as_slice(), b"a\r\nb"];
        assert_eq!(encode(args.into_iter()), b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
        assert_eq!(refuse("no\r\n+OK"), b"-NOPERM no  +OK\r\n");
    }
}

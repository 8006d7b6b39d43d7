//! What a server sends, as far as results of statements go.

use super::body::Body;
use super::frames::Message;

/// `CommandComplete`'s text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandTag<'a>(pub &'a [u8]);

impl CommandTag<'_> {
    /// Rows that were returned or changed: the last word, where it is a number.
    #[must_use]
    pub fn rows(&self) -> u64 {
        let last = self.0.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        std::str::from_utf8(last).ok().and_then(|word| word.parse().ok()).unwrap_or_default()
    }
}

/// The fields of an `ErrorResponse` that people read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerError<'a> {
    /// `ERROR`, `FATAL` or `PANIC`, perhaps translated.
    pub severity: &'a [u8],
    /// SQLSTATE.
    pub code: &'a [u8],
    /// The one line that says what it is.
    pub message: &'a [u8],
}

impl<'a> ServerError<'a> {
    /// Reads the fields there are; what was cut is empty.
    fn read(mut body: Body<'a>) -> Self {
        let mut error = Self::default();
        while let (Some(field @ 1..), Some(value)) = (body.byte(), body.string()) {
            match field {
                b'S' => error.severity = value,
                b'C' => error.code = value,
                b'M' => error.message = value,
                _ => {}
            }
        }
        error
    }
}

/// A message of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend<'a> {
    /// `AuthenticationOk` (0) or a demand for something else.
    Authentication(u32),
    /// `BackendKeyData`: what a cancel request has to know.
    KeyData {
        /// The server process.
        pid: u32,
        /// The secret; 4 bytes in protocol 3.0, up to 256 in 3.2.
        secret: &'a [u8],
    },
    /// `CommandComplete`.
    Complete(CommandTag<'a>),
    /// `ErrorResponse`.
    Error(ServerError<'a>),
    /// `ReadyForQuery`, with the state of the transaction.
    Ready(u8),
    /// Nothing that is told of.
    Other,
}

/// Reads a message of a server; none when it is malformed.
#[must_use]
pub fn backend<'a>(message: &Message<'a>) -> Option<Backend<'a>> {
    let mut body = Body(message.body);
    Some(match message.tag {
        b'R' => Backend::Authentication(body.u32()?),
        b'K' => Backend::KeyData { pid: body.u32()?, secret: body.0 },
        b'C' if message.cut.is_some() => Backend::Complete(CommandTag(body.0)),
        b'C' => Backend::Complete(CommandTag(body.string()?)),
        b'E' => Backend::Error(ServerError::read(body)),
        b'Z' => Backend::Ready(body.byte()?),
        _ => Backend::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Message<'_> {
        Message { tag, body, cut: None }
    }

    #[test]
    fn rows_are_the_last_number() {
        for (tag, rows) in [
            ("SELECT 42", 42),
            ("INSERT 0 7", 7),
            ("COPY 5", 5),
            ("BEGIN", 0),
            ("", 0),
            ("SELECT x", 0),
        ] {
            assert_eq!(CommandTag(tag.as_bytes()).rows(), rows, "{tag}");
        }
    }

    #[test]
    fn an_error_is_read_in_any_order_and_without_its_end() {
        let body = b"SERROR\0C42P01\0Mrelation \"x\" does not exist\0P15\0\0";
        let Some(Backend::Error(error)) = backend(&message(b'E', body)) else { panic!() };
        assert_eq!((error.severity, error.code), (&b"ERROR"[..], &b"42P01"[..]));
        assert_eq!(error.message, b"relation \"x\" does not exist");
        let Some(Backend::Error(error)) = backend(&message(b'E', b"Mtext\0Ccod")) else { panic!() };
        assert_eq!((error.message, error.code), (&b"text"[..], &b""[..]));
        assert_eq!(backend(&message(b'E', b"")), Some(Backend::Error(ServerError::default())));
    }

    #[test]
    fn short_bodies_are_malformed() {
        for tag in *b"RKZC" {
            assert_eq!(backend(&message(tag, b"")), None, "{}", char::from(tag));
        }
    }
}

//! Refusals as clients show them: `ErrorResponse` with an SQLSTATE ("Error and Notice Message Fields").

/// Codes of refusals, five characters each (the manual's "PostgreSQL Error Codes").
pub mod sqlstate {
    /// The user may not do this.
    pub const NOT_ALLOWED: &str = "28000";
    /// There is no such database, or not for this user.
    pub const NO_DATABASE: &str = "3D000";
    /// The database cannot be reached.
    pub const UNREACHABLE: &str = "08001";
    /// The connection to the database has ended.
    pub const CONNECTION: &str = "08006";
    /// What was sent is not the protocol.
    pub const PROTOCOL: &str = "08P01";
    /// What was asked for is not supported.
    pub const UNSUPPORTED: &str = "0A000";
    /// Too many connections.
    pub const TOO_MANY: &str = "53300";
    /// The session was ended from outside.
    pub const ENDED: &str = "57P01";
    /// Not now; later it may work.
    pub const NOT_NOW: &str = "57P03";
    /// Something of ours failed.
    pub const INTERNAL: &str = "58000";
}

/// More of a text is of no use to anybody.
const TEXT: usize = 4096;

/// A fatal `ErrorResponse` with one of the codes in [`sqlstate`]: clients print `FATAL:  text` and take the connection
/// for ended. It is understood in place of any message of a server, before and after its start-up.
#[must_use]
pub fn refuse(state: &str, text: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(text.len().min(TEXT) + 40);
    for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', state)] {
        body.push(field);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(b'M');
    let end = text.floor_char_boundary(TEXT);
    body.extend(text.bytes().take(end).map(|byte| if byte == 0 { b' ' } else { byte }));
    body.extend_from_slice(&[0, 0]);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(body.len() + 5);
    message.push(b'E');
    message.extend_from_slice(&length.to_be_bytes());
    message.append(&mut body);
    message
}

#[cfg(test)]
mod tests {
    use super::super::{Backend, Frames, backend};
    use super::*;

    #[test]
    fn a_refusal_is_read_back() {
        let long = "é".repeat(5000);
        for (text, read) in
            [("no such database", "no such database"), ("a\0b", "a b"), (&long, &long[..TEXT])]
        {
            let bytes = refuse(sqlstate::NOT_ALLOWED, text);
            let mut frames = Frames::backend(1 << 14);
            let mut at = 0;
            let message = frames.next(&bytes, &mut at).unwrap().unwrap();
            let Some(Backend::Error(error)) = backend(&message) else { panic!() };
            assert_eq!((error.severity, error.code), (&b"FATAL"[..], &b"28000"[..]));
            assert_eq!(error.message, read.as_bytes());
            assert_eq!(at, bytes.len());
        }
    }
}

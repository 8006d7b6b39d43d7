//! Single packets with which a server answers: OK, ERR, EOF, and those of authentication ("Generic Response Packets").

use std::fmt;

use super::capability::DEPRECATE_EOF;
use super::read::Reader;
use super::{Malformed, frame};

/// `SERVER_MORE_RESULTS_EXISTS`
const MORE_RESULTS: u16 = 8;
/// `SERVER_STATUS_CURSOR_EXISTS`
const CURSOR: u16 = 0x40;
/// An EOF is shorter than this; what is as long and begins alike is a row.
const EOF_BELOW: usize = 9;
/// Characters of a server's error that are kept.
const MAX_MESSAGE: usize = 1024;

/// What a server says no with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Number of the error.
    pub code: u16,
    /// SQLSTATE, five characters.
    pub state: String,
    /// In words.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code, self.state, self.message)
    }
}

impl Failure {
    /// Reads an ERR packet's payload.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        Self::read(payload).ok_or_else(|| Malformed::new("error packet"))
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != 0xff {
            return None;
        }
        let code = reader.u16()?;
        // Before the handshake response there is no state.
        let state = match reader.rest().first() {
            Some(b'#') => String::from_utf8_lossy(reader.take(6)?.get(1..)?).into_owned(),
            _ if code == 1040 => "08004".to_owned(),
            _ => "HY000".to_owned(),
        };
        let message = reader.rest();
        let message =
            String::from_utf8_lossy(message.get(..MAX_MESSAGE).unwrap_or(message)).into_owned();
        Some(Self { code, state, message })
    }
}

/// A whole ERR packet. `state` is cut or filled to five characters.
pub fn refuse(sequence: u8, code: u16, state: &str, text: &str) -> Vec<u8> {
    let mut out = vec![0xff];
    out.extend_from_slice(&code.to_le_bytes());
    out.push(b'#');
    out.extend(state.bytes().chain(std::iter::repeat(b'0')).take(5));
    let end = (0..=MAX_MESSAGE.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or_default();
    out.extend_from_slice(text.get(..end).unwrap_or_default().as_bytes());
    frame::packet(sequence, &out)
}

/// An answer to the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Welcome.
    Ok,
    /// No.
    Failed(Failure),
    /// Another way to be convinced: the plugin, and its data.
    Switch {
        /// Name of the plugin.
        plugin: &'a [u8],
        /// Its challenge.
        data: &'a [u8],
    },
    /// More of the plugin's own.
    More(&'a [u8]),
}

impl<'a> Reply<'a> {
    /// Reads a payload that answers a handshake response.
    ///
    /// # Errors
    /// It is no such.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        match payload.split_first() {
            Some((0, _)) => Ok(Self::Ok),
            Some((1, data)) => Ok(Self::More(data)),
            Some((0xff, _)) => Failure::parse(payload).map(Self::Failed),
            Some((0xfe, [])) => Ok(Self::Switch { plugin: b"mysql_old_password", data: &[] }),
            Some((0xfe, rest)) => {
                let mut reader = Reader::new(rest);
                let plugin = reader.terminated().unwrap_or(rest);
                Ok(Self::Switch {
                    plugin,
                    data: if plugin.len() == rest.len() { &[] } else { reader.rest() },
                })
            }
            _ => Err(Malformed::new("answer to the handshake")),
        }
    }
}

/// How a statement, or a part of it, ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// Rows changed.
    pub(super) affected: u64,
    status: u16,
}

impl Done {
    pub(super) fn more_results(self) -> bool {
        self.status & MORE_RESULTS != 0
    }

    pub(super) fn has_cursor(self) -> bool {
        self.status & CURSOR != 0
    }

    /// An OK packet's payload; also the one that ends rows.
    pub(super) fn ok(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        reader.u8()?;
        let affected = reader.length()?;
        reader.length()?;
        Some(Self { affected, status: reader.u16()? })
    }

    /// An EOF packet's payload.
    fn eof(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        reader.u8()?;
        reader.u16()?;
        Some(Self { affected: 0, status: reader.u16()? })
    }

    /// What ends rows or definitions: an EOF, or an OK where that was agreed.
    pub(super) fn end(payload: &[u8], capabilities: u64) -> Option<Self> {
        match capabilities & DEPRECATE_EOF {
            0 => Self::eof(payload),
            _ => Self::ok(payload),
        }
    }
}

/// Whether a packet that begins with `first` ends rows or definitions.
pub(super) fn is_end(first: u8, length: usize, capabilities: u64) -> bool {
    let below = if capabilities & DEPRECATE_EOF == 0 { EOF_BELOW } else { frame::MAX_PAYLOAD };
    first == 0xfe && length < below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_comes_back() {
        let packet = refuse(2, 1045, "28000", "access denied: ask somebody");
        assert_eq!(packet[3], 2);
        let read = Failure::parse(&packet[frame::HEADER..]).unwrap();
        assert_eq!(read.to_string(), "1045 (28000): access denied: ask somebody");
        let long = refuse(0, 1, "x", &"ä".repeat(2000));
        assert_eq!(
            Failure::parse(&long[frame::HEADER..]).unwrap().message,
            "ä".repeat(MAX_MESSAGE / 2)
        );
    }

    #[test]
    fn what_answers_a_handshake() {
        assert_eq!(Reply::parse(&[0, 0, 0, 2, 0, 0, 0]), Ok(Reply::Ok));
        let switch = Reply::Switch { plugin: b"dialog", data: b"\x02Password" };
        assert_eq!(Reply::parse(b"\xfedialog\0\x02Password"), Ok(switch));
        assert_eq!(Reply::parse(b"\xfeplug"), Ok(Reply::Switch { plugin: b"plug", data: b"" }));
        assert_eq!(Reply::parse(&[1, 4]), Ok(Reply::More(&[4])));
        assert!(
            Reply::parse(&[]).is_err()
                && Reply::parse(&[7]).is_err()
                && Reply::parse(&[0xff, 1]).is_err()
        );
    }

    #[test]
    fn ends_say_what_follows() {
        let eof = Done::end(&[0xfe, 0, 0, 0x4a, 0], 0).unwrap();
        assert!(eof.more_results() && eof.has_cursor());
        let ok = Done::end(&[0xfe, 3, 0, 8, 0, 0, 0], DEPRECATE_EOF).unwrap();
        assert_eq!((ok.affected, ok.more_results(), ok.has_cursor()), (3, true, false));
        assert!(Done::end(&[0xfe], 0).is_none() && Done::ok(&[0, 0xff]).is_none());
        assert!(is_end(0xfe, 8, 0) && !is_end(0xfe, 9, 0) && is_end(0xfe, 9, DEPRECATE_EOF));
    }
}

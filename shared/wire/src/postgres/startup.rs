//! The first packets of a connection, which have no type byte: `SSLRequest`, `GSSENCRequest`, `CancelRequest` and
//! `StartupMessage`.

use super::body::Body;

/// The most a first packet may have, as servers hold it.
pub const FIRST_LIMIT: usize = 10_000;
/// Asks for TLS; the answer is the byte `S` or `N`.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Asks for encryption by GSSAPI; the answer is the byte `G` or `N`.
pub const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
/// The server's word that it asks for nothing more.
pub const AUTHENTICATION_OK: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 0];

const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;
const CANCEL: u32 = 80_877_102;
/// The major version, in the upper half.
const MAJOR: u32 = 3;
/// Secrets have 4 bytes in protocol 3.0 and at most so many in 3.2.
const SECRET: std::ops::RangeInclusive<usize> = 4..=256;

/// A first packet that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// Its length is impossible.
    #[error("first packet of {0} bytes, between 8 and {FIRST_LIMIT} are possible")]
    Length(u32),
    /// Another protocol, or a version long gone.
    #[error("protocol version {0}.{1} is not supported; 3.0 is")]
    Version(u32, u32),
    /// Names and values are not what they have to be.
    #[error("start-up message is malformed")]
    Malformed,
}

/// `CancelRequest`: what runs in another connection is to stop.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cancel {
    /// The server process of that connection.
    pub pid: u32,
    /// The secret of that connection.
    pub secret: Vec<u8>,
}

impl Cancel {
    /// As it is sent to a server.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = u32::try_from(12 + self.secret.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(12 + self.secret.len());
        for number in [length, CANCEL, self.pid] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.secret);
        bytes
    }
}

/// `StartupMessage`: who wants which database, with what settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// The minor version asked for.
    pub minor: u16,
    /// The database user; empty when none was named.
    pub user: String,
    /// The database; empty when none was named, which means the user's name.
    pub database: String,
    /// Everything else, in order.
    pub settings: Vec<(String, String)>,
}

impl Startup {
    /// A setting's value; the last counts, as with servers.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().rev().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// The database meant: the user's name where none is said.
    #[must_use]
    pub fn database(&self) -> &str {
        if self.database.is_empty() { &self.user } else { &self.database }
    }

    /// As it is sent to a server, user and database once each.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&(MAJOR << 16 | u32::from(self.minor)).to_be_bytes());
        let own = [("user", self.user.as_str()), ("database", self.database())];
        let settings = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for word in own.into_iter().chain(settings).flat_map(|(name, value)| [name, value]) {
            bytes.extend(word.bytes().filter(|byte| *byte != 0));
            bytes.push(0);
        }
        bytes.push(0);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes.splice(..4, length.to_be_bytes());
        bytes
    }

    fn read(minor: u16, mut body: Body<'_>) -> Result<Self, StartupError> {
        let mut startup =
            Self { minor, user: String::new(), database: String::new(), settings: Vec::new() };
        loop {
            let name = string(&mut body)?;
            if name.is_empty() {
                break;
            }
            let value = string(&mut body)?;
            match name.as_str() {
                "user" => startup.user = value,
                "database" => startup.database = value,
                _ => startup.settings.push((name, value)),
            }
        }
        if body.is_empty() { Ok(startup) } else { Err(StartupError::Malformed) }
    }
}

fn string(body: &mut Body<'_>) -> Result<String, StartupError> {
    let bytes = body.string().ok_or(StartupError::Malformed)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| StartupError::Malformed)
}

/// A first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// `SSLRequest`.
    Ssl,
    /// `GSSENCRequest`.
    GssEnc,
    /// `CancelRequest`.
    Cancel(Cancel),
    /// `StartupMessage`.
    Startup(Startup),
}

/// Reads a first packet from the beginning of `bytes`, with its length; none while its end is missing.
///
/// # Errors
/// It cannot be served, however it goes on.
pub fn first(bytes: &[u8]) -> Result<Option<(First, usize)>, StartupError> {
    let mut body = Body(bytes);
    let Some(length) = body.u32() else { return Ok(None) };
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if !(8..=FIRST_LIMIT).contains(&size) {
        return Err(StartupError::Length(length));
    }
    let Some(packet) = bytes.get(4..size) else { return Ok(None) };
    let mut body = Body(packet);
    let code = body.u32().ok_or(StartupError::Malformed)?;
    let first = match code {
        SSL if body.is_empty() => First::Ssl,
        GSSENC if body.is_empty() => First::GssEnc,
        CANCEL => {
            let pid = body.u32().ok_or(StartupError::Malformed)?;
            if !SECRET.contains(&body.0.len()) {
                return Err(StartupError::Malformed);
            }
            First::Cancel(Cancel { pid, secret: body.0.to_vec() })
        }
        SSL | GSSENC => return Err(StartupError::Malformed),
        _ if code >> 16 == MAJOR => {
            // The lower half of 32 bits.
            First::Startup(Startup::read(u16::try_from(code & 0xffff).unwrap_or_default(), body)?)
        }
        _ => return Err(StartupError::Version(code >> 16, code & 0xffff)),
    };
    Ok(Some((first, size)))
}

#[cfg(test)]
mod tests;

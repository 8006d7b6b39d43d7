//! The server's first packet ("Protocol::HandshakeV10").

use super::capability::{self, LONG_PASSWORD, PLUGIN_AUTH, SECURE_CONNECTION, SSL};
use super::read::Reader;
use super::reply::Failure;
use super::{Malformed, frame};

/// What a client is told before it says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The server's version, in its words; without zero bytes.
    pub version: String,
    /// The connection's number, as `KILL` takes it.
    pub connection_id: u32,
    /// The challenge for passwords.
    pub salt: [u8; 20],
    /// What the server can do.
    pub capabilities: u64,
    /// The character set it begins with.
    pub charset: u8,
    /// Status flags.
    pub status: u16,
    /// How it would like to be convinced.
    pub plugin: String,
}

/// Version that a client is told when nothing better is known.
pub const VERSION: &str = "8.0.0-Teleport";
/// `utf8mb4_general_ci`
const UTF8MB4: u8 = 45;
/// `SERVER_STATUS_AUTOCOMMIT`
const AUTOCOMMIT: u16 = 2;
/// The plugin that every client has.
pub const NATIVE: &str = "mysql_native_password";

impl Greeting {
    /// What is said in front of a server that is not known yet: only what every one of them can do.
    pub fn plain(version: &str, connection_id: u32, salt: [u8; 20]) -> Self {
        Self {
            version: version.replace('\0', ""),
            connection_id,
            // A zero byte would end the salt for clients that read it as a string.
            salt: salt.map(|byte| byte.max(1)),
            capabilities: capability::PLAIN,
            charset: UTF8MB4,
            status: AUTOCOMMIT,
            plugin: NATIVE.to_owned(),
        }
    }

    /// The same, and TLS is offered.
    pub fn with_tls(mut self) -> Self {
        self.capabilities |= SSL;
        self
    }

    /// The whole packet; it is the first of a connection.
    pub fn packet(&self) -> Vec<u8> {
        let capabilities = self.capabilities.to_le_bytes();
        let [one, two, three, four, extended @ ..] = capabilities;
        let mut out = vec![10];
        out.extend_from_slice(self.version.as_bytes());
        out.push(0);
        out.extend_from_slice(&self.connection_id.to_le_bytes());
        out.extend_from_slice(&self.salt[..8]);
        out.extend_from_slice(&[0, one, two, self.charset]);
        out.extend_from_slice(&self.status.to_le_bytes());
        out.extend_from_slice(&[three, four, self.salt.len() as u8 + 1]);
        out.extend_from_slice(&[0; 6]);
        // MySQL has zeros here, and a client looks for MariaDB's flags only if this one is missing.
        let theirs = if self.capabilities & LONG_PASSWORD == 0 { extended } else { [0; 4] };
        out.extend_from_slice(&theirs);
        out.extend_from_slice(&self.salt[8..]);
        out.push(0);
        out.extend_from_slice(self.plugin.as_bytes());
        out.push(0);
        frame::packet(0, &out)
    }

    /// Reads the payload of a server's first packet.
    ///
    /// # Errors
    /// [`GreetingError::Refused`] with the server's words when it says that it takes no connection.
    pub fn parse(payload: &[u8]) -> Result<Self, GreetingError> {
        if payload.first() == Some(&0xff) {
            return Err(GreetingError::Refused(Failure::parse(payload)?));
        }
        read(payload).ok_or_else(|| Malformed::new("greeting"))?
    }
}

/// The packet that a proxy greets with before it knows the server: TLS is offered. The challenge is nobody's secret, as
/// no password is asked for.
pub fn greeting(version: &str, connection_id: u32) -> Vec<u8> {
    Greeting::plain(version, connection_id, *b"no password is asked").with_tls().packet()
}

/// Why there is no greeting.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// The server takes no connection.
    #[error("{0}")]
    Refused(Failure),
    /// The server speaks something else.
    #[error(
        "greeting of version {0} is not understood: a server since MySQL 4.1 or MariaDB is needed"
    )]
    Version(u8),
    /// The packet cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

fn read(payload: &[u8]) -> Option<Result<Greeting, GreetingError>> {
    let mut reader = Reader::new(payload);
    let protocol = reader.u8()?;
    if protocol != 10 {
        return Some(Err(GreetingError::Version(protocol)));
    }
    let version = String::from_utf8_lossy(reader.terminated()?).into_owned();
    let connection_id = reader.u32()?;
    let mut salt = [0; 20];
    salt[..8].copy_from_slice(reader.take(8)?);
    reader.u8()?;
    let lower = u64::from(reader.u16()?);
    let charset = reader.u8()?;
    let status = reader.u16()?;
    let mut capabilities = lower | u64::from(reader.u16()?) << 16;
    let salt_length = usize::from(reader.u8()?);
    reader.take(6)?;
    let extended = u64::from(reader.u32()?);
    if capabilities & LONG_PASSWORD == 0 {
        capabilities |= extended << 32;
    }
    if capabilities & SECURE_CONNECTION != 0 {
        let rest = reader.take(salt_length.saturating_sub(8).max(13))?;
        salt[8..].copy_from_slice(rest.get(..12)?);
    }
    let plugin = match capabilities & PLUGIN_AUTH {
        0 => NATIVE.to_owned(),
        // Some servers forget the zero byte at the end.
        _ => {
            let rest = reader.rest();
            let name = rest.split(|&byte| byte == 0).next().unwrap_or(rest);
            String::from_utf8_lossy(name).into_owned()
        }
    };
    Some(Ok(Greeting { version, connection_id, salt, capabilities, charset, status, plugin }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Greeting {
        Greeting::plain(VERSION, 7, [9; 20])
    }

    #[test]
    fn a_greeting_comes_back() {
        let mut mariadb = plain();
        mariadb.capabilities = (capability::PLAIN & !LONG_PASSWORD) | capability::NEGOTIATED | SSL;
        for greeting in [plain(), plain().with_tls(), mariadb] {
            assert_eq!(Greeting::parse(&greeting.packet()[frame::HEADER..]), Ok(greeting));
        }
    }

    #[test]
    fn a_cut_greeting_is_refused_at_every_byte() {
        let packet = plain().packet();
        // The last bytes are the plugin's name, which may end anywhere.
        for end in frame::HEADER + 1..packet.len() - NATIVE.len() - 1 {
            assert!(Greeting::parse(&packet[frame::HEADER..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_server_that_is_full_says_so() {
        let refused = Greeting::parse(b"\xff\x10\x04Too many connections").unwrap_err();
        assert_eq!(refused.to_string(), "1040 (08004): Too many connections");
        assert_eq!(Greeting::parse(&[9, 0]).unwrap_err(), GreetingError::Version(9));
    }
}

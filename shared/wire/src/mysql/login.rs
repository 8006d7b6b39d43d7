//! The client's half of the handshake ("Protocol::SSLRequest", "Protocol::HandshakeResponse41").

use super::Malformed;
use super::capability::{
    CONNECT_ATTRS, CONNECT_WITH_DB, LONG_PASSWORD, PLUGIN_AUTH, PLUGIN_AUTH_LENENC, PROTOCOL_41,
    SECURE_CONNECTION, SSL,
};
use super::read::{Reader, put_length, put_string};

/// Length of the payload with which a client asks for TLS, in bytes.
pub const SSL_REQUEST: usize = 32;
/// How a login is written here, whatever it was read from.
const ALWAYS: u64 = SSL | PROTOCOL_41 | SECURE_CONNECTION;
/// Attributes that are looked at; the rest is passed on.
const MAX_ATTRIBUTES: usize = 256;

/// Who a client says it is, and what it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// What the client can do; MariaDB's own in the upper half.
    pub capabilities: u64,
    /// Longest packet it takes, in bytes.
    pub max_packet: u32,
    /// Its character set.
    pub charset: u8,
    /// As whom; may be empty.
    pub user: String,
    /// Its answer to the challenge.
    pub auth: Vec<u8>,
    /// The database to begin with; may be empty.
    pub database: String,
    /// The plugin that made the answer.
    pub plugin: String,
    /// Attributes of the connection, as they came.
    pub attributes: Vec<u8>,
}

/// Whether this packet asks for TLS.
///
/// # Errors
/// It is neither that nor a handshake response since 4.1.
pub fn ssl_request(payload: &[u8]) -> Result<bool, Malformed> {
    let capabilities = Reader::new(payload).u32().map(u64::from);
    match capabilities {
        Some(capabilities) if capabilities & PROTOCOL_41 != 0 => {
            Ok(capabilities & SSL != 0 && payload.len() == SSL_REQUEST)
        }
        _ => Err(Malformed::new("handshake response: a client since MySQL 4.1 is needed")),
    }
}

impl Login {
    /// Reads the payload of a handshake response.
    ///
    /// # Errors
    /// It is none, or one of a client before 4.1.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        ssl_request(payload)?;
        Self::read(payload).ok_or_else(|| Malformed::new("handshake response"))
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let mut capabilities = u64::from(reader.u32()?);
        let max_packet = reader.u32()?;
        let charset = reader.u8()?;
        reader.take(19)?;
        let extended = u64::from(reader.u32()?);
        if capabilities & LONG_PASSWORD == 0 {
            capabilities |= extended << 32;
        }
        let user = text(reader.terminated()?);
        let auth = if capabilities & PLUGIN_AUTH_LENENC != 0 {
            reader.string()?
        } else if capabilities & SECURE_CONNECTION != 0 {
            let length = usize::from(reader.u8()?);
            reader.take(length)?
        } else {
            reader.terminated()?
        };
        let mut login = Self {
            capabilities,
            max_packet,
            charset,
            user,
            auth: auth.to_vec(),
            database: String::new(),
            plugin: String::new(),
            attributes: Vec::new(),
        };
        if capabilities & CONNECT_WITH_DB != 0 && !reader.rest().is_empty() {
            login.database = text(reader.terminated()?);
        }
        if capabilities & PLUGIN_AUTH != 0 && !reader.rest().is_empty() {
            // Some clients forget the zero byte at the end.
            login.plugin = match reader.terminated() {
                Some(plugin) => text(plugin),
                None => return Some(Self { plugin: text(reader.rest()), ..login }),
            };
        }
        if capabilities & CONNECT_ATTRS != 0 && !reader.rest().is_empty() {
            login.attributes = reader.string()?.to_vec();
        }
        Some(login)
    }

    /// The value of an attribute of the connection, such as `program_name`.
    pub fn attribute(&self, name: &str) -> Option<String> {
        let mut reader = Reader::new(&self.attributes);
        for _ in 0..MAX_ATTRIBUTES {
            let key = reader.string()?;
            let value = reader.string()?;
            if key == name.as_bytes() {
                return Some(text(value));
            }
        }
        None
    }

    /// The payload that asks for TLS before this login.
    pub fn ssl_request(&self) -> Vec<u8> {
        self.head(self.told())
    }

    /// What is told of the client, the same before TLS and in it: servers go by what they were told first.
    fn told(&self) -> u64 {
        let capabilities = self.capabilities | ALWAYS;
        if self.database.is_empty() {
            capabilities & !CONNECT_WITH_DB
        } else {
            capabilities | CONNECT_WITH_DB
        }
    }

    /// The payload of the handshake response, inside TLS.
    pub fn payload(&self) -> Vec<u8> {
        let capabilities = self.told();
        let mut out = self.head(capabilities);
        put_zero_ended(&mut out, &self.user);
        if capabilities & PLUGIN_AUTH_LENENC != 0 {
            put_string(&mut out, &self.auth);
        } else {
            let auth = self.auth.get(..self.auth.len().min(0xff)).unwrap_or_default();
            out.push(auth.len() as u8);
            out.extend_from_slice(auth);
        }
        if capabilities & CONNECT_WITH_DB != 0 {
            put_zero_ended(&mut out, &self.database);
        }
        if capabilities & PLUGIN_AUTH != 0 {
            put_zero_ended(&mut out, &self.plugin);
        }
        if capabilities & CONNECT_ATTRS != 0 {
            put_length(&mut out, self.attributes.len() as u64);
            out.extend_from_slice(&self.attributes);
        }
        out
    }

    fn head(&self, capabilities: u64) -> Vec<u8> {
        let [one, two, three, four, extended @ ..] = capabilities.to_le_bytes();
        let mut out = vec![one, two, three, four];
        out.extend_from_slice(&self.max_packet.to_le_bytes());
        out.push(self.charset);
        out.extend_from_slice(&[0; 19]);
        out.extend_from_slice(&if capabilities & LONG_PASSWORD == 0 { extended } else { [0; 4] });
        out
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A zero byte in the text would end it early, so there is none: a name cannot be turned into another.
fn put_zero_ended(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|&byte| byte != 0));
    out.push(0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mysql::capability::{self, BULK};

    fn login() -> Login {
        let mut attributes = Vec::new();
        put_string(&mut attributes, b"program_name");
        put_string(&mut attributes, b"mysql");
        Login {
            capabilities: capability::PLAIN | SSL,
            max_packet: 1 << 24,
            charset: 45,
            user: "alice".into(),
            auth: vec![1; 20],
            database: "shop".into(),
            plugin: "mysql_native_password".into(),
            attributes,
        }
    }

    #[test]
    fn a_login_comes_back() {
        let mariadb =
            Login { capabilities: (login().capabilities & !LONG_PASSWORD) | BULK, ..login() };
        let short = Login { capabilities: login().capabilities & !PLUGIN_AUTH_LENENC, ..login() };
        for login in [login(), mariadb, short] {
            assert_eq!(Login::parse(&login.payload()), Ok(login.clone()));
            assert_eq!(login.attribute("program_name").as_deref(), Some("mysql"));
            assert_eq!(login.attribute("program"), None);
            assert_eq!(ssl_request(&login.ssl_request()), Ok(true));
            assert_eq!(ssl_request(&login.payload()), Ok(false));
        }
    }

    #[test]
    fn without_a_database_none_is_asked_for() {
        let login = Login { database: String::new(), ..login() };
        let read = Login::parse(&login.payload()).unwrap();
        assert_eq!(read.database, "");
        assert_eq!(login.ssl_request()[..4], login.payload()[..4]);
        assert_eq!(read.capabilities & CONNECT_WITH_DB, 0);
    }

    /// MariaDB reads the login by what it was told before TLS.
    #[test]
    fn the_same_is_told_before_tls_and_in_it() {
        for database in ["", "shop"] {
            for capabilities in
                [login().capabilities | CONNECT_WITH_DB, login().capabilities & !CONNECT_WITH_DB]
            {
                let login = Login { database: database.to_owned(), capabilities, ..login() };
                assert_eq!(login.ssl_request()[..4], login.payload()[..4], "{database:?}");
            }
        }
    }

    #[test]
    fn a_client_before_4_1_is_told_so() {
        let error = Login::parse(&[5, 0, 0, 0, 1, b'u', 0]).unwrap_err();
        assert_eq!(error.to_string(), "handshake response: a client since MySQL 4.1 is needed");
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..100, value: u8) {
            let _ = Login::parse(&bytes);
            let mut payload = login().payload();
            if let Some(byte) = payload.get_mut(at) {
                *byte = value;
            }
            if let Ok(login) = Login::parse(&payload) {
                login.attribute("x");
            }
        }
    }
}

//! Messages of the agent protocol (draft-miller-ssh-agent §5; OpenSSH PROTOCOL.agent).

use super::field::{Fields, Put, WireError};

/// The longest message taken or sent, without its length: what OpenSSH's agent takes.
pub const MAX_MESSAGE: usize = 256 * 1024;

/// The extension by which a client tells an agent which connection it will sign for.
pub const SESSION_BIND: &str = "session-bind@openssh.com";

const FAILURE: u8 = 5;
const SUCCESS: u8 = 6;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const ADD_IDENTITY: u8 = 17;
const REMOVE_IDENTITY: u8 = 18;
const ADD_ID_CONSTRAINED: u8 = 25;
const EXTENSION: u8 = 27;
const EXTENSION_FAILURE: u8 = 28;
const CONSTRAIN_LIFETIME: u8 = 1;

/// What somebody asks an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// List the identities.
    List,
    /// Sign `data` with the key `key`.
    Sign {
        /// Key or certificate blob.
        key: &'a [u8],
        /// What is to be signed.
        data: &'a [u8],
        /// RSA hash choice and the like.
        flags: u32,
    },
    /// Bind this channel to a connection.
    Bind(SessionBind<'a>),
    /// An extension other than the one above.
    Extension(&'a [u8]),
    /// Any other request, by number.
    Other(u8),
}

/// The fields of `session-bind@openssh.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionBind<'a> {
    /// Host key or host certificate blob, as the server presented it.
    pub host_key: &'a [u8],
    /// Session id (the first exchange hash).
    pub session_id: &'a [u8],
    /// The server's signature over the session id.
    pub signature: &'a [u8],
    /// The channel will be used to forward, not to authenticate.
    pub forwarding: bool,
}

impl SessionBind<'_> {
    /// The request as bytes, without its frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![EXTENSION];
        out.put_string(SESSION_BIND.as_bytes());
        out.put_string(self.host_key);
        out.put_string(self.session_id);
        out.put_string(self.signature);
        out.put_boolean(self.forwarding);
        out
    }
}

/// Reads one request, without its frame.
pub fn parse_request(message: &[u8]) -> Result<Request<'_>, WireError> {
    if message.len() > MAX_MESSAGE {
        return Err(WireError::Long(message.len()));
    }
    let mut fields = Fields::new(message);
    match fields.byte()? {
        REQUEST_IDENTITIES => {
            fields.end()?;
            Ok(Request::List)
        }
        SIGN_REQUEST => {
            let (key, data, flags) = (fields.string()?, fields.string()?, fields.uint32()?);
            fields.end()?;
            Ok(Request::Sign { key, data, flags })
        }
        EXTENSION => {
            let name = fields.string()?;
            if name != SESSION_BIND.as_bytes() {
                return Ok(Request::Extension(name));
            }
            let bind = SessionBind {
                host_key: fields.string()?,
                session_id: fields.string()?,
                signature: fields.string()?,
                forwarding: fields.boolean()?,
            };
            fields.end()?;
            Ok(Request::Bind(bind))
        }
        other => Ok(Request::Other(other)),
    }
}

/// One identity of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityEntry {
    /// Key or certificate blob.
    pub key: Vec<u8>,
    /// Its comment; bytes that are not UTF-8 are replaced.
    pub comment: String,
}

/// What an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// No.
    Failure,
    /// An extension was refused.
    ExtensionFailure,
    /// Done.
    Success,
    /// The identities.
    Identities(Vec<IdentityEntry>),
    /// A signature blob.
    Signature(Vec<u8>),
}

impl Reply {
    /// The reply as bytes, without its frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Failure => vec![FAILURE],
            Self::ExtensionFailure => vec![EXTENSION_FAILURE],
            Self::Success => vec![SUCCESS],
            Self::Identities(entries) => {
                let mut out = vec![IDENTITIES_ANSWER];
                out.put_uint32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
                for entry in entries {
                    out.put_string(&entry.key);
                    out.put_string(entry.comment.as_bytes());
                }
                out
            }
            Self::Signature(blob) => {
                let mut out = vec![SIGN_RESPONSE];
                out.put_string(blob);
                out
            }
        }
    }
}

/// Reads one reply, without its frame.
pub fn parse_reply(message: &[u8]) -> Result<Reply, WireError> {
    if message.len() > MAX_MESSAGE {
        return Err(WireError::Long(message.len()));
    }
    let mut fields = Fields::new(message);
    match fields.byte()? {
        FAILURE => Ok(Reply::Failure),
        EXTENSION_FAILURE => Ok(Reply::ExtensionFailure),
        SUCCESS => Ok(Reply::Success),
        SIGN_RESPONSE => {
            let blob = fields.string()?.to_vec();
            fields.end()?;
            Ok(Reply::Signature(blob))
        }
        IDENTITIES_ANSWER => {
            let count = fields.uint32()?;
            let mut entries = Vec::new();
            // Every turn consumes at least eight bytes or ends in an error, so the count cannot be abused.
            for _ in 0..count {
                let key = fields.string()?.to_vec();
                let comment = String::from_utf8_lossy(fields.string()?).into_owned();
                entries.push(IdentityEntry { key, comment });
            }
            fields.end()?;
            Ok(Reply::Identities(entries))
        }
        other => Err(WireError::Type(other)),
    }
}

/// A key with its certificate, to be added to a running agent (PROTOCOL.agent, "Adding certificates").
#[derive(Debug)]
pub struct AddCertificate<'a> {
    /// Algorithm name of the certificate.
    pub algorithm: &'a str,
    /// The certificate blob.
    pub certificate: &'a [u8],
    /// The private fields that follow the certificate (for Ed25519: public key and key pair, each a string).
    pub private_fields: &'a [u8],
    /// Comment.
    pub comment: &'a str,
    /// Seconds until the agent forgets the key.
    pub lifetime: Option<u32>,
}

impl AddCertificate<'_> {
    /// The request as bytes, without its frame. It holds a private key.
    #[must_use]
    pub fn encode(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let room = 64
            + self.algorithm.len()
            + self.certificate.len()
            + self.private_fields.len()
            + self.comment.len();
        // Sized once: growing would leave copies of the key behind.
        let mut out = zeroize::Zeroizing::new(Vec::with_capacity(room));
        out.put_byte(if self.lifetime.is_some() { ADD_ID_CONSTRAINED } else { ADD_IDENTITY });
        out.put_string(self.algorithm.as_bytes());
        out.put_string(self.certificate);
        out.extend_from_slice(self.private_fields);
        out.put_string(self.comment.as_bytes());
        if let Some(seconds) = self.lifetime {
            out.put_byte(CONSTRAIN_LIFETIME);
            out.put_uint32(seconds);
        }
        out
    }
}

impl Request<'_> {
    /// A request to list the identities, without its frame.
    #[must_use]
    pub fn encode_list() -> Vec<u8> {
        vec![REQUEST_IDENTITIES]
    }

    /// A request to sign, without its frame.
    #[must_use]
    pub fn encode_sign(key: &[u8], data: &[u8], flags: u32) -> Vec<u8> {
        let mut out = vec![SIGN_REQUEST];
        out.put_string(key);
        out.put_string(data);
        out.put_uint32(flags);
        out
    }

    /// A request to remove one identity, without its frame.
    #[must_use]
    pub fn encode_remove(key: &[u8]) -> Vec<u8> {
        let mut out = vec![REMOVE_IDENTITY];
        out.put_string(key);
        out
    }
}

/// Puts the length in front of a message.
#[must_use]
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 4);
    out.put_string(message);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spare_bytes_after_a_request_are_refused() {
        for mut message in [
            Request::encode_list(),
            Request::encode_sign(b"key", b"data", 0),
            SessionBind { host_key: b"h", session_id: b"s", signature: b"g", forwarding: false }
                .encode(),
        ] {
            assert!(parse_request(&message).is_ok());
            message.push(0);
            assert_eq!(parse_request(&message), Err(WireError::Spare(1)));
        }
    }

    #[test]
    fn an_identity_count_without_identities_is_short() {
        let message = [IDENTITIES_ANSWER, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(parse_reply(&message), Err(WireError::Short));
    }

    proptest! {
        #[test]
        fn nothing_panics(message: Vec<u8>) {
            let _ = parse_request(&message);
            let _ = parse_reply(&message);
        }

        #[test]
        fn binds_round_trip(
            host_key: Vec<u8>, session_id: Vec<u8>, signature: Vec<u8>, forwarding: bool
        ) {
            let bind = SessionBind {
                host_key: &host_key,
                session_id: &session_id,
                signature: &signature,
                forwarding,
            };
            let bytes = bind.encode();
            prop_assert_eq!(parse_request(&bytes).unwrap(), Request::Bind(bind));
            for cut in 0..bytes.len() {
                prop_assert!(!matches!(parse_request(&bytes[..cut]), Ok(Request::Bind(_))));
            }
        }

        #[test]
        fn replies_round_trip(blob: Vec<u8>, comments in proptest::collection::vec("[a-z]{0,9}", 0..4)) {
            let entries: Vec<_> = comments
                .into_iter()
                .map(|comment| IdentityEntry { key: blob.clone(), comment })
                .collect();
            for reply in [Reply::Signature(blob.clone()), Reply::Identities(entries), Reply::Success] {
                prop_assert_eq!(parse_reply(&reply.encode()).unwrap(), reply);
            }
        }
    }
}

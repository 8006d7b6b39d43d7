//! The bytes a client signs to authenticate with a key (RFC 4252 §7; OpenSSH PROTOCOL §3.1 for the
//! hostbound variant, which adds the server's host key).

use super::field::{Fields, Put, WireError};

/// The only service an agent signs for.
pub const SSH_CONNECTION: &str = "ssh-connection";
/// The method whose signature covers the server's host key.
pub const HOSTBOUND: &str = "publickey-hostbound-v00@openssh.com";

const PUBLICKEY: &str = "publickey";
const USERAUTH_REQUEST: u8 = 50;

/// How the request authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod<'a> {
    /// `publickey`.
    PublicKey,
    /// `publickey-hostbound-v00@openssh.com` and the host key it names.
    HostBound(&'a [u8]),
}

/// A signed-over userauth request, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserAuthRequest<'a> {
    /// Session id.
    pub session_id: &'a [u8],
    /// User name, bytes as sent.
    pub user: &'a [u8],
    /// Service name.
    pub service: &'a [u8],
    /// Method.
    pub method: AuthMethod<'a>,
    /// Public key algorithm name.
    pub algorithm: &'a [u8],
    /// Key or certificate blob.
    pub key: &'a [u8],
}

impl<'a> UserAuthRequest<'a> {
    /// Reads a whole request; a method without a key, a missing signature flag or a spare byte is an error.
    pub fn parse(data: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Fields::new(data);
        let session_id = fields.string()?;
        match fields.byte()? {
            USERAUTH_REQUEST => {}
            other => return Err(WireError::Type(other)),
        }
        let user = fields.string()?;
        let service = fields.string()?;
        let method = fields.string()?;
        let hostbound = match method {
            m if m == PUBLICKEY.as_bytes() => false,
            m if m == HOSTBOUND.as_bytes() => true,
            _ => return Err(WireError::Method),
        };
        if !fields.boolean()? {
            return Err(WireError::Method);
        }
        let algorithm = fields.string()?;
        let key = fields.string()?;
        let method =
            if hostbound { AuthMethod::HostBound(fields.string()?) } else { AuthMethod::PublicKey };
        fields.end()?;
        Ok(Self { session_id, user, service, method, algorithm, key })
    }
}

/// Writes what [`UserAuthRequest::parse`] reads.
#[must_use]
pub fn encode_userauth(request: &UserAuthRequest<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_string(request.session_id);
    out.put_byte(USERAUTH_REQUEST);
    out.put_string(request.user);
    out.put_string(request.service);
    out.put_string(match request.method {
        AuthMethod::PublicKey => PUBLICKEY.as_bytes(),
        AuthMethod::HostBound(_) => HOSTBOUND.as_bytes(),
    });
    out.put_boolean(true);
    out.put_string(request.algorithm);
    out.put_string(request.key);
    if let AuthMethod::HostBound(host_key) = request.method {
        out.put_string(host_key);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_panics(data: Vec<u8>) {
            let _ = UserAuthRequest::parse(&data);
        }

        #[test]
        fn requests_round_trip_and_neither_prefix_nor_suffix_passes(
            session_id: Vec<u8>, user in "[a-z]{1,8}", algorithm in "[a-z0-9-]{1,20}",
            key: Vec<u8>, host_key: Option<Vec<u8>>,
        ) {
            let request = UserAuthRequest {
                session_id: &session_id,
                user: user.as_bytes(),
                service: SSH_CONNECTION.as_bytes(),
                method: host_key.as_deref().map_or(AuthMethod::PublicKey, AuthMethod::HostBound),
                algorithm: algorithm.as_bytes(),
                key: &key,
            };
            let mut bytes = encode_userauth(&request);
            prop_assert_eq!(UserAuthRequest::parse(&bytes).unwrap(), request);
            for cut in 0..bytes.len() {
                prop_assert!(UserAuthRequest::parse(&bytes[..cut]).is_err());
            }
            bytes.push(0);
            prop_assert!(UserAuthRequest::parse(&bytes).is_err());
        }
    }

    #[test]
    fn password_and_probe_requests_are_no_requests_to_sign() {
        let mut probe = Vec::new();
        probe.put_string(b"sid");
        probe.put_byte(USERAUTH_REQUEST);
        probe.put_string(b"root");
        probe.put_string(SSH_CONNECTION.as_bytes());
        let head = probe.clone();
        probe.put_string(PUBLICKEY.as_bytes());
        probe.put_boolean(false);
        probe.put_string(b"alg");
        probe.put_string(b"key");
        assert_eq!(UserAuthRequest::parse(&probe), Err(WireError::Method));
        let mut password = head;
        password.put_string(b"password");
        password.put_boolean(false);
        password.put_string(b"secret");
        assert_eq!(UserAuthRequest::parse(&password), Err(WireError::Method));
    }
}

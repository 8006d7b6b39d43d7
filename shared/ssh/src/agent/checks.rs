//! The two checks everything rests on: whom a channel is bound to, and what it may have signed
//! (design §7, *Bind check* and *Sign check*).

use chrono::{DateTime, Utc};
use russh::keys::signature::Verifier;
use russh::keys::ssh_key::encoding::{Decode, Reader};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{PublicKey, Signature};
use shared_pki::verify::{CertRefusal, HostRole, SshVerifier};
use shared_pki::{TrustedAuthority, parse_certificate};

use super::host_keys::{HostKeyRefusal, plain_key};
use super::key::AgentKey;
use crate::wire::{AuthMethod, SSH_CONNECTION, SessionBind, UserAuthRequest, WireError};

/// The longest session id: a SHA-512 exchange hash.
const MAX_SESSION_ID: usize = 64;

/// Why the agent refused. For the user's log and eyes: the peer only reads "failure".
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The message cannot be read.
    #[error("message cannot be read")]
    Message(#[source] WireError),
    /// Neither list, bind nor sign.
    #[error("request type {0} is not known to this agent")]
    Request(u8),
    /// Another extension.
    #[error("extension is not known to this agent")]
    Extension,
    /// List or sign before a bind.
    #[error("channel is not bound to a connection")]
    Unbound,
    /// A second bind.
    #[error("channel is bound already")]
    SecondBind,
    /// A bind for forwarding.
    #[error("binding asks to forward this agent")]
    ForwardingBind,
    /// A session id of zero or more than 64 bytes.
    #[error("session id has {0} bytes")]
    SessionIdLength(usize),
    /// A session id that another channel used.
    #[error("session id was used before")]
    SessionIdReused,
    /// A host's signature that cannot be read.
    #[error("host signature cannot be read")]
    Unreadable,
    /// The host certificate does not hold.
    #[error("host certificate")]
    Host(#[source] CertRefusal),
    /// A plain host key of a kind or length that proves nothing.
    #[error("host key is of no kind that can be kept")]
    WeakHostKey,
    /// The plain host key is not the one kept for the host, or nobody wanted it.
    #[error("host key")]
    HostKey(#[source] HostKeyRefusal),
    /// There is no login at the moment.
    #[error("agent holds no certificate")]
    NoKey,
    /// The certified key did not sign the session id.
    #[error("host did not sign the session id")]
    HostSignature,
    /// Sign request for another key than ours.
    #[error("signature is asked of another key")]
    OtherKey,
    /// Sign flags, which only RSA keys have.
    #[error("signature is asked under another algorithm")]
    OtherAlgorithm,
    /// Not a userauth request, or not exactly one.
    #[error("data to sign is no userauth request")]
    NotUserAuth(#[source] WireError),
    /// Userauth request for another session.
    #[error("userauth request is for another session")]
    OtherSession,
    /// Userauth request for another user.
    #[error("userauth request is for another login")]
    OtherUser,
    /// Userauth request for another service.
    #[error("userauth request is for another service")]
    OtherService,
    /// Hostbound request that names another host key.
    #[error("userauth request names another host key")]
    OtherHost,
    /// Plain `publickey` where only hostbound is allowed.
    #[error("userauth request does not name the host")]
    PlainPublicKey,
    /// More signatures than session channels plus one.
    #[error("signature budget is used up")]
    Budget,
    /// The channel was closed by an earlier refusal.
    #[error("channel was closed")]
    Closed,
    /// Signing itself went wrong.
    #[error(transparent)]
    Key(#[from] super::key::KeyError),
}

/// The connection a channel is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundHost {
    pub(crate) host_key: Vec<u8>,
    pub(crate) session_id: Vec<u8>,
}

impl BoundHost {
    /// The host certificate blob.
    #[must_use]
    pub fn host_key(&self) -> &[u8] {
        &self.host_key
    }

    /// The session id.
    #[must_use]
    pub fn session_id(&self) -> &[u8] {
        &self.session_id
    }
}

/// Whose certificate a bind must carry.
pub(crate) struct Expected<'a> {
    pub(crate) authorities: &'a [TrustedAuthority],
    /// The name the certificate must be for; none where only some name of it matters.
    pub(crate) principal: Option<&'a str>,
    pub(crate) role: HostRole,
}

/// The *Bind check*, but for what depends on the channel's history.
pub(crate) fn check_bind(
    bind: &SessionBind<'_>,
    expected: &Expected<'_>,
    now: DateTime<Utc>,
) -> Result<BoundHost, Refusal> {
    check_length(bind)?;
    let certificate = parse_certificate(bind.host_key).map_err(Refusal::Host)?;
    let principal = match expected.principal {
        Some(name) => name,
        None => certificate.valid_principals().first().map(String::as_str).unwrap_or_default(),
    };
    let verifier = SshVerifier::new(expected.authorities, now);
    verifier.host(&certificate, principal, expected.role).map_err(Refusal::Host)?;
    signed(bind, certificate.public_key())
}

/// The *Bind check* where plain keys are not ruled out: none when the host shows a certificate, which
/// goes by [`check_bind`]. The key that comes back has signed the session id; whose it is, is open.
pub(crate) fn check_plain_bind(
    bind: &SessionBind<'_>,
) -> Result<Option<(BoundHost, PublicKey)>, Refusal> {
    check_length(bind)?;
    if !matches!(parse_certificate(bind.host_key), Err(CertRefusal::NotCertificate)) {
        return Ok(None);
    }
    let key = plain_key(bind.host_key).ok_or(Refusal::WeakHostKey)?;
    let bound = signed(bind, key.key_data())?;
    Ok(Some((bound, key)))
}

fn check_length(bind: &SessionBind<'_>) -> Result<(), Refusal> {
    if bind.session_id.is_empty() || bind.session_id.len() > MAX_SESSION_ID {
        return Err(Refusal::SessionIdLength(bind.session_id.len()));
    }
    Ok(())
}

/// Whether `key` signed the session id.
fn signed(bind: &SessionBind<'_>, key: &KeyData) -> Result<BoundHost, Refusal> {
    let mut reader = bind.signature;
    let signature = Signature::decode(&mut reader).map_err(|_| Refusal::Unreadable)?;
    if !reader.is_finished() {
        return Err(Refusal::Unreadable);
    }
    if !AgentKey::acceptable_host_signature(&signature.algorithm()) {
        return Err(Refusal::HostSignature);
    }
    key.verify(bind.session_id, &signature).map_err(|_| Refusal::HostSignature)?;
    Ok(BoundHost { host_key: bind.host_key.to_vec(), session_id: bind.session_id.to_vec() })
}

/// The *Sign check* for a bound channel. `login` is none where any login of the certificate will do.
/// Returns whether the request was plain `publickey`.
pub(crate) fn check_sign(
    key: &AgentKey,
    bound: &BoundHost,
    login: Option<&str>,
    asked: (&[u8], &[u8], u32),
) -> Result<bool, Refusal> {
    let (blob, data, flags) = asked;
    if blob != key.blob() {
        return Err(Refusal::OtherKey);
    }
    if flags != 0 {
        return Err(Refusal::OtherAlgorithm);
    }
    let request = UserAuthRequest::parse(data).map_err(Refusal::NotUserAuth)?;
    if request.session_id != bound.session_id {
        return Err(Refusal::OtherSession);
    }
    let user_fits = match login {
        Some(login) => request.user == login.as_bytes(),
        None => key.certificate().valid_principals().iter().any(|p| p.as_bytes() == request.user),
    };
    if !user_fits {
        return Err(Refusal::OtherUser);
    }
    if request.service != SSH_CONNECTION.as_bytes() {
        return Err(Refusal::OtherService);
    }
    if request.key != key.blob() {
        return Err(Refusal::OtherKey);
    }
    if request.algorithm != key.algorithm().as_bytes() {
        return Err(Refusal::OtherAlgorithm);
    }
    match request.method {
        AuthMethod::HostBound(host_key) if host_key == bound.host_key => Ok(false),
        AuthMethod::HostBound(_) => Err(Refusal::OtherHost),
        AuthMethod::PublicKey => Ok(true),
    }
}

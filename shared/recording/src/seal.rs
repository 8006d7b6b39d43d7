//! The seal: what the auth service says of a recording it has received, signed by the recording authority.
//!
//! It is a part of its own behind the last slice, with nothing in it but an empty gzip member whose extra field has the
//! subfield `GS`. The auth service keeps it beside the recording and sends it with it; what the recorder wrote stays as
//! it is.

use shared_pki::ssh_key::PublicKey;
use shared_pki::{PkiError, SIGNATURE, SshCa, verify_detached};
use shared_types::SessionId;

use crate::chain::{Hash, Subfields, subfield};
use crate::{format, gzip};

/// Namespace of the signature (OpenSSH PROTOCOL.sshsig §3.1).
pub const NAMESPACE: &str = "gatehouse-recording-seal";
const ID: [u8; 2] = *b"GS";
const VERSION: u8 = 1;
const STATE_COMPLETE: u8 = b'c';
const STATE_TRUNCATED: u8 = b't';

/// How a recording ended, as the auth service received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndState {
    /// The recorder ended it.
    Complete,
    /// The recorder did not live to end it.
    Truncated,
}

impl EndState {
    /// The word for it in events and listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated => "truncated",
        }
    }
}

/// What the auth service received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Whose recording it is.
    pub session: SessionId,
    /// How it ended.
    pub state: EndState,
    /// How many slices it has.
    pub slices: u64,
    /// How many bytes it has, without the seal.
    pub bytes: u64,
    /// The chain's head.
    pub head: Hash,
    /// When that was, in seconds of the Unix time.
    pub time: u64,
}

impl Received {
    /// What is signed.
    fn message(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + 8 + 8 + 16 + 32 + 8);
        out.push(match self.state {
            EndState::Complete => STATE_COMPLETE,
            EndState::Truncated => STATE_TRUNCATED,
        });
        out.extend_from_slice(&self.slices.to_be_bytes());
        out.extend_from_slice(&self.bytes.to_be_bytes());
        out.extend_from_slice(self.session.uuid().as_bytes());
        out.extend_from_slice(&self.head);
        out.extend_from_slice(&self.time.to_be_bytes());
        out
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (state, rest) = bytes.split_first()?;
        let (slices, rest) = rest.split_at_checked(8)?;
        let (stored, rest) = rest.split_at_checked(8)?;
        let (session, rest) = rest.split_at_checked(16)?;
        let (head, time) = rest.split_at_checked(32)?;
        Some(Self {
            session: SessionId(uuid::Uuid::from_slice(session).ok()?),
            state: match *state {
                STATE_COMPLETE => EndState::Complete,
                STATE_TRUNCATED => EndState::Truncated,
                _ => return None,
            },
            slices: u64::from_be_bytes(slices.try_into().ok()?),
            bytes: u64::from_be_bytes(stored.try_into().ok()?),
            head: head.try_into().ok()?,
            time: u64::from_be_bytes(time.try_into().ok()?),
        })
    }
}

/// The auth service's word on a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// What it says.
    pub received: Received,
    /// Ed25519, by the recording authority.
    pub signature: [u8; SIGNATURE],
}

impl Seal {
    /// Signs with the recording authority's key.
    pub fn sign(received: Received, authority: &SshCa) -> Result<Self, PkiError> {
        let signature = authority.sign_recording(NAMESPACE, &received.message())?;
        Ok(Self { received, signature })
    }

    /// Whether one of these keys signed it.
    #[must_use]
    pub fn is_by(&self, keys: &[PublicKey]) -> bool {
        let message = self.received.message();
        keys.iter().any(|key| verify_detached(key, NAMESPACE, &message, &self.signature))
    }

    /// A whole part of the container.
    #[must_use]
    pub fn to_part(&self) -> Vec<u8> {
        let body = self.body();
        let mut out = format::header(body.len() as u64).to_vec();
        out.extend_from_slice(&body);
        out
    }

    fn body(&self) -> Vec<u8> {
        let mut data = vec![VERSION];
        data.extend_from_slice(&self.received.message());
        data.extend_from_slice(&self.signature);
        let (mut extra, mut body) = (Vec::new(), Vec::new());
        subfield(ID, &data, &mut extra);
        gzip::empty_member(&extra, &mut body);
        body
    }

    /// Whether the body of a part begins as a seal's does.
    pub(crate) fn is_meant(body: &[u8]) -> bool {
        matches!(gzip::header(body), Ok((_, Some(extra))) if extra.starts_with(&ID))
    }

    /// Reads the body of a part, to the last byte. There is one way to write a seal.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Option<Self> {
        let (_, extra) = gzip::header(body).ok()?;
        let data = Subfields(extra?).take(ID)?;
        let data = data.strip_prefix(&[VERSION])?;
        let (received, signature) = data.split_at_checked(data.len().checked_sub(SIGNATURE)?)?;
        let seal =
            Self { received: Received::read(received)?, signature: signature.try_into().ok()? };
        (seal.body() == body).then_some(seal)
    }
}

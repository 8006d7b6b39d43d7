//! Checkpoints: the recorder's signature over the chain's head, in the subfield `GC` of a link.
//!
//! Each slice has one while the recorder has a certified key; signing costs less than compressing. The signature
//! covers origin, kind, number, head and time, so that it says of which recording, and where in it, the slice is.

use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use shared_pki::{CheckpointKey, SIGNATURE};

use crate::chain::{Hash, Link};

/// Namespace of the signature (OpenSSH PROTOCOL.sshsig §3.1).
pub const NAMESPACE: &str = "gatehouse-recording-checkpoint";
const VERSION: u8 = 1;
const FIXED: usize = 1 + 8 + SIGNATURE;

/// A checkpoint as it stands in a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// When it was signed, in seconds of the Unix time.
    pub time: u64,
    /// Ed25519, over [`Checkpoint::message`].
    pub signature: [u8; SIGNATURE],
    /// The recorder's certificate; empty where that of the checkpoint before still holds.
    pub certificate: Vec<u8>,
}

impl Checkpoint {
    /// What is signed for a link of the recording with this origin.
    #[must_use]
    pub fn message(origin: &Hash, link: &Link, time: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + 1 + 8 + 32 + 8);
        out.extend_from_slice(origin);
        out.push(link.kind());
        out.extend_from_slice(&link.seq.to_be_bytes());
        out.extend_from_slice(&link.head());
        out.extend_from_slice(&time.to_be_bytes());
        out
    }

    /// The bytes of the subfield.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + self.certificate.len());
        out.push(VERSION);
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(&self.signature);
        out.extend_from_slice(&self.certificate);
        out
    }

    /// Reads the bytes of the subfield. The certificate is not looked into.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[VERSION])?;
        let (time, rest) = rest.split_at_checked(8)?;
        let (signature, certificate) = rest.split_at_checked(SIGNATURE)?;
        Some(Self {
            time: u64::from_be_bytes(time.try_into().ok()?),
            signature: signature.try_into().ok()?,
            certificate: certificate.to_vec(),
        })
    }
}

/// The key that all recordings of a process are signed with. It may be replaced while they run, and it may be missing
/// for a while: what is recorded then is vouched for by the next checkpoint.
#[derive(Debug)]
pub struct Signer {
    key: RwLock<Option<Arc<CheckpointKey>>>,
    clock: fn() -> DateTime<Utc>,
}

impl Signer {
    /// One without a key so far.
    #[must_use]
    pub fn new(clock: fn() -> DateTime<Utc>) -> Self {
        Self { key: RwLock::default(), clock }
    }

    /// Signs with this key from now on.
    pub fn replace(&self, key: CheckpointKey) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(key));
    }

    /// The key and the time, where the key's certificate holds now.
    fn now(&self) -> Option<(Arc<CheckpointKey>, u64)> {
        let time = u64::try_from((self.clock)().timestamp()).ok()?;
        let key = self.key.read().unwrap_or_else(PoisonError::into_inner).clone();
        key.filter(|key| key.holds_at(time)).map(|key| (key, time))
    }
}

/// Signs one recording's links.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signing {
    signer: Option<Arc<Signer>>,
    /// The key whose certificate the recording has.
    shown: Option<Arc<CheckpointKey>>,
}

/// A checkpoint whose length is known before what it signs.
pub(crate) struct Draft {
    key: Arc<CheckpointKey>,
    time: u64,
    with_certificate: bool,
}

impl Signing {
    pub(crate) fn with(signer: Arc<Signer>) -> Self {
        Self { signer: Some(signer), shown: None }
    }

    /// The next checkpoint, if there is to be one.
    pub(crate) fn draft(&self) -> Option<Draft> {
        let (key, time) = self.signer.as_ref()?.now()?;
        let known = self.shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &key));
        Some(Draft { key, time, with_certificate: !known })
    }

    /// The recording has the draft now.
    pub(crate) fn written(&mut self, draft: Draft) {
        self.shown = Some(draft.key);
    }
}

impl Draft {
    fn certificate(&self) -> &[u8] {
        if self.with_certificate { self.key.certificate() } else { &[] }
    }

    pub(crate) fn encoded_len(&self) -> usize {
        FIXED + self.certificate().len()
    }

    /// The checkpoint of `link`; none where the key does not sign.
    pub(crate) fn sign(&self, origin: &Hash, link: &Link) -> Option<Vec<u8>> {
        let message = Checkpoint::message(origin, link, self.time);
        let signature = self.key.sign(NAMESPACE, &message).ok()?;
        let certificate = self.certificate().to_vec();
        Some(Checkpoint { time: self.time, signature, certificate }.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_survive_and_have_one_form() {
        for certificate in [Vec::new(), vec![7; 400]] {
            let checkpoint = Checkpoint { time: 9, signature: [3; SIGNATURE], certificate };
            let bytes = checkpoint.encode();
            assert_eq!(Checkpoint::decode(&bytes), Some(checkpoint));
            for len in 0..FIXED {
                assert_eq!(Checkpoint::decode(&bytes[..len]), None, "{len}");
            }
        }
        assert_eq!(Checkpoint::decode(&[2; FIXED]), None);
    }
}

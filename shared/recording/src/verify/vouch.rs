//! Whether somebody vouches for the chain: certificates and signatures of checkpoints and of the seal.

use chrono::{DateTime, Utc};
use shared_pki::ssh_key::PublicKey;
use shared_pki::verify::{CertRefusal, RecorderIdentity, SshVerifier};
use shared_pki::{TrustedAuthority, parse_certificate};

use super::verdict::{Place, Verdict};
use crate::chain::{Hash, Header, Link};
use crate::checkpoint::{Checkpoint, NAMESPACE};
use crate::seal::Seal;

/// Follows the checkpoints of a recording.
pub(super) struct Vouch<'a> {
    authority: &'a TrustedAuthority,
    keys: Vec<PublicKey>,
    /// Whose certificate was the last.
    recorder: Option<RecorderIdentity>,
    signed: u64,
    last: Option<DateTime<Utc>>,
}

impl<'a> Vouch<'a> {
    pub(super) fn new(authority: &'a TrustedAuthority) -> Self {
        let keys = authority.ssh_public_keys();
        Self { authority, keys, recorder: None, signed: 0, last: None }
    }

    /// How many slices, from the first, the checkpoints vouch for.
    pub(super) fn signed(&self) -> u64 {
        self.signed
    }

    /// When the last of them was made.
    pub(super) fn last_signed(&self) -> Option<DateTime<Utc>> {
        self.last
    }

    /// Whether the recording is of the authority's cluster, or how it is not.
    pub(super) fn belongs(&self, origin: &Header) -> Result<(), String> {
        if origin.cluster == self.authority.cluster {
            return Ok(());
        }
        Err(format!(
            "recording is of cluster {}, the authority is that of {}",
            origin.cluster, self.authority.cluster
        ))
    }

    /// Checks the checkpoint of a link that continues the chain, if it has one.
    pub(super) fn checkpoint(
        &mut self,
        link: &Link,
        origin: &Header,
        place: Place,
    ) -> Result<(), Verdict> {
        let Some(bytes) = &link.checkpoint else { return Ok(()) };
        let edited = |why: &str| Verdict::Edited { place, why: why.to_owned() };
        let unknown = |why: String| Verdict::UnknownKey { place, why };
        let checkpoint =
            Checkpoint::decode(bytes).ok_or_else(|| edited("checkpoint is malformed"))?;
        let time = i64::try_from(checkpoint.time)
            .ok()
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
            .ok_or_else(|| edited("checkpoint has no time"))?;
        if !checkpoint.certificate.is_empty() {
            let recorder =
                self.recorder(&checkpoint.certificate, time).map_err(|refusal| match refusal {
                    CertRefusal::Malformed(_)
                    | CertRefusal::NotCertificate
                    | CertRefusal::SignedByCertificate
                    | CertRefusal::BadSignature => {
                        edited(&format!("certificate of the checkpoint: {refusal}"))
                    }
                    other => unknown(other.to_string()),
                })?;
            if recorder.host_id != origin.recorder {
                return Err(unknown(format!("the key is that of host {}", recorder.host_id)));
            }
            self.recorder = Some(recorder);
        }
        let Some(recorder) = &self.recorder else {
            return Err(unknown("no certificate was shown".to_owned()));
        };
        if !signed(recorder, &origin.origin(), link, &checkpoint) {
            return Err(edited("signature of the checkpoint does not fit"));
        }
        if !recorder.held_at(checkpoint.time) {
            return Err(unknown("the key's certificate did not hold when it signed".to_owned()));
        }
        self.signed = link.seq.saturating_add(1);
        self.last = Some(time);
        Ok(())
    }

    /// Whether a slice that is out of place is signed as one of the recording with this origin. Without a checkpoint,
    /// or a key to check it with, it is not known.
    pub(super) fn knows(&self, link: &Link, origin: &Hash) -> Option<bool> {
        let checkpoint = Checkpoint::decode(link.checkpoint.as_deref()?)?;
        let shown = self.recorder(&checkpoint.certificate, self.last?).ok();
        let recorder = shown.as_ref().or(self.recorder.as_ref())?;
        Some(signed(recorder, origin, link, &checkpoint))
    }

    /// Whether the authority signed the seal.
    pub(super) fn sealed(&self, seal: &Seal) -> bool {
        seal.is_by(&self.keys)
    }

    fn recorder(&self, blob: &[u8], at: DateTime<Utc>) -> Result<RecorderIdentity, CertRefusal> {
        let certificate = parse_certificate(blob)?;
        SshVerifier::new(std::slice::from_ref(self.authority), at).recorder(&certificate)
    }
}

fn signed(
    recorder: &RecorderIdentity,
    origin: &Hash,
    link: &Link,
    checkpoint: &Checkpoint,
) -> bool {
    let message = Checkpoint::message(origin, link, checkpoint.time);
    recorder.signed(NAMESPACE, &message, &checkpoint.signature)
}

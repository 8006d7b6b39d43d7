//! Host certificates, on both connections.

use std::sync::Arc;

use chrono::Utc;
use russh::keys::PublicKeyOrCertificate;
use shared_pki::TrustedAuthority;
use shared_pki::verify::{CertRefusal, HostRole, SshVerifier};

use super::error::{ConnectError, Leg};
use crate::agent::{HostKeys, plain_key};

/// Whose certificate a server must present.
#[derive(Debug, Clone)]
pub(crate) struct HostCheck {
    pub(crate) leg: Leg,
    pub(crate) authorities: Vec<TrustedAuthority>,
    pub(crate) host: String,
    pub(crate) role: HostRole,
    /// Who decides about a plain key; without, one is refused.
    pub(crate) plain_keys: Option<Arc<dyn HostKeys>>,
}

impl HostCheck {
    /// Checks what the server presented in the key exchange, which it has signed with that key.
    pub(crate) async fn check(
        &self,
        presented: &PublicKeyOrCertificate,
    ) -> Result<(), ConnectError> {
        let refuse =
            |refusal| ConnectError::HostKey { leg: self.leg, host: self.host.clone(), refusal };
        match (presented, &self.plain_keys) {
            (PublicKeyOrCertificate::Certificate(certificate), _) => {
                let verifier = SshVerifier::new(&self.authorities, Utc::now());
                verifier.host(certificate, &self.host, self.role).map(drop).map_err(refuse)
            }
            (PublicKeyOrCertificate::PublicKey { .. }, None) => {
                Err(refuse(CertRefusal::NotCertificate))
            }
            (PublicKeyOrCertificate::PublicKey { key, .. }, Some(plain_keys)) => {
                let weak = || ConnectError::PlainHostKey {
                    host: self.host.clone(),
                    text: "is of no kind that can be kept".to_owned(),
                };
                let blob = key.to_bytes().map_err(|_| weak())?;
                let key = plain_key(&blob).ok_or_else(weak)?;
                plain_keys.accept(&key).await.map_err(|refusal| ConnectError::PlainHostKey {
                    host: self.host.clone(),
                    text: refusal.to_string(),
                })
            }
        }
    }
}

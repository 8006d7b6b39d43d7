//! Host certificates, on both connections.

use chrono::Utc;
use russh::keys::PublicKeyOrCertificate;
use shared_pki::TrustedAuthority;
use shared_pki::verify::{CertRefusal, HostRole, SshVerifier};

use super::error::{ConnectError, Leg};

/// Whose certificate a server must present.
#[derive(Debug, Clone)]
pub(crate) struct HostCheck {
    pub(crate) leg: Leg,
    pub(crate) authorities: Vec<TrustedAuthority>,
    pub(crate) host: String,
    pub(crate) role: HostRole,
}

impl HostCheck {
    /// Checks what the server presented in the key exchange, which it has signed with that key.
    pub(crate) fn check(&self, presented: &PublicKeyOrCertificate) -> Result<(), ConnectError> {
        let refuse =
            |refusal| ConnectError::HostKey { leg: self.leg, host: self.host.clone(), refusal };
        let Some(certificate) = presented.certificate() else {
            return Err(refuse(CertRefusal::NotCertificate));
        };
        let verifier = SshVerifier::new(&self.authorities, Utc::now());
        verifier.host(certificate, &self.host, self.role).map(drop).map_err(refuse)
    }
}

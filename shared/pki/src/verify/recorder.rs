//! Certificates of recorders.

use super::CertRefusal;
use super::ssh::SshVerifier;
use crate::extension::{RECORDER, X_TELEPORT_AUTHORITY, X_TELEPORT_ROLE};
use crate::identity::system_role;
use crate::recorder::{recorder_principal, verify_detached};
use crate::{CaKind, ssh_key};
use shared_types::{ClusterName, HostId, SystemRole};
use ssh_key::certificate::CertType;
use ssh_key::{Algorithm, Certificate, PublicKey};

/// A recorder, as its verified certificate says.
#[derive(Debug, Clone)]
pub struct RecorderIdentity {
    /// The host that records.
    pub host_id: HostId,
    /// What it is.
    pub role: SystemRole,
    /// The cluster that vouches for it.
    pub cluster: ClusterName,
    key: PublicKey,
    valid_after: u64,
    valid_before: u64,
}

impl RecorderIdentity {
    /// Whether the recorder's key made this signature in this namespace.
    pub fn signed(&self, namespace: &str, message: &[u8], signature: &[u8]) -> bool {
        verify_detached(&self.key, namespace, message, signature)
    }

    /// Whether the certificate held at `second` of the Unix time.
    pub fn held_at(&self, second: u64) -> bool {
        (self.valid_after..self.valid_before).contains(&second)
    }
}

impl SshVerifier<'_> {
    /// Believes or refuses a recorder's certificate, at the moment it was signed with.
    pub fn recorder(&self, cert: &Certificate) -> Result<RecorderIdentity, CertRefusal> {
        let authority = self.common(cert, CertType::Host, CaKind::Recording)?;
        let options: Vec<&str> = cert.critical_options().keys().map(String::as_str).collect();
        if let Some(other) = options.iter().find(|name| **name != RECORDER) {
            return Err(CertRefusal::UnknownCriticalOption((*other).to_owned()));
        }
        if options.is_empty() || cert.key_id() != RECORDER {
            return Err(CertRefusal::WrongType { expected: "recorder", found: "host" });
        }
        if cert.public_key().algorithm() != Algorithm::Ed25519 {
            return Err(CertRefusal::UnsupportedKey(cert.public_key().algorithm().to_string()));
        }
        let named = cert.extensions().get(X_TELEPORT_AUTHORITY);
        if named.map(String::as_str) != Some(authority.cluster.as_str()) {
            return Err(CertRefusal::WrongCluster);
        }
        let found = cert.extensions().get(X_TELEPORT_ROLE).and_then(|role| system_role(role));
        let Some(role) = found.filter(|role| role.joins()) else {
            return Err(CertRefusal::WrongRole { expected: "an agent or Proxy", found });
        };
        let [principal] = cert.valid_principals() else { return Err(CertRefusal::Identity) };
        let host_id: HostId = principal
            .split_once('.')
            .and_then(|(id, _)| id.parse().ok())
            .ok_or(CertRefusal::Identity)?;
        if *principal != recorder_principal(host_id, &authority.cluster) {
            return Err(CertRefusal::Principal(principal.clone()));
        }
        Ok(RecorderIdentity {
            host_id,
            role,
            cluster: authority.cluster.clone(),
            key: PublicKey::from(cert.public_key().clone()),
            valid_after: cert.valid_after(),
            valid_before: cert.valid_before(),
        })
    }
}

//! The proxy's host certificates: its own, and those it shows in the name of targets. Asked for where neither memory
//! nor disk has one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use server_core::Authority;
use shared_pki::KeyPair;
use shared_pki::ssh_key::{Certificate, PrivateKey};
use shared_ssh::server::HostIdentityKey;

use super::host_certs::{HostCerts, HostKeyFileError};

/// Certificates kept for targets.
const MAX_HOSTS: usize = 4096;
/// A certificate with less than this left is replaced.
const RENEW: Duration = Duration::from_secs(600);
/// What auth may take to sign.
const SIGN: Duration = Duration::from_secs(10);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostKeyError {
    #[error("ask for a host certificate")]
    Sign(#[source] server_core::AuthorityError),
    #[error("auth service did not sign in time")]
    Slow,
    #[error("auth service sent a host certificate that cannot be read")]
    Unreadable(#[source] shared_pki::verify::CertRefusal),
}

type Slot = Arc<tokio::sync::Mutex<Option<HostIdentityKey>>>;

/// One key, and certificates over it by their names.
pub(crate) struct HostKeys {
    authority: Arc<dyn Authority>,
    key: KeyPair,
    private: Arc<PrivateKey>,
    kept: HostCerts,
    certificates: Mutex<HashMap<Vec<String>, Slot>>,
}

impl HostKeys {
    /// Takes the key in `data_dir`, or makes it. Blocks on the disk.
    pub(crate) fn open(
        authority: Arc<dyn Authority>,
        data_dir: &Path,
    ) -> Result<Self, HostKeyFileError> {
        let (kept, key) = HostCerts::open(data_dir)?;
        let private = Arc::new(key.private().clone());
        Ok(Self { authority, key, private, kept, certificates: Mutex::default() })
    }

    fn slot(&self, names: &[String]) -> Slot {
        let mut certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        if certificates.len() >= MAX_HOSTS && !certificates.contains_key(names) {
            // Rare, and they can be had again: no bookkeeping of which was used last.
            certificates.clear();
        }
        Arc::clone(certificates.entry(names.to_vec()).or_default())
    }

    /// A key whose certificate names `names`. One request at a time for the same names.
    pub(crate) async fn identity(&self, names: &[String]) -> Result<HostIdentityKey, HostKeyError> {
        let slot = self.slot(names);
        let mut held = slot.lock().await;
        if let Some(identity) = held.as_ref().filter(|identity| left(&identity.certificate) > RENEW)
        {
            return Ok(identity.clone());
        }
        let identity_of =
            |certificate| HostIdentityKey { key: Arc::clone(&self.private), certificate };
        if held.is_none() {
            *held = self.load(names).await.map(identity_of);
            if let Some(identity) =
                held.as_ref().filter(|identity| left(&identity.certificate) > RENEW)
            {
                return Ok(identity.clone());
            }
        }
        match self.sign(names).await {
            Ok(certificate) => {
                let identity = identity_of(certificate);
                *held = Some(identity.clone());
                Ok(identity)
            }
            Err(err) => {
                match held.as_ref().filter(|identity| !left(&identity.certificate).is_zero()) {
                    Some(identity) => {
                        tracing::warn!(error = %err, "host certificate cannot be renewed");
                        Ok(identity.clone())
                    }
                    None => Err(err),
                }
            }
        }
    }

    async fn sign(&self, names: &[String]) -> Result<Certificate, HostKeyError> {
        let public = self.key.public_openssh();
        let signing = self.authority.sign_proxy_host(names.to_vec(), &public);
        let line = tokio::time::timeout(SIGN, signing)
            .await
            .map_err(|_| HostKeyError::Slow)?
            .map_err(HostKeyError::Sign)?;
        let certificate =
            shared_pki::parse_certificate_line(&line).map_err(HostKeyError::Unreadable)?;
        // Nobody waits for the disk: without the file it is asked for again.
        let (kept, names) = (self.kept.clone(), names.to_vec());
        tokio::task::spawn_blocking(move || {
            if let Err(err) = kept.save(&names, &line) {
                tracing::warn!(error = %err, "host certificate is not kept");
            }
        });
        Ok(certificate)
    }

    async fn load(&self, names: &[String]) -> Option<Certificate> {
        let (kept, key, names) = (self.kept.clone(), self.key.clone(), names.to_vec());
        tokio::task::spawn_blocking(move || kept.load(&names, &key)).await.ok().flatten()
    }
}

/// What a certificate has left; what has no end has a day.
pub(super) fn left(certificate: &Certificate) -> Duration {
    let now = u64::try_from(Utc::now().timestamp()).unwrap_or(0);
    Duration::from_secs(certificate.valid_before().saturating_sub(now))
        .min(Duration::from_secs(86_400))
}

//! The certificate the auth service shows. Its key exists in this process only; it is signed anew, with a key of its
//! own, long before it ends.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use shared_pki::{HostTlsSpec, TlsKey};
use shared_types::SystemRole;

use crate::error::{AuthError, Result};
use crate::service::AuthService;

/// How long one is valid. It is replaced when half of that is over: auditors want to see some months that are left.
const LIFE: Duration = Duration::from_secs(180 * 24 * 3600);
/// How long one that could not be replaced is shown until the next try.
const AGAIN: Duration = Duration::from_secs(60);

/// The certificate as it is now.
pub(crate) struct ServerCert {
    service: Weak<AuthService>,
    current: Mutex<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    /// When it is to be replaced.
    due: DateTime<Utc>,
}

impl std::fmt::Debug for ServerCert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCert").finish_non_exhaustive()
    }
}

impl ServerCert {
    /// Makes the first one.
    pub(crate) fn new(service: &Arc<AuthService>) -> Result<Self> {
        let current = Mutex::new(sign(service)?);
        Ok(Self { service: Arc::downgrade(service), current })
    }

    fn shown(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = self.service.upgrade().filter(|service| service.now() >= current.due)
        {
            match sign(&service) {
                Ok(signed) => *current = signed,
                Err(error) => {
                    tracing::error!(%error, "could not renew the certificate of the auth service");
                    current.due = service.now() + AGAIN;
                }
            }
        }
        Arc::clone(&current.key)
    }
}

impl ResolvesServerCert for ServerCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown())
    }
}

/// Takes well below a millisecond.
fn sign(service: &AuthService) -> Result<Current> {
    const STEP: &str = "sign server certificate";
    let key = TlsKey::generate().map_err(AuthError::at("make server key"))?;
    let spec = HostTlsSpec {
        host_id: service.host_id(),
        role: SystemRole::Auth,
        cluster: service.cluster().clone(),
        names: service.settings.names.clone(),
    };
    let now = service.now();
    let authority = service.host_authority().tls_ca().map_err(AuthError::at(STEP))?;
    let leaf = authority
        .sign_server(&spec, &key.public(), now, Some(LIFE))
        .map_err(AuthError::at(STEP))?;
    // The authority goes along, so that a client that only has a pin finds it.
    let chain = vec![
        CertificateDer::from(leaf.der().to_vec()),
        CertificateDer::from(authority.cert_der().to_vec()),
    ];
    let key = shared_transport::tls::certified_key(chain, key.to_rustls())
        .map_err(AuthError::at("set up TLS"))?;
    Ok(Current { key: Arc::new(key), due: now + LIFE / 2 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Bed;

    #[tokio::test]
    async fn it_is_replaced_well_before_it_ends() {
        let bed = Bed::new().await;
        let cert = ServerCert::new(&bed.service).unwrap();
        let first = cert.shown();
        assert!(Arc::ptr_eq(&first, &cert.shown()), "it is kept as long as it is good");
        let life = chrono::Duration::from_std(LIFE).unwrap();
        bed.advance(life / 3);
        assert!(Arc::ptr_eq(&first, &cert.shown()));
        bed.advance(life / 3);
        let second = cert.shown();
        assert!(!Arc::ptr_eq(&first, &second), "it was not replaced");
        assert_ne!(first.cert.first(), second.cert.first());
    }
}

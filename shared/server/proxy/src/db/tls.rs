//! TLS towards clients of databases: which certificate they are shown, and what they show.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use server_core::Authority;
use server_core::host::HostKeys;
use server_core::tunnel::{BoxedStream, ByteStream};
use shared_api::ClusterState;
use shared_pki::Identity;
use shared_pki::verify::{CertRefusal, TlsVerifier};
use shared_transport::tls::{self, TlsError};
use tokio::sync::watch;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Server names under it ask for the host's certificate, whatever else the web port shows.
const CLUSTER_NAMES: &str = "teleport.cluster.local";

/// A stream after a handshake, and the certificate that its client showed.
pub(super) type Accepted = (BoxedStream, Option<CertificateDer<'static>>);

/// TLS configurations out of the keys and the authorities as they are now.
pub(super) struct DbTls {
    authority: Arc<dyn Authority>,
    keys: watch::Receiver<Arc<HostKeys>>,
    /// What the web port shows, where an administrator gave it certificates.
    web: Option<Arc<dyn ResolvesServerCert>>,
    built: Mutex<Option<Arc<Built>>>,
}

struct Built {
    keys: Arc<HostKeys>,
    state: Arc<ClusterState>,
    by_name: Arc<ServerConfig>,
    host: Arc<ServerConfig>,
    users: TlsVerifier,
}

/// Which certificate a client of a database is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// By the server name: this host's under `teleport.cluster.local`, else the web's. A web certificate that we signed
    /// ourselves proves nothing to anybody, and the host's is shown in its place.
    ByName,
    /// This host's: TLS that begins inside a database's protocol is met by clients that were given the cluster's
    /// authority, not the web's.
    Host,
}

impl DbTls {
    pub(super) fn new(
        authority: Arc<dyn Authority>,
        keys: watch::Receiver<Arc<HostKeys>>,
        web: Option<Arc<dyn ResolvesServerCert>>,
    ) -> Self {
        Self { authority, keys, web, built: Mutex::default() }
    }

    fn built(&self) -> Result<Arc<Built>, TlsError> {
        let (keys, state) = (Arc::clone(&self.keys.borrow()), self.authority.state());
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = built.as_ref().filter(|built| {
            Arc::ptr_eq(&built.keys, &keys)
                && (Arc::ptr_eq(&built.state, &state)
                    || built.state.authorities == state.authorities)
        }) {
            return Ok(Arc::clone(built));
        }
        let fresh = Arc::new(self.build(keys, state)?);
        *built = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    fn build(&self, keys: Arc<HostKeys>, state: Arc<ClusterState>) -> Result<Built, TlsError> {
        let certs = tls::certs_from_pem(keys.tls_cert_pem.as_bytes())?;
        let key = tls::key_from_pem(keys.tls_key_pem.as_bytes())?;
        let host = Arc::new(tls::certified_key(certs, key)?);
        let config = |shown: Arc<dyn ResolvesServerCert>| {
            // What is shown is judged after the handshake, so that a refusal can be said in words.
            let clients = Some(tls::danger_any_client_certificate());
            let mut config = tls::server_config_by(shown, clients, &[])?;
            // Each connection shows its certificate anew, and nothing is kept for the next.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Ok::<_, TlsError>(Arc::new(config))
        };
        let by_name = ByName { host: Arc::clone(&host), web: self.web.clone() };
        Ok(Built {
            by_name: config(Arc::new(by_name))?,
            host: config(Arc::new(SingleCertAndKey::from(host)))?,
            users: TlsVerifier::new(&state.authorities),
            keys,
            state,
        })
    }

    /// A client's handshake; `alpn` is the name that it is answered with.
    pub(super) async fn accept<S: ByteStream>(
        &self,
        stream: S,
        shown: Shown,
        alpn: Option<Vec<u8>>,
    ) -> Result<Accepted, TlsError> {
        let built = self.built()?;
        let mut config = match shown {
            Shown::ByName => Arc::clone(&built.by_name),
            Shown::Host => Arc::clone(&built.host),
        };
        if let Some(alpn) = alpn {
            Arc::make_mut(&mut config).alpn_protocols = vec![alpn];
        }
        let stream = tls::accept(config, stream, HANDSHAKE).await?;
        let chain = stream.get_ref().1.peer_certificates();
        let certificate = chain.and_then(<[_]>::first).cloned();
        Ok((Box::new(stream), certificate))
    }

    /// The user behind a certificate that a client has proved to hold.
    pub(super) fn user(&self, shown: &CertificateDer<'_>) -> Result<Identity, CertRefusal> {
        let built = self.built().map_err(|err| {
            tracing::error!(error = &err as &dyn std::error::Error, "keys of this host");
            CertRefusal::UnknownAuthority
        })?;
        built.users.database_user(shown, Utc::now())
    }
}

/// Chooses between the certificates of this host and of the web port.
#[derive(Debug)]
struct ByName {
    host: Arc<CertifiedKey>,
    web: Option<Arc<dyn ResolvesServerCert>>,
}

/// Whether a server name asks for a host of the cluster.
fn is_cluster_name(name: Option<&str>) -> bool {
    let before = name.and_then(|name| name.strip_suffix(CLUSTER_NAMES));
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match &self.web {
            Some(web) if !is_cluster_name(hello.server_name()) => web.resolve(hello),
            _ => Some(Arc::clone(&self.host)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_cluster() {
        for name in ["teleport.cluster.local", "6d61696e.teleport.cluster.local"] {
            assert!(is_cluster_name(Some(name)), "{name}");
        }
        for name in ["gate.test", "evilteleport.cluster.local", "cluster.local", ""] {
            assert!(!is_cluster_name(Some(name)), "{name}");
        }
        assert!(!is_cluster_name(None));
    }
}

//! TLS between hosts of the cluster: both show the host certificate of their system role, and each knows which roles
//! the other may have.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ServerConfig};
use shared_api::ClusterState;
use shared_pki::Identity;
use shared_pki::verify::{CertRefusal, ClientVerifier, ServerVerifier};
use shared_transport::tls::{self, TlsError};
use shared_types::resource::LockSubject;
use shared_types::{HostId, SystemRole};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::TlsStream;

use crate::authority::Authority;
use crate::host::HostKeys;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What is sent as the server's name; the certificate is checked by role and cluster.
const SERVER_NAME: &str = "teleport.cluster.local";

/// A connection between hosts.
pub type TlsIo<S> = TlsStream<S>;

/// Why a host of the cluster is not believed, or not reached.
#[derive(Debug, thiserror::Error)]
pub enum HostTlsError {
    /// The handshake did not come about.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The other side showed no certificate.
    #[error("the other side showed no certificate")]
    NoCertificate,
    /// Its certificate is not believed.
    #[error("certificate of the other side: {0}")]
    Certificate(CertRefusal),
    /// It is something else.
    #[error("the other side is a host of role {}, expected {expected}", .found.map_or("none", SystemRole::as_str))]
    Role {
        /// What it is.
        found: Option<SystemRole>,
        /// What it should be.
        expected: &'static str,
    },
    /// Its certificate does not say which host it is, or is of another cluster.
    #[error("certificate of the other side is not one of a host of this cluster")]
    NoHost,
    /// A lock is in force; its text.
    #[error("{0}")]
    Locked(String),
}

/// A host of the cluster at the other end of a connection.
#[derive(Debug, Clone)]
pub struct PeerHost {
    /// Which.
    pub host_id: HostId,
    /// What it is.
    pub role: SystemRole,
    /// What its certificate says besides.
    pub identity: Identity,
}

/// TLS configurations out of the keys and the authorities as they are now.
pub struct HostTls {
    authority: Arc<dyn Authority>,
    keys: watch::Receiver<Arc<HostKeys>>,
    peers: &'static [SystemRole],
    alpn: &'static [u8],
    built: Mutex<Option<Arc<Built>>>,
}

struct Built {
    keys: Arc<HostKeys>,
    state: Arc<ClusterState>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    clients: Arc<ClientVerifier>,
    servers: Arc<ServerVerifier>,
}

impl std::fmt::Debug for HostTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostTls").field("peers", &self.peers).finish_non_exhaustive()
    }
}

impl HostTls {
    /// Shows what `keys` holds, and speaks with hosts of the roles `peers` under the name `alpn`.
    pub fn new(
        authority: Arc<dyn Authority>,
        keys: watch::Receiver<Arc<HostKeys>>,
        peers: &'static [SystemRole],
        alpn: &'static [u8],
    ) -> Self {
        Self { authority, keys, peers, alpn, built: Mutex::default() }
    }

    /// Whose state decides.
    pub(super) fn authority(&self) -> &dyn Authority {
        self.authority.as_ref()
    }

    /// Tells of new keys.
    pub fn keys(&self) -> watch::Receiver<Arc<HostKeys>> {
        self.keys.clone()
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
        let pair = || {
            let certs = tls::certs_from_pem(keys.tls_cert_pem.as_bytes())?;
            Ok::<_, TlsError>((certs, tls::key_from_pem(keys.tls_key_pem.as_bytes())?))
        };
        let clients = ClientVerifier::new(&state.authorities);
        let servers = ServerVerifier::new(&state.authorities, self.peers);
        let (certs, key) = pair()?;
        let verifier = Arc::clone(&clients);
        let mut server = tls::server_config(certs, key, Some(verifier), &[self.alpn])?;
        // Connections are few and long; each is checked anew, and nothing is kept for the next.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = tls::client_config(Arc::<ServerVerifier>::clone(&servers), Some(pair()?))?;
        client.alpn_protocols = vec![self.alpn.to_vec()];
        client.resumption = Resumption::disabled();
        let (server, client) = (Arc::new(server), Arc::new(client));
        Ok(Built { keys, state, server, client, clients, servers })
    }

    /// Takes the connection of a host.
    pub async fn accept<S>(&self, stream: S) -> Result<(TlsIo<S>, PeerHost), HostTlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let built = self.built()?;
        let stream = tls::accept(Arc::clone(&built.server), stream, HANDSHAKE).await?;
        let shown = leaf(stream.get_ref().1.peer_certificates())?;
        let identity =
            built.clients.verifier().peer(shown, Utc::now()).map_err(HostTlsError::Certificate)?;
        let peer = self.admit(identity)?;
        Ok((stream.into(), peer))
    }

    /// Begins a connection to a host.
    pub async fn connect<S>(&self, stream: S) -> Result<(TlsIo<S>, PeerHost), HostTlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let built = self.built()?;
        let stream =
            tls::connect(Arc::clone(&built.client), SERVER_NAME, stream, HANDSHAKE).await?;
        let chain = stream.get_ref().1.peer_certificates();
        let others = chain.and_then(|chain| chain.get(1..)).unwrap_or_default();
        let identity = built
            .servers
            .peer(leaf(chain)?, others, Utc::now())
            .map_err(HostTlsError::Certificate)?;
        let peer = self.admit(identity)?;
        Ok((stream.into(), peer))
    }

    fn admit(&self, identity: Identity) -> Result<PeerHost, HostTlsError> {
        let state = self.authority.state();
        let Some(role) = identity.system_role.filter(|role| self.peers.contains(role)) else {
            let expected = self.peers.first().map_or("none", |role| role.as_str());
            return Err(HostTlsError::Role { found: identity.system_role, expected });
        };
        let host_id = identity.host_id.filter(|_| identity.cluster == state.cluster);
        let host_id = host_id.ok_or(HostTlsError::NoHost)?;
        match locked(&state, host_id) {
            Some(text) => Err(HostTlsError::Locked(text)),
            None => Ok(PeerHost { host_id, role, identity }),
        }
    }
}

/// The text of a lock on a host.
pub(crate) fn locked(state: &ClusterState, host: HostId) -> Option<String> {
    let subject = LockSubject { server: Some(host), ..LockSubject::default() };
    state.lock_on(&subject, Utc::now()).map(|lock| lock.text())
}

fn leaf<'a>(
    chain: Option<&'a [CertificateDer<'static>]>,
) -> Result<&'a CertificateDer<'static>, HostTlsError> {
    chain.and_then(<[_]>::first).ok_or(HostTlsError::NoCertificate)
}

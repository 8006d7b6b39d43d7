//! The SSH side of the proxy: who gets in, and where they are led.

mod access;
mod command;
mod events;
mod host_keys;
mod network;
mod outer;
mod recorder;
mod tap;
mod visit;
mod watch;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use server_core::{Authority, EventSink as _, EventSpool, RecordingSpool};
use shared_ssh::server::{ClientIdent, ServerLimits, ciphers_for, serve_outer, server_config};
use shared_transport::Rewind;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::limit::RateLimit;
use crate::service::StartError;
use crate::settings::ProxySettings;
use host_keys::HostKeys;
use outer::Door;

/// How long a client that waits for us is waited for.
const IDENT: Duration = Duration::from_millis(300);
/// Connections that nobody has logged in on yet, at a time.
const STARTUPS: usize = 1024;
/// How long a connection waits for its turn.
const STARTUP_WAIT: Duration = Duration::from_secs(10);
/// Failed authentications on one connection: agents offer plain keys first, and each costs one.
const AUTH_ATTEMPTS: usize = 20;

/// Both ends of a client's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// The client.
    pub(crate) peer: SocketAddr,
    /// Where it was accepted.
    pub(crate) local: Option<SocketAddr>,
}

/// The SSH proxy.
pub(crate) struct SshProxy {
    settings: Arc<ProxySettings>,
    authority: Arc<dyn Authority>,
    events: Arc<EventSpool>,
    recordings: Arc<RecordingSpool>,
    keys: HostKeys,
    /// Where this cluster itself listens.
    own: Mutex<Vec<SocketAddr>>,
    /// Places for connections that nobody has logged in on yet.
    startups: Arc<Semaphore>,
    /// Failed logins that become events.
    failures: RateLimit,
}

impl SshProxy {
    pub(crate) fn new(
        settings: Arc<ProxySettings>,
        authority: Arc<dyn Authority>,
        events: Arc<EventSpool>,
        recordings: Arc<RecordingSpool>,
    ) -> Result<Self, StartError> {
        let keys = HostKeys::new(Arc::clone(&authority)).map_err(StartError::HostKey)?;
        let own = Mutex::new(settings.cluster_addrs.clone());
        let failures = RateLimit::new(60, Duration::from_secs(60), 120);
        let startups = Arc::new(Semaphore::new(STARTUPS));
        Ok(Self { settings, authority, events, recordings, keys, own, startups, failures })
    }

    /// Adds addresses of our own, which need the literal address in a role.
    pub(crate) fn listening(&self, addrs: &[SocketAddr]) {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(addrs);
    }

    /// Whether an address is one of the cluster's own.
    pub(crate) fn is_own(&self, addr: SocketAddr) -> bool {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        own.iter().any(|listener| network::is_listener(*listener, addr))
    }

    fn limits(&self) -> ServerLimits {
        ServerLimits {
            auth_attempts: AUTH_ATTEMPTS,
            keepalive: self.settings.timeouts.keepalive,
            keepalive_max: self.settings.timeouts.keepalive_max,
        }
    }

    /// Serves one connection to its end. After `ending`, sessions have the drain's time.
    pub(crate) async fn connection<S>(
        self: &Arc<Self>,
        mut stream: Rewind<S>,
        ends: Ends,
        ending: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = ends.peer;
        let place =
            tokio::time::timeout(STARTUP_WAIT, Arc::clone(&self.startups).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            tracing::warn!(%peer, "too many connections before login");
            return;
        };
        let ident = match shared_transport::ssh_identification(&mut stream, IDENT).await {
            Ok(ident) => ident.map(|line| ClientIdent::parse(&line)),
            Err(err) => {
                tracing::debug!(%peer, error = %err, "ssh client left");
                return;
            }
        };
        let ciphers = ciphers_for(ident.as_ref(), &self.settings.ssh_ciphers);
        let names = self.settings.host_names();
        let identity = match self.keys.identity(&names).await {
            Ok(identity) => identity,
            Err(err) => {
                tracing::error!(error = %err, "no host certificate for the ssh port");
                return;
            }
        };
        let config = server_config(&identity, ciphers.clone(), &self.limits());
        let stop = CancellationToken::new();
        let door = Arc::new(Door::new(Arc::clone(self), ends, ciphers, place, stop.clone()));
        let mut serving = std::pin::pin!(serve_outer(
            door,
            stream,
            config,
            self.settings.timeouts.auth,
            stop.clone()
        ));
        let overdue = async {
            ending.cancelled().await;
            tokio::time::sleep(self.settings.timeouts.drain).await;
        };
        let login = tokio::select! {
            login = &mut serving => login,
            () = overdue => {
                stop.cancel();
                serving.await
            }
        };
        if let (false, Some(user)) = (login.admitted, &login.user) {
            self.not_admitted(ends, user, login.failure.as_deref().unwrap_or("connection ended"))
                .await;
        }
    }

    /// The event of somebody who did not get in, at most so many per address.
    pub(crate) async fn not_admitted(&self, ends: Ends, user: &str, why: &str) {
        let peer = ends.peer;
        tracing::info!(%peer, user = ?user, why = ?why, "ssh login refused");
        if !self.failures.admit(peer.ip(), Instant::now()) {
            return;
        }
        let event =
            events::not_admitted(user, why, events::connection(ends), self.settings.host_id);
        if let Err(err) = self.events.emit(vec![event]).await {
            tracing::error!(error = %err, "audit event is lost");
        }
    }
}

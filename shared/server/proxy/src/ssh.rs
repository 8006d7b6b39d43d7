//! The SSH side of the proxy: who gets in, and where they are led.

mod access;
mod command;
mod events;
mod host_certs;
mod host_keys;
mod limits;
mod network;
mod outer;
mod running;
mod signer;
mod tap;
mod visit;
mod watch;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use server_core::{AccessRefused, Authority, EventSink as _, EventSpool, RecordingSpool, Via};
use shared_pki::Identity;
use shared_ssh::server::{ClientIdent, ServerLimits, ciphers_for, serve_outer, server_config};
use shared_transport::Rewind;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::limit::RateLimit;
use crate::service::StartError;
use crate::settings::ProxySettings;
pub use host_certs::HostKeyFileError;
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

/// When the auth service is first told which sessions run, and again where it is away.
const FIRST_RENEWAL: Duration = Duration::from_secs(1);
/// Bounds of the time it asks for in between.
const SOONEST_RENEWAL: Duration = Duration::from_millis(50);
const LATEST_RENEWAL: Duration = Duration::from_secs(60);

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
    /// Sessions that run.
    sessions: Arc<running::RunningSessions>,
    /// What recordings are signed with.
    signer: signer::RecordingSigner,
    /// Connections by user.
    users: Arc<limits::PerUser>,
    /// Where this cluster itself listens.
    own: Mutex<Vec<SocketAddr>>,
    /// Places for connections that nobody has logged in on yet.
    startups: Arc<Semaphore>,
    /// Failed logins that become events.
    failures: RateLimit,
}

impl SshProxy {
    /// Reads keys from the disk, and blocks on that.
    pub(crate) fn new(
        settings: Arc<ProxySettings>,
        authority: Arc<dyn Authority>,
        events: Arc<EventSpool>,
        recordings: Arc<RecordingSpool>,
    ) -> Result<Self, StartError> {
        let keys = HostKeys::open(Arc::clone(&authority), &settings.data_dir)?;
        let own = Mutex::new(settings.cluster_addrs.clone());
        let failures = RateLimit::new(60, Duration::from_secs(60), 120);
        let startups = Arc::new(Semaphore::new(STARTUPS));
        let users = Arc::default();
        let signer = signer::RecordingSigner::start(Arc::clone(&authority));
        Ok(Self {
            settings,
            authority,
            events,
            recordings,
            sessions: Arc::default(),
            keys,
            signer,
            users,
            own,
            startups,
            failures,
        })
    }

    /// Tells the auth service again and again which sessions run here, and whose recordings wait here.
    pub(crate) async fn keep_sessions_alive(self: Arc<Self>) {
        let mut within = FIRST_RENEWAL;
        loop {
            tokio::time::sleep(within).await;
            let mut sessions = self.sessions.all();
            // The tracker of a session that has ended lives as long as its recording waits here.
            sessions.extend(self.recordings.waiting_sessions().await.unwrap_or_default());
            let mut rest = sessions.as_slice();
            loop {
                let (now, later) = rest.split_at(rest.len().min(shared_api::limits::MAX_RENEWED));
                match self.authority.renew_sessions(now.to_vec()).await {
                    Ok(wanted) => within = wanted.clamp(SOONEST_RENEWAL, LATEST_RENEWAL),
                    Err(err) => {
                        tracing::debug!(error = %err, "sessions are not renewed");
                        within = FIRST_RENEWAL;
                        break;
                    }
                }
                if later.is_empty() {
                    break;
                }
                rest = later;
            }
        }
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

    /// This proxy, as what it decides by stands now.
    fn via(&self) -> Via {
        Via { server: self.settings.host_id, confirmed: self.authority.confirmed() }
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

    /// The event of a user who may do nothing at all, at most so many per address.
    pub(crate) async fn shut_out(
        &self,
        ends: Ends,
        identity: &Identity,
        login: &str,
        refusal: &AccessRefused,
    ) {
        let peer = ends.peer;
        tracing::info!(%peer, user = %identity.user, login, why = %refusal, "access refused");
        if !self.failures.admit(peer.ip(), Instant::now()) {
            return;
        }
        let event =
            events::shut_out(identity, login, &refusal.to_string(), ends, self.settings.host_id);
        if let Err(err) = self.events.emit(vec![event]).await {
            tracing::error!(error = %err, "audit event is lost");
        }
    }
}

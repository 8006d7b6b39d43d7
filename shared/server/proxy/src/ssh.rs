//! The SSH side of the proxy: who gets in, and where they are led.

mod access;
mod host_certs;
mod host_keys;
mod network;
mod openssh;
mod outer;
mod reach;
mod registered;
mod route;
mod visit;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use server_core::ssh::limits::PerUser;
use server_core::ssh::rate::RateLimit;
use server_core::ssh::running::RunningSessions;
use server_core::ssh::signer::RecordingSigner;
use server_core::ssh::{Ends, events};
use server_core::{AccessRefused, Authority, EventSink as _, EventSpool, RecordingSpool, Via};
use shared_pki::Identity;
use shared_ssh::server::{ClientIdent, ServerLimits, ciphers_for, serve_outer, server_config};
use shared_transport::Rewind;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::service::StartError;
use crate::settings::ProxySettings;
use crate::startups::Startups;
use crate::tunnels::Tunnels;
pub use host_certs::HostKeyFileError;
use host_keys::HostKeys;
use outer::Door;
use registered::Registered;

/// How long a client that waits for us is waited for.
const IDENT: Duration = Duration::from_millis(300);
/// Connections that nobody has logged in on yet, at a time.
const STARTUPS: usize = 1024;
/// Failed authentications on one connection: agents offer plain keys first, and each costs one.
const AUTH_ATTEMPTS: usize = 20;

/// The SSH proxy.
pub(crate) struct SshProxy {
    settings: Arc<ProxySettings>,
    authority: Arc<dyn Authority>,
    events: Arc<EventSpool>,
    recordings: Arc<RecordingSpool>,
    keys: HostKeys,
    /// Sessions that run.
    sessions: Arc<RunningSessions>,
    /// What recordings are signed with.
    signer: RecordingSigner,
    /// Agents that are connected.
    pub(crate) tunnels: Arc<Tunnels>,
    /// Where nodes are registered by name.
    pub(crate) registered: Registered,
    /// Connections by user.
    users: Arc<PerUser>,
    /// Where this cluster itself listens.
    own: Mutex<Vec<SocketAddr>>,
    /// Places for connections that nobody has logged in on yet.
    startups: Arc<Startups>,
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
        tunnels: Arc<Tunnels>,
    ) -> Result<Self, StartError> {
        let keys = HostKeys::open(Arc::clone(&authority), &settings.data_dir)?;
        let own = Mutex::new(settings.cluster_addrs.clone());
        let failures = RateLimit::new(60, Duration::from_secs(60), 120);
        let startups = Arc::new(Startups::new(STARTUPS));
        let users = Arc::default();
        let signer = RecordingSigner::start(Arc::clone(&authority));
        Ok(Self {
            settings,
            authority,
            events,
            recordings,
            sessions: Arc::default(),
            keys,
            signer,
            tunnels,
            registered: Registered::default(),
            users,
            own,
            startups,
            failures,
        })
    }

    /// Tells the auth service again and again which sessions run here, and whose recordings wait here.
    pub(crate) async fn keep_sessions_alive(self: Arc<Self>) {
        self.sessions.keep_alive(self.authority.as_ref(), &self.recordings).await;
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
        let stop = CancellationToken::new();
        let place = self.startups.enter(stop.clone());
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

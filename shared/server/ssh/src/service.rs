//! The service: takes connections, however they come, and leads each through its visit.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use server_core::host::HostKeys;
use server_core::labels::HostLabels;
use server_core::ssh::limits::PerUser;
use server_core::ssh::rate::RateLimit;
use server_core::ssh::running::RunningSessions;
use server_core::ssh::signer::RecordingSigner;
use server_core::ssh::{Ends, events};
use server_core::tunnel::{AgentService, Arrival, ArrivedBy, BoxedStream};
use server_core::{Authority, EventSink as _, EventSpool, RecordingSpool, Via, chain};
use shared_events::AuditEvent;
use shared_pki::KeyPair;
use shared_ssh::node::serve_node;
use shared_ssh::server::{ClientIdent, HostIdentityKey, ServerLimits, ciphers_for, server_config};
use shared_transport::Rewind;
use shared_types::RecordingMode;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::settings::SshServiceSettings;
use crate::visit::Visit;

/// How long a client that waits for us is waited for.
const IDENT: Duration = Duration::from_millis(300);
/// Connections that nobody has logged in on yet, at a time.
const STARTUPS: usize = 256;
/// How long a connection waits for its turn.
const STARTUP_WAIT: Duration = Duration::from_secs(10);
/// Failed authentications on one connection: agents offer plain keys first, and each costs one.
const AUTH_ATTEMPTS: usize = 20;

/// Why the host's key cannot be shown.
#[derive(Debug, thiserror::Error)]
enum HostKeyError {
    #[error("read the host's ssh key")]
    Key(#[source] shared_pki::PkiError),
    #[error("read the host's ssh certificate")]
    Certificate(#[source] shared_pki::verify::CertRefusal),
}

/// Logins on this host.
pub struct SshService {
    pub(crate) settings: SshServiceSettings,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) events: Arc<EventSpool>,
    pub(crate) recordings: Arc<RecordingSpool>,
    pub(crate) labels: HostLabels,
    /// Sessions that run.
    pub(crate) sessions: Arc<RunningSessions>,
    /// What recordings are signed with.
    pub(crate) signer: RecordingSigner,
    /// Connections by user.
    pub(crate) users: Arc<PerUser>,
    host: watch::Receiver<Arc<HostKeys>>,
    /// The keys that were read last, and what they are.
    shown: Mutex<Option<(Arc<HostKeys>, HostIdentityKey)>>,
    startups: Arc<Semaphore>,
    /// Failed logins that become events.
    failures: RateLimit,
    _renewing: DropGuard,
}

impl SshService {
    /// A service that logs users in by `authority`'s state, and shows itself with the keys in `host`. Needs a runtime;
    /// its background tasks end with it.
    pub fn new(
        settings: SshServiceSettings,
        labels: HostLabels,
        authority: Arc<dyn Authority>,
        events: Arc<EventSpool>,
        recordings: Arc<RecordingSpool>,
        host: watch::Receiver<Arc<HostKeys>>,
    ) -> Self {
        let (sessions, stop) = (Arc::new(RunningSessions::default()), CancellationToken::new());
        let renewing = {
            let (sessions, authority, recordings) =
                (Arc::clone(&sessions), Arc::clone(&authority), Arc::clone(&recordings));
            let stopped = stop.clone();
            async move {
                let renewing = sessions.keep_alive(authority.as_ref(), &recordings);
                let _ = stopped.run_until_cancelled(renewing).await;
            }
        };
        tokio::spawn(renewing);
        Self {
            signer: RecordingSigner::start(Arc::clone(&authority)),
            settings,
            authority,
            events,
            recordings,
            labels,
            sessions,
            users: Arc::default(),
            host,
            shown: Mutex::default(),
            startups: Arc::new(Semaphore::new(STARTUPS)),
            failures: RateLimit::new(60, Duration::from_secs(60), 120),
            _renewing: stop.drop_guard(),
        }
    }

    /// This host, as what it decides by stands now.
    pub(crate) fn via(&self) -> Via {
        Via { server: self.settings.host_id, confirmed: self.authority.confirmed() }
    }

    /// The mode in which a session that came by `via` is recorded here; nothing where the proxy records it and tells
    /// of it.
    pub(crate) fn mode(&self, via: ArrivedBy) -> Option<RecordingMode> {
        let mode = self.authority.state().recording.spec.mode;
        match (mode, via) {
            (
                RecordingMode::Proxy | RecordingMode::ProxySync,
                ArrivedBy::Tunnel | ArrivedBy::Proxy | ArrivedBy::Local,
            ) => None,
            (RecordingMode::Proxy, ArrivedBy::Direct) => Some(RecordingMode::Node),
            (RecordingMode::ProxySync, ArrivedBy::Direct) => Some(RecordingMode::NodeSync),
            (mode, _) => Some(mode),
        }
    }

    /// Emits events; what cannot be made durable is told in the log with everything but its content.
    pub(crate) async fn emit(&self, events: Vec<AuditEvent>) {
        let kinds: Vec<_> = events.iter().map(AuditEvent::kind).collect();
        if let Err(err) = self.events.emit(events).await {
            tracing::error!(?kinds, error = %err, "audit events are lost");
        }
    }

    /// Whether a failed login of this address becomes an event.
    pub(crate) fn tells_of(&self, peer: SocketAddr) -> bool {
        self.failures.admit(peer.ip(), Instant::now())
    }

    fn identity(&self) -> Result<HostIdentityKey, HostKeyError> {
        let keys = self.host.borrow().clone();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, identity)) = shown.as_ref().filter(|(read, _)| Arc::ptr_eq(read, &keys)) {
            return Ok(identity.clone());
        }
        let key = KeyPair::from_openssh_pem(&keys.ssh_key_pem).map_err(HostKeyError::Key)?;
        let certificate = shared_pki::parse_certificate_line(&keys.ssh_cert)
            .map_err(HostKeyError::Certificate)?;
        let identity = HostIdentityKey { key: Arc::new(key.private().clone()), certificate };
        *shown = Some((keys, identity.clone()));
        Ok(identity)
    }

    fn limits(&self) -> ServerLimits {
        ServerLimits {
            auth_attempts: AUTH_ATTEMPTS,
            keepalive: self.settings.timeouts.keepalive,
            keepalive_max: self.settings.timeouts.keepalive_max,
        }
    }

    async fn not_admitted(&self, ends: Ends, user: &str, why: &str) {
        tracing::info!(peer = %ends.peer, user = ?user, why = ?why, "ssh login refused");
        if self.tells_of(ends.peer) {
            let connection = events::connection(ends);
            let event = events::not_admitted(user, why, connection, self.settings.host_id);
            self.emit(vec![event]).await;
        }
    }
}

#[async_trait]
impl AgentService for SshService {
    async fn connection(
        self: Arc<Self>,
        stream: BoxedStream,
        arrival: Arrival,
        stop: CancellationToken,
    ) {
        let ends = Ends { peer: arrival.client, local: Some(self.settings.local) };
        let peer = ends.peer;
        let place = Arc::clone(&self.startups).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(STARTUP_WAIT, place).await else {
            tracing::warn!(%peer, "too many connections before login");
            return;
        };
        let mut stream = Rewind::new(stream);
        let ident = match shared_transport::ssh_identification(&mut stream, IDENT).await {
            Ok(ident) => ident.map(|line| ClientIdent::parse(&line)),
            Err(err) => {
                tracing::debug!(%peer, error = %err, "ssh client left");
                return;
            }
        };
        let identity = match self.identity() {
            Ok(identity) => identity,
            Err(err) => {
                tracing::error!(error = chain(&err), "no host certificate for ssh");
                return;
            }
        };
        let ciphers = ciphers_for(ident.as_ref(), &self.settings.ssh_ciphers);
        let config = server_config(&identity, ciphers, &self.limits());
        let ending = CancellationToken::new();
        let visit = Arc::new(Visit::new(Arc::clone(&self), ends, arrival.via, place));
        let patience = self.settings.timeouts.auth;
        let mut serving =
            std::pin::pin!(serve_node(visit, stream, config, patience, ending.clone()));
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(self.settings.timeouts.drain).await;
        };
        let login = tokio::select! {
            login = &mut serving => login,
            () = overdue => {
                ending.cancel();
                serving.await
            }
        };
        if let (false, Some(user)) = (login.admitted, &login.user) {
            let why = login.failure.as_deref().unwrap_or("connection ended");
            self.not_admitted(ends, user, why).await;
        }
    }
}

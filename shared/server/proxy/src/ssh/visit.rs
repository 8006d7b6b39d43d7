//! One `proxy:` request: a user on the way to a target.
//!
//! What must stay true: every dial has its own `Granted`, made after its event is durable, for the address that is
//! dialled; the target proves to be the host that was typed before the user's agent hears of it; the agent signs only
//! with a certificate of the same user. The first dial overlaps the client's second handshake, for the login of the
//! first; another login there throws it away.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use server_core::EventSink as _;
use server_core::access::check_user;
use shared_pki::ssh_key::{Certificate, PublicKey};
use shared_pki::verify::{HostRole, SshVerifier};
use shared_pki::{Identity, TrustedAuthority};
use shared_ssh::relay::{ForwardTap, InnerService, Tap, serve_inner};
use shared_ssh::russh::cipher;
use shared_ssh::server::{
    AgentSource, AuthGate, OuterSession, SubsystemReply, inner_server_config,
};
use shared_ssh::target::{self, HostCheck, Target, TargetError, TargetOptions};
use shared_transport::CopyError;
use shared_types::{HostName, Login, RecordingMode, SessionId};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::access::{self, Dialled};
use super::events::{self, Party, PortStep};
use super::outer::Door;
use super::tap::{PortTap, Recording, SessionTap};
use super::{Ends, SshProxy, limits, watch};

/// What tells a user why a target closed the connection at once.
const EOF_HINT: &str =
    "the target closed the connection; its sshd may limit new ones, see MaxStartups in sshd_config";
/// How long nothing may move on a pipe that is not recorded.
const PIPE_IDLE: Duration = Duration::from_secs(24 * 3600);

/// A connection that is being made.
type Ahead = JoinHandle<Result<Arc<Target>, String>>;

/// A user on the way to a target.
pub(super) struct Visit {
    pub(super) proxy: Arc<SshProxy>,
    ends: Ends,
    ciphers: Vec<cipher::Name>,
    /// Who got in at the listener.
    pub(super) identity: Arc<Identity>,
    outer_login: String,
    /// The login behind the door, which may be another.
    inner_login: Mutex<Option<String>>,
    agent: AgentSource,
    host: HostName,
    port: u16,
    mode: RecordingMode,
    /// The address that was dialled.
    dialled: Mutex<Option<SocketAddr>>,
    /// A connection made ahead, for the login of the outer connection.
    ahead: Mutex<Option<Ahead>>,
    /// Session channels that are open.
    pub(super) sessions: limits::Sessions,
}

impl Visit {
    pub(super) fn new(
        door: &Door,
        session: OuterSession<Arc<Identity>>,
        host: HostName,
        port: u16,
        mode: RecordingMode,
    ) -> Self {
        Self {
            proxy: Arc::clone(&door.proxy),
            ends: door.ends,
            ciphers: door.ciphers.clone(),
            identity: session.identity,
            outer_login: session.login,
            inner_login: Mutex::default(),
            agent: session.agent,
            host,
            port,
            mode,
            dialled: Mutex::default(),
            ahead: Mutex::default(),
            sessions: limits::Sessions::default(),
        }
    }

    /// The host as the user typed it.
    pub(super) fn host(&self) -> &HostName {
        &self.host
    }

    /// The address that was dialled, once one was.
    pub(super) fn dialled(&self) -> Option<SocketAddr> {
        *self.dialled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the address that was dialled.
    pub(super) fn remember(&self, addr: SocketAddr) {
        *self.dialled.lock().unwrap_or_else(PoisonError::into_inner) = Some(addr);
    }

    /// The port the user asked for.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What events about this visit say.
    pub(super) fn party(&self, login: &str, addr: Option<SocketAddr>) -> Party {
        let addr =
            addr.map_or_else(|| format!("{}:{}", self.host, self.port), |addr| addr.to_string());
        Party {
            user: events::user(&self.identity, login),
            server: events::target(self.host.as_ref(), &addr, self.proxy.settings.host_id),
            connection: events::connection(self.ends),
        }
    }

    fn recording(&self) -> Recording {
        let state = self.proxy.authority.state();
        let options = access::options(&state, &self.identity);
        Recording {
            authority: Arc::clone(&self.proxy.authority),
            events: Arc::clone(&self.proxy.events),
            sessions: Arc::clone(&self.proxy.sessions),
            recordings: Arc::clone(&self.proxy.recordings),
            cluster: state.cluster.clone(),
            recorder: self.proxy.settings.host_id,
            signer: self.proxy.signer.shared(),
            mode: self.mode,
            sync_wait: self.proxy.settings.recording_wait,
            strictness: options.record_session_ssh,
            file_copy: options.ssh_file_copy,
            exec_bucket: self.proxy.settings.exec_bucket,
        }
    }

    async fn emit_refusal(&self, login: &str, why: &str) {
        let event = self.party(login, None).refused(why);
        if let Err(err) = self.proxy.events.emit(vec![event]).await {
            tracing::error!(error = %err, "audit event is lost");
        }
    }

    /// The event of a request that this mode cannot serve.
    pub(super) async fn rejected(&self, why: &str) {
        let event = self.party(&self.outer_login, None).rejected(why);
        if let Err(err) = self.proxy.events.emit(vec![event]).await {
            tracing::error!(error = %err, "audit event is lost");
        }
    }

    fn login(&self, login: &str) -> Result<Login, String> {
        login.parse().map_err(|_| "access denied".to_owned())
    }

    async fn dial(&self, login: &str) -> Result<Dialled, String> {
        let login = self.login(login)?;
        match access::dial(self, &login).await {
            Ok(dialled) => Ok(dialled),
            Err(refusal) => {
                tracing::info!(user = %self.identity.user, %login, host = %self.host, port = self.port, why = %refusal.why, "access refused");
                self.emit_refusal(login.as_ref(), &refusal.why).await;
                Err(refusal.text)
            }
        }
    }

    /// Dials, checks the target, and logs in with the user's agent.
    async fn reach(&self, login: &str) -> Result<Arc<Target>, String> {
        if !self.agent.is_offered() {
            let text = "agent forwarding has not been requested; the proxy records this session and needs your agent \
                        (ssh -o ForwardAgent=yes for both hops)";
            self.emit_refusal(login, "agent forwarding has not been requested").await;
            return Err(text.to_owned());
        }
        let stream = self.dial(login).await?.stream;
        let state = self.proxy.authority.state();
        let host = TargetHost {
            authorities: state.authorities.clone(),
            host: self.host.to_string(),
            checked: state.recording.spec.proxy_checks_host_keys,
        };
        let (user, peer, authorities) =
            (self.identity.user.clone(), self.ends.peer.ip(), state.authorities.clone());
        let wanted = login.to_owned();
        let certificate = move |certificate: &Certificate| {
            SshVerifier::new(&authorities, Utc::now())
                .user(certificate, &wanted, Some(peer))
                .is_ok_and(|identity| identity.user == user)
        };
        let options = TargetOptions {
            login: login.to_owned(),
            host: Arc::new(host),
            certificate: Arc::new(certificate),
        };
        let agent = self.agent.clone();
        let connected = target::connect(stream, options, async move || agent.open().await).await;
        match connected {
            Ok(target) => Ok(Arc::new(target)),
            Err(err) => {
                let text = match &err {
                    TargetError::Eof => format!("{err} ({EOF_HINT})"),
                    _ => err.to_string(),
                };
                self.emit_refusal(login, &err.to_string()).await;
                Err(text)
            }
        }
    }

    /// Takes the connection that was made ahead, where it is for this login and still there.
    async fn reached_ahead(&self, login: &str) -> Option<Result<Arc<Target>, String>> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        if login != self.outer_login {
            ahead.abort();
            return None;
        }
        match ahead.await {
            Ok(Ok(target)) if target.is_closed() => None,
            Ok(reached) => Some(reached),
            Err(_) => None,
        }
    }

    /// Mode `off`: bytes pass to the target as they are.
    pub(super) async fn pipe(self, reply: SubsystemReply, stop: CancellationToken) {
        let login = self.outer_login.clone();
        let dialled = match self.dial(&login).await {
            Ok(dialled) => dialled,
            Err(text) => return reply.fail(&text).await,
        };
        let party = self.party(&login, Some(dialled.addr));
        let recording = self.recording();
        let stream = reply.accept().await;
        let mut ended = shared_ssh::relay::Ended::default();
        let state = self.proxy.authority.state();
        // Bytes that are not read by us hold no text for the client, and keepalives among them count as traffic.
        let limit = access::idle_timeout(&state, &self.identity);
        let idle = Some(limit.unwrap_or(PIPE_IDLE));
        tokio::select! {
            copied = shared_transport::copy_bidirectional(stream, dialled.stream, idle) => {
                let copied = match copied {
                    Ok(copied) => copied,
                    Err(CopyError::Idle { copied, .. }) => {
                        let why = limit.map_or_else(
                            || "nothing was sent or received for a day".to_owned(),
                            |limit| watch::idle_text(&state, limit),
                        );
                        recording.emit(vec![party.disconnected(&why)]).await;
                        copied
                    }
                    Err(CopyError::Io { copied, .. }) => copied,
                };
                ended.to_target = copied.first_to_second;
                ended.to_client = copied.second_to_first;
            }
            why = watch::ended(&self, &login, None) => recording.emit(vec![party.disconnected(&why)]).await,
            () = stop.cancelled() => {}
        }
        recording.emit(vec![party.data(SessionId::random(), &ended)]).await;
    }

    /// Modes `proxy` and `proxy-sync`: the client meets a server of ours, and the session is recorded.
    pub(super) async fn record(self, reply: SubsystemReply, stop: CancellationToken) {
        // The proxy's own names stand behind the target's, because it is the proxy that answers: a key that an
        // ssh-agent holds for the way `PROXY>user@host` then signs for both of the client's handshakes.
        let mut names = vec![self.host.to_string()];
        names.extend(
            self.proxy.settings.host_names().into_iter().filter(|name| *name != self.host.as_ref()),
        );
        let identity = match self.proxy.keys.identity(&names).await {
            Ok(identity) => identity,
            Err(err) => {
                tracing::error!(host = %self.host, error = %err, "no host certificate");
                return reply.fail("the proxy has no host certificate for this target").await;
            }
        };
        let config = inner_server_config(&identity, self.ciphers.clone(), &self.proxy.limits());
        let visit = Arc::new(self);
        // A session that is streamed is told of before its target is dialled.
        if !visit.mode.is_sync() {
            let ahead = tokio::spawn({
                let visit = Arc::clone(&visit);
                async move { visit.reach(&visit.outer_login).await }
            });
            *visit.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
        let stream = reply.accept().await;
        let patience = visit.proxy.settings.timeouts.auth;
        let login = serve_inner(Arc::clone(&visit), stream, config, patience, stop).await;
        let unused = visit.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(unused) = unused {
            if unused.is_finished() {
                if let Ok(Ok(target)) = unused.await {
                    target.disconnect().await;
                }
            } else {
                unused.abort();
            }
        }
        if let (false, Some(user)) = (login.admitted, &login.user) {
            visit
                .proxy
                .not_admitted(
                    visit.ends,
                    user,
                    login.failure.as_deref().unwrap_or("connection ended"),
                )
                .await;
        }
    }
}

#[async_trait]
impl AuthGate for Visit {
    type Identity = Arc<Identity>;

    async fn admit(&self, login: &str, certificate: &Certificate) -> Result<Arc<Identity>, String> {
        let state = self.proxy.authority.state();
        let identity = SshVerifier::new(&state.authorities, Utc::now())
            .user(certificate, login, Some(self.ends.peer.ip()))
            .map_err(|refusal| refusal.to_string())?;
        if identity.user != self.identity.user || identity.cluster != self.identity.cluster {
            return Err(format!(
                "certificate of {} on a connection of {}",
                identity.user, self.identity.user
            ));
        }
        check_user(&state, &identity, Some(login), self.proxy.via())
            .map_err(|refusal| refusal.to_string())?;
        *self.inner_login.lock().unwrap_or_else(PoisonError::into_inner) = Some(login.to_owned());
        Ok(Arc::new(identity))
    }
}

#[async_trait]
impl InnerService for Visit {
    async fn connect(&self, _identity: &Arc<Identity>, login: &str) -> Result<Arc<Target>, String> {
        match self.reached_ahead(login).await {
            Some(reached) => reached,
            None => self.reach(login).await,
        }
    }

    async fn session(
        &self,
        _identity: &Arc<Identity>,
        login: &str,
    ) -> Result<Box<dyn Send>, String> {
        limits::session(self, login).await
    }

    async fn announce(
        &self,
        _identity: &Arc<Identity>,
        login: &str,
    ) -> Result<Option<Arc<dyn Tap>>, String> {
        if !self.mode.is_sync() {
            return Ok(None);
        }
        let party = self.party(login, self.dialled());
        let tap = SessionTap::announced(party, self.recording()).await?;
        Ok(Some(Arc::new(tap)))
    }

    async fn tap(
        &self,
        _identity: &Arc<Identity>,
        login: &str,
        _target: &Arc<Target>,
    ) -> Arc<dyn Tap> {
        Arc::new(SessionTap::new(self.party(login, self.dialled()), self.recording()))
    }

    async fn forward(
        &self,
        identity: &Arc<Identity>,
        login: &str,
        to: (&str, u32),
    ) -> Result<Arc<dyn ForwardTap>, String> {
        const REFUSED: &str = "port forwarding not permitted";
        let state = self.proxy.authority.state();
        let (party, recording) = (self.party(login, None), self.recording());
        let addr = format!("{}:{}", to.0, to.1);
        let allowed = access::options(&state, &self.identity).port_forwarding
            && identity.permits.port_forwarding
            && access::revoked(self, &state, login).is_none();
        if !allowed {
            recording.emit(vec![party.port(&addr, PortStep::Failed(REFUSED))]).await;
            return Err(REFUSED.to_owned());
        }
        let begun = self.proxy.events.emit(vec![party.port(&addr, PortStep::Begin)]).await;
        begun.map_err(|_| "the audit log cannot be written".to_owned())?;
        Ok(Arc::new(PortTap { addr, party, recording }))
    }

    fn may_forward_agent(&self, identity: &Arc<Identity>) -> bool {
        let state = self.proxy.authority.state();
        identity.permits.agent_forwarding && access::options(&state, &self.identity).forward_agent
    }

    async fn ended(
        &self,
        _identity: &Arc<Identity>,
        traffic: &(dyn Fn() -> u64 + Send + Sync),
    ) -> String {
        let inner = self.inner_login.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let login = inner.unwrap_or_else(|| self.outer_login.clone());
        let why = watch::ended(self, &login, Some(traffic)).await;
        // The tap of a session tells of its end; without one nobody would.
        if self.sessions.is_empty() {
            let event = self.party(&login, self.dialled()).disconnected(&why);
            self.recording().emit(vec![event]).await;
        }
        why
    }
}

/// The host that was typed, as the target has to prove it.
struct TargetHost {
    authorities: Vec<TrustedAuthority>,
    host: String,
    checked: bool,
}

impl HostCheck for TargetHost {
    fn certificate(&self, certificate: &Certificate) -> Result<(), String> {
        if !self.checked {
            return Ok(());
        }
        SshVerifier::new(&self.authorities, Utc::now())
            .host(certificate, &self.host, HostRole::Node)
            .map(|_| ())
            .map_err(|refusal| refusal.to_string())
    }

    fn key(&self, _key: &PublicKey) -> Result<(), String> {
        if self.checked {
            return Err(
                "remote host presented a public key, expected a host certificate".to_owned()
            );
        }
        Ok(())
    }
}

/// A connection to a target's address.
pub(super) async fn connect(addr: SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
    let stream = tokio::time::timeout(limit, TcpStream::connect(addr))
        .await
        .map_err(|_| std::io::ErrorKind::TimedOut)??;
    shared_transport::tune(&stream);
    Ok(stream)
}

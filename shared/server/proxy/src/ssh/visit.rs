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
use server_core::ssh::Ends;
use server_core::ssh::events::{self, Party, PortStep};
use server_core::ssh::ledger;
use server_core::ssh::limits::{OneMore, Sessions};
use server_core::ssh::options::{idle_timeout, options};
use server_core::ssh::tap::{PortTap, Recording, SessionTap};
use server_core::ssh::watch::{self, Traffic};
use shared_events::ServerMetadata;
use shared_pki::Identity;
use shared_pki::ssh_key::Certificate;
use shared_pki::verify::SshVerifier;
use shared_ssh::relay::{ForwardTap, InnerService, Tap, serve_inner};
use shared_ssh::russh::cipher;
use shared_ssh::server::{
    AgentSource, AuthGate, OuterSession, SubsystemReply, inner_server_config,
};
use shared_ssh::target::Target;
use shared_transport::CopyError;
use shared_types::{HostName, Node, RecordingMode, SessionId};
use tokio_util::sync::CancellationToken;

use super::SshProxy;
use super::access;
use super::outer::Door;
use super::reach::Ahead;

/// How long nothing may move on a pipe that is not recorded.
const PIPE_IDLE: Duration = Duration::from_secs(24 * 3600);

/// A user on the way to a target.
pub(super) struct Visit {
    pub(super) proxy: Arc<SshProxy>,
    pub(super) ends: Ends,
    ciphers: Vec<cipher::Name>,
    /// Who got in at the listener.
    pub(super) identity: Arc<Identity>,
    pub(super) outer_login: String,
    /// The certificate the user showed last.
    pub(super) shown: Mutex<Option<Arc<Certificate>>>,
    /// The login behind the door, which may be another.
    inner_login: Mutex<Option<String>>,
    pub(super) agent: AgentSource,
    host: HostName,
    port: u16,
    /// The node the host stands for, where it is one.
    pub(super) node: Option<Arc<Node>>,
    mode: RecordingMode,
    /// The address that was dialled.
    dialled: Mutex<Option<SocketAddr>>,
    /// A connection made ahead, for the login of the outer connection.
    pub(super) ahead: Mutex<Option<Ahead>>,
    /// Session channels that are open.
    pub(super) sessions: Sessions,
}

impl Visit {
    pub(super) fn new(
        door: &Door,
        session: OuterSession<Arc<Identity>>,
        host: HostName,
        port: u16,
        node: Option<Arc<Node>>,
        mode: RecordingMode,
    ) -> Self {
        Self {
            proxy: Arc::clone(&door.proxy),
            ends: door.ends,
            ciphers: door.ciphers.clone(),
            identity: session.identity,
            outer_login: session.login,
            shown: Mutex::new(door.shown()),
            inner_login: Mutex::default(),
            agent: session.agent,
            host,
            port,
            node,
            mode,
            dialled: Mutex::default(),
            ahead: Mutex::default(),
            sessions: Sessions::default(),
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
        let server = match &self.node {
            Some(node) => self.server(node),
            None => {
                let asked = || format!("{}:{}", self.host, self.port);
                let addr = addr.map_or_else(asked, |addr| addr.to_string());
                events::target(self.host.as_ref(), &addr, self.proxy.settings.host_id)
            }
        };
        Party {
            user: events::user(&self.identity, login),
            server,
            connection: events::connection(self.ends),
        }
    }

    /// What events say of a node.
    fn server(&self, node: &Node) -> ServerMetadata {
        let proxy = self.proxy.settings.host_id;
        let (labels, spec) = (node.all_labels(), &node.spec);
        let id = node.host_id().unwrap_or(proxy);
        let sub_kind = if node.is_openssh() { "openssh" } else { "" };
        ServerMetadata {
            forwarded_by: proxy.to_string(),
            server_sub_kind: sub_kind.to_owned(),
            ..events::node(id, &spec.hostname, &labels, &spec.addr)
        }
    }

    /// One more of what the user's roles limit.
    pub(super) fn one_more(&self, login: &str, addr: Option<SocketAddr>) -> OneMore<'_> {
        OneMore {
            options: options(&self.proxy.authority.state(), &self.identity),
            user: &self.identity.user,
            party: self.party(login, addr),
            events: self.proxy.events.as_ref(),
        }
    }

    /// Pends until this access ends, and says why.
    async fn ended(&self, login: &str, traffic: Option<Traffic<'_>>) -> String {
        watch::ended(watch::Access {
            authority: self.proxy.authority.as_ref(),
            identity: &self.identity,
            revoked: &|state| access::revoked(self, state, login),
            traffic,
        })
        .await
    }

    fn recording(&self) -> Recording {
        let state = self.proxy.authority.state();
        let options = options(&state, &self.identity);
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
            transfers: ledger::policy(&options),
            exec_bucket: self.proxy.settings.exec_bucket,
        }
    }

    /// The event of a request that this mode cannot serve.
    pub(super) async fn rejected(&self, why: &str) {
        let event = self.party(&self.outer_login, None).rejected(why);
        if let Err(err) = self.proxy.events.emit(vec![event]).await {
            tracing::error!(error = %err, "audit event is lost");
        }
    }

    /// Bytes pass to the target as they are: in mode `off`, and to nodes that record themselves.
    pub(super) async fn pipe(self, reply: SubsystemReply, stop: CancellationToken) {
        let login = self.outer_login.clone();
        let dialled = match self.dial(&login).await {
            Ok(dialled) => dialled,
            Err(text) => return reply.fail(&text).await,
        };
        let party = self.party(&login, dialled.addr);
        let recording = self.recording();
        let stream = reply.accept().await;
        let mut ended = shared_ssh::relay::Ended::default();
        let state = self.proxy.authority.state();
        // Bytes that are not read by us hold no text for the client, and keepalives among them count as traffic.
        let limit = idle_timeout(&state, &self.identity);
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
            why = self.ended(&login, None) => recording.emit(vec![party.disconnected(&why)]).await,
            () = stop.cancelled() => {}
        }
        // A node with an agent tells of its sessions itself.
        if self.node.is_none() {
            recording.emit(vec![party.data(SessionId::random(), &ended)]).await;
        }
    }

    /// Modes `proxy` and `proxy-sync`: the client meets a server of ours, and the session is recorded. Also in mode
    /// `off` where it is the proxy that has to log in; nothing is recorded then.
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
        self.showed(certificate);
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
        let place = self.one_more(login, self.dialled()).session(&self.sessions).await?;
        Ok(Box::new(place))
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
        let allowed = options(&state, &self.identity).port_forwarding
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
        identity.permits.agent_forwarding && options(&state, &self.identity).forward_agent
    }

    async fn ended(
        &self,
        _identity: &Arc<Identity>,
        traffic: &(dyn Fn() -> u64 + Send + Sync),
    ) -> String {
        let inner = self.inner_login.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let login = inner.unwrap_or_else(|| self.outer_login.clone());
        let why = Visit::ended(self, &login, Some(traffic)).await;
        // The tap of a session tells of its end; without one nobody would.
        if self.sessions.is_empty() {
            let event = self.party(&login, self.dialled()).disconnected(&why);
            self.recording().emit(vec![event]).await;
        }
        why
    }
}

//! The server a client meets behind the `proxy:` subsystem, in the name of the target.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use russh::keys::ssh_key::Certificate;
use russh::server::{self, Auth, ChannelOpenHandle, Handle, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Pty};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pump::{self, Flow, PumpEnd, Waiting};
use super::session::{SessionChannel, SessionRelay};
use super::tap::{ForwardTap, Program, Size, Tap};
use super::{connect_failed, prohibited, unknown_channel_type};
use crate::elastic::Elastic;
use crate::guard::Guarded;
use crate::server::{AuthGate, Login};
use crate::server::login::{Door, Misbehaved};
use crate::target::Target;

/// Channels one client may have open.
const MAX_CHANNELS: usize = 128;
/// Agent channels of targets that one client serves at a time.
const MAX_AGENTS: usize = 16;
/// How long the relays of a connection that has ended may take to finish their recordings.
const FINISH: Duration = Duration::from_secs(60);

/// What the proxy decides for one client behind one `proxy:` request.
#[async_trait]
pub trait InnerService: AuthGate {
    /// An authenticated connection to the target for `login`, authorised anew. The error is a text for the client.
    async fn connect(&self, identity: &Self::Identity, login: &str) -> Result<Arc<Target>, String>;

    /// The tap of a new session channel on `target`.
    async fn tap(&self, identity: &Self::Identity, login: &str, target: &Arc<Target>) -> Arc<dyn Tap>;

    /// Whether `login` may have a connection forwarded; recorded when this returns.
    async fn forward(
        &self,
        identity: &Self::Identity,
        login: &str,
        to: (&str, u32),
    ) -> Result<Arc<dyn ForwardTap>, String>;

    /// Whether the target may be offered the client's agent.
    fn may_forward_agent(&self, identity: &Self::Identity) -> bool;

    /// Pends until everything this user does must end, and says why: a lock, a role change, an expired certificate.
    async fn ended(&self, identity: &Self::Identity) -> String;
}

/// What ends an inner connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InnerError {
    #[error(transparent)]
    Misbehaved(#[from] Misbehaved),
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

struct Shared<S: InnerService> {
    service: Arc<S>,
    user: Mutex<Option<(S::Identity, String)>>,
    sessions: Mutex<HashMap<ChannelId, Arc<SessionChannel>>>,
    channels: AtomicUsize,
    forwards: AtomicUsize,
    agents: AtomicUsize,
    forward_target: tokio::sync::Mutex<Option<Arc<Target>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts something while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let counted = counter
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < limit).then_some(now + 1))
            .is_ok();
        counted.then_some(Self(counter))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Answers one client in the name of the target.
struct Inner<S: InnerService> {
    door: Door,
    shared: Arc<Shared<S>>,
    admitted: watch::Sender<bool>,
}

/// Serves one client to its end, relays included, and tells what happened at the door.
pub async fn serve_inner<S, T>(
    service: Arc<S>,
    stream: T,
    config: Arc<server::Config>,
    patience: Duration,
    stop: CancellationToken,
) -> Login
where
    S: InnerService,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let door = Door::default();
    let stop = stop.child_token();
    let (admitted, mut is_admitted) = watch::channel(false);
    let shared = Arc::new(Shared {
        service,
        user: Mutex::default(),
        sessions: Mutex::default(),
        channels: AtomicUsize::new(0),
        forwards: AtomicUsize::new(0),
        agents: AtomicUsize::new(0),
        forward_target: tokio::sync::Mutex::default(),
        stop: stop.clone(),
        tasks: TaskTracker::new(),
    });
    let handler = Inner { door: door.clone(), shared: Arc::clone(&shared), admitted };
    let cut = CancellationToken::new();
    let stream = Elastic::new(Guarded::new(stream, cut.clone()));
    let serving = async {
        match server::run_stream(config, stream, handler).await {
            Ok(session) => session.await,
            Err(err) => Err(err),
        }
    };
    let watching = async {
        match tokio::time::timeout(patience, is_admitted.wait_for(|admitted| *admitted)).await.map(|waited| waited.is_ok()) {
            Ok(true) => {
                let user = lock(&shared.user).clone();
                match user {
                    Some((identity, _)) => shared.service.ended(&identity).await,
                    None => std::future::pending().await,
                }
            }
            // The sender is gone: the connection ended by itself.
            Ok(false) => std::future::pending().await,
            Err(_) => "authentication took too long".to_owned(),
        }
    };
    tokio::pin!(serving);
    let mut client_is_gone = false;
    tokio::select! {
        end = &mut serving => {
            client_is_gone = true;
            if let Err(err) = end {
                tracing::debug!(error = %err, "inner ssh connection ended");
            }
        }
        text = watching => {
            let sessions: Vec<_> = lock(&shared.sessions).values().cloned().collect();
            futures::future::join_all(sessions.iter().map(|session| session.end_with(&text))).await;
        }
        () = stop.cancelled() => {}
    }
    stop.cancel();
    shared.tasks.close();
    if tokio::time::timeout(FINISH, shared.tasks.wait()).await.is_err() {
        tracing::warn!("relays of a connection did not finish in time");
    }
    if !client_is_gone {
        // Last messages and closes are on their way.
        let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
    }
    cut.cancel();
    if let Some(target) = shared.forward_target.lock().await.take() {
        target.disconnect().await;
    }
    door.report()
}

impl<S: InnerService> Shared<S> {
    fn user(&self) -> Option<(S::Identity, String)> {
        lock(&self.user).clone()
    }

    fn session(&self, id: ChannelId) -> Option<Arc<SessionChannel>> {
        lock(&self.sessions).get(&id).cloned()
    }

    async fn open_session(self: Arc<Self>, channel: Channel<Msg>, reply: ChannelOpenHandle, handle: Handle) {
        let Some((identity, login)) = self.user() else { return };
        let Some(_counted) = Counted::new(&self.channels, MAX_CHANNELS) else {
            return reply.reject(russh::ChannelOpenFailure::ResourceShortage).await;
        };
        let connecting = async {
            let target = self.service.connect(&identity, &login).await?;
            let theirs = target.open_session().await.map_err(|err| format!("ssh: {err}"))?;
            Ok::<_, String>((target, theirs))
        };
        let (target, theirs) = tokio::select! {
            connected = connecting => match connected {
                Ok(connected) => connected,
                Err(text) => return reply.reject(connect_failed(text)).await,
            },
            () = self.stop.cancelled() => return,
        };
        let tap = self.service.tap(&identity, &login, &target).await;
        let id = channel.id();
        let relay = SessionRelay::new(channel, handle.clone(), theirs, Arc::clone(&target), tap, self.stop.child_token());
        let session = Arc::clone(&relay.shared);
        lock(&self.sessions).insert(id, session);
        reply.accept().await;
        tokio::select! {
            () = relay.run(&self.channels) => {}
            () = self.serve_agents(&target, &handle) => {}
        }
        lock(&self.sessions).remove(&id);
    }

    /// Passes agent channels from the target to the client. Never ends by itself.
    async fn serve_agents(&self, target: &Arc<Target>, client: &Handle) {
        let mut running = futures::stream::FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(theirs) = target.next_agent() => {
                    running.push(self.serve_agent(theirs, client));
                }
                Some(()) = futures::StreamExt::next(&mut running), if !running.is_empty() => {}
                else => return std::future::pending().await,
            }
        }
    }

    async fn serve_agent(&self, theirs: Channel<russh::client::Msg>, client: &Handle) {
        let Some(_counted) = Counted::new(&self.agents, MAX_AGENTS) else { return };
        let Ok(ours) = client.channel_open_agent().await else { return };
        let Some(_channel) = Counted::new(&self.channels, MAX_CHANNELS) else { return };
        let (mut theirs, mut ours) = (theirs.into_stream(), ours.into_stream());
        let _ = tokio::io::copy_bidirectional(&mut theirs, &mut ours).await;
    }

    /// The connection that all forwarded connections share.
    async fn forward_connection(&self, identity: &S::Identity, login: &str) -> Result<Arc<Target>, String> {
        let mut slot = self.forward_target.lock().await;
        if let Some(target) = slot.as_ref().filter(|target| !target.is_closed()) {
            return Ok(Arc::clone(target));
        }
        let target = self.service.connect(identity, login).await?;
        *slot = Some(Arc::clone(&target));
        Ok(target)
    }

    async fn forward(
        self: Arc<Self>,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        to: (String, u32),
        from: (String, u32),
    ) {
        let Some((identity, login)) = self.user() else { return };
        let (Some(_channel), Some(_forward)) =
            (Counted::new(&self.channels, MAX_CHANNELS), Counted::new(&self.forwards, MAX_CHANNELS))
        else {
            return reply.reject(russh::ChannelOpenFailure::ResourceShortage).await;
        };
        let connecting = async {
            let tap = match self.service.forward(&identity, &login, (&to.0, to.1)).await {
                Ok(tap) => tap,
                Err(text) => return Err(prohibited(text)),
            };
            let opened = async {
                let target = self.forward_connection(&identity, &login).await?;
                target.open_direct_tcpip((&to.0, to.1), (&from.0, from.1)).await.map_err(|err| format!("{err}"))
            };
            match opened.await {
                Ok(theirs) => Ok((tap, theirs)),
                Err(text) => {
                    tap.end(0, 0, Some(text.clone())).await;
                    Err(connect_failed(text))
                }
            }
        };
        let (tap, theirs) = tokio::select! {
            connected = connecting => match connected {
                Ok(connected) => connected,
                Err(refusal) => return reply.reject(refusal).await,
            },
            () = self.stop.cancelled() => return,
        };
        reply.accept().await;
        let (mut client_read, client_write) = channel.split();
        let (mut target_read, target_write) = theirs.split();
        let (to_target, to_client) = (AtomicU64::new(0), AtomicU64::new(0));
        let limits = pump::Limits::default();
        let relay = async {
            let (up_waits, down_waits) = (Waiting::default(), Waiting::default());
            let flow = Flow { siblings: &self.channels, moved: &to_target, mine: &up_waits, opposite: &down_waits };
            let up = pump::pump(&mut client_read, &target_write, flow, limits, pump::Ignore);
            let flow = Flow { siblings: &self.forwards, moved: &to_client, mine: &down_waits, opposite: &up_waits };
            let down = pump::pump(&mut target_read, &client_write, flow, limits, pump::Ignore);
            tokio::pin!(up, down);
            tokio::select! {
                // Whoever closes has said all; the rest of the other direction has no reader.
                end = &mut up => if end == PumpEnd::Broken { down.await } else { end },
                end = &mut down => if end == PumpEnd::Broken { up.await } else { end },
            }
        };
        let error = tokio::select! {
            end = relay => (end == PumpEnd::Overflow).then(|| "one side does not read".to_owned()),
            () = self.stop.cancelled() => None,
        };
        let closing = async {
            let _ = client_write.close().await;
            let _ = target_write.close().await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), closing).await;
        tap.end(to_target.load(Ordering::Relaxed), to_client.load(Ordering::Relaxed), error).await;
    }
}

impl<S: InnerService> Inner<S> {
    async fn start(&self, channel: ChannelId, program: Program, command: &[u8], session: &mut Session) -> Result<(), InnerError> {
        let started = match self.shared.session(channel) {
            Some(relay) => relay.start(program, command).await,
            None => false,
        };
        answer(session, channel, started)
    }
}

fn answer(session: &mut Session, channel: ChannelId, yes: bool) -> Result<(), InnerError> {
    if yes { session.channel_success(channel)? } else { session.channel_failure(channel)? }
    Ok(())
}

impl<S: InnerService> server::Handler for Inner<S> {
    type Error = InnerError;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        Ok(self.door.none(user)?)
    }

    async fn auth_publickey_offered(&mut self, user: &str, _offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(self.door.offered(user)?)
    }

    async fn auth_publickey(&mut self, user: &str, _key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.door.plain_key(user)?)
    }

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Self::Error> {
        match self.door.certificate(self.shared.service.as_ref(), user, certificate).await? {
            Ok(identity) => {
                *lock(&self.shared.user) = Some((identity, user.to_owned()));
                self.admitted.send_replace(true);
                Ok(Auth::Accept)
            }
            Err(rejection) => Ok(rejection),
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.shared.tasks.spawn(Arc::clone(&self.shared).open_session(channel, reply, session.handle()));
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let to = (host_to_connect.to_owned(), port_to_connect);
        let from = (originator_address.to_owned(), originator_port);
        self.shared.tasks.spawn(Arc::clone(&self.shared).forward(channel, reply, to, from));
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.reject(unknown_channel_type("x11")).await;
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.reject(unknown_channel_type("forwarded-tcpip")).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.reject(unknown_channel_type("direct-streamlocal@openssh.com")).await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        pix_width: u32,
        pix_height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let granted = match self.shared.session(channel) {
            Some(relay) => relay.pty(term, Size { columns, rows }, (pix_width, pix_height), modes).await,
            None => false,
        };
        answer(session, channel, granted)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        answer(session, channel, false)
    }

    async fn env_request(&mut self, channel: ChannelId, name: &str, value: &str, session: &mut Session) -> Result<(), Self::Error> {
        let taken = match self.shared.session(channel) {
            Some(relay) => relay.env(name, value).await,
            None => false,
        };
        answer(session, channel, taken)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.start(channel, Program::Shell, &[], session).await
    }

    async fn exec_request(&mut self, channel: ChannelId, command: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        let shown = String::from_utf8_lossy(command).into_owned();
        self.start(channel, Program::Exec(shown), command, session).await
    }

    async fn subsystem_request(&mut self, channel: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        self.start(channel, Program::Subsystem(name.to_owned()), &[], session).await
    }

    async fn agent_request(&mut self, channel: ChannelId, _session: &mut Session) -> Result<bool, Self::Error> {
        let allowed = self.shared.user().is_some_and(|(identity, _)| self.shared.service.may_forward_agent(&identity));
        if allowed && let Some(relay) = self.shared.session(channel) {
            relay.forward_agent().await;
        }
        Ok(true)
    }
}

//! The connection to the target.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, ChannelOpenHandle, DisconnectReason, Handle, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::keys::agent::AgentSessionBinding;
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect};
use shared_pki::TrustedAuthority;
use shared_pki::verify::HostRole;
use shared_types::{HostName, Login};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::config::{client_config, printable};
use super::error::{ConnectError, Leg};
use super::host::HostCheck;
use super::outer::refuse_channels;
use crate::agent::{AgentKey, EmbeddedAgent, HostKeys, RunningAgent, SocketAgent, serve};
use crate::elastic::Elastic;
use crate::wire::{SessionBind, frame};

/// Texts of refused channels that may wait to be picked up.
const MAX_REFUSAL_TEXTS: usize = 16;
/// How long the text of a refused channel may lag behind the refusal.
const REFUSAL_TEXT_WAIT: Duration = Duration::from_secs(1);
/// How long a channel may take to open: the proxy dials the target and logs in there meanwhile.
const OPEN_WAIT: Duration = Duration::from_secs(120);

/// How long a person may take to look at a host's key; sshd waits about as long for a login.
const ASK_WAIT: Duration = Duration::from_secs(90);

/// How long a goodbye may take.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// Which agent the target gets with `-A`.
#[derive(Debug, Clone)]
pub enum AgentSource {
    /// The user's running agent, at this socket.
    Running(PathBuf),
    /// Our own key, signing only for hosts of our authorities.
    Own,
}

/// How to log in to the target.
#[derive(Debug, Clone)]
pub struct TargetOptions {
    /// The host as the user typed it.
    pub host: HostName,
    /// Login.
    pub login: Login,
    /// Key and certificate.
    pub key: Arc<AgentKey>,
    /// Host authorities.
    pub authorities: Vec<TrustedAuthority>,
    /// The proxy records, and so speaks for the target. Only auth may say so, never the proxy.
    pub recording_expected: bool,
    /// Who decides about a target that shows a plain key; without, it is refused. Does not count where
    /// the proxy speaks for the target.
    pub plain_keys: Option<Arc<dyn HostKeys>>,
    /// Agent for the target, with `-A` only.
    pub forward_agent: Option<AgentSource>,
    /// How long the whole login may take.
    pub timeout: Duration,
}

/// What the connection's tasks tell each other.
#[derive(Debug, Default)]
struct Shared {
    open_channels: AtomicUsize,
    opened: AtomicU32,
    last_words: Mutex<Option<String>>,
    binding: Mutex<Option<AgentSessionBinding>>,
}

/// A connection to a target, logged in.
pub struct TargetConn {
    handle: Handle<InnerHandler>,
    options: TargetOptions,
    budget: Option<Arc<EmbeddedAgent>>,
    shared: Arc<Shared>,
    refusals: tokio::sync::Mutex<mpsc::Receiver<String>>,
}

impl std::fmt::Debug for TargetConn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TargetConn").field("host", &self.options.host).finish_non_exhaustive()
    }
}

/// Counts a channel as open until dropped.
#[derive(Debug)]
pub(crate) struct OpenChannel(Arc<Shared>);

impl OpenChannel {
    /// Channels open on the connection, this one included.
    pub(crate) fn open_channels(&self) -> usize {
        self.0.open_channels.load(Ordering::Relaxed)
    }
}

impl Drop for OpenChannel {
    fn drop(&mut self) {
        self.0.open_channels.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TargetConn {
    /// Logs in over a stream to the target. `budget` is the embedded agent, if one is forwarded to the
    /// proxy: it allows as many signatures as there are session channels.
    pub async fn connect<S>(
        stream: S,
        options: TargetOptions,
        budget: Option<Arc<EmbeddedAgent>>,
    ) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let asks = options.plain_keys.is_some() && !options.recording_expected;
        let limit = options.timeout + if asks { ASK_WAIT } else { Duration::ZERO };
        tokio::time::timeout(limit, Self::login(stream, options, budget))
            .await
            .map_err(|_| ConnectError::Timeout { leg: Leg::Target, seconds: limit.as_secs() })?
    }

    async fn login<S>(
        stream: S,
        options: TargetOptions,
        budget: Option<Arc<EmbeddedAgent>>,
    ) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        let (refusal_sender, refusals) = mpsc::channel(MAX_REFUSAL_TEXTS);
        let own_agent =
            SocketAgent::new(Arc::clone(&options.key), options.authorities.clone(), false);
        let handler = InnerHandler {
            check: HostCheck {
                leg: Leg::Target,
                authorities: options.authorities.clone(),
                host: options.host.to_string(),
                role: if options.recording_expected { HostRole::Proxy } else { HostRole::Node },
                plain_keys: options.plain_keys.clone().filter(|_| !options.recording_expected),
            },
            agent: options.forward_agent.clone(),
            own_agent,
            shared: Arc::clone(&shared),
            refusals: refusal_sender,
        };
        // The stream is a channel of the outer connection: two loops that wait for each other's reading would
        // wait for ever, so this one never waits to write.
        let mut handle = client::connect_stream(client_config(), Elastic::new(stream), handler)
            .await
            .map_err(|error| error.in_handshake(Leg::Target))?;
        *shared.binding.lock().unwrap_or_else(PoisonError::into_inner) =
            handle.agent_session_binding().cloned();
        let login = options.login.to_string();
        let accepted = handle
            .authenticate_openssh_cert(
                login.clone(),
                Arc::clone(options.key.private_key()),
                options.key.certificate().clone(),
            )
            .await
            .map_err(|source| ConnectError::Handshake { leg: Leg::Target, source })?;
        if !accepted.success() {
            let host = options.host.to_string();
            return Err(ConnectError::Denied { leg: Leg::Target, login, host });
        }
        Ok(Self { handle, options, budget, shared, refusals: tokio::sync::Mutex::new(refusals) })
    }

    /// The options this connection was made with.
    #[must_use]
    pub fn options(&self) -> &TargetOptions {
        &self.options
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Waits until the connection is gone, and says why.
    pub async fn closed(&self) -> ConnectError {
        while !self.handle.is_closed() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.lost()
    }

    /// The connection ended: with the peer's own words, if it said any.
    pub(crate) fn lost(&self) -> ConnectError {
        let text = self.shared.last_words.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ConnectError::Lost { host: self.options.host.to_string(), text }
    }

    /// Ends the connection politely.
    pub async fn close(&self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "en");
        // The peer may be gone already, which is what we want, or not take anything any more.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }

    /// Opens a session channel.
    pub(crate) async fn open_session(
        &self,
    ) -> Result<(u32, Channel<Msg>, OpenChannel), ConnectError> {
        if let Some(agent) = &self.budget {
            agent.note_session();
        }
        let opening = self.handle.channel_open_session();
        self.opened(opening).await
    }

    /// The same, once nobody is asked anything any more: what the channel says is shown from here on.
    pub(crate) async fn open_settled(
        &self,
    ) -> Result<(u32, Channel<Msg>, OpenChannel), ConnectError> {
        let opened = self.open_session().await;
        if let Some(agent) = &self.budget {
            agent.settle().await;
        }
        opened
    }

    /// Opens a connection from the target to an address (RFC 4254 §7.2).
    pub(crate) async fn open_tcp(
        &self,
        to: (&str, u16),
        from: (&str, u16),
    ) -> Result<(Channel<Msg>, OpenChannel), ConnectError> {
        let opening = self.handle.channel_open_direct_tcpip(
            to.0.to_owned(),
            u32::from(to.1),
            from.0.to_owned(),
            u32::from(from.1),
        );
        let (_, channel, open) = self.opened(opening).await?;
        Ok((channel, open))
    }

    async fn opened(
        &self,
        opening: impl Future<Output = Result<Channel<Msg>, russh::Error>>,
    ) -> Result<(u32, Channel<Msg>, OpenChannel), ConnectError> {
        let number = self.shared.opened.fetch_add(1, Ordering::Relaxed);
        self.shared.open_channels.fetch_add(1, Ordering::Relaxed);
        let open = OpenChannel(Arc::clone(&self.shared));
        let opened = tokio::time::timeout(OPEN_WAIT, opening).await.map_err(|_| {
            ConnectError::Timeout { leg: Leg::Target, seconds: OPEN_WAIT.as_secs() }
        })?;
        match opened {
            Ok(channel) => Ok((number, channel, open)),
            Err(russh::Error::ChannelOpenFailure(reason)) => {
                let mut texts = self.refusals.lock().await;
                let text = tokio::time::timeout(REFUSAL_TEXT_WAIT, texts.recv()).await;
                let text = text.ok().flatten().unwrap_or_default();
                Err(ConnectError::ChannelOpen {
                    channel: number,
                    reason: reason_text(&reason),
                    text,
                })
            }
            Err(_) if self.handle.is_closed() => Err(self.lost()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The reasons as `ssh` prints them.
fn reason_text(reason: &ChannelOpenFailure) -> &'static str {
    match reason {
        ChannelOpenFailure::AdministrativelyProhibited => "administratively prohibited",
        ChannelOpenFailure::ConnectFailed => "connect failed",
        ChannelOpenFailure::UnknownChannelType => "unknown channel type",
        ChannelOpenFailure::ResourceShortage => "resource shortage",
        ChannelOpenFailure::Other { .. } => "unknown reason",
    }
}

struct InnerHandler {
    check: HostCheck,
    agent: Option<AgentSource>,
    own_agent: Arc<SocketAgent>,
    shared: Arc<Shared>,
    refusals: mpsc::Sender<String>,
}

impl client::Handler for InnerHandler {
    type Error = ConnectError;

    async fn check_server_key(
        &mut self,
        presented: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        self.check.check(presented).await.map(|()| true)
    }

    async fn channel_open_failure(
        &mut self,
        _: ChannelId,
        _: ChannelOpenFailure,
        description: &str,
        _: &str,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        // Full means that nobody asked for the earlier texts: nobody will miss this one.
        let _ = self.refusals.try_send(printable(description));
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                *self.shared.last_words.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(printable(&info.message));
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(source) = self.agent.clone() else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        reply.accept().await;
        let own = Arc::clone(&self.own_agent);
        let binding = self.shared.binding.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tokio::spawn(async move {
            let served = match source {
                AgentSource::Own => serve(channel.into_stream(), own.channel()).await,
                AgentSource::Running(path) => pass_on(channel, &path, binding).await,
            };
            if let Err(error) = served {
                tracing::debug!(%error, "agent channel of the target");
            }
        });
        Ok(())
    }

    refuse_channels!();
}

/// Passes an agent channel on to a running agent, which is told first that it is being forwarded and
/// whereto, so that its destination constraints hold.
async fn pass_on(
    channel: Channel<Msg>,
    path: &std::path::Path,
    binding: Option<AgentSessionBinding>,
) -> std::io::Result<()> {
    let mut agent = RunningAgent::connect(path).await.map_err(std::io::Error::other)?.into_stream();
    if let Some(binding) = binding {
        let bind = SessionBind {
            host_key: binding.host_key(),
            session_id: binding.session_id(),
            signature: binding.signature(),
            forwarding: true,
        };
        agent.write_all(&frame(&bind.encode())).await?;
        // An agent that does not know the extension says so, and has no constraints to keep.
        let len = agent.read_u32().await?;
        if len > 1024 {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut answer = Vec::new();
        (&mut agent).take(u64::from(len)).read_to_end(&mut answer).await?;
    }
    let mut channel = channel.into_stream();
    tokio::io::copy_bidirectional(&mut channel, &mut agent).await.map(drop)
}

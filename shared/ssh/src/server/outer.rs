//! The server on the proxy's listener. It offers no shell: users ask it for a subsystem, and lend it their agent.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use russh::keys::ssh_key::Certificate;
use russh::server::{
    self, Auth, ChannelOpenHandle, Handle, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelStream, Pty, Sig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::login::{AuthGate, Door, Login, Misbehaved};
use super::request::{RequestError, Subsystem};
use crate::elastic::Elastic;
use crate::guard::Guarded;

/// Session channels one outer connection may have open without a subsystem.
const MAX_IDLE_CHANNELS: usize = 16;
/// Subsystems one outer connection may run.
const MAX_SUBSYSTEMS: usize = 64;
/// How long a client may take to open its agent.
const AGENT_TIMEOUT: Duration = Duration::from_secs(15);

/// The agent a client offered with `auth-agent-req@openssh.com`.
#[derive(Debug, Clone)]
pub struct AgentSource {
    handle: Handle,
    offered: Arc<AtomicBool>,
}

impl AgentSource {
    /// Whether the client offered one.
    pub fn is_offered(&self) -> bool {
        self.offered.load(Ordering::Acquire)
    }

    /// Opens a fresh channel to it.
    pub async fn open(&self) -> Result<ChannelStream<Msg>, String> {
        if !self.is_offered() {
            return Err("agent forwarding has not been requested".to_owned());
        }
        match tokio::time::timeout(AGENT_TIMEOUT, self.handle.channel_open_agent()).await {
            Ok(Ok(channel)) => Ok(channel.into_stream()),
            Ok(Err(err)) => Err(format!("user agent required to connect to remote host: {err}")),
            Err(_) => Err("user agent required to connect to remote host: timeout".to_owned()),
        }
    }
}

/// Who asks for a subsystem.
#[derive(Debug, Clone)]
pub struct OuterSession<I> {
    /// Who got in.
    pub identity: I,
    /// The user name of the outer connection; an OS login in the documented commands.
    pub login: String,
    /// The client's agent.
    pub agent: AgentSource,
}

/// How a subsystem answers. The request stays unanswered until then: OpenSSH gives up at a refusal before it shows
/// what was written to standard error, so a refusal is a text, a status and a close instead.
#[derive(Debug)]
pub struct SubsystemReply {
    channel: Channel<Msg>,
    handle: Handle,
}

impl SubsystemReply {
    /// The request succeeds and the channel becomes a byte stream.
    pub async fn accept(self) -> ChannelStream<Msg> {
        let _ = self.handle.channel_success(self.channel.id()).await;
        self.channel.into_stream()
    }

    /// Ends with a text on the client's standard error and status 1.
    pub async fn fail(self, text: &str) {
        let line = format!("{text}\r\n");
        let _ = self.channel.extended_data_bytes(1, Bytes::from(line)).await;
        self.end(1).await;
    }

    /// Ends with bytes on the client's standard output and status 0.
    pub async fn finish(self, output: Bytes) {
        let _ = self.handle.channel_success(self.channel.id()).await;
        let _ = self.channel.data_bytes(output).await;
        self.end(0).await;
    }

    async fn end(self, status: u32) {
        let id = self.channel.id();
        let _ = self.handle.exit_status_request(id, status).await;
        let _ = self.channel.eof().await;
        let _ = self.channel.close().await;
    }
}

/// What the proxy does for users who got in.
#[async_trait]
pub trait OuterService: AuthGate {
    /// Runs a subsystem to its end.
    async fn subsystem(
        &self,
        session: OuterSession<Self::Identity>,
        subsystem: Result<Subsystem, RequestError>,
        reply: SubsystemReply,
    );
}

/// What ends an outer connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OuterError {
    #[error(transparent)]
    Misbehaved(#[from] Misbehaved),
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

/// Answers one client on the listener.
pub(crate) struct Outer<S: OuterService> {
    service: Arc<S>,
    door: Door,
    identity: Option<S::Identity>,
    offered: Arc<AtomicBool>,
    channels: HashMap<ChannelId, Channel<Msg>>,
    subsystems: tokio_util::task::TaskTracker,
    admitted: watch::Sender<bool>,
}

impl<S: OuterService> std::fmt::Debug for Outer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outer").field("door", &self.door).finish_non_exhaustive()
    }
}

/// Serves one connection to its end, and tells what happened at the door. `config` comes from
/// [`super::server_config`]; `patience` is the time a client has to get in.
pub async fn serve_outer<S, T>(
    service: Arc<S>,
    stream: T,
    config: Arc<server::Config>,
    patience: Duration,
    stop: CancellationToken,
) -> Login
where
    S: OuterService,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let door = Door::default();
    let (admitted, mut is_admitted) = watch::channel(false);
    let subsystems = tokio_util::task::TaskTracker::new();
    let handler = Outer {
        service,
        door: door.clone(),
        identity: None,
        offered: Arc::new(AtomicBool::new(false)),
        channels: HashMap::new(),
        subsystems: subsystems.clone(),
        admitted,
    };
    let stop = stop.child_token();
    let stream = Elastic::new(Guarded::new(stream, stop.clone()));
    let serving = async {
        match server::run_stream(config, stream, handler).await {
            Ok(session) => session.await,
            Err(err) => Err(err),
        }
    };
    let at_the_door = async {
        let in_time = tokio::time::timeout(patience, is_admitted.wait_for(|admitted| *admitted))
            .await
            .map(|waited| waited.is_ok());
        match in_time {
            // The sender is gone: the connection ended by itself.
            Ok(_) => std::future::pending::<()>().await,
            Err(_) => stop.cancel(),
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        end = serving => {
            if let Err(err) = end {
                tracing::debug!(error = %err, "ssh connection ended");
            }
        }
        () = at_the_door => {}
    }
    stop.cancel();
    subsystems.close();
    subsystems.wait().await;
    door.report()
}

impl<S: OuterService> server::Handler for Outer<S> {
    type Error = OuterError;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        Ok(self.door.none(user)?)
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        _offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.door.offered(user)?)
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.door.plain_key(user)?)
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        match self.door.certificate(self.service.as_ref(), user, certificate).await? {
            Ok(identity) => {
                self.identity = Some(identity);
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
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.identity.is_none()
            || self.channels.len() >= MAX_IDLE_CHANNELS
            || self.subsystems.len() >= MAX_SUBSYSTEMS
        {
            reply.reject(russh::ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
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
        reply.reject(crate::relay::unknown_channel_type("x11")).await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.reject(crate::relay::unknown_channel_type("direct-tcpip")).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.reject(crate::relay::unknown_channel_type("direct-streamlocal@openssh.com")).await;
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        Ok(())
    }

    async fn agent_request(
        &mut self,
        _channel: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.offered.store(true, Ordering::Release);
        Ok(true)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let (Some(identity), Some(channel)) =
            (self.identity.clone(), self.channels.remove(&channel))
        else {
            return Ok(session.channel_failure(channel)?);
        };
        let asker = OuterSession {
            identity,
            login: self.door.report().user.unwrap_or_default(),
            agent: AgentSource { handle: session.handle(), offered: Arc::clone(&self.offered) },
        };
        let reply = SubsystemReply { channel, handle: session.handle() };
        let (service, subsystem) = (Arc::clone(&self.service), Subsystem::parse(name));
        self.subsystems.spawn(async move { service.subsystem(asker, subsystem, reply).await });
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _col_width: u32,
        _row_height: u32,
        _pix_width: u32,
        _pix_height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(session.channel_failure(channel)?)
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
        Ok(session.channel_failure(channel)?)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(session.channel_failure(channel)?)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(session.channel_failure(channel)?)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(session.channel_failure(channel)?)
    }

    async fn signal(
        &mut self,
        _channel: ChannelId,
        _signal: Sig,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}

//! The connection to the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use russh::client::{self, ChannelOpenHandle, Handle, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelStream, Disconnect};
use shared_pki::TrustedAuthority;
use shared_pki::verify::HostRole;
use shared_types::{HostName, Login};
use tokio::io::{AsyncRead, AsyncWrite};

use super::config::{client_config, printable};
use super::error::{ConnectError, Leg};
use super::host::HostCheck;
use super::inner::GOODBYE;
use crate::agent::{AgentKey, EmbeddedAgent, serve};
use crate::elastic::Elastic;
use crate::prefixed::Prefixed;

/// How long a refused request may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);
const MAX_LAST_WORDS: usize = 4096;
/// Bytes of the target that may arrive ahead of the proxy's answer: an identification and a key exchange.
const MAX_EARLY: usize = 64 * 1024;

/// A byte stream to the target.
pub type TargetStream = Box<dyn TargetIo>;

/// What a [`TargetStream`] can do.
pub trait TargetIo: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> TargetIo for T {}

/// How to log in to the proxy.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// The proxy's name, which its host certificate must have.
    pub host: String,
    /// Login; the proxy takes the one for the target.
    pub login: Login,
    /// Key and certificate.
    pub key: Arc<AgentKey>,
    /// Host authorities.
    pub authorities: Vec<TrustedAuthority>,
    /// How long the whole login may take.
    pub timeout: Duration,
}

/// A connection to the proxy, logged in.
pub struct ProxyConn {
    handle: Handle<OuterHandler>,
    forwarding: Arc<AtomicBool>,
    options: ProxyOptions,
}

impl std::fmt::Debug for ProxyConn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyConn").field("host", &self.options.host).finish_non_exhaustive()
    }
}

/// The subsystem that asks the proxy for a target.
#[must_use]
pub fn proxy_request(host: &HostName, port: u16) -> String {
    format!("proxy:{host}:{port}")
}

impl ProxyConn {
    /// Logs in over a stream to the proxy. `agent` is what the proxy may use after
    /// [`ProxyConn::open_target`] was told to forward it.
    pub async fn connect<S>(
        stream: S,
        options: ProxyOptions,
        agent: Option<Arc<EmbeddedAgent>>,
    ) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limit = options.timeout;
        tokio::time::timeout(limit, Self::login(stream, options, agent))
            .await
            .map_err(|_| ConnectError::Timeout { leg: Leg::Proxy, seconds: limit.as_secs() })?
    }

    async fn login<S>(
        stream: S,
        options: ProxyOptions,
        agent: Option<Arc<EmbeddedAgent>>,
    ) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let forwarding = Arc::new(AtomicBool::new(false));
        let handler = OuterHandler {
            check: HostCheck {
                leg: Leg::Proxy,
                authorities: options.authorities.clone(),
                host: options.host.clone(),
                role: HostRole::Proxy,
                plain_keys: None,
            },
            agent,
            forwarding: Arc::clone(&forwarding),
        };
        let mut handle = client::connect_stream(client_config(), Elastic::new(stream), handler)
            .await
            .map_err(|error| error.in_handshake(Leg::Proxy))?;
        let login = options.login.to_string();
        let accepted = handle
            .authenticate_openssh_cert(
                login.clone(),
                Arc::clone(options.key.private_key()),
                options.key.certificate().clone(),
            )
            .await
            .map_err(|source| ConnectError::Handshake { leg: Leg::Proxy, source })?;
        if !accepted.success() {
            return Err(ConnectError::Denied { leg: Leg::Proxy, login, host: options.host });
        }
        Ok(Self { handle, forwarding, options })
    }

    /// Asks for a target and gives the bytes to and from it.
    pub async fn open_target(
        &self,
        host: &HostName,
        port: u16,
        forward_agent: bool,
    ) -> Result<TargetStream, ConnectError> {
        let mut channel = self.handle.channel_open_session().await?;
        if forward_agent {
            self.forwarding.store(true, Ordering::Release);
            channel.agent_forward(false).await?;
        }
        channel.request_subsystem(true, proxy_request(host, port)).await?;
        let early = self.await_answer(&mut channel).await?;
        let stream: ChannelStream<Msg> = channel.into_stream();
        Ok(Box::new(Prefixed::new(early, stream)))
    }

    /// Waits for the answer to the subsystem request; a refusal comes with what the proxy says on stderr.
    async fn await_answer(&self, channel: &mut Channel<Msg>) -> Result<Bytes, ConnectError> {
        let mut early = BytesMut::new();
        let mut words = Vec::new();
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => return Ok(early.freeze()),
                Some(ChannelMsg::Data { data }) if early.len() + data.len() <= MAX_EARLY => {
                    early.extend_from_slice(&data);
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => keep(&mut words, &data),
                Some(ChannelMsg::Failure) => {
                    let last = async {
                        while let Some(message) = channel.wait().await {
                            if let ChannelMsg::ExtendedData { data, .. } = message {
                                keep(&mut words, &data);
                            }
                        }
                    };
                    // A proxy that does not close the channel has nothing more to say.
                    let _ = tokio::time::timeout(LAST_WORDS, last).await;
                    return Err(self.refused(&words));
                }
                Some(ChannelMsg::Data { .. } | ChannelMsg::Eof | ChannelMsg::Close) | None => {
                    return Err(self.refused(&words));
                }
                Some(_) => {}
            }
        }
    }

    fn refused(&self, words: &[u8]) -> ConnectError {
        let text = printable(&String::from_utf8_lossy(words));
        let host = &self.options.host;
        if text.is_empty() {
            ConnectError::ProxyRefused { text: format!("proxy {host} refused the connection") }
        } else {
            ConnectError::ProxyRefused { text }
        }
    }

    /// Ends the connection politely.
    pub async fn close(&self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "en");
        // The peer may be gone already, which is what we want, or not take anything any more.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

fn keep(words: &mut Vec<u8>, data: &[u8]) {
    let room = MAX_LAST_WORDS.saturating_sub(words.len()).min(data.len());
    words.extend_from_slice(data.get(..room).unwrap_or_default());
}

impl ConnectError {
    /// A bare library error that came up before the key exchange was done.
    pub(super) fn in_handshake(self, leg: Leg) -> Self {
        match self {
            Self::Ssh(source) => Self::Handshake { leg, source },
            other => other,
        }
    }
}

struct OuterHandler {
    check: HostCheck,
    agent: Option<Arc<EmbeddedAgent>>,
    forwarding: Arc<AtomicBool>,
}

/// Refuses every channel that the peer opens and that is not named above it.
macro_rules! refuse_channels {
    () => {
        async fn server_channel_open_forwarded_tcpip(
            &mut self,
            _: Channel<Msg>,
            _: &str,
            _: u32,
            _: &str,
            _: u32,
            reply: ChannelOpenHandle,
            _: &mut Session,
        ) -> Result<(), Self::Error> {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            Ok(())
        }

        async fn server_channel_open_forwarded_streamlocal(
            &mut self,
            _: Channel<Msg>,
            _: &str,
            reply: ChannelOpenHandle,
            _: &mut Session,
        ) -> Result<(), Self::Error> {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            Ok(())
        }

        async fn server_channel_open_session(
            &mut self,
            _: Channel<Msg>,
            reply: ChannelOpenHandle,
            _: &mut Session,
        ) -> Result<(), Self::Error> {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            Ok(())
        }

        async fn server_channel_open_direct_tcpip(
            &mut self,
            _: Channel<Msg>,
            _: &str,
            _: u32,
            _: &str,
            _: u32,
            reply: ChannelOpenHandle,
            _: &mut Session,
        ) -> Result<(), Self::Error> {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            Ok(())
        }

        async fn server_channel_open_direct_streamlocal(
            &mut self,
            _: Channel<Msg>,
            _: &str,
            reply: ChannelOpenHandle,
            _: &mut Session,
        ) -> Result<(), Self::Error> {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            Ok(())
        }

        async fn server_channel_open_x11(
            &mut self,
            _: Channel<Msg>,
            _: &str,
            _: u32,
            reply: ChannelOpenHandle,
            _: &mut Session,
        ) -> Result<(), Self::Error> {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            Ok(())
        }
    };
}
pub(super) use refuse_channels;

impl client::Handler for OuterHandler {
    type Error = ConnectError;

    async fn check_server_key(
        &mut self,
        presented: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        self.check.check(presented).await.map(|()| true)
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let state = self
            .agent
            .as_ref()
            .filter(|_| self.forwarding.load(Ordering::Acquire))
            .and_then(EmbeddedAgent::channel);
        match state {
            Some(state) => {
                reply.accept().await;
                tokio::spawn(async move {
                    if let Err(error) = serve(channel.into_stream(), state).await {
                        tracing::debug!(%error, "agent channel");
                    }
                });
            }
            None => reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await,
        }
        Ok(())
    }

    refuse_channels!();
}

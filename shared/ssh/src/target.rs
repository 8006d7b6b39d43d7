//! The proxy's connection to a target: host certificate checked, authenticated with the client's forwarded agent, or
//! with a key of the proxy's own where the target takes that.
//!
//! What must stay true: nothing is sent to the agent, and no key is asked for, before the target's host key has passed
//! the caller's check; a target gets at most [`MAX_ATTEMPTS`] authentication attempts; a target can open no channel but the
//! agent forwarding that was asked for. Who may be dialled was decided before; this module gets a connected stream.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult};
use russh::keys::PublicKeyOrCertificate;
use russh::keys::ssh_key::{Algorithm, Certificate, EcdsaCurve, HashAlg, PrivateKey, PublicKey};
use russh::{Channel, Preferred, SshId, cipher, compression, kex, mac};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::elastic::Elastic;
use crate::prefixed::Prefixed;
use crate::server::{ClientIdent, INNER_PACKET};
use crate::signer::{AgentError, ForwardedAgent, HostboundSigner};

/// How many certificates of an agent a target is shown.
pub const MAX_ATTEMPTS: usize = 4;
/// How long a target may take to identify itself and to exchange keys.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// How many bytes a target may send in front of its identification (RFC 4253 §4.2).
const MAX_PREAMBLE: usize = 16 * 1024;
/// What we say of ourselves (RFC 4253 §4.2).
const IDENT: &str = "SSH-2.0-Gatehouse\r\n";
/// Agent channels of a target waiting for the client, beyond which new ones are refused.
const AGENT_BACKLOG: usize = 8;

/// Decides whether a target is the host that was asked for.
pub trait HostCheck: Send + Sync + 'static {
    /// The target presented a host certificate.
    fn certificate(&self, certificate: &Certificate) -> Result<(), String>;
    /// The target presented a plain key.
    fn key(&self, key: &PublicKey) -> Result<(), String>;
}

/// Why there is no connection to a target. The text is what users see behind `connect failed: `.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The target closed the connection before it said who it is; a full `MaxStartups` looks like this.
    #[error("ssh: handshake failed: EOF")]
    Eof,
    /// The target's key or certificate was refused.
    #[error("ssh: handshake failed: {0}")]
    HostKey(String),
    /// The target does not speak SSH 2.0.
    #[error("ssh: handshake failed: ssh: target does not speak SSH 2.0")]
    NotSsh,
    /// Too slow.
    #[error("ssh: handshake failed: timeout")]
    Slow,
    /// No algorithm in common, or a broken exchange.
    #[error("ssh: handshake failed: {0}")]
    Handshake(String),
    /// The client's agent has no certificate for this cluster and login.
    #[error(
        "ssh: handshake failed: ssh: unable to authenticate, the forwarded agent holds no certificate for {login}"
    )]
    NoCertificate {
        /// The OS login.
        login: String,
    },
    /// The target took none of the certificates.
    #[error(
        "ssh: handshake failed: ssh: unable to authenticate, attempted methods [none publickey], no supported methods remain"
    )]
    Refused,
    /// There is no agent to ask.
    #[error("{0}")]
    NoAgent(String),
    /// There is no key to log in with.
    #[error("{0}")]
    NoKey(String),
    /// The agent did not work or did not want to.
    #[error("ssh: handshake failed: {0}")]
    Agent(#[from] AgentError),
}

/// What is asked of a new connection.
pub struct TargetOptions {
    /// The OS login.
    pub login: String,
    /// Checks the target's identity.
    pub host: Arc<dyn HostCheck>,
    /// Picks the certificates that may be shown to the target.
    pub certificate: Arc<dyn Fn(&Certificate) -> bool + Send + Sync>,
}

impl std::fmt::Debug for TargetOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TargetOptions").field("login", &self.login).finish_non_exhaustive()
    }
}

/// An authenticated connection to a target.
pub struct Target {
    handle: client::Handle<TargetHandler>,
    agents: tokio::sync::Mutex<mpsc::Receiver<Channel<client::Msg>>>,
    allow_agent: Arc<std::sync::atomic::AtomicBool>,
    /// What the target calls itself, for the log.
    pub ident: String,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("ident", &self.ident).finish_non_exhaustive()
    }
}

impl Target {
    /// Opens a session channel.
    pub async fn open_session(&self) -> Result<Channel<client::Msg>, russh::Error> {
        self.handle.channel_open_session().await
    }

    /// Opens a forwarded connection to `host`:`port`, as the target sees them.
    pub async fn open_direct_tcpip(
        &self,
        (host, port): (&str, u32),
        (from, from_port): (&str, u32),
    ) -> Result<Channel<client::Msg>, russh::Error> {
        self.handle.channel_open_direct_tcpip(host, port, from, from_port).await
    }

    /// From now on the target may open agent channels.
    pub fn allow_agent(&self) {
        self.allow_agent.store(true, std::sync::atomic::Ordering::Release);
    }

    /// The next agent channel the target opened; pends for ever where it opens none.
    pub async fn next_agent(&self) -> Option<Channel<client::Msg>> {
        self.agents.lock().await.recv().await
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Says goodbye; the connection ends when the last channel has been served.
    pub async fn disconnect(&self) {
        let goodbye = self.handle.disconnect(russh::Disconnect::ByApplication, "", "");
        let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
    }
}

/// The algorithms offered to targets: hardware ciphers first, host certificates before plain keys.
fn preferred() -> Preferred {
    let keys = [
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ];
    Preferred {
        kex: Cow::Borrowed(&[
            kex::MLKEM768X25519_SHA256,
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::ECDH_SHA2_NISTP256,
            kex::DH_G16_SHA512,
            kex::DH_G14_SHA256,
            kex::EXTENSION_SUPPORT_AS_CLIENT,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        ]),
        host_key_certificates: Cow::Owned(keys.to_vec()),
        key: Cow::Owned(keys.to_vec()),
        cipher: Cow::Borrowed(&[
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
            cipher::AES_128_CTR,
        ]),
        mac: Cow::Borrowed(&[
            mac::HMAC_SHA256_ETM,
            mac::HMAC_SHA512_ETM,
            mac::HMAC_SHA256,
            mac::HMAC_SHA512,
        ]),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

fn config() -> client::Config {
    client::Config {
        client_id: SshId::Raw(Cow::Borrowed(IDENT)),
        preferred: preferred(),
        keepalive_interval: Some(Duration::from_secs(300)),
        keepalive_max: 3,
        // What comes in one packet goes on in one.
        maximum_packet_size: INNER_PACKET,
        ..client::Config::default()
    }
}

/// Exchanges identifications: says ours, and reads what a target says up to the end of its own. Gives the stream back as
/// if neither had happened. Ours goes first, since there are servers that wait for it.
async fn identify<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
) -> Result<(String, Prefixed<S>), TargetError> {
    // What it said before it went is read all the same.
    if stream.write_all(IDENT.as_bytes()).await.is_ok() {
        let _ = stream.flush().await;
    }
    let mut seen = Vec::with_capacity(256);
    let mut line_start = 0;
    loop {
        if seen.len() >= MAX_PREAMBLE {
            return Err(TargetError::NotSsh);
        }
        let mut chunk = [0_u8; 512];
        let read = match stream.read(&mut chunk).await {
            Ok(0) => return Err(TargetError::Eof),
            Ok(read) => read,
            // A target that closes with our bytes unread answers with a reset.
            Err(err) if err.kind() == std::io::ErrorKind::ConnectionReset => {
                return Err(TargetError::Eof);
            }
            Err(err) => return Err(TargetError::Handshake(err.to_string())),
        };
        seen.extend_from_slice(chunk.get(..read).unwrap_or_default());
        while let Some(end) =
            seen.get(line_start..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
        {
            let line = seen.get(line_start..line_start + end).unwrap_or_default();
            if line.starts_with(b"SSH-") {
                if !(line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-")) {
                    return Err(TargetError::NotSsh);
                }
                let ident = String::from_utf8_lossy(line).trim_end().to_owned();
                return Ok((ident, Prefixed::new(seen.into(), stream).having_said(IDENT.len())));
            }
            line_start += end + 1;
        }
    }
}

/// Whether a server of this identification knows `publickey-hostbound-v00@openssh.com`. russh does not show what a
/// server announces in its extension info, so the version decides; OpenSSH has it since 8.9.
fn knows_hostbound(ident: &str) -> bool {
    ClientIdent::parse(ident).openssh.is_some_and(|version| version >= (8, 9))
}

/// Makes an authenticated connection over `stream`. `agent` opens a fresh channel to the client's agent, and is called
/// once, after the target has proved who it is.
pub async fn connect<S, F, A>(
    stream: S,
    options: TargetOptions,
    agent: F,
) -> Result<Target, TargetError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: AsyncFnOnce() -> Result<A, String>,
    A: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut target = handshake(stream, options.host.clone()).await?;
    let stream = agent().await.map_err(TargetError::NoAgent)?;
    let ident = target.ident.clone();
    authenticate(&mut target.handle, &ident, &options, ForwardedAgent::new(stream)).await?;
    Ok(target)
}

/// Makes an authenticated connection over `stream` with a key that is not the client's. `key` gets it, with a
/// certificate of it, and is called once, after the target has proved who it is.
pub async fn connect_with_key<S, F>(
    stream: S,
    login: &str,
    host: Arc<dyn HostCheck>,
    key: F,
) -> Result<Target, TargetError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: AsyncFnOnce() -> Result<(Arc<PrivateKey>, Certificate), String>,
{
    let mut target = handshake(stream, host).await?;
    let (key, certificate) = key().await.map_err(TargetError::NoKey)?;
    match target.handle.authenticate_openssh_cert(login, key, certificate).await? {
        AuthResult::Success => Ok(target),
        AuthResult::Failure { .. } => Err(TargetError::Refused),
    }
}

/// Exchanges keys with the target, which has proved then who it is.
async fn handshake<S>(stream: S, host: Arc<dyn HostCheck>) -> Result<Target, TargetError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (to_agents, agents) = mpsc::channel(AGENT_BACKLOG);
    let allow_agent = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let handler = TargetHandler { host, agents: to_agents, allow_agent: Arc::clone(&allow_agent) };
    let exchange = async {
        let (ident, stream) = identify(stream).await?;
        let handle =
            client::connect_stream(Arc::new(config()), Elastic::new(stream), handler).await?;
        Ok::<_, TargetError>((ident, handle))
    };
    let (ident, handle) = tokio::time::timeout(HANDSHAKE_TIMEOUT, exchange)
        .await
        .map_err(|_| TargetError::Slow)??;
    Ok(Target { handle, agents: tokio::sync::Mutex::new(agents), allow_agent, ident })
}

async fn authenticate<A: AsyncRead + AsyncWrite + Unpin + Send>(
    handle: &mut client::Handle<TargetHandler>,
    ident: &str,
    options: &TargetOptions,
    mut agent: ForwardedAgent<A>,
) -> Result<(), TargetError> {
    let binding = handle.agent_session_binding().cloned();
    if let Some(binding) = &binding
        && !agent.bind(binding).await?
    {
        tracing::debug!("the forwarded agent does not take a session bind");
    }
    let host_key =
        binding.as_ref().map(|binding| binding.host_key()).filter(|_| knows_hostbound(ident));
    let certificates: Vec<Certificate> = agent
        .certificates()
        .await?
        .into_iter()
        .filter(|certificate| (options.certificate)(certificate))
        .take(MAX_ATTEMPTS)
        .collect();
    if certificates.is_empty() {
        return Err(TargetError::NoCertificate { login: options.login.clone() });
    }
    let mut refused_by_agent = None;
    for certificate in certificates {
        let hash =
            matches!(certificate.algorithm(), Algorithm::Rsa { .. }).then_some(HashAlg::Sha512);
        let mut signer = HostboundSigner::new(&mut agent, host_key);
        match handle
            .authenticate_certificate_with(options.login.as_str(), certificate, hash, &mut signer)
            .await
        {
            Ok(AuthResult::Success) => return Ok(()),
            Ok(AuthResult::Failure { .. }) => {}
            Err(AgentError::Refused) => refused_by_agent = Some(AgentError::Refused),
            Err(err) => return Err(err.into()),
        }
        if handle.is_closed() {
            break;
        }
    }
    Err(refused_by_agent.map_or(TargetError::Refused, TargetError::Agent))
}

impl From<russh::Error> for TargetError {
    fn from(err: russh::Error) -> Self {
        match err {
            russh::Error::HUP | russh::Error::Disconnect => Self::Eof,
            russh::Error::IO(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => Self::Eof,
            russh::Error::IO(err) if err.kind() == std::io::ErrorKind::ConnectionReset => Self::Eof,
            err => Self::Handshake(format!("ssh: {err}")),
        }
    }
}

/// Answers the target. Only agent channels pass, and only when the client asked for them.
pub struct TargetHandler {
    host: Arc<dyn HostCheck>,
    agents: mpsc::Sender<Channel<client::Msg>>,
    allow_agent: Arc<std::sync::atomic::AtomicBool>,
}

impl std::fmt::Debug for TargetHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TargetHandler").finish_non_exhaustive()
    }
}

impl client::Handler for TargetHandler {
    type Error = TargetError;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        match key {
            PublicKeyOrCertificate::Certificate(certificate) => self.host.certificate(certificate),
            PublicKeyOrCertificate::PublicKey { key, .. } => self.host.key(key),
        }
        .map(|()| true)
        .map_err(TargetError::HostKey)
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        if self.allow_agent.load(std::sync::atomic::Ordering::Acquire)
            && self.agents.try_send(channel).is_ok()
        {
            reply.accept().await;
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<client::Msg>,
        _connected_address: &str,
        _connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<client::Msg>,
        _socket_path: &str,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<client::Msg>,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<client::Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<client::Msg>,
        _originator_address: &str,
        _originator_port: u32,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

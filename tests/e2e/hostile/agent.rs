//! What a proxy can say to an agent, and what it can reach with the answers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use russh::client;
use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_key::{Certificate, HashAlg};
use russh::keys::{Algorithm, PublicKeyOrCertificate};
use shared_ssh::agent::{EmbeddedAgent, serve};
use shared_ssh::wire::{
    AuthMethod, Put, Reply, Request, SSH_CONNECTION, SessionBind, UserAuthRequest, encode_userauth,
    frame, parse_reply,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// A user's agent within the proxy's reach.
#[derive(Clone)]
pub(super) enum Lent {
    /// That of a `tsh`, over agent channels of its connection.
    Forwarded(russh::server::Handle),
    /// The library's, in this process.
    Library(Arc<EmbeddedAgent>),
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One agent channel.
pub(super) struct Dialogue(Box<dyn Io>);

impl Lent {
    /// Opens a fresh channel.
    pub(super) async fn open(&self) -> Result<Dialogue> {
        match self {
            Self::Forwarded(handle) => {
                let channel = timeout(PATIENCE, handle.channel_open_agent())
                    .await
                    .context("agent channel")?;
                Ok(Dialogue(Box::new(channel.context("agent channel")?.into_stream())))
            }
            Self::Library(agent) => {
                let (near, far) = tokio::io::duplex(64 * 1024);
                let session = agent.channel().context("agent channel")?;
                tokio::spawn(serve(far, session));
                Ok(Dialogue(Box::new(near)))
            }
        }
    }
}

impl Dialogue {
    /// The agent's reply; none when it has closed the channel.
    pub(super) async fn ask(&mut self, message: &[u8]) -> Result<Option<Reply>> {
        let exchange = async {
            let mut head = [0; 4];
            if self.0.write_all(&frame(message)).await.is_err() || self.0.flush().await.is_err() {
                return Ok(None);
            }
            if self.0.read_exact(&mut head).await.is_err() {
                return Ok(None);
            }
            let mut reply = vec![0; usize::try_from(u32::from_be_bytes(head))?];
            self.0.read_exact(&mut reply).await?;
            Ok(Some(parse_reply(&reply)?))
        };
        timeout(PATIENCE, exchange).await.context("the agent does not answer")?
    }

    /// Waits for the agent's end of the channel to close.
    async fn closes(&mut self) -> bool {
        let mut rest = [0; 16];
        matches!(timeout(PATIENCE, self.0.read(&mut rest)).await, Ok(Ok(0)))
    }
}

/// Something an agent must refuse.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// Messages before it, which succeed.
    pub(super) before: Vec<Vec<u8>>,
    pub(super) message: Vec<u8>,
    /// The channel is closed after it.
    pub(super) fatal: bool,
}

impl Attack {
    /// Tries it on a fresh channel, and demands the refusal.
    pub(super) async fn demand_refusal(self, lent: &Lent) -> Result<()> {
        let name = self.name;
        let mut dialogue = lent.open().await.with_context(|| name)?;
        for message in &self.before {
            let reply = dialogue.ask(message).await.with_context(|| name)?;
            ensure!(reply == Some(Reply::Success), "before {name}: {reply:?}");
        }
        let reply = dialogue.ask(&self.message).await.with_context(|| name)?;
        ensure!(
            matches!(reply, None | Some(Reply::Failure | Reply::ExtensionFailure)),
            "{name}: {reply:?}"
        );
        ensure!(!self.fatal || dialogue.closes().await, "{name}: the channel stays open");
        Ok(())
    }
}

/// Believes any host: an attacker does not mind.
pub(crate) struct AnyHost;

impl client::Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// A client's set-up that takes host certificates.
pub(crate) fn client_config() -> Arc<client::Config> {
    Arc::new(client::Config {
        preferred: russh::Preferred {
            host_key_certificates: vec![Algorithm::Ed25519].into(),
            ..russh::Preferred::DEFAULT
        },
        ..client::Config::default()
    })
}

/// A connection to a server, not logged in, and what a bind to it is made of.
pub(super) struct Reached {
    handle: client::Handle<AnyHost>,
    pub(super) host_key: Vec<u8>,
    pub(super) session_id: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

impl Reached {
    /// Connects to a server on loopback.
    pub(super) async fn server(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let handle =
            timeout(PATIENCE, client::connect_stream(client_config(), stream, AnyHost)).await??;
        let binding = handle.agent_session_binding().context("no binding")?;
        let (host_key, session_id) = (binding.host_key().to_vec(), binding.session_id().to_vec());
        let signature = binding.signature().to_vec();
        Ok(Self { handle, host_key, session_id, signature })
    }

    /// The bind that an honest proxy sends.
    pub(super) fn bind(&self) -> Vec<u8> {
        self.bind_for(false)
    }

    /// The same, for forwarding or not.
    pub(super) fn bind_for(&self, forwarding: bool) -> Vec<u8> {
        let Self { host_key, session_id, signature, .. } = self;
        SessionBind { host_key, session_id, signature, forwarding }.encode()
    }

    /// The userauth request that an honest proxy has signed.
    pub(super) fn request<'a>(&'a self, user: &'a str, key: &'a UserKey) -> UserAuthRequest<'a> {
        UserAuthRequest {
            session_id: &self.session_id,
            user: user.as_bytes(),
            service: SSH_CONNECTION.as_bytes(),
            method: AuthMethod::HostBound(&self.host_key),
            algorithm: key.algorithm.as_bytes(),
            key: &key.blob,
        }
    }

    /// Logs in with what the agent signs after `bind`; whether it worked. `hostbound` is what the request names.
    pub(super) async fn break_in(
        mut self,
        lent: &Lent,
        bind: Vec<u8>,
        user: &str,
        key: &UserKey,
        hostbound: bool,
    ) -> Result<bool> {
        let dialogue = lent.open().await?;
        let host_key = hostbound.then(|| self.host_key.clone());
        let mut signer = AgentSigner { dialogue, bind, host_key };
        let tried = self.handle.authenticate_certificate_with(
            user,
            key.certificate.clone(),
            None,
            &mut signer,
        );
        Ok(timeout(PATIENCE, tried).await.context("log in")?.is_ok_and(|result| result.success()))
    }
}

/// The user's certificate as a server sees it.
pub(super) struct UserKey {
    pub(super) certificate: Certificate,
    pub(super) blob: Vec<u8>,
    pub(super) algorithm: String,
}

impl UserKey {
    pub(super) fn new(certificate: Certificate) -> Result<Self> {
        let (blob, algorithm) =
            (certificate.to_bytes()?, certificate.algorithm().to_certificate_type());
        Ok(Self { certificate, blob, algorithm })
    }

    /// A request to sign with it.
    pub(super) fn sign(&self, data: &[u8]) -> Vec<u8> {
        Request::encode_sign(&self.blob, data, 0)
    }
}

/// Has the agent sign userauth requests.
struct AgentSigner {
    dialogue: Dialogue,
    bind: Vec<u8>,
    host_key: Option<Vec<u8>>,
}

/// The agent did not sign.
#[derive(Debug)]
struct NotSigned;

impl From<russh::SendError> for NotSigned {
    fn from(_: russh::SendError) -> Self {
        Self
    }
}

impl russh::Signer for AgentSigner {
    type Error = NotSigned;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, NotSigned> {
        // A refused bind is not the end: the agent is asked all the same.
        self.dialogue.ask(&self.bind).await.map_err(|_| NotSigned)?;
        let request = UserAuthRequest::parse(&to_sign).map_err(|_| NotSigned)?;
        let method = self.host_key.as_deref().map_or(AuthMethod::PublicKey, AuthMethod::HostBound);
        let mut signed = encode_userauth(&UserAuthRequest { method, ..request.clone() });
        match self.dialogue.ask(&Request::encode_sign(request.key, &signed, 0)).await {
            Ok(Some(Reply::Signature(blob))) => {
                signed.put_string(&blob);
                Ok(signed)
            }
            _ => Err(NotSigned),
        }
    }
}

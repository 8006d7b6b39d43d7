//! A proxy in the wrong hands. It has joined the cluster and holds what the cluster gives any proxy:
//! a TLS certificate and SSH host certificates, both of role Proxy. It has nothing else.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use anyhow::{Context, Result};
use russh::keys::signature::Signer;
use russh::keys::ssh_key::{Certificate, Signature, encoding::Encode};
use russh::server::{self, Auth, ChannelOpenHandle, Handle, Msg, PublicKeyOffer, Session};
use russh::{Channel, ChannelId, Pty};
use shared_api::client::Confirm;
use shared_api::{
    AuthoritiesReply, Client, ClientConfig, ClientIdentity, JoinRequest, ProxyHostCertRequest,
    Route, Secret, Timeouts, fetch_authorities,
};
use shared_pki::{KeyPair, TlsKey, parse_certificate_line};
use shared_ssh::server::{HostIdentityKey, ServerLimits, ciphers_for, server_config};
use shared_ssh::wire::SessionBind;
use shared_testkit::{Cluster, ClusterOptions};
use shared_types::{HostId, SystemRole};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// How long an attack may take.
const PATIENCE: Duration = Duration::from_secs(90);
const TOKEN: &str = "join-token-of-the-hostile-proxy";

/// A cluster that a proxy can join.
pub(super) fn options(recording: &str) -> ClusterOptions {
    ClusterOptions {
        recording: Some(recording.into()),
        auth_extra: format!("  tokens:\n  - \"proxy:{TOKEN}\"\n"),
        ..ClusterOptions::default()
    }
}

/// A runtime for the test's own servers.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    shared_transport::install_crypto();
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// The identity of a proxy that joined.
pub(super) struct Stolen {
    api: Client,
    pub(super) authorities: AuthoritiesReply,
    pub(super) tls: ClientIdentity,
}

impl Stolen {
    /// Joins with the token, as any proxy does.
    pub(super) fn join(runtime: &tokio::runtime::Runtime, cluster: &Cluster) -> Result<Self> {
        let route = Route::Direct { addr: cluster.address("auth").to_owned() };
        let pins = [cluster.ca_pin()?];
        runtime.block_on(async {
            let authorities =
                fetch_authorities(&route, Timeouts::default(), Confirm::Pins(&pins)).await?;
            let (ssh_key, tls_key) = (KeyPair::generate()?, TlsKey::generate()?);
            let trusted = authorities.authorities.clone();
            let nobody = Client::new(ClientConfig::new(route.clone(), trusted.clone(), None))?;
            let joined = nobody
                .join(&JoinRequest {
                    token: Secret::new(TOKEN),
                    host_id: HostId::random(),
                    node_name: "hostile".into(),
                    role: SystemRole::Proxy,
                    ssh_public_key: ssh_key.public_openssh(),
                    tls_public_key: tls_key.public().to_pem(),
                    additional_principals: vec!["localhost".into()],
                    public_addr: None,
                })
                .await?;
            let tls = ClientIdentity { cert_pem: joined.tls_cert, key_pem: tls_key.to_pem() };
            let api = Client::new(ClientConfig::new(route, trusted, Some(tls.clone())))?;
            Ok(Self { api, authorities, tls })
        })
    }

    /// The host certificate that auth signs for a proxy which says it is `name`.
    pub(super) async fn held(&self, name: &str) -> Result<Held> {
        let key = KeyPair::generate()?;
        let ask = ProxyHostCertRequest {
            principals: vec![name.into()],
            public_key: key.public_openssh(),
        };
        let reply = self.api.sign_proxy_host(&ask).await?;
        Ok(Held { certificate: parse_certificate_line(&reply.certificate)?, key: Arc::new(key) })
    }
}

/// A host key whose certificate has role Proxy.
#[derive(Clone)]
pub(super) struct Held {
    key: Arc<KeyPair>,
    certificate: Certificate,
}

impl Held {
    /// The certificate as it goes over the wire.
    pub(super) fn blob(&self) -> Result<Vec<u8>> {
        Ok(self.certificate.to_bytes()?)
    }

    /// The key's signature over a session id.
    pub(super) fn signature(&self, session_id: &[u8]) -> Result<Vec<u8>> {
        let signature: Signature = self.key.private().try_sign(session_id)?;
        Ok(signature.encode_vec()?)
    }

    /// A bind of this key to a session.
    pub(super) fn bind(&self, session_id: &[u8]) -> Result<Vec<u8>> {
        let (host_key, signature) = (self.blob()?, self.signature(session_id)?);
        Ok(SessionBind {
            host_key: &host_key,
            session_id,
            signature: &signature,
            forwarding: false,
        }
        .encode())
    }

    fn config(&self) -> Arc<server::Config> {
        let key = Arc::new(self.key.private().clone());
        let identity = HostIdentityKey { key, certificate: self.certificate.clone() };
        server_config(&identity, ciphers_for(None, &[]), &ServerLimits::default())
    }
}

/// A client that logged in and asked for a subsystem or a command.
pub(super) struct Asked {
    pub(super) handle: Handle,
    pub(super) channel: Channel<Msg>,
    /// The certificate it logged in with.
    pub(super) certificate: Certificate,
}

impl Asked {
    /// Says no.
    pub(super) async fn dismiss(self) {
        // The client may be gone.
        self.handle.channel_failure(self.channel.id()).await.ok();
        self.channel.close().await.ok();
    }

    /// Says yes, and that the command ended well.
    pub(super) async fn satisfy(self) {
        let id = self.channel.id();
        self.handle.channel_success(id).await.ok();
        self.handle.exit_status_request(id, 0).await.ok();
        self.channel.eof().await.ok();
        self.channel.close().await.ok();
    }
}

/// What the server does then.
pub(super) type Act =
    Arc<dyn Fn(Asked) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync>;

/// An [`Act`] out of an async function.
pub(super) fn act<F>(act: impl Fn(Asked) -> F + Send + Sync + 'static) -> Act
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    Arc::new(move |asked| Box::pin(act(asked)))
}

/// A server on a port of its own, for clients that take it for the proxy.
pub(super) struct HostileProxy {
    pub(super) port: u16,
    verdicts: Receiver<Result<()>>,
}

impl HostileProxy {
    /// Listens, and does `act` for each client that asks for something.
    pub(super) fn start(runtime: &tokio::runtime::Runtime, held: Held, act: Act) -> Result<Self> {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let port = listener.local_addr()?.port();
        let (sender, verdicts) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, held.clone(), Arc::clone(&act), sender.clone()));
            }
        });
        Ok(Self { port, verdicts })
    }

    /// How the next act ended.
    pub(super) fn verdict(&self) -> Result<()> {
        self.verdicts.recv_timeout(PATIENCE).context("the client asked this server for nothing")?
    }

    /// Whether no act was called for.
    pub(super) fn idle(&self) -> bool {
        self.verdicts.try_recv().is_err()
    }
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(stream: S, held: Held, act: Act, verdicts: Sender<Result<()>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let server = Server { act, verdicts, certificate: None, channels: HashMap::new() };
    if let Ok(session) = server::run_stream(held.config(), stream, server).await {
        // A client that leaves is no fault of the test.
        session.await.ok();
    }
}

struct Server {
    act: Act,
    verdicts: Sender<Result<()>>,
    certificate: Option<Certificate>,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Server {
    fn asked(&mut self, channel: ChannelId, session: &Session) {
        let (Some(certificate), Some(channel)) =
            (self.certificate.clone(), self.channels.remove(&channel))
        else {
            return;
        };
        let asked = Asked { handle: session.handle(), channel, certificate };
        let (doing, verdicts) = ((self.act)(asked), self.verdicts.clone());
        tokio::spawn(async move {
            let verdict =
                tokio::time::timeout(PATIENCE, doing).await.context("the attack took too long");
            // The test may have ended.
            verdicts.send(verdict.and_then(|verdict| verdict)).ok();
        });
    }
}

impl server::Handler for Server {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        _: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_openssh_certificate(
        &mut self,
        _: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        self.certificate = Some(certificate.clone());
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.asked(channel, session);
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.asked(channel, session);
        Ok(())
    }
}

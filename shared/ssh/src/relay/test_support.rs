//! A client, an inner server and a scripted target, joined by in-memory streams.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use russh::keys::PublicKeyOrCertificate;
use russh::keys::ssh_key::Certificate;
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session};
use russh::{Channel, ChannelId, ChannelMsg, Pty, client};
use shared_pki::verify::SshVerifier;
use shared_pki::{CaKind, CertAuthority, HostCertSpec, KeyPair, UserCertSpec};
use shared_types::SystemRole;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::server::{AuthGate, HostIdentityKey, Login, ServerLimits, ciphers_for, server_config};
use crate::target::{HostCheck, Target, TargetOptions};
use crate::wire::{IdentityEntry, Reply, Request, frame, parse_request};

pub(crate) struct Cluster {
    host: CertAuthority,
    user: CertAuthority,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let name = "main".parse().unwrap();
        let generate = |kind| CertAuthority::generate(kind, &name, Utc::now()).unwrap();
        Self { host: generate(CaKind::Host), user: generate(CaKind::User) }
    }

    pub(crate) fn host(&self, name: &str, role: SystemRole) -> HostIdentityKey {
        let key = KeyPair::generate().unwrap();
        let spec = HostCertSpec {
            public_key: key.public().clone(),
            principals: vec![name.to_owned()],
            role,
            cluster: "main".parse().unwrap(),
            now: Utc::now(),
            ttl: Some(Duration::from_secs(3600)),
        };
        let certificate = self.host.ssh_ca().unwrap().sign_host(spec).unwrap();
        HostIdentityKey { key: Arc::new(key.private().clone()), certificate }
    }

    pub(crate) fn user(&self, name: &str) -> (KeyPair, Certificate) {
        let key = KeyPair::generate().unwrap();
        let spec = UserCertSpec::new(
            key.public().clone(),
            name.parse().unwrap(),
            vec!["root".parse().unwrap()],
            "main".parse().unwrap(),
            Utc::now(),
            Duration::from_secs(3600),
        );
        let certificate = self.user.ssh_ca().unwrap().sign_user(spec).unwrap();
        (key, certificate)
    }
}

/// The target: commands of the tests instead of programs.
#[derive(Default)]
pub(crate) struct Script {
    channels: std::collections::HashMap<ChannelId, Channel<Msg>>,
    pub(crate) refuse_pty: bool,
}

impl server::Handler for Script {
    type Error = russh::Error;

    async fn auth_openssh_certificate(
        &mut self,
        _user: &str,
        _certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        _port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if host == "echo" {
            reply.accept().await;
            tokio::spawn(async move {
                let (mut reading, mut writing) = tokio::io::split(channel.into_stream());
                let _ = tokio::io::copy(&mut reading, &mut writing).await;
                let _ = writing.shutdown().await;
            });
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.refuse_pty {
            session.channel_failure(channel)
        } else {
            session.channel_success(channel)
        }
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(id)?;
        let channel = self.channels.remove(&id).unwrap();
        let command = String::from_utf8(command.to_vec()).unwrap();
        tokio::spawn(run(command, channel, session.handle()));
        Ok(())
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.exec_request(id, b"cat", session).await
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.exec_request(id, b"cat", session).await
    }
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// `flood BYTES ORDER`: so many bytes, then `e`of, e`x`it status 7, `c`lose in that order; `cat`; `deaf`.
async fn run(command: String, mut channel: Channel<Msg>, handle: server::Handle) {
    let id = channel.id();
    let words: Vec<&str> = command.split(' ').collect();
    match words[..] {
        ["flood", bytes, order] => {
            // As sshd does: data within the window, then whatever comes next at once.
            let _ = channel.data_bytes(Bytes::from(pattern(bytes.parse().unwrap()))).await;
            for step in order.chars() {
                let _ = match step {
                    'e' => channel.eof().await,
                    'x' => handle
                        .exit_status_request(id, 7)
                        .await
                        .map_err(|()| russh::Error::SendError),
                    's' => handle
                        .exit_signal_request(
                            id,
                            russh::Sig::TERM,
                            false,
                            "gone".into(),
                            "en".into(),
                        )
                        .await
                        .map_err(|()| russh::Error::SendError),
                    _ => channel.close().await,
                };
            }
            while channel.wait().await.is_some() {}
        }
        ["cat"] => {
            let (mut reading, writing) = channel.split();
            let (queue, mut queued) = tokio::sync::mpsc::unbounded_channel();
            // A pipe of its own, as sshd has one: it must not stop reading while it writes.
            let writer = tokio::spawn(async move {
                while let Some(data) = queued.recv().await {
                    if writing.data_bytes(data).await.is_err() {
                        break;
                    }
                }
                writing
            });
            while let Some(message) = reading.wait().await {
                match message {
                    ChannelMsg::Data { data } => queue.send(data).unwrap(),
                    ChannelMsg::Eof => break,
                    _ => {}
                }
            }
            drop(queue);
            let reading = writer.await.unwrap();
            let _ = handle.exit_status_request(id, 0).await;
            let _ = reading.eof().await;
            let _ = reading.close().await;
        }
        ["deaf"] => {
            // Keeps the channel and never reads it.
            std::future::pending::<()>().await;
        }
        _ => {
            let _ = channel.extended_data_bytes(1, Bytes::from_static(b"what?")).await;
            let _ = handle.exit_status_request(id, 127).await;
            let _ = channel.close().await;
        }
    }
}

struct AnyHost;

impl HostCheck for AnyHost {
    fn certificate(&self, _certificate: &Certificate) -> Result<(), String> {
        Ok(())
    }

    fn key(&self, _key: &russh::keys::ssh_key::PublicKey) -> Result<(), String> {
        Err("remote host presented a public key, expected a host certificate".to_owned())
    }
}

/// An agent with one certificate.
async fn agent(mut stream: tokio::io::DuplexStream, key: KeyPair, certificate: Certificate) {
    use russh::keys::signature::Signer;
    loop {
        let Ok(len) = stream.read_u32().await else { return };
        let mut body = vec![0; len as usize];
        stream.read_exact(&mut body).await.unwrap();
        let reply = match parse_request(&body).unwrap() {
            Request::Bind(_) => Reply::Success,
            Request::List => {
                let key = certificate.to_bytes().unwrap();
                Reply::Identities(vec![IdentityEntry { key, comment: "teleport:joe".into() }])
            }
            Request::Sign { data, .. } => {
                let signature: russh::keys::ssh_key::Signature =
                    key.private().try_sign(data).unwrap();
                Reply::Signature(signature.try_into().unwrap())
            }
            _ => Reply::Failure,
        };
        stream.write_all(&frame(&reply.encode())).await.unwrap();
    }
}

/// What the taps saw, in order.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) output: Vec<u8>,
    pub(crate) log: Vec<String>,
}

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) seen: Mutex<Seen>,
    pub(crate) connects: AtomicUsize,
    pub(crate) refuse: Mutex<Option<String>>,
    pub(crate) refuse_pty: bool,
    /// Permits for `output`; closed is unlimited.
    pub(crate) gate: Semaphore,
    pub(crate) over: CancellationToken,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::unshared())
    }

    pub(crate) fn unshared() -> Self {
        let gate = Semaphore::new(0);
        gate.close();
        Self {
            cluster: Cluster::new(),
            seen: Mutex::default(),
            connects: AtomicUsize::new(0),
            refuse: Mutex::default(),
            refuse_pty: false,
            gate,
            over: CancellationToken::new(),
        }
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.seen.lock().unwrap().log.clone()
    }
}

#[async_trait]
impl AuthGate for World {
    type Identity = String;

    async fn admit(&self, login: &str, certificate: &Certificate) -> Result<String, String> {
        let trusted = [self.cluster.host.trusted(), self.cluster.user.trusted()];
        let identity = SshVerifier::new(&trusted, Utc::now()).user(certificate, login, None);
        identity.map(|identity| identity.user.to_string()).map_err(|refusal| refusal.to_string())
    }
}

struct WorldTap(Arc<World>);

#[async_trait]
impl InnerService for Arc<World> {
    async fn connect(&self, user: &String, login: &str) -> Result<Arc<Target>, String> {
        if let Some(text) = self.refuse.lock().unwrap().clone() {
            return Err(text);
        }
        self.connects.fetch_add(1, Ordering::Relaxed);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let config = server_config(
            &self.cluster.host("web", SystemRole::Node),
            ciphers_for(None, &[]),
            &ServerLimits::default(),
        );
        let script = Script { refuse_pty: self.refuse_pty, ..Script::default() };
        tokio::spawn(async move {
            if let Ok(session) = server::run_stream(config, far, script).await {
                let _ = session.await;
            }
        });
        let (key, certificate) = self.cluster.user(user);
        let options = TargetOptions {
            login: login.to_owned(),
            host: Arc::new(AnyHost),
            certificate: Arc::new(|_| true),
        };
        let opened = crate::target::connect(near, options, async || {
            let (ours, theirs) = tokio::io::duplex(4096);
            tokio::spawn(agent(theirs, key, certificate));
            Ok(ours)
        });
        opened.await.map(Arc::new).map_err(|err| err.to_string())
    }

    async fn tap(&self, _user: &String, _login: &str, _target: &Arc<Target>) -> Arc<dyn Tap> {
        Arc::new(WorldTap(Arc::clone(self)))
    }

    async fn forward(
        &self,
        _user: &String,
        _login: &str,
        to: (&str, u32),
    ) -> Result<Arc<dyn ForwardTap>, String> {
        if to.1 == 25 {
            return Err("port forwarding not permitted".to_owned());
        }
        Ok(Arc::new(WorldTap(Arc::clone(self))))
    }

    fn may_forward_agent(&self, _user: &String) -> bool {
        false
    }

    async fn session(&self, _: &String, _: &str) -> Result<Box<dyn Send>, String> {
        Ok(Box::new(()))
    }

    async fn ended(&self, _: &String, _: &(dyn Fn() -> u64 + Send + Sync)) -> String {
        self.over.cancelled().await;
        "access was revoked".to_owned()
    }
}

#[async_trait]
impl AuthGate for Arc<World> {
    type Identity = String;

    async fn admit(&self, login: &str, certificate: &Certificate) -> Result<String, String> {
        World::admit(self, login, certificate).await
    }
}

#[async_trait]
impl Tap for WorldTap {
    async fn start(&self, start: &Start) -> Result<Watch, String> {
        self.0.seen.lock().unwrap().log.push(format!(
            "start {:?} pty={:?}",
            start.program,
            start.pty.as_ref().map(|pty| pty.size)
        ));
        Ok(match &start.program {
            Program::Subsystem(name) if name == "brackets" => {
                Watch::Filter(Arc::new(Brackets(Semaphore::new(0))))
            }
            Program::Subsystem(_) => Watch::Nothing,
            _ => Watch::Output,
        })
    }

    async fn output(&self, stream: Stream, data: &Bytes) -> Result<(), String> {
        if !self.0.gate.is_closed() {
            self.0.gate.acquire().await.unwrap().forget();
        }
        let mut seen = self.0.seen.lock().unwrap();
        if stream == Stream::Stdout {
            seen.output.extend_from_slice(data);
        }
        Ok(())
    }

    async fn resize(&self, size: Size) -> Result<(), String> {
        self.0.seen.lock().unwrap().log.push(format!("resize {}:{}", size.columns, size.rows));
        Ok(())
    }

    async fn end(&self, ended: Ended) {
        self.0.seen.lock().unwrap().log.push(format!("end {ended:?}"));
    }
}

/// Puts brackets around everything, answers `ask` itself, and ends at `end`.
struct Brackets(Semaphore);

#[async_trait]
impl Filter for Brackets {
    async fn input(&self, data: Bytes) -> Result<Vec<Bytes>, String> {
        match data.as_ref() {
            b"ask" => self.0.add_permits(1),
            b"end" => return Err("that was it".to_owned()),
            _ => return Ok(vec!["<".into(), data, ">".into()]),
        }
        Ok(Vec::new())
    }

    async fn output(&self, data: Bytes) -> Result<Vec<Bytes>, String> {
        Ok(vec!["(".into(), data, ")".into()])
    }

    async fn reply(&self) -> Bytes {
        self.0.acquire().await.unwrap().forget();
        "answer".into()
    }
}

#[async_trait]
impl ForwardTap for WorldTap {
    async fn end(&self, to_target: u64, to_client: u64, error: Option<String>) {
        self.0.seen.lock().unwrap().log.push(format!("forward {to_target} {to_client} {error:?}"));
    }
}

pub(crate) struct AnyServer;

impl client::Handler for AnyServer {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

pub(crate) struct Client {
    pub(crate) handle: client::Handle<AnyServer>,
    pub(crate) server: tokio::task::JoinHandle<Login>,
}

/// A client in front of the inner server, not logged in.
pub(crate) async fn knock(world: &Arc<World>, patience: Duration) -> Client {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let config = server_config(
        &world.cluster.host("web", SystemRole::Proxy),
        ciphers_for(None, &[]),
        &ServerLimits::default(),
    );
    let service = Arc::new(Arc::clone(world));
    let server =
        tokio::spawn(serve_inner(service, far, config, patience, CancellationToken::new()));
    let handle =
        client::connect_stream(Arc::new(client::Config::default()), near, AnyServer).await.unwrap();
    Client { handle, server }
}

/// A client that got in.
pub(crate) async fn enter(world: &Arc<World>) -> Client {
    let mut client = knock(world, Duration::from_secs(10)).await;
    let (key, certificate) = world.cluster.user("joe");
    let key = Arc::new(key.private().clone());
    assert!(
        client.handle.authenticate_openssh_cert("root", key, certificate).await.unwrap().success()
    );
    client
}

//! The whole way in one process: this client, the embedded agent, the recording proxy's servers, and a
//! stock sshd behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use russh::keys::ssh_key::{Certificate, PublicKey};
use shared_pki::TrustedAuthority;
use shared_pki::verify::{HostRole, SshVerifier};
use shared_types::SystemRole;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::tests::{Sshd, current_user, exec, host_with, run, run_with};
use super::*;
use crate::agent::test_support::{Cluster, Host};
use crate::agent::{AgentKey, EmbeddedAgent, HostKeyRefusal, HostKeys, Policy};
use crate::relay::{
    Ended, ForwardTap, InnerService, Size, Start as Started, Stream, Tap, Watch, serve_inner,
};
use crate::server::{
    AgentSource as OfferedAgent, AuthGate, HostIdentityKey, OuterService, OuterSession,
    RequestError, ServerLimits, Subsystem, SubsystemReply, ciphers_for, serve_outer, server_config,
};
use crate::target::{self, HostCheck, Target};

const HOST: &str = "db.example.com";
const PROXY: &str = "proxy.example.com";
const PATIENCE: Duration = Duration::from_secs(20);

/// A recording proxy that records nothing.
struct Proxy {
    trusted: Vec<TrustedAuthority>,
    inner: HostIdentityKey,
    target: u16,
    logins: AtomicUsize,
}

struct Node(Vec<TrustedAuthority>);

impl HostCheck for Node {
    fn certificate(&self, certificate: &Certificate) -> Result<(), String> {
        let verifier = SshVerifier::new(&self.0, Utc::now());
        verifier.host(certificate, HOST, HostRole::Node).map(drop).map_err(|e| e.to_string())
    }

    fn key(&self, _: &PublicKey) -> Result<(), String> {
        Err("plain key".into())
    }
}

struct NoTap;

#[async_trait]
impl Tap for NoTap {
    async fn start(&self, _: &Started) -> Result<Watch, String> {
        Ok(Watch::Output)
    }

    async fn output(&self, _: Stream, _: &Bytes) -> Result<(), String> {
        Ok(())
    }

    async fn resize(&self, _: Size) -> Result<(), String> {
        Ok(())
    }

    async fn end(&self, _: Ended) {}
}

#[async_trait]
impl ForwardTap for NoTap {
    async fn end(&self, _: u64, _: u64, _: Option<String>) {}
}

#[async_trait]
impl AuthGate for Proxy {
    type Identity = String;

    async fn admit(&self, login: &str, certificate: &Certificate) -> Result<String, String> {
        let verifier = SshVerifier::new(&self.trusted, Utc::now());
        verifier
            .user(certificate, login, None)
            .map(|i| i.user.to_string())
            .map_err(|e| e.to_string())
    }
}

/// The proxy behind one `proxy:` request.
struct Behind {
    proxy: Arc<Proxy>,
    agent: OfferedAgent,
}

#[async_trait]
impl AuthGate for Behind {
    type Identity = String;

    async fn admit(&self, login: &str, certificate: &Certificate) -> Result<String, String> {
        self.proxy.admit(login, certificate).await
    }
}

#[async_trait]
impl InnerService for Behind {
    async fn connect(&self, _: &String, login: &str) -> Result<Arc<Target>, String> {
        self.proxy.logins.fetch_add(1, Ordering::Relaxed);
        let stream = TcpStream::connect(("127.0.0.1", self.proxy.target)).await.unwrap();
        let options = target::TargetOptions {
            login: login.to_owned(),
            host: Arc::new(Node(self.proxy.trusted.clone())),
            certificate: Arc::new(|_| true),
        };
        let agent = self.agent.clone();
        let connected = target::connect(stream, options, async move || agent.open().await).await;
        connected.map(Arc::new).map_err(|error| error.to_string())
    }

    async fn tap(&self, _: &String, _: &str, _: &Arc<Target>) -> Arc<dyn Tap> {
        Arc::new(NoTap)
    }

    async fn forward(
        &self,
        _: &String,
        _: &str,
        _: (&str, u32),
    ) -> Result<Arc<dyn ForwardTap>, String> {
        Ok(Arc::new(NoTap))
    }

    fn may_forward_agent(&self, _: &String) -> bool {
        true
    }

    async fn session(&self, _: &String, _: &str) -> Result<Box<dyn Send>, String> {
        Ok(Box::new(()))
    }

    async fn ended(&self, _: &String, _: &(dyn Fn() -> u64 + Send + Sync)) -> String {
        std::future::pending().await
    }
}

#[async_trait]
impl OuterService for Proxy {
    async fn subsystem(
        &self,
        session: OuterSession<String>,
        subsystem: Result<Subsystem, RequestError>,
        reply: SubsystemReply,
    ) {
        if subsystem.is_err() {
            return reply.fail("target host is offline or does not exist").await;
        }
        let stream = reply.accept().await;
        let config = server_config(&self.inner, ciphers_for(None, &[]), &ServerLimits::default());
        let proxy = Arc::new(Self {
            trusted: self.trusted.clone(),
            inner: self.inner.clone(),
            target: self.target,
            logins: AtomicUsize::new(0),
        });
        let behind = Arc::new(Behind { proxy, agent: session.agent });
        serve_inner(behind, stream, config, PATIENCE, CancellationToken::new()).await;
    }
}

struct World {
    cluster: Cluster,
    key: Arc<AgentKey>,
    sshd: Sshd,
    proxy: Arc<Proxy>,
    shown: HostIdentityKey,
}

fn identity(host: &Host) -> HostIdentityKey {
    let certificate = Certificate::from_bytes(&host.blob).unwrap();
    HostIdentityKey { key: Arc::new(host.key.private().clone()), certificate }
}

async fn world() -> Option<World> {
    let cluster = Cluster::new();
    let key = cluster.user_at(Utc::now(), &[&current_user()]);
    let sshd = Sshd::start(&cluster, &host_with(&cluster, HOST, SystemRole::Node), "").await?;
    let proxy = Arc::new(Proxy {
        trusted: cluster.trusted(),
        inner: identity(&host_with(&cluster, HOST, SystemRole::Proxy)),
        target: sshd.port,
        logins: AtomicUsize::new(0),
    });
    let shown = identity(&host_with(&cluster, PROXY, SystemRole::Proxy));
    Some(World { cluster, key, sshd, proxy, shown })
}

impl World {
    /// Connects with an agent for `typed`, and gives the agent too.
    async fn connect(&self, typed: &str) -> (ProxyConn, TargetConn, Arc<EmbeddedAgent>) {
        let (near, far) = tokio::io::duplex(256 * 1024);
        let config = server_config(&self.shown, ciphers_for(None, &[]), &ServerLimits::default());
        tokio::spawn(serve_outer(
            Arc::clone(&self.proxy),
            far,
            config,
            PATIENCE,
            CancellationToken::new(),
        ));
        let login: shared_types::Login = current_user().parse().unwrap();
        let policy = Policy::new(typed.parse().unwrap(), login.clone(), self.cluster.trusted());
        let agent = EmbeddedAgent::new(Arc::clone(&self.key), policy);
        let options = ProxyOptions {
            host: PROXY.into(),
            login: login.clone(),
            key: Arc::clone(&self.key),
            authorities: self.cluster.trusted(),
            timeout: PATIENCE,
        };
        let proxy = ProxyConn::connect(near, options, Some(Arc::clone(&agent))).await.unwrap();
        let stream = proxy.open_target(&HOST.parse().unwrap(), self.sshd.port, true).await.unwrap();
        let options = TargetOptions {
            host: HOST.parse().unwrap(),
            login,
            key: Arc::clone(&self.key),
            authorities: self.cluster.trusted(),
            recording_expected: true,
            plain_keys: None,
            forward_agent: None,
            timeout: PATIENCE,
        };
        let target = TargetConn::connect(stream, options, Some(Arc::clone(&agent))).await.unwrap();
        (proxy, target, agent)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_run_one_after_the_other_and_side_by_side() {
    let Some(world) = world().await else { return };
    let (_proxy, conn, agent) = world.connect(HOST).await;
    let first = run(&conn, "printf out; printf err >&2; exit 7").await;
    assert_eq!(first.end.unwrap(), SessionEnd::Status(7), "{:?}", agent.last_refusal());
    assert_eq!((first.stdout.as_slice(), first.stderr.as_slice()), (&b"out"[..], &b"err"[..]));
    let (a, b, c) = tokio::join!(run(&conn, "exit 1"), run(&conn, "exit 2"), run(&conn, "exit 3"));
    assert_eq!(a.end.unwrap(), SessionEnd::Status(1));
    assert_eq!(b.end.unwrap(), SessionEnd::Status(2));
    assert_eq!(c.end.unwrap(), SessionEnd::Status(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_data_is_intact_both_ways_at_once_through_the_proxy() {
    let Some(world) = world().await else { return };
    let (_proxy, conn, _agent) = world.connect(HOST).await;
    let chunk: Vec<u8> =
        (0..100_003_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let input = vec![Bytes::from(chunk.clone()); 640];
    let cat = run_with(&conn, exec("cat"), input);
    let cat = tokio::time::timeout(Duration::from_secs(120), cat).await.expect("no hang");
    assert_eq!(cat.end.unwrap(), SessionEnd::Status(0));
    assert_eq!(cat.stdout.len(), chunk.len() * 640);
    assert!(cat.stdout.chunks(chunk.len()).all(|part| part == chunk));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_with_its_status_arrives_many_times() {
    let Some(world) = world().await else { return };
    let (_proxy, conn, _agent) = world.connect(HOST).await;
    for _ in 0..20 {
        let one = run(&conn, "head -c 3000000 /dev/zero; exit 9");
        let one = tokio::time::timeout(Duration::from_secs(60), one).await.expect("no hang");
        assert_eq!(one.end.unwrap(), SessionEnd::Status(9));
        assert_eq!(one.stdout.len(), 3_000_000);
    }
}

/// The proxy connects to a host other than the one the user typed: the agent does not sign.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_goes_elsewhere_gets_no_login() {
    let Some(world) = world().await else { return };
    let (_proxy, conn, agent) = world.connect("web.example.com").await;
    let error = run(&conn, "true").await.end.unwrap_err();
    assert!(error.to_string().starts_with("channel 0: open failed: connect failed: "), "{error}");
    let refusal = agent.last_refusal().unwrap();
    assert!(refusal.contains("web.example.com"), "{refusal}");
}

/// Somebody is being asked about a key for a while.
#[derive(Debug, Default)]
struct Pondering(std::sync::atomic::AtomicBool);

#[async_trait]
impl HostKeys for Pondering {
    async fn accept(&self, _: &PublicKey) -> Result<(), HostKeyRefusal> {
        Ok(())
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_shows_nothing_before_questions_are_settled() {
    let Some(world) = world().await else { return };
    let (_proxy, conn, agent) = world.connect(HOST).await;
    let pondering = Arc::new(Pondering::default());
    agent.ask_about_plain_keys(Arc::<Pondering>::clone(&pondering));
    let (_stdin, stdin) = tokio::sync::mpsc::channel(1);
    let (_control, control) = tokio::sync::mpsc::channel(1);
    let (stdout, stderr) = (Arc::new(ByteQueue::new()), Arc::new(ByteQueue::new()));
    let shown = Arc::clone(&stdout);
    let io = SessionIo { stdin, stdout, stderr, control, started: None };
    let first = async {
        let first = shown.take().await;
        (first, pondering.0.load(Ordering::SeqCst))
    };
    let (end, (first, settled)) = tokio::join!(conn.run_session(exec("echo shown"), io), first);
    assert_eq!(end.unwrap(), SessionEnd::Status(0));
    assert!(first.is_some() && settled, "{first:?}");
}

//! Agents and proxies with real certificates, over loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use shared_api::{NodeView, ProxyInfo};
use shared_pki::{CaKind, CertAuthority, HostTlsSpec, TlsKey};
use shared_transport::tunnel::{DialRequest, ProxyEntry, Refused, Tunnel};
use shared_transport::{AcceptLimits, alpn, handover};
use shared_types::resource::{Lock, LockSpec, LockTarget};
use shared_types::{HostId, SystemRole};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use super::*;
use crate::host::HostKeys;
use crate::testing::FakeAuthority;

const LIMIT: Duration = Duration::from_secs(20);

/// A cluster's host CA, and services that trust it.
struct World {
    ca: CertAuthority,
    authority: Arc<FakeAuthority>,
}

impl World {
    fn new() -> Self {
        shared_transport::install_crypto();
        let cluster = "example.com".parse().unwrap();
        let ca = CertAuthority::generate(CaKind::Host, &cluster, Utc::now()).unwrap();
        let authority = Arc::new(FakeAuthority::new());
        authority.change(|state| state.authorities = vec![ca.trusted()]);
        Self { ca, authority }
    }

    fn keys(&self, host_id: HostId, role: SystemRole) -> watch::Sender<Arc<HostKeys>> {
        watch::channel(Arc::new(self.fresh(host_id, role))).0
    }

    fn fresh(&self, host_id: HostId, role: SystemRole) -> HostKeys {
        let key = TlsKey::generate().unwrap();
        let cluster = "example.com".parse().unwrap();
        let spec = HostTlsSpec { host_id, role, cluster, names: Vec::new() };
        let hour = Duration::from_secs(3600);
        let cert = self.ca.tls_ca().unwrap();
        let cert = cert.sign_server(&spec, &key.public(), Utc::now(), Some(hour)).unwrap();
        HostKeys {
            tls_cert_pem: cert.pem(),
            tls_key_pem: key.to_pem(),
            ssh_cert: String::new(),
            ssh_key_pem: Zeroizing::default(),
            valid_until: Utc::now() + hour,
        }
    }

    fn tls(
        &self,
        keys: &watch::Sender<Arc<HostKeys>>,
        peers: &'static [SystemRole],
        alpn: &'static [u8],
    ) -> Arc<HostTls> {
        Arc::new(HostTls::new(self.authority.clone(), keys.subscribe(), peers, alpn))
    }
}

/// Sends everything back, and remembers how connections came.
#[derive(Default)]
struct Echo(Mutex<Vec<Arrival>>);

#[async_trait]
impl AgentService for Echo {
    async fn connection(
        self: Arc<Self>,
        stream: BoxedStream,
        arrival: Arrival,
        stop: CancellationToken,
    ) {
        self.0.lock().unwrap().push(arrival);
        let (mut read, mut write) = tokio::io::split(stream);
        let _ = stop.run_until_cancelled(tokio::io::copy(&mut read, &mut write)).await;
    }
}

async fn talk(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    let mut back = [0; 11];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"SSH-2.0-x\r\n");
}

/// A proxy that takes tunnels, and lists `listed` to each.
struct FakeProxy {
    host_id: HostId,
    addr: SocketAddr,
    tunnels: mpsc::UnboundedReceiver<(HostId, Tunnel)>,
    _task: AbortOnDropHandle<()>,
}

impl FakeProxy {
    async fn start(world: &World, host_id: HostId, listen: &str, listed: Vec<ProxyEntry>) -> Self {
        let listener = TcpListener::bind(listen).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let keys = world.keys(host_id, SystemRole::Proxy);
        let tls = world.tls(&keys, &[SystemRole::Node], alpn::REVERSE_TUNNEL);
        let (tell, tunnels) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let _keys = keys;
            let mut running = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, tell, listed) = (Arc::clone(&tls), tell.clone(), listed.clone());
                running.spawn(async move {
                    let Ok((stream, peer)) = tls.accept(stream).await else { return };
                    let (tunnel, driver) = Tunnel::accept(stream).await.unwrap();
                    let driver = tokio::spawn(driver.run());
                    let _stop = AbortOnDropHandle::new(driver);
                    tunnel.tell_proxies(&listed).await.unwrap();
                    tell.send((peer.host_id, tunnel)).unwrap();
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { host_id, addr, tunnels, _task: AbortOnDropHandle::new(task) }
    }

    async fn tunnel(&mut self) -> (HostId, Tunnel) {
        tokio::time::timeout(LIMIT, self.tunnels.recv()).await.unwrap().unwrap()
    }
}

struct Agent {
    host_id: HostId,
    pool: Arc<TunnelPool>,
    echo: Arc<Echo>,
    keys: watch::Sender<Arc<HostKeys>>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Agent {
    fn start(world: &World, proxies: Vec<String>) -> Self {
        let host_id = HostId::random();
        let keys = world.keys(host_id, SystemRole::Node);
        let tls = world.tls(&keys, &[SystemRole::Proxy], alpn::REVERSE_TUNNEL);
        let echo = Arc::new(Echo::default());
        let services =
            HashMap::from([(ConnType::Node, Arc::clone(&echo) as Arc<dyn AgentService>)]);
        let settings = PoolSettings { proxies, host_id, drain: Duration::from_secs(5) };
        let pool = TunnelPool::new(settings, tls, services);
        let stop = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&pool).run(stop.clone()));
        Self { host_id, pool, echo, keys, stop, running }
    }

    async fn until(&self, what: impl FnMut(&TunnelStatus) -> bool) {
        let mut status = self.pool.status();
        let waited = tokio::time::timeout(LIMIT, status.wait_for(what)).await;
        waited.unwrap_or_else(|_| panic!("{:?}", self.pool.status().borrow().clone())).unwrap();
    }
}

fn dial_of(host_id: HostId) -> DialRequest {
    DialRequest {
        address: DialRequest::LOCAL_NODE.to_owned(),
        server_id: format!("{host_id}.example.com"),
        conn_type: ConnType::Node,
        teleport_version: "1".to_owned(),
        client_src_addr: "192.0.2.7:1234".parse().unwrap(),
        client_dst_addr: None,
    }
}

#[tokio::test]
async fn an_agent_is_reached_through_its_tunnel_and_comes_back_after_a_restart() {
    let world = World::new();
    let mut proxy = FakeProxy::start(&world, HostId::random(), "127.0.0.1:0", Vec::new()).await;
    let (addr, host_id) = (proxy.addr.to_string(), proxy.host_id);
    let agent = Agent::start(&world, vec![addr.clone()]);
    let (met, tunnel) = proxy.tunnel().await;
    assert_eq!(met, agent.host_id);
    talk(tunnel.dial(&dial_of(agent.host_id), LIMIT).await.unwrap()).await;
    let came = agent.echo.0.lock().unwrap()[0];
    assert_eq!(came.client, "192.0.2.7:1234".parse().unwrap());
    assert_eq!((came.via, came.conn_type), (ArrivedBy::Tunnel, ConnType::Node));
    let other = DialRequest { server_id: HostId::random().to_string(), ..dial_of(agent.host_id) };
    let err = tunnel.dial(&other, LIMIT).await.unwrap_err();
    assert!(matches!(err, Refused::Agent(_)), "{err:?}");
    let other = DialRequest { conn_type: ConnType::Db, ..dial_of(agent.host_id) };
    let err = tunnel.dial(&other, LIMIT).await.unwrap_err().to_string();
    assert!(err.starts_with("this agent serves no connections of type db"), "{err}");

    drop((proxy, tunnel));
    agent.until(|status| status.proxies.is_empty()).await;
    let mut proxy = FakeProxy::start(&world, host_id, &addr, Vec::new()).await;
    let since = std::time::Instant::now();
    let (_, tunnel) = proxy.tunnel().await;
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    talk(tunnel.dial(&dial_of(agent.host_id), LIMIT).await.unwrap()).await;

    // New keys make a new tunnel, and so does the proxy's wish; what runs goes on.
    let mut old = tunnel.dial(&dial_of(agent.host_id), LIMIT).await.unwrap();
    agent.keys.send_replace(Arc::new(world.fresh(agent.host_id, SystemRole::Node)));
    let (_, tunnel) = proxy.tunnel().await;
    tunnel.ask_to_reconnect().await.unwrap();
    let (_, tunnel) = proxy.tunnel().await;
    agent.until(|status| status.proxies.contains(&host_id)).await;
    old.write_all(b"x").await.unwrap();
    assert_eq!(old.read_u8().await.unwrap(), b'x');

    agent.stop.cancel();
    tokio::time::timeout(LIMIT, agent.running).await.unwrap().unwrap();
    assert!(tunnel.dial(&dial_of(agent.host_id), LIMIT).await.is_err());
    assert_eq!(old.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn an_agent_finds_the_other_proxies() {
    let world = World::new();
    let (one, two) = (HostId::random(), HostId::random());
    // The second is found through the first's list.
    let mut second = FakeProxy::start(&world, two, "127.0.0.1:0", Vec::new()).await;
    let entry = |id: HostId, addr: String| ProxyEntry { host_id: id.to_string(), addr };
    let listed = vec![entry(two, second.addr.to_string())];
    let mut first = FakeProxy::start(&world, one, "127.0.0.1:0", listed).await;
    let agent = Agent::start(&world, vec![first.addr.to_string()]);
    let (_, through_first) = first.tunnel().await;
    let (_, through_second) = second.tunnel().await;
    agent.until(|status| status.proxies == [one, two].into()).await;
    for tunnel in [through_first, through_second] {
        talk(tunnel.dial(&dial_of(agent.host_id), LIMIT).await.unwrap()).await;
    }
    drop(first);
    agent.until(|status| status.proxies == [two].into()).await;
}

#[tokio::test]
async fn an_agent_finds_the_proxies_that_the_auth_service_tells_of() {
    let world = World::new();
    let mut proxy = FakeProxy::start(&world, HostId::random(), "127.0.0.1:0", Vec::new()).await;
    let agent = Agent::start(&world, Vec::new());
    let told = |host_id: HostId, addr: &str| {
        let public_addr = Some(addr.to_owned());
        ProxyInfo { host_id, public_addr }
    };
    // One on the very host is no other's way to it: it is in the same process.
    let own = told(agent.host_id, "127.0.0.1:1");
    let proxies = vec![own, told(proxy.host_id, &proxy.addr.to_string())];
    world.authority.nodes.send_replace(Arc::new(NodeView { proxies, ..NodeView::default() }));
    let (met, tunnel) = proxy.tunnel().await;
    assert_eq!(met, agent.host_id);
    agent.until(|status| status.proxies == [proxy.host_id].into()).await;
    talk(tunnel.dial(&dial_of(agent.host_id), LIMIT).await.unwrap()).await;
}

#[tokio::test]
async fn only_hosts_of_the_right_role_and_cluster_meet() {
    let world = World::new();
    let stranger = World::new();
    let node = world.keys(HostId::random(), SystemRole::Node);
    let proxy = world.keys(HostId::random(), SystemRole::Proxy);
    let agent = world.tls(&node, &[SystemRole::Proxy], alpn::REVERSE_TUNNEL);
    let server = world.tls(&proxy, &[SystemRole::Node], alpn::REVERSE_TUNNEL);
    let meet = async |client: &HostTls, server: &HostTls| {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::join!(async { client.connect(near).await.map(|(_, peer)| peer) }, async {
            server.accept(far).await.map(|(_, peer)| peer)
        })
    };
    let (met, taken) = meet(&agent, &server).await;
    assert_eq!(met.unwrap().role, SystemRole::Proxy);
    let taken = taken.unwrap();
    assert_eq!(taken.role, SystemRole::Node);

    // A proxy is no agent, an agent is no proxy, and a host of another cluster is neither.
    let as_proxy = world.tls(&proxy, &[SystemRole::Proxy], alpn::REVERSE_TUNNEL);
    assert!(matches!(meet(&as_proxy, &server).await.1, Err(HostTlsError::Role { .. })));
    let as_node = world.tls(&node, &[SystemRole::Node], alpn::REVERSE_TUNNEL);
    assert!(meet(&agent, &as_node).await.0.is_err());
    let strange = stranger.keys(HostId::random(), SystemRole::Node);
    let strange = Arc::new(HostTls::new(
        world.authority.clone(),
        strange.subscribe(),
        &[SystemRole::Proxy],
        alpn::REVERSE_TUNNEL,
    ));
    assert!(meet(&strange, &server).await.1.is_err());
    // Nobody without a certificate.
    let (near, far) = tokio::io::duplex(64 * 1024);
    let mut bare = shared_transport::tls::accept_any_certificate();
    bare.alpn_protocols = vec![alpn::REVERSE_TUNNEL.to_vec()];
    let bare = shared_transport::tls::connect(Arc::new(bare), "x.test", near, LIMIT);
    let (_bare, taken_bare) = tokio::join!(bare, server.accept(far));
    assert!(matches!(taken_bare, Err(HostTlsError::NoCertificate)));

    let target = LockTarget { server_id: Some(taken.host_id), ..LockTarget::default() };
    let lock = Lock::new("l", LockSpec { target, ..LockSpec::default() });
    world.authority.change(|state| state.locks.push(lock));
    assert!(matches!(meet(&agent, &server).await.1, Err(HostTlsError::Locked(_))));
}

#[tokio::test]
async fn a_direct_agent_takes_proxies_and_plain_clients() {
    let world = World::new();
    let (node, proxy) = (HostId::random(), HostId::random());
    let node_keys = world.keys(node, SystemRole::Node);
    let proxy_keys = world.keys(proxy, SystemRole::Proxy);
    let server = world.tls(&node_keys, &[SystemRole::Proxy], alpn::NODE_HANDOVER);
    let echo = Arc::new(Echo::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let limits = AcceptLimits { drain: Duration::from_millis(100), ..AcceptLimits::default() };
    let service = Arc::clone(&echo) as Arc<dyn AgentService>;
    let serving = tokio::spawn(serve_direct(listener, limits, server, service, stop.clone()));

    let plain = TcpStream::connect(addr).await.unwrap();
    let from = plain.local_addr().unwrap();
    talk(plain).await;
    let dialler = world.tls(&proxy_keys, &[SystemRole::Node], alpn::NODE_HANDOVER);
    let (mut stream, peer) =
        dialler.connect(TcpStream::connect(addr).await.unwrap()).await.unwrap();
    assert_eq!(peer.host_id, node);
    handover::announce(&mut stream, "192.0.2.9:9".parse().unwrap()).await.unwrap();
    talk(stream).await;
    // Whoever is no proxy hands nothing over, and other protocols are not spoken.
    let other = world.tls(&node_keys, &[SystemRole::Node], alpn::NODE_HANDOVER);
    if let Ok((mut stream, _)) = other.connect(TcpStream::connect(addr).await.unwrap()).await {
        let _ = handover::announce(&mut stream, "192.0.2.9:9".parse().unwrap()).await;
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    }
    let mut web = TcpStream::connect(addr).await.unwrap();
    web.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(web.read(&mut [0]).await.unwrap_or(0), 0);
    let came = echo.0.lock().unwrap().clone();
    let came: Vec<_> = came.iter().map(|arrival| (arrival.client, arrival.via)).collect();
    assert_eq!(
        came,
        [(from, ArrivedBy::Direct), ("192.0.2.9:9".parse().unwrap(), ArrivedBy::Proxy)]
    );
    stop.cancel();
    serving.await.unwrap();
}

/// Resident memory in KiB, and CPU time of this process in milliseconds.
fn used() -> (u64, u64) {
    let number = |text: &str, at: usize| -> u64 {
        text.split_whitespace().nth(at).and_then(|word| word.parse().ok()).unwrap_or_default()
    };
    let memory = std::fs::read_to_string("/proc/self/statm").unwrap();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let times = stat.rsplit(')').next().unwrap_or_default();
    (number(&memory, 1) * 4, (number(times, 11) + number(times, 12)) * 10)
}

/// Both ends are in this process, so that each may use half. Alone it tells the truth: `--ignored idle_tunnels`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures memory and time of the whole process"]
async fn idle_tunnels_are_cheap() {
    const AGENTS: u64 = 500;
    let world = World::new();
    let mut proxy = FakeProxy::start(&world, HostId::random(), "127.0.0.1:0", Vec::new()).await;
    let addr = proxy.addr.to_string();
    let first = Agent::start(&world, vec![addr.clone()]);
    let mut tunnels = vec![proxy.tunnel().await];
    let (before, _) = used();
    let mut agents = vec![first];
    for _ in 0..AGENTS {
        agents.push(Agent::start(&world, vec![addr.clone()]));
        tunnels.push(proxy.tunnel().await);
    }
    let (after, began) = used();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let each = (after - before) / AGENTS;
    let busy = (used().1 - began) as f64 / 20_000.0 / AGENTS as f64;
    eprintln!("{each} KiB and {:.4} % of a core for both ends of an idle tunnel", busy * 100.0);
    assert!(each <= 400, "{each} KiB");
    assert!(busy <= 0.001, "{busy}");
}

//! Agents behind tunnels and on addresses, reached by an unmodified OpenSSH client. What stands behind an agent is a
//! plain sshd.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use server_core::Authority;
use server_core::host::HostKeys;
use server_core::tunnel::{
    AgentService, Arrival, ArrivedBy, BoxedStream, ConnType, HostTls, PoolSettings, TunnelPool,
    serve_direct,
};
use shared_api::{NodeChanges, NodeView};
use shared_transport::{AcceptLimits, alpn};
use shared_types::resource::{Lock, LockSpec, LockTarget, NodeSpec};
use shared_types::{HostId, Labels, Node, RecordingMode, SystemRole};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::test_support::{World, have_ssh};

const LIMIT: Duration = Duration::from_secs(60);

/// Leads connections to an sshd.
struct Behind {
    sshd: u16,
    arrived: Mutex<Vec<Arrival>>,
}

#[async_trait]
impl AgentService for Behind {
    async fn connection(
        self: Arc<Self>,
        mut stream: BoxedStream,
        arrival: Arrival,
        stop: CancellationToken,
    ) {
        self.arrived.lock().unwrap().push(arrival);
        let Ok(mut sshd) = TcpStream::connect(("127.0.0.1", self.sshd)).await else { return };
        let copy = tokio::io::copy_bidirectional(&mut stream, &mut sshd);
        let _ = stop.run_until_cancelled(copy).await;
    }
}

struct Agent {
    service: Arc<Behind>,
    pool: Arc<TunnelPool>,
    keys: watch::Sender<Arc<HostKeys>>,
    stop: CancellationToken,
}

impl Agent {
    /// An agent with the id that the sshd's certificate has, and a tunnel to `proxy`.
    async fn tunnelled(world: &World, proxy: SocketAddr) -> Self {
        let (service, keys) = Self::parts(world);
        let tls = tls(world, &keys, &[SystemRole::Proxy], alpn::REVERSE_TUNNEL);
        let settings = PoolSettings {
            proxies: vec![proxy.to_string()],
            host_id: world.cluster.node,
            drain: Duration::from_secs(1),
        };
        let served: Arc<dyn AgentService> = Arc::clone(&service) as _;
        let pool = TunnelPool::new(settings, tls, HashMap::from([(ConnType::Node, served)]));
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&pool).run(stop.clone()));
        let agent = Self { service, pool, keys, stop };
        agent.until(true).await;
        agent
    }

    fn parts(world: &World) -> (Arc<Behind>, watch::Sender<Arc<HostKeys>>) {
        let keys = world.cluster.host_keys(world.cluster.node, SystemRole::Node);
        let service = Arc::new(Behind { sshd: world.target, arrived: Mutex::default() });
        (service, watch::channel(Arc::new(keys)).0)
    }

    /// Waits until there is a tunnel, or none.
    async fn until(&self, connected: bool) {
        let mut status = self.pool.status();
        let waited = status.wait_for(|status| status.proxies.is_empty() != connected);
        tokio::time::timeout(LIMIT, waited).await.expect("the tunnel").unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn tls(
    world: &World,
    keys: &watch::Sender<Arc<HostKeys>>,
    peers: &'static [SystemRole],
    alpn: &'static [u8],
) -> Arc<HostTls> {
    let authority: Arc<dyn Authority> = world.cluster.clone();
    Arc::new(HostTls::new(authority, keys.subscribe(), peers, alpn))
}

/// A cluster whose one role admits nodes with `env=dev`, and its node.
async fn world(mode: RecordingMode, addr: &str) -> World {
    let world = World::start("", true).await;
    world.cluster.change(|state| {
        state.recording.spec.mode = mode;
        let role = state.roles.values_mut().next().unwrap();
        let mut value = serde_json::to_value(&*role).unwrap();
        value["spec"]["allow"]["node_labels"] = serde_json::json!({"env": "dev"});
        *role = serde_json::from_value(value).unwrap();
    });
    register(&world, world.cluster.node, addr, "dev");
    world
}

fn register(world: &World, id: HostId, addr: &str, env: &str) {
    let spec = NodeSpec {
        hostname: "web-1".to_owned(),
        addr: addr.to_owned(),
        use_tunnel: addr.is_empty(),
        ..NodeSpec::default()
    };
    let mut node = Node::new(id.to_string(), spec);
    node.metadata.labels = Labels::from([("env".to_owned(), env.to_owned())]);
    let changes = NodeChanges { whole: true, nodes: vec![node], ..NodeChanges::default() };
    world.cluster.nodes.send_replace(Arc::new(NodeView::default().after(changes)));
}

/// `ssh root@HOST COMMAND` on the documented way, with the port that OpenSSH sends by itself.
fn ssh(world: &World, host: &str, command: &str) -> Command {
    let mut ssh = world.client_on("ssh", true, 22);
    ssh.arg(format!("root@{host}")).arg(command);
    ssh
}

async fn run(mut command: Command) -> (String, String) {
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("it hangs").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_records_itself_is_reached_through_its_tunnel() {
    if !have_ssh() {
        return;
    }
    let world = world(RecordingMode::Node, "").await;
    let (out, err) = run(ssh(&world, "web-1", "echo hello")).await;
    assert_eq!(out, "");
    let expected = "Teleport proxy failed to connect to \"node\" agent \"web-1\" over reverse tunnel: no tunnel";
    assert!(err.contains(expected), "{err}");

    for proxy in [world.web, world.tunnel] {
        let agent = Agent::tunnelled(&world, proxy).await;
        let (out, err) = run(ssh(&world, "web-1", "echo hello")).await;
        assert_eq!(out, "hello\n", "{err}");
        let arrived = agent.service.arrived.lock().unwrap()[0];
        assert_eq!(arrived.via, ArrivedBy::Tunnel);
        assert!(arrived.client.ip().is_loopback());
    }
    let id = world.cluster.node.to_string();
    let connect = &world.cluster.wait_for("session.connect", 3).await[2];
    assert_eq!(connect["server_id"], id.as_str());
    assert_eq!(connect["server_labels"]["env"], "dev");
    // It tells of its sessions itself.
    assert!(world.cluster.seen("session.data").is_empty());
    assert!(world.cluster.recordings.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_proxy_reaches_a_node_through_its_tunnel() {
    if !have_ssh() {
        return;
    }
    let world = world(RecordingMode::Proxy, "").await;
    let _agent = Agent::tunnelled(&world, world.web).await;
    for host in ["web-1".to_owned(), world.cluster.node.to_string()] {
        let (out, err) = run(ssh(&world, &host, "echo hello")).await;
        assert_eq!(out, "hello\n", "{err}");
    }
    let end = &world.cluster.wait_for("session.end", 2).await[0];
    assert_eq!(end["server_id"], world.cluster.node.to_string().as_str());
    assert_eq!(end["forwarded_by"], world.cluster.recorder.to_string().as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_decide_and_a_lock_ends_the_tunnel() {
    if !have_ssh() {
        return;
    }
    let world = world(RecordingMode::Node, "").await;
    let agent = Agent::tunnelled(&world, world.web).await;
    register(&world, world.cluster.node, "", "prod");
    let (out, err) = run(ssh(&world, "web-1", "echo hello")).await;
    assert!(
        out.is_empty() && err.contains("target host web-1 is offline or does not exist"),
        "{err}"
    );

    register(&world, world.cluster.node, "", "dev");
    let mut running = ssh(&world, "web-1", "echo up; sleep 600");
    running.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut running = running.spawn().unwrap();
    let mut first = [0; 3];
    let out = running.stdout.as_mut().unwrap();
    tokio::time::timeout(LIMIT, out.read_exact(&mut first)).await.unwrap().unwrap();
    let target = LockTarget { server_id: Some(world.cluster.node), ..LockTarget::default() };
    let lock = Lock::new("l", LockSpec { target, ..LockSpec::default() });
    world.cluster.change(|state| state.locks.push(lock));
    tokio::time::timeout(LIMIT, running.wait()).await.expect("the session ends").unwrap();
    agent.until(false).await;
    let (out, err) = run(ssh(&world, "web-1", "echo hello")).await;
    assert!(out.is_empty() && err.contains("is in force"), "{err}");

    world.cluster.change(|state| state.locks.clear());
    agent.until(true).await;
    let (out, err) = run(ssh(&world, "web-1", "echo hello")).await;
    assert_eq!(out, "hello\n", "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_address_is_dialled_and_has_to_be_that_node() {
    if !have_ssh() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let world = world(RecordingMode::Node, &addr.to_string()).await;
    let (service, keys) = Agent::parts(&world);
    let tls = tls(&world, &keys, &[SystemRole::Proxy], alpn::NODE_HANDOVER);
    let stop = CancellationToken::new();
    let served: Arc<dyn AgentService> = Arc::clone(&service) as _;
    tokio::spawn(serve_direct(listener, AcceptLimits::default(), tls, served, stop.clone()));
    let on_port = |command: &str| {
        let mut ssh = world.client_on("ssh", true, 3022);
        ssh.arg("root@web-1").arg(command);
        ssh
    };
    let (out, err) = run(on_port("echo hello")).await;
    assert_eq!(out, "hello\n", "{err}");
    let arrived = service.arrived.lock().unwrap()[0];
    assert_eq!(arrived.via, ArrivedBy::Proxy);

    // Another node that says it is there is not taken for this one.
    register(&world, HostId::random(), &addr.to_string(), "dev");
    let (out, err) = run(on_port("echo hello")).await;
    assert!(out.is_empty() && err.contains("is another host"), "{err}");
    drop(keys);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_no_tunnel_and_garbage_ends() {
    if !have_ssh() {
        return;
    }
    let world = world(RecordingMode::Node, "").await;
    // A host certificate of another role.
    let keys = world.cluster.host_keys(world.cluster.node, SystemRole::Proxy);
    let keys = watch::channel(Arc::new(keys)).0;
    let proxy = tls(&world, &keys, &[SystemRole::Proxy], alpn::REVERSE_TUNNEL);
    for port in [world.web, world.tunnel] {
        if let Ok((mut stream, _)) = proxy.connect(TcpStream::connect(port).await.unwrap()).await {
            let ended = tokio::time::timeout(LIMIT, stream.read(&mut [0])).await.unwrap();
            assert_eq!(ended.unwrap_or(0), 0);
        }
    }
    // No certificate, and no TLS.
    let mut bare = shared_transport::tls::accept_any_certificate();
    bare.alpn_protocols = vec![alpn::REVERSE_TUNNEL.to_vec()];
    let stream = TcpStream::connect(world.web).await.unwrap();
    let bare = shared_transport::tls::connect(Arc::new(bare), "x.test", stream, LIMIT).await;
    if let Ok(mut stream) = bare {
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let ended = tokio::time::timeout(LIMIT, stream.read(&mut [0])).await.unwrap();
        assert_eq!(ended.unwrap_or(0), 0);
    }
    let mut stream = TcpStream::connect(world.tunnel).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let ended = tokio::time::timeout(LIMIT, stream.read(&mut [0])).await.unwrap();
    assert_eq!(ended.unwrap_or(0), 0);
    let agent = Agent::tunnelled(&world, world.tunnel).await;
    agent.keys.send_modify(|_| {});
    assert!(run(ssh(&world, "web-1", "echo hello")).await.0 == "hello\n");
}

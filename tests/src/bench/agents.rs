//! A thousand agents at one proxy: what an idle one costs, how long a list of them takes, and how they come back when
//! the proxy was away. The agents live in this process and use what real ones use: they join with a token, follow the
//! cluster's state through the proxy, say that they are there, and hold tunnels. Only the SSH service is left out.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use server_core::host::HostKeys;
use server_core::tunnel::{
    AgentService, Arrival, BoxedStream, ConnType, HostTls, PoolSettings, TunnelPool, TunnelStatus,
};
use server_core::{Authority, KeptState, RemoteAuthority};
use shared_api::client::{
    Client, ClientConfig, ClientIdentity, Confirm, Route, Timeouts, fetch_authorities,
};
use shared_api::{JoinRequest, Secret};
use shared_pki::{KeyPair, TlsKey, TrustedAuthority};
use shared_testkit::{Cluster, ClusterOptions, Guard, Home, Scratch, until};
use shared_transport::alpn;
use shared_types::resource::NodeSpec;
use shared_types::{HostId, Node, SystemRole};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::measure::{median, process_cpu, process_memory, target};

const TOKEN: &str = "node-join-token-of-the-bench";
/// Agents that join at a time: keys are made and state is fetched on two cores with everything else.
const JOINING: usize = 16;
/// How long nothing happens before memory and time count.
const SETTLE: Duration = Duration::from_secs(15);
/// How long the idle are watched.
const IDLE: Duration = Duration::from_secs(60);
/// How long a return is waited for; far more than asked.
const RETURN: Duration = Duration::from_secs(180);

/// Measures with the daemon as one process, and as two.
pub fn run_all(agents: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    shared_transport::install_crypto();
    for two_processes in [true, false] {
        let shape = if two_processes { "auth and proxy apart" } else { "one process" };
        println!("\n{agents} agents, {shape}");
        let runtime = Runtime::new()?;
        Fleet::start(two_processes, &runtime)?.measure(agents, &runtime)?;
        runtime.shutdown_background();
    }
    Ok(())
}

/// A cluster, and who looks at it.
struct Fleet {
    cluster: Cluster,
    joe: Home,
    authorities: Vec<TrustedAuthority>,
    scratch: Scratch,
}

impl Fleet {
    fn start(two_processes: bool, runtime: &Runtime) -> Result<Self> {
        let scratch = Scratch::new("agents")?;
        // Goes on with the list that the token of the second process began.
        let list = if two_processes { "" } else { "  tokens:\n" };
        let options = ClusterOptions {
            two_processes,
            auth_extra: format!("{list}  - \"node:{TOKEN}\"\n"),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(&scratch.folder("cluster")?, &options)?;
        let joe = cluster.user("joe", "access", &crate::login_name())?;
        let pins = [cluster.ca_pin()?];
        let route = proxied(&cluster);
        let fetched = fetch_authorities(&route, Timeouts::default(), Confirm::Pins(&pins));
        let authorities = runtime.block_on(fetched).context("authorities")?.authorities;
        Ok(Self { cluster, joe, authorities, scratch })
    }

    fn proxy(&self) -> &Guard {
        self.cluster.proxy.as_ref().unwrap_or(&self.cluster.auth)
    }

    fn measure(mut self, count: usize, runtime: &Runtime) -> Result<()> {
        std::thread::sleep(SETTLE);
        let before = process_memory(self.proxy().id());
        let begun = Instant::now();
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        let agents = runtime.block_on(self.join(count, &stop))?;
        let connected = |agents: &[Agent]| agents.iter().filter(|agent| agent.connected()).count();
        until("every agent's tunnel", 180, || (connected(&agents) == count).then_some(()))?;
        println!("  joined and connected in {:.1} s", begun.elapsed().as_secs_f64());

        self.idle(count, before)?;
        self.list(count)?;
        self.restart(&agents)
    }

    /// What agents cost that nobody asks for anything.
    fn idle(&self, count: usize, before: f64) -> Result<()> {
        std::thread::sleep(SETTLE);
        let (proxy, auth) = (self.proxy().id(), self.cluster.auth.id());
        let (first, first_auth, begun) = (process_cpu(proxy), process_cpu(auth), Instant::now());
        std::thread::sleep(IDLE);
        let per_agent =
            |seconds: f64| 100.0 * seconds / begun.elapsed().as_secs_f64() / count as f64;
        let memory = (process_memory(proxy) - before) / count as f64;
        target("memory of the proxy per idle agent, KiB", memory, 0.0..=200.0);
        let share = per_agent(process_cpu(proxy) - first);
        target("share of a core in the proxy per idle agent, %", share, 0.0..=0.05);
        if auth != proxy {
            let share = per_agent(process_cpu(auth) - first_auth);
            println!("  share of a core in the auth service per idle agent: {share:.4} %");
        }
        Ok(())
    }

    /// How long a user waits for the list.
    fn list(&self, count: usize) -> Result<()> {
        let mut times = Vec::new();
        for _ in 0..7 {
            let begun = Instant::now();
            let listed = self.joe.run(["ls", "--format=names"])?.ok();
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
            let names = listed.text().lines().count();
            ensure!(names >= count, "tsh ls lists {names} of {count} agents");
        }
        target("tsh ls, milliseconds", median(&times), 0.0..=300.0);
        Ok(())
    }

    /// Ends the proxy, starts it again, and waits for everybody.
    fn restart(&mut self, agents: &[Agent]) -> Result<()> {
        let seen: Vec<u64> = agents.iter().map(Agent::connections).collect();
        let apart = self.cluster.proxy.is_some();
        match &mut self.cluster.proxy {
            Some(proxy) => proxy.kill()?,
            None => self.cluster.auth.kill()?,
        }
        if apart {
            self.cluster.restart_proxy()?
        } else {
            self.cluster.restart_auth()?
        }
        let (begun, auth) = (Instant::now(), self.cluster.auth.id());
        let back = || {
            let pairs = agents.iter().zip(&seen);
            pairs.filter(|(agent, seen)| agent.connected() && agent.connections() > **seen).count()
        };
        let mut load = Load::of(auth);
        // A while longer than the last agent needs: what they have to say comes after.
        let mut all = None;
        while begun.elapsed() < RETURN && all.is_none_or(|at| begun.elapsed() < at + SETTLE) {
            std::thread::sleep(Duration::from_millis(100));
            load.look();
            if all.is_none() && back() == agents.len() {
                all = Some(begun.elapsed());
            }
        }
        let all = all.with_context(|| format!("{} of {} came back", back(), agents.len()))?;
        target("all back after a restart of the proxy, seconds", all.as_secs_f64(), 0.0..=60.0);
        let name = if apart {
            "auth at a full core on end, seconds"
        } else {
            "the process at a full core on end, seconds"
        };
        target(name, load.longest.as_secs_f64(), 0.0..=5.0);
        println!("  most in a second: {:.0} % of a core", load.most);
        Ok(())
    }

    /// Makes agents that run until `stop`.
    async fn join(&self, count: usize, stop: &CancellationToken) -> Result<Vec<Agent>> {
        let turns = Arc::new(Semaphore::new(JOINING));
        let mut joining = JoinSet::new();
        for number in 0..count {
            let folder = self.scratch.folder(&format!("agent-{number}"))?;
            let (route, authorities) = (proxied(&self.cluster), self.authorities.clone());
            let (turns, stop) = (Arc::clone(&turns), stop.clone());
            let recruit = Recruit { number, folder, route, authorities };
            joining.spawn(async move {
                let _turn = turns.acquire().await?;
                recruit.join(stop).await.with_context(|| format!("agent {number}"))
            });
        }
        let mut agents = Vec::new();
        while let Some(agent) = joining.join_next().await {
            agents.push(agent??);
        }
        Ok(agents)
    }
}

/// The way of an agent to the auth service.
fn proxied(cluster: &Cluster) -> Route {
    Route::Proxy { addr: proxy_addr(cluster), cluster: None }
}

fn proxy_addr(cluster: &Cluster) -> String {
    format!("localhost:{}", cluster.port("web"))
}

/// How busy a process is.
struct Load {
    id: u32,
    at: Instant,
    cpu: f64,
    since: Option<Instant>,
    longest: Duration,
    /// In percent of a core.
    most: f64,
}

impl Load {
    fn of(id: u32) -> Self {
        let (at, cpu) = (Instant::now(), process_cpu(id));
        Self { id, at, cpu, since: None, longest: Duration::ZERO, most: 0.0 }
    }

    /// Once in a second, what the last one was like.
    fn look(&mut self) {
        let took = self.at.elapsed().as_secs_f64();
        if took < 1.0 {
            return;
        }
        let cpu = process_cpu(self.id);
        let share = 100.0 * (cpu - self.cpu) / took;
        self.most = self.most.max(share);
        if share >= 95.0 {
            let since = *self.since.get_or_insert(self.at);
            self.longest = self.longest.max(since.elapsed());
        } else {
            self.since = None;
        }
        (self.at, self.cpu) = (Instant::now(), cpu);
    }
}

/// One agent that is connected, or will be again.
struct Agent {
    tunnels: watch::Receiver<TunnelStatus>,
}

impl Agent {
    fn connected(&self) -> bool {
        !self.tunnels.borrow().proxies.is_empty()
    }

    fn connections(&self) -> u64 {
        self.tunnels.borrow().connected
    }
}

/// One that has not joined yet.
struct Recruit {
    number: usize,
    folder: PathBuf,
    route: Route,
    authorities: Vec<TrustedAuthority>,
}

impl Recruit {
    async fn join(self, stop: CancellationToken) -> Result<Agent> {
        let host_id = HostId::random();
        let name = format!("agent-{:04}", self.number);
        let (keys, client) = self.identity(host_id, &name).await?;
        let kept = KeptState::new(&self.folder, SystemRole::Node);
        let role = SystemRole::Node;
        let authority: Arc<dyn Authority> =
            RemoteAuthority::connect(client, host_id, role, kept, &stop).await?;
        // A sender that goes leaves the keys as they are.
        let (_renewed, keys) = watch::channel(Arc::new(keys));
        let proxies: &[SystemRole] = &[SystemRole::Proxy];
        let tls = HostTls::new(Arc::clone(&authority), keys, proxies, alpn::REVERSE_TUNNEL);
        let proxies = vec![self.route.addr().to_owned()];
        let settings = PoolSettings { proxies, host_id, drain: Duration::from_secs(1) };
        let service: Arc<dyn AgentService> = Arc::new(Nobody);
        let services = HashMap::from([(ConnType::Node, service)]);
        let pool = TunnelPool::new(settings, Arc::new(tls), services);
        let tunnels = pool.status();
        tokio::spawn(pool.run(stop.clone()));
        let spec = NodeSpec {
            hostname: name,
            use_tunnel: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..NodeSpec::default()
        };
        let node = Node::new(host_id.to_string(), spec);
        tokio::spawn(heartbeat(authority, node, tunnels.clone(), stop));
        Ok(Agent { tunnels })
    }

    /// Joins with the token. Who asks too often is told to wait, and does.
    async fn identity(&self, host_id: HostId, name: &str) -> Result<(HostKeys, Client)> {
        let config =
            |identity| ClientConfig::new(self.route.clone(), self.authorities.clone(), identity);
        let (ssh, tls) = (KeyPair::generate()?, TlsKey::generate()?);
        let ask = JoinRequest {
            token: Secret::new(TOKEN),
            host_id,
            node_name: name.to_owned(),
            role: SystemRole::Node,
            ssh_public_key: ssh.public_openssh(),
            tls_public_key: tls.public().to_pem(),
            additional_principals: Vec::new(),
            public_addr: None,
        };
        let anonymous = Client::new(config(None))?;
        let begun = Instant::now();
        let reply = loop {
            match anonymous.join(&ask).await {
                Ok(reply) => break reply,
                Err(error) if error.is_transient() && begun.elapsed() < RETURN => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let shown = ClientIdentity { cert_pem: reply.tls_cert.clone(), key_pem: tls.to_pem() };
        let keys = HostKeys {
            tls_cert_pem: reply.tls_cert,
            tls_key_pem: tls.to_pem(),
            ssh_cert: reply.ssh_cert,
            ssh_key_pem: ssh.to_openssh_private_pem()?,
            valid_until: reply.valid_until,
        };
        Ok((keys, Client::new(config(Some(shown)))?))
    }
}

/// Says that the node is there, as often as it is asked to, and a while after its tunnels changed.
async fn heartbeat(
    authority: Arc<dyn Authority>,
    mut node: Node,
    mut tunnels: watch::Receiver<TunnelStatus>,
    stop: CancellationToken,
) {
    let beats = async {
        loop {
            node.spec.proxy_ids = tunnels.borrow_and_update().proxies.iter().copied().collect();
            let wait = match authority.heartbeat(node.clone()).await {
                Ok(again) => again,
                Err(_) => Duration::from_secs(5),
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = tunnels.changed() => match changed {
                    Ok(()) => tokio::time::sleep(apart()).await,
                    Err(_) => std::future::pending().await,
                },
            }
        }
    };
    stop.run_until_cancelled(beats).await;
}

/// Between one second and six, so that those that came back together do not say so together.
fn apart() -> Duration {
    let random = HostId::random().to_string();
    let part = random.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    Duration::from_secs_f64(1.0 + 5.0 * f64::from(part.unwrap_or_default()) / f64::from(u32::MAX))
}

/// Serves nothing.
struct Nobody;

#[async_trait]
impl AgentService for Nobody {
    async fn connection(self: Arc<Self>, _: BoxedStream, _: Arrival, _: CancellationToken) {}
}

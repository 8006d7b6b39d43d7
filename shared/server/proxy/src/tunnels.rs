//! The agents that are connected to this proxy, and the ways to all others.
//!
//! What must stay true: an agent is who its host certificate says, of an agent's role and of this cluster, and under no
//! lock; what is asked of one role never reaches the tunnel of another;
//! a lock on its host ends its tunnels at once, the end of its certificate ends them too; dialling an agent by its
//! address reaches that agent and no other.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use server_core::host::HostKeys;
use server_core::ssh::Ends;
use server_core::tunnel::{BoxedStream, ConnType, HostTls, HostTlsError};
use server_core::{Authority, chain};
use shared_transport::tunnel::{DialRequest, ProxyEntry, Refused, Tunnel, TunnelStream};
use shared_transport::{alpn, handover};
use shared_types::resource::LockSubject;
use shared_types::{HostId, Node, SystemRole};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The roles of hosts that hold tunnels.
const AGENTS: &[SystemRole] = &SystemRole::AGENTS;
/// The roles of hosts that are dialled by their address.
const DIALLED: &[SystemRole] = &[SystemRole::Node];
/// Tunnels of one agent: the one in use, and older ones whose connections still run.
const PER_AGENT: usize = 8;
/// How long an agent may take to hear which proxies there are.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// Why an agent is not reached whose tunnel ended elsewhere, or never came.
const NO_TUNNEL: &str = "no tunnel to this proxy";
/// How often the end of a certificate is looked for.
const LOOK: Duration = Duration::from_secs(60);

/// Why an agent is not reached. The text is for the user, who may see the node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error(
        "Teleport proxy failed to connect to \"node\" agent \"{host}\" over reverse tunnel: {why}; the agent is offline \
         or has lost its connection, its log says more"
    )]
    Tunnel { host: String, why: String },
    #[error(
        "Teleport proxy failed to connect to \"node\" agent \"{host}\" over direct dial: {why}; the agent is offline, or \
         the proxy may not reach it there"
    )]
    Direct { host: String, why: String },
}

/// One service of one host. A host may run several, each with a certificate and tunnels of its own.
type AgentKey = (HostId, SystemRole);

/// The registry.
pub(crate) struct Tunnels {
    authority: Arc<dyn Authority>,
    /// For agents that come to us.
    accepting: HostTls,
    /// For agents that we go to.
    dialling: HostTls,
    agents: Mutex<HashMap<AgentKey, Vec<Agent>>>,
    numbers: AtomicU64,
    /// This proxy, as agents find it.
    own: Mutex<Option<ProxyEntry>>,
    /// All proxies, as agents are told of them.
    listed: watch::Sender<Vec<ProxyEntry>>,
}

/// One tunnel of an agent.
struct Agent {
    number: u64,
    tunnel: Tunnel,
    since: Instant,
    end: CancellationToken,
}

/// Takes a tunnel out of the registry again.
struct Registered<'a> {
    tunnels: &'a Tunnels,
    key: AgentKey,
    number: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.tunnels.remove(self.key, self.number);
    }
}

impl Tunnels {
    pub(crate) fn new(
        authority: Arc<dyn Authority>,
        keys: &watch::Receiver<Arc<HostKeys>>,
    ) -> Self {
        let tls = |peers, alpn| HostTls::new(Arc::clone(&authority), keys.clone(), peers, alpn);
        Self {
            accepting: tls(AGENTS, alpn::REVERSE_TUNNEL),
            dialling: tls(DIALLED, alpn::NODE_HANDOVER),
            authority,
            agents: Mutex::default(),
            numbers: AtomicU64::new(0),
            own: Mutex::default(),
            listed: watch::Sender::default(),
        }
    }

    /// Says where agents find this proxy.
    pub(crate) fn listening(&self, host_id: HostId, addr: String) {
        let own = ProxyEntry { host_id: host_id.to_string(), addr };
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(own);
        self.list_proxies(&self.authority.nodes());
    }

    /// Keeps the list of proxies current, until `stop`.
    pub(crate) async fn follow_proxies(&self, stop: CancellationToken) {
        let mut views = self.authority.watch_nodes();
        loop {
            self.list_proxies(&views.borrow_and_update());
            if !matches!(stop.run_until_cancelled(views.changed()).await, Some(Ok(()))) {
                return;
            }
        }
    }

    /// Nodes change all the time, proxies hardly ever: only a list that is another wakes the tunnels.
    fn list_proxies(&self, view: &shared_api::NodeView) {
        let known = view.proxies.iter();
        let mut all: BTreeMap<String, String> = known
            .filter_map(|proxy| Some((proxy.host_id.to_string(), proxy.public_addr.clone()?)))
            .collect();
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.extend(own.map(|own| (own.host_id, own.addr)));
        let all: Vec<ProxyEntry> =
            all.into_iter().map(|(host_id, addr)| ProxyEntry { host_id, addr }).collect();
        self.listed.send_if_modified(|listed| {
            let changed = *listed != all;
            if changed {
                *listed = all;
            }
            changed
        });
    }

    /// Ends tunnels of hosts that are locked, until `stop`.
    pub(crate) async fn watch_locks(&self, stop: CancellationToken) {
        let mut states = self.authority.watch();
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            let now = Utc::now();
            for ((host, _), agents) in self.lock().iter() {
                let subject = LockSubject { server: Some(*host), ..LockSubject::default() };
                if let Some(lock) = state.lock_on(&subject, now) {
                    tracing::info!(%host, why = lock.text(), "tunnel is ended");
                    agents.iter().for_each(|agent| agent.end.cancel());
                }
            }
            if !matches!(stop.run_until_cancelled(states.changed()).await, Some(Ok(()))) {
                return;
            }
        }
    }

    /// Serves an agent's connection, on which nothing but a client hello was seen, to its end. After `ending` the agent
    /// is asked to go elsewhere, and what runs has `drain`.
    pub(crate) async fn serve<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        ending: CancellationToken,
        drain: Duration,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (stream, agent) = match self.accepting.accept(stream).await {
            Ok(accepted) => accepted,
            Err(err @ HostTlsError::Tls(_)) => {
                return tracing::debug!(%peer, error = chain(&err), "tunnel handshake");
            }
            Err(err) => return tracing::info!(%peer, why = chain(&err), "tunnel refused"),
        };
        let (host, role) = (agent.host_id, agent.role);
        let (tunnel, driver) = match Tunnel::accept(stream).await {
            Ok(begun) => begun,
            Err(err) => return tracing::debug!(%peer, error = chain(&err), "no tunnel"),
        };
        let (end, _registered) = self.register((host, role), tunnel.clone());
        tracing::info!(%peer, %host, %role, "agent connected");
        let valid_until = agent.identity.valid_until;
        let outlived = async {
            while Utc::now() < valid_until {
                tokio::time::sleep(LOOK).await;
            }
        };
        let drained = async {
            ending.cancelled().await;
            // Who does not listen ends with the connection.
            let _ = tunnel.ask_to_reconnect().await;
            tokio::time::sleep(drain).await;
        };
        tokio::select! {
            ended = driver.run() => match ended {
                Ok(()) => tracing::info!(%peer, %host, %role, "agent disconnected"),
                Err(err) => {
                    tracing::info!(%peer, %host, %role, why = chain(&err), "agent disconnected");
                }
            },
            () = self.tell_proxies(&tunnel) => {}
            () = end.cancelled() => {}
            () = outlived => tracing::info!(%peer, %host, "certificate of the agent has ended"),
            () = drained => {}
        }
    }

    /// Tells an agent which proxies there are, and again when that changes. Ends only with an agent that does not
    /// listen.
    async fn tell_proxies(&self, tunnel: &Tunnel) {
        let mut listed = self.listed.subscribe();
        loop {
            let proxies = listed.borrow_and_update().clone();
            let telling = tokio::time::timeout(FIRST_WORD, tunnel.tell_proxies(&proxies)).await;
            if !matches!(telling, Ok(Ok(()))) {
                return;
            }
            if listed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AgentKey, Vec<Agent>>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, key: AgentKey, tunnel: Tunnel) -> (CancellationToken, Registered<'_>) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let end = CancellationToken::new();
        let agent = Agent { number, tunnel, since: Instant::now(), end: end.clone() };
        let mut agents = self.lock();
        let of_host = agents.entry(key).or_default();
        of_host.push(agent);
        if of_host.len() > PER_AGENT {
            of_host.remove(0).end.cancel();
        }
        (end, Registered { tunnels: self, key, number })
    }

    fn remove(&self, key: AgentKey, number: u64) {
        let mut agents = self.lock();
        if let Some(of_host) = agents.get_mut(&key) {
            of_host.retain(|agent| agent.number != number);
            if of_host.is_empty() {
                agents.remove(&key);
            }
        }
    }

    /// How many agents are connected; a host counts once for each role it serves in.
    pub(crate) fn connected(&self) -> usize {
        self.lock().len()
    }

    /// Since when the agent of a node is connected.
    pub(crate) fn since(&self, host: HostId) -> Option<Instant> {
        Some(self.lock().get(&(host, SystemRole::Node))?.last()?.since)
    }

    /// The newest tunnel of an agent.
    fn newest(&self, key: AgentKey) -> Option<(u64, Tunnel)> {
        let agents = self.lock();
        let agent = agents.get(&key)?.last()?;
        Some((agent.number, agent.tunnel.clone()))
    }

    /// A connection through a tunnel. The error says why there is none; nothing, where there is no tunnel.
    async fn through_tunnel(
        &self,
        key: AgentKey,
        service: (ConnType, &str),
        ends: Ends,
        limit: Duration,
    ) -> Result<TunnelStream, Option<String>> {
        let request = DialRequest {
            address: service.1.to_owned(),
            server_id: format!("{}.{}", key.0, self.authority.state().cluster),
            conn_type: service.0,
            teleport_version: env!("CARGO_PKG_VERSION").to_owned(),
            client_src_addr: ends.peer,
            client_dst_addr: ends.local,
        };
        let mut why = None;
        while let Some((number, tunnel)) = self.newest(key) {
            match tunnel.dial(&request, limit).await {
                Ok(stream) => return Ok(stream),
                // It takes nothing new; an older or a newer one may.
                Err(err @ Refused::Gone(_)) => {
                    self.remove(key, number);
                    why = Some(chain(&err));
                }
                Err(err) => return Err(Some(chain(&err))),
            }
        }
        Err(why)
    }

    /// A connection to the database service of a host for `ends`, through its tunnel: there is no other way to one.
    /// The error is for the log.
    pub(crate) async fn dial_database(
        &self,
        host: HostId,
        ends: Ends,
        limit: Duration,
    ) -> Result<TunnelStream, String> {
        let service = (ConnType::Db, DialRequest::LOCAL_DB);
        self.through_tunnel((host, SystemRole::Db), service, ends, limit)
            .await
            .map_err(|why| why.unwrap_or_else(|| NO_TUNNEL.to_owned()))
    }

    /// A connection to a node's agent for `ends`: through a tunnel, or by its address where it has one.
    pub(crate) async fn dial(
        &self,
        node: &Node,
        host: HostId,
        ends: Ends,
        limit: Duration,
    ) -> Result<BoxedStream, DialError> {
        let service = (ConnType::Node, DialRequest::LOCAL_NODE);
        let why = match self.through_tunnel((host, SystemRole::Node), service, ends, limit).await {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(why) => why,
        };
        let named = || node.spec.hostname.clone();
        if node.spec.use_tunnel || node.spec.addr.is_empty() {
            let why = why.unwrap_or_else(|| NO_TUNNEL.to_owned());
            return Err(DialError::Tunnel { host: named(), why });
        }
        match tokio::time::timeout(limit, self.dial_direct(node, host, ends.peer, limit)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(why)) => Err(DialError::Direct { host: named(), why }),
            Err(_) => {
                let why = format!("no answer in {} s", limit.as_secs());
                Err(DialError::Direct { host: named(), why })
            }
        }
    }

    async fn dial_direct(
        &self,
        node: &Node,
        host: HostId,
        client: SocketAddr,
        limit: Duration,
    ) -> Result<BoxedStream, String> {
        let stream = shared_transport::dial(&node.spec.addr, limit).await;
        let stream = stream.map_err(|err| chain(&err))?;
        let (mut stream, peer) = self.dialling.connect(stream).await.map_err(|err| chain(&err))?;
        if peer.host_id != host {
            return Err(format!("{} is another host, {}", node.spec.addr, peer.host_id));
        }
        handover::announce(&mut stream, client).await.map_err(|err| err.to_string())?;
        Ok(Box::new(stream))
    }
}

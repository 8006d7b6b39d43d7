//! The SSH service of this process: its way to the auth service, how users reach it, and what it says of itself.
//!
//! An agent that joined through a proxy holds tunnels to the proxies and listens nowhere, unless it is told to. One
//! that joined through the auth service, or runs beside it, listens, and proxies dial it.

mod heartbeat;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use server_core::spool::{EventSpoolSettings, RecordingSpoolSettings};
use server_core::tunnel::{
    AgentService, ConnType, HostTls, PoolSettings, TunnelPool, serve_direct,
};
use server_core::{EventSpool, RecordingSpool};
use server_ssh::{HostLabels, SshService, SshServiceSettings};
use shared_api::Route;
use shared_config::{SshConfig, TeleportConfig};
use shared_transport::{AcceptLimits, alpn};
use shared_types::resource::NodeSpec;
use shared_types::{HostId, HostName, Node, SystemRole};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::auth_service::RunningAuth;
use crate::data_dir::DataDir;
use crate::host_identity::{JoinError, Joiner, route};
use crate::listeners::{ListenError, host_of, listen, with_real_port};
use crate::member::Membership;
use crate::ready::Listening;
use crate::services::RunError;
use heartbeat::Heartbeat;

/// Where the agent keeps what waits to be sent, apart from what a proxy in the same process keeps.
const FOLDER: &str = "node";
/// How long events and recordings may go on being sent at the end; what is left is sent by the next run.
const FLUSH: Duration = Duration::from_secs(10);
/// Hosts that take tunnels and hand connections over.
const PROXIES: &[SystemRole] = &[SystemRole::Proxy];

/// What the SSH service of a host is started with.
pub(crate) struct AgentHost<'a> {
    pub(crate) config: &'a TeleportConfig,
    pub(crate) ssh: &'a SshConfig,
    pub(crate) dir: &'a DataDir,
    pub(crate) host_id: HostId,
    pub(crate) node_name: &'a str,
    /// The web port of the cluster's proxy, where this process knows it.
    pub(crate) web_proxy: Option<String>,
}

/// An SSH service that is ready to run.
pub(crate) struct Agent {
    heartbeat: Heartbeat,
    events: Arc<EventSpool>,
    recordings: Arc<RecordingSpool>,
    service: Arc<SshService>,
    listener: Option<(TcpListener, Arc<HostTls>)>,
    pool: Option<Arc<TunnelPool>>,
    drain: Duration,
}

/// Whether an agent of this configuration is reached through tunnels.
fn uses_tunnels(config: &TeleportConfig) -> bool {
    config.auth.is_none() && config.auth_servers.is_empty() && config.proxy_server.is_some()
}

/// The socket of an agent that listens, noted in `listening`.
pub(crate) async fn socket(
    config: &TeleportConfig,
    ssh: &SshConfig,
    listening: &mut Listening,
) -> Result<Option<TcpListener>, ListenError> {
    if uses_tunnels(config) && !ssh.force_listen {
        return Ok(None);
    }
    let (socket, at) = listen("ssh_service.listen_addr", ssh.listen_addr).await?;
    listening.node = Some(at);
    Ok(Some(socket))
}

impl AgentHost<'_> {
    /// Joins where it has to, and makes the service. `listening` is where it listens, if it does.
    pub(crate) async fn start(
        &self,
        auth: Option<&RunningAuth>,
        socket: Option<(TcpListener, SocketAddr)>,
        stop: &CancellationToken,
    ) -> Result<Agent, RunError> {
        let hostname = HostName::new(self.node_name).map_err(RunError::NodeName)?;
        let member = match auth {
            Some(auth) => {
                Membership::local(auth, SystemRole::Node, self.host_id, self.names(), stop)?
            }
            None => Membership::joined(self.joiner()?, self.dir, stop).await?,
        };
        let authority = &member.authority;
        let folder = self.dir.path().join(FOLDER);
        let never = CancellationToken::new();
        let events = EventSpool::open(
            folder.join("log/events-spool"),
            Arc::clone(authority),
            EventSpoolSettings::default(),
            &never,
        )
        .await
        .map_err(RunError::Spool)?;
        let recordings = RecordingSpool::open(
            &folder,
            Arc::clone(authority),
            RecordingSpoolSettings {
                max_bytes: self.ssh.recording_spool_bytes,
                room_wait: self.ssh.recording_wait.as_std(),
                ..RecordingSpoolSettings::default()
            },
            &never,
        )
        .await
        .map_err(RunError::Spool)?;

        let labels = HostLabels::start(self.ssh.labels.clone(), self.ssh.commands.clone());
        let mut settings =
            SshServiceSettings::from_config(self.ssh, self.host_id, hostname.clone());
        if let Some((_, at)) = &socket {
            settings.local = *at;
        }
        settings.web_proxy = self.web_proxy.clone().unwrap_or_default();
        let drain = settings.timeouts.drain;
        let service = Arc::new(SshService::new(
            settings,
            labels.clone(),
            Arc::clone(authority),
            Arc::clone(&events),
            Arc::clone(&recordings),
            member.keys.clone(),
        ));

        let tls = |alpn| {
            Arc::new(HostTls::new(Arc::clone(authority), member.keys.clone(), PROXIES, alpn))
        };
        let tunnelled = uses_tunnels(self.config);
        let pool = tunnelled.then(|| {
            let proxies = self.config.proxy_server.iter().cloned().collect();
            let settings = PoolSettings { proxies, host_id: self.host_id, drain };
            let served: Arc<dyn AgentService> = Arc::clone(&service) as _;
            let services = HashMap::from([(ConnType::Node, served)]);
            TunnelPool::new(settings, tls(alpn::REVERSE_TUNNEL), services)
        });
        let mut node = Node::new(
            self.host_id.to_string(),
            NodeSpec {
                addr: socket.as_ref().map(|(_, at)| self.advertised(*at)).unwrap_or_default(),
                hostname: hostname.to_string(),
                public_addrs: self.ssh.public_addr.clone(),
                use_tunnel: tunnelled,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..NodeSpec::default()
            },
        );
        node.metadata.labels = labels.fixed().clone();
        let tunnels = pool.as_ref().map(|pool| pool.status());
        let heartbeat = Heartbeat { authority: Arc::clone(authority), node, labels, tunnels };
        let listener = socket.map(|(socket, _)| (socket, tls(alpn::NODE_HANDOVER)));
        Ok(Agent { heartbeat, events, recordings, service, listener, pool, drain })
    }

    /// Where proxies dial this host: what the configuration says, or the address of the way to the auth service.
    fn advertised(&self, at: SocketAddr) -> String {
        if let Some(public) = self.ssh.public_addr.first() {
            return with_real_port(public, at);
        }
        if !at.ip().is_unspecified() {
            return at.to_string();
        }
        if let Some(advertised) = &self.config.advertise_ip {
            return with_real_port(advertised, at);
        }
        let towards = match route(self.config, SystemRole::Node) {
            Ok(Route::Direct { addr } | Route::Proxy { addr, .. }) => addr,
            Err(_) => "192.0.2.1:9".to_owned(),
        };
        let ip = own_address(&towards).unwrap_or(Ipv4Addr::LOCALHOST.into());
        SocketAddr::new(ip, at.port()).to_string()
    }

    /// Further names of this host.
    fn names(&self) -> Vec<String> {
        self.ssh.public_addr.iter().map(|addr| host_of(addr).to_owned()).collect()
    }

    fn joiner(&self) -> Result<Joiner, JoinError> {
        Ok(Joiner {
            data_dir: self.dir.path().to_owned(),
            host_id: self.host_id,
            node_name: self.node_name.to_owned(),
            names: self.names(),
            public_addr: None,
            role: SystemRole::Node,
            route: route(self.config, SystemRole::Node)?,
            ca_pins: self.config.ca_pins.clone(),
            token: self.config.auth_token.clone(),
        })
    }
}

/// The address this host has on the way to another. Nothing is sent.
fn own_address(towards: &str) -> Option<IpAddr> {
    use std::net::ToSocketAddrs as _;
    let towards = towards.to_socket_addrs().ok()?.next()?;
    let any: SocketAddr = match towards {
        SocketAddr::V4(_) => "0.0.0.0:0".parse().ok()?,
        SocketAddr::V6(_) => "[::]:0".parse().ok()?,
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(towards).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

impl Agent {
    /// Where recordings wait, for whoever watches how many do.
    pub(crate) fn spool(&self) -> Arc<RecordingSpool> {
        Arc::clone(&self.recordings)
    }

    /// Serves until `stop`, then lets sessions end within the drain's limit, and sends what waits.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self { heartbeat, events, recordings, service, listener, pool, drain } = self;
        let direct = async {
            let Some((listener, tls)) = listener else { return };
            let limits =
                AcceptLimits { drain: drain + Duration::from_secs(5), ..AcceptLimits::default() };
            let drained = serve_direct(listener, limits, tls, service, stop.clone()).await;
            if drained.left > 0 {
                tracing::warn!(connections = drained.left, "connections did not end in time");
            }
        };
        let tunnels = async {
            if let Some(pool) = pool {
                pool.run(stop.clone()).await;
            }
        };
        tokio::join!(direct, tunnels, heartbeat.run(stop.clone()));
        let drained = tokio::join!(events.drain(FLUSH), recordings.drain(FLUSH));
        if drained != (true, true) {
            tracing::warn!(
                events = events.pending(),
                recordings = recordings.waiting(),
                "left for the next start"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_address_is_that_of_the_way() {
        assert_eq!(own_address("127.0.0.1:3025"), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(own_address("no address"), None);
    }

    #[test]
    fn the_way_to_the_cluster_decides_how_an_agent_is_reached() {
        let of = |teleport: &str| {
            let text = format!(
                "version: v3\nteleport:\n  {teleport}\nauth_service:\n  enabled: no\nproxy_service:\n  enabled: no\n\
                 ssh_service:\n  enabled: yes\n"
            );
            uses_tunnels(&TeleportConfig::parse(&text, "t").unwrap())
        };
        assert!(of("proxy_server: gate.test:443"));
        assert!(!of("auth_server: auth.test:3025"));
    }
}

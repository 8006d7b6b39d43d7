//! The SSH service of this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use server_core::labels::HostLabels;
use server_core::tunnel::{ConnType, HostTls, TunnelStatus, serve_direct};
use server_core::{Authority, AuthorityError};
use server_ssh::{SshService, SshServiceSettings};
use shared_api::Route;
use shared_config::{SshConfig, TeleportConfig};
use shared_transport::{AcceptLimits, alpn};
use shared_types::resource::{CommandLabel, NodeSpec};
use shared_types::{Node, SystemRole};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::heartbeat::{Heartbeat, Presence};
use super::host::{AgentHost, Spools};
use super::{Agent, Direct};
use crate::host_identity::route;
use crate::listeners::{ListenError, host_of, listen, with_real_port};
use crate::ready;
use crate::services::RunError;

/// Where it keeps what waits to be sent.
const FOLDER: &str = "node";
/// How long the first values of labels are waited for.
const LABELS: Duration = Duration::from_secs(2);

/// What the SSH service of a host is started with.
pub(crate) struct SshHost<'a> {
    pub(crate) host: AgentHost<'a>,
    pub(crate) ssh: &'a SshConfig,
    /// The web port of the cluster's proxy, where this process knows it.
    pub(crate) web_proxy: Option<String>,
}

/// The listener of one that has one.
pub(super) struct Listening {
    service: Arc<SshService>,
    listener: Option<(TcpListener, Arc<HostTls>)>,
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
    listening: &mut ready::Listening,
) -> Result<Option<TcpListener>, ListenError> {
    if uses_tunnels(config) && !ssh.force_listen {
        return Ok(None);
    }
    let (socket, at) = listen("ssh_service.listen_addr", ssh.listen_addr).await?;
    listening.node = Some(at);
    Ok(Some(socket))
}

impl SshHost<'_> {
    /// Joins where it has to, and makes the service. `socket` is where it listens, if it does.
    pub(crate) async fn start(
        &self,
        socket: Option<(TcpListener, SocketAddr)>,
    ) -> Result<Agent, RunError> {
        let (host, hostname) = (&self.host, self.host.hostname()?);
        let member = host.member(SystemRole::Node, self.names()).await?;
        let authority = &member.authority;
        let (bytes, wait) = (self.ssh.recording_spool_bytes, self.ssh.recording_wait);
        let Spools { events, recordings } = host.spools(FOLDER, authority, bytes, wait).await?;

        let labels = HostLabels::start(self.ssh.labels.clone(), self.ssh.commands.clone());
        let mut settings =
            SshServiceSettings::from_config(self.ssh, host.host_id, hostname.clone());
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

        let tunnelled = uses_tunnels(host.config);
        let pool =
            tunnelled.then(|| host.pool(&member, ConnType::Node, Arc::clone(&service) as _, drain));
        let mut node = Node::new(
            host.host_id.to_string(),
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
        let presence = NodePresence {
            node,
            authority: Arc::clone(authority),
            changes: labels.watch(),
            labels,
        };
        let heartbeat = Heartbeat::new(Box::new(presence), pool.as_ref().map(|pool| pool.status()));
        let listener = socket.map(|(socket, _)| (socket, host.tls(&member, alpn::NODE_HANDOVER)));
        let direct = Direct::Ssh(Listening { service, listener, drain });
        Ok(Agent { events, recordings, heartbeat, pool, direct })
    }

    /// Where proxies dial this host: what the configuration says, or the address of the way to the auth service.
    fn advertised(&self, at: SocketAddr) -> String {
        let config = self.host.config;
        if let Some(public) = self.ssh.public_addr.first() {
            return with_real_port(public, at);
        }
        if !at.ip().is_unspecified() {
            return at.to_string();
        }
        if let Some(advertised) = &config.advertise_ip {
            return with_real_port(advertised, at);
        }
        let towards = match route(config, SystemRole::Node) {
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

impl Listening {
    /// Accepts until `stop`, then lets sessions end within the drain's limit.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Some((listener, tls)) = self.listener else { return };
        let drain = self.drain + Duration::from_secs(5);
        let limits = AcceptLimits { drain, ..AcceptLimits::default() };
        let drained = serve_direct(listener, limits, tls, self.service, stop).await;
        if drained.left > 0 {
            tracing::warn!(connections = drained.left, "connections did not end in time");
        }
    }
}

/// What a node says of itself.
struct NodePresence {
    authority: Arc<dyn Authority>,
    /// The node without what changes.
    node: Node,
    labels: HostLabels,
    changes: watch::Receiver<Arc<std::collections::BTreeMap<String, CommandLabel>>>,
}

#[async_trait]
impl Presence for NodePresence {
    fn what(&self) -> &'static str {
        "node"
    }

    async fn settled(&mut self) {
        self.labels.settled(LABELS).await;
    }

    async fn tell(&mut self, tunnels: Option<&TunnelStatus>) -> Result<Duration, AuthorityError> {
        self.changes.mark_unchanged();
        let mut node = self.node.clone();
        node.spec.cmd_labels = self.labels.commands().as_ref().clone();
        if let Some(tunnels) = tunnels {
            node.spec.proxy_ids = tunnels.proxies.iter().copied().collect();
        }
        self.authority.heartbeat(node).await
    }

    async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn withdraw(&self) -> Result<(), AuthorityError> {
        self.authority.withdraw().await
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

//! Nodes say that they are there.

use std::net::{IpAddr, SocketAddr};
use std::sync::Weak;
use std::time::Duration;

use chrono::{DateTime, Utc};
use server_store::Condition;
use shared_api::{ApiError, HeartbeatReply, NodeChanges, limits};
use shared_authz::address::classify;
use shared_types::resource::host_of;
use shared_types::{HostId, Node, Resource, ResourceKind, SystemRole};

use super::known::{Life, Part, shown};
use super::{lasts, life};
use crate::caller::Caller;
use crate::error::{AuthError, Result, chain};
use crate::service::AuthService;
use crate::state;

/// How often what has its life behind it is looked for.
const SWEEP: Duration = Duration::from_secs(5);

impl AuthService {
    /// A node says that it is there, and how it is. It speaks of itself only, under the name it joined with.
    pub async fn heartbeat(&self, caller: &Caller, mut node: Node) -> Result<HeartbeatReply> {
        let Some(host) = caller.host_id().filter(|_| caller.is_node()) else {
            return Err(AuthError::denied("access denied"));
        };
        if node.host_id() != Some(host) {
            return Err(AuthError::denied("a node speaks of itself only"));
        }
        node.check().map_err(|error| AuthError::bad_request(chain(&error)))?;
        let name = self.name_of(host, SystemRole::Node).await?;
        if !node.spec.hostname.eq_ignore_ascii_case(&name) {
            return Err(AuthError::denied(format!("this node has joined under the name {name:?}")));
        }
        node.status = None;
        node.spec.addr = seen_from(&node.spec.addr, caller.address());
        let now = self.now();
        if !node.is_openssh() {
            node.metadata.expires = Some(now + life());
        } else if node.metadata.expires.is_some_and(|end| end <= now) {
            return Err(AuthError::bad_request("metadata.expires is in the past"));
        }
        self.store_node(host, node, now).await?;
        // It may have been put out meanwhile, and then it must not be there again.
        if let Err(locked) = self.check_host_lock(host) {
            self.forget_node(host).await?;
            return Err(locked);
        }
        Ok(HeartbeatReply { again_seconds: limits::PRESENCE_AGAIN.as_secs() })
    }

    async fn store_node(&self, host: HostId, node: Node, now: DateTime<Utc>) -> Result<()> {
        let view = self.presence.view();
        let before = view.get(host);
        if before.is_none() && view.nodes.len() >= limits::MAX_NODES {
            return Err(AuthError::unavailable(format!(
                "the cluster has {} nodes, the most it can have",
                limits::MAX_NODES
            )));
        }
        let ends = node.metadata.expires;
        let stored = self.presence.stored(Part::Node, host);
        let same = before.is_some_and(|before| **before == shown(node.clone()));
        let stored = if same && lasts(ends, stored, now) {
            stored
        } else {
            let put = state::put_resource(&Resource::from(node.clone()), Condition::Any)?;
            self.store().write(vec![put]).await.map_err(AuthError::at("store node"))?;
            ends
        };
        self.presence.put_node(node, Life { ends, stored }, now);
        Ok(())
    }

    /// A node goes. Its name stays its own until its certificates end.
    pub async fn withdraw(&self, caller: &Caller) -> Result<()> {
        let Some(host) = caller.host_id().filter(|_| caller.is_node()) else {
            return Err(AuthError::denied("access denied"));
        };
        self.forget_node(host).await
    }

    async fn forget_node(&self, host: HostId) -> Result<()> {
        let key = state::resource_key(ResourceKind::Node, &host.to_string())?;
        let gone = state::delete(key, Condition::Any);
        self.store().write(vec![gone]).await.map_err(AuthError::at("remove node"))?;
        self.presence.remove(&[(Part::Node, host)], self.now());
        Ok(())
    }

    /// Publishes what the store says of a node.
    pub(crate) async fn refresh_node(&self, name: &str) -> Result<()> {
        let Ok(host) = name.parse::<HostId>() else { return Ok(()) };
        let now = self.now();
        match self.store().resource(ResourceKind::Node, name).await? {
            Some(Resource::Node(node)) if !node.is_expired(now) => {
                let ends = node.metadata.expires;
                self.presence.put_node(node, Life::stored(ends), now);
            }
            _ => self.presence.remove(&[(Part::Node, host)], now),
        }
        Ok(())
    }

    /// Publishes what the store says of a host that was removed.
    pub(crate) async fn refresh_host(&self, name: &str) -> Result<()> {
        if let Ok(host) = name.parse::<HostId>() {
            self.presence.remove(&[(Part::Databases, host)], self.now());
        }
        self.refresh_node(name).await
    }

    /// The name an agent joined with in a role.
    pub(super) async fn name_of(&self, host: HostId, role: SystemRole) -> Result<String> {
        if host == self.host_id() {
            return Ok(self.node_name().to_owned());
        }
        let record = self.host(host, role).await?;
        record
            .map(|record| record.name)
            .ok_or_else(|| ApiError::denied(format!("this host has not joined as {role}")).into())
    }

    /// Changes of the nodes, at once when there are any since `after`, otherwise at the next one or after a while.
    pub async fn node_changes(&self, after: Option<u64>) -> NodeChanges {
        let mut views = self.presence.watch();
        let newer = views.wait_for(|view| after != Some(view.revision));
        let _ = tokio::time::timeout(limits::STATE_WAIT, newer).await.map(drop);
        self.presence.since(after)
    }

    /// Takes away what has not been heard of for its life.
    pub(crate) fn sweep(&self) {
        let now = self.now();
        let over = self.presence.over(now);
        if !over.is_empty() {
            tracing::info!(agents = over.len(), "agents have not been heard of, they are gone");
            self.presence.remove(&over, now);
        }
    }
}

/// Sweeps until the service is gone.
pub(crate) fn keep_swept(service: Weak<AuthService>) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            match service.upgrade() {
                Some(service) => service.sweep(),
                None => return,
            }
        }
    });
}

/// The address of a node as the rest of the cluster sees it. One that means the node itself, or that no node may claim
/// (loopback, link-local), is that from which it asks.
pub(super) fn seen_from(addr: &str, caller: SocketAddr) -> String {
    let Ok(address) = host_of(addr).parse::<IpAddr>() else { return addr.to_owned() };
    let (address, seen) = (address.to_canonical(), caller.ip().to_canonical());
    let other = address.is_unspecified() || classify(address).needs_literal();
    match addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok()) {
        Some(port) if other && address != seen => SocketAddr::new(seen, port).to_string(),
        _ => addr.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_say_nothing_are_those_seen() {
        let caller = "192.0.2.7:4000".parse().unwrap();
        for (addr, seen) in [
            ("0.0.0.0:3022", "192.0.2.7:3022"),
            ("[::]:3022", "192.0.2.7:3022"),
            ("127.0.0.1:22", "192.0.2.7:22"),
            ("169.254.169.254:80", "192.0.2.7:80"),
            ("10.0.0.5:3022", "10.0.0.5:3022"),
            ("db-1:3022", "db-1:3022"),
            ("", ""),
        ] {
            assert_eq!(seen_from(addr, caller), seen, "{addr}");
        }
        let local = "127.0.0.1:4000".parse().unwrap();
        assert_eq!(seen_from("127.0.0.1:3022", local), "127.0.0.1:3022");
    }
}

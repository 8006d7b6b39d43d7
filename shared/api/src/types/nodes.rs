//! SSH servers of the cluster, and everything else that serves it: who is there.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared_types::{DatabaseServer, HostId, Labels, Node, SystemRole};

use super::HostDatabases;

/// Reply to `PUT /v1/presence/node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// When to come again, in seconds.
    pub again_seconds: u64,
}

/// `GET /v1/nodes`: which of the nodes that the caller may reach. All that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodesQuery {
    /// Words, separated by commas, of which each stands in a name, an address or a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Labels as `k=v,k2=v2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// A condition, such as `labels["env"] == "prod"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

/// `GET /v1/nodes`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NodesReply {
    /// Nodes on which the caller has some login, by name.
    pub items: Vec<Node>,
    /// Unregistered hosts on which the caller lately had sessions, by name; left out where a filter was given.
    #[serde(default)]
    pub visited: Vec<VisitedHost>,
}

/// A host that is not registered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VisitedHost {
    /// Its name.
    pub hostname: String,
    /// The address it had then.
    #[serde(default)]
    pub address: String,
    /// The labels it had then.
    #[serde(default)]
    pub labels: Labels,
}

/// `GET /v1/inventory`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct InventoryReply {
    /// By host name.
    pub items: Vec<Instance>,
}

/// A process that serves the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its host id.
    pub host_id: HostId,
    /// Its host's name.
    pub hostname: String,
    /// Its version; empty where it did not say.
    #[serde(default)]
    pub version: String,
    /// What it serves as.
    pub services: Vec<SystemRole>,
    /// When the auth service last heard of it; none where that was before its own start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<DateTime<Utc>>,
}

/// All nodes of the cluster and all that agents serve, as a proxy knows them. Whether one is expired is for the auth service to say: it is gone
/// from the next view.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeView {
    /// Grows with every change.
    pub revision: u64,
    /// The nodes, by host id.
    pub nodes: Vec<Arc<Node>>,
    /// The proxies, by host id: agents keep a tunnel to each.
    pub proxies: Vec<ProxyInfo>,
    /// The databases that agents serve, by name and then by host id.
    pub databases: Vec<Arc<DatabaseServer>>,
}

/// A proxy of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyInfo {
    /// Its host id.
    pub host_id: HostId,
    /// `host:port` of its web port, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_addr: Option<String>,
}

/// `GET /v1/node-view?after=REVISION`: what has changed since.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeChanges {
    /// The revision reached with this.
    pub revision: u64,
    /// Whether `nodes` are all there are; what was known before counts no more.
    #[serde(default)]
    pub whole: bool,
    /// Nodes that came or changed.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Nodes that went.
    #[serde(default)]
    pub gone: Vec<HostId>,
    /// All proxies.
    #[serde(default)]
    pub proxies: Vec<ProxyInfo>,
    /// Hosts whose databases changed, each with all it serves now.
    #[serde(default)]
    pub databases: Vec<HostDatabases>,
}

impl NodeView {
    /// The view after `changes`.
    #[must_use]
    pub fn after(&self, changes: NodeChanges) -> Self {
        // The sort is stable, so of one host the newer comes first and is kept.
        let mut nodes: Vec<Arc<Node>> = changes.nodes.into_iter().map(Arc::new).collect();
        if !changes.whole {
            let gone: HashSet<String> = changes.gone.iter().map(ToString::to_string).collect();
            let kept = self.nodes.iter().filter(|node| !gone.contains(node.name()));
            nodes.extend(kept.cloned());
        }
        nodes.sort_by(|a, b| a.name().cmp(b.name()));
        nodes.dedup_by(|later, first| later.name() == first.name());
        let databases = self.databases_after(changes.whole, changes.databases);
        Self { revision: changes.revision, nodes, proxies: changes.proxies, databases }
    }

    fn databases_after(
        &self,
        whole: bool,
        changed: Vec<HostDatabases>,
    ) -> Vec<Arc<DatabaseServer>> {
        if !whole && changed.is_empty() {
            return self.databases.clone();
        }
        let hosts: HashSet<HostId> = changed.iter().map(|host| host.host_id).collect();
        let kept = self
            .databases
            .iter()
            .filter(|server| !whole && !hosts.contains(&server.spec.host_id))
            .cloned();
        let new = changed.into_iter().flat_map(|host| {
            let own = move |server: &DatabaseServer| server.spec.host_id == host.host_id;
            host.servers.into_iter().filter(own).map(Arc::new)
        });
        let mut all: Vec<_> = kept.chain(new).collect();
        all.sort_by(|a, b| service_order(a).cmp(&service_order(b)));
        all.dedup_by(|later, first| service_order(later) == service_order(first));
        all
    }

    /// The agents that serve a database.
    pub fn database_servers(&self, service: &str) -> &[Arc<DatabaseServer>] {
        let from = self.databases.partition_point(|server| server.name() < service);
        let rest = self.databases.get(from..).unwrap_or_default();
        let many = rest.partition_point(|server| server.name() == service);
        rest.get(..many).unwrap_or_default()
    }

    /// All that a host serves.
    pub fn databases_of(&self, host: HostId) -> HostDatabases {
        let own = self.databases.iter().filter(|server| server.spec.host_id == host);
        let servers = own.map(|server| DatabaseServer::clone(server)).collect();
        HostDatabases { host_id: host, servers }
    }

    /// The node of a host.
    pub fn get(&self, host: HostId) -> Option<&Arc<Node>> {
        let host = host.to_string();
        let at = self.nodes.binary_search_by(|node| node.name().cmp(&host)).ok()?;
        self.nodes.get(at)
    }

    /// The whole view as it is sent and kept.
    pub fn to_changes(&self) -> NodeChanges {
        NodeChanges {
            revision: self.revision,
            whole: true,
            nodes: self.nodes.iter().map(|node| Node::clone(node)).collect(),
            gone: Vec::new(),
            proxies: self.proxies.clone(),
            databases: self.databases_by_host(),
        }
    }

    fn databases_by_host(&self) -> Vec<HostDatabases> {
        let mut hosts: BTreeMap<HostId, Vec<DatabaseServer>> = BTreeMap::new();
        for server in &self.databases {
            let host = hosts.entry(server.spec.host_id).or_default();
            host.push(DatabaseServer::clone(server));
        }
        hosts.into_iter().map(|(host_id, servers)| HostDatabases { host_id, servers }).collect()
    }
}

fn service_order(server: &DatabaseServer) -> (&str, HostId) {
    (server.name(), server.spec.host_id)
}

#[cfg(test)]
mod tests {
    use shared_types::resource::NodeSpec;

    use super::*;

    fn node(host: HostId, name: &str) -> Node {
        Node::new(host.to_string(), NodeSpec { hostname: name.to_owned(), ..NodeSpec::default() })
    }

    #[test]
    fn changes_come_on_top_and_a_whole_replaces() {
        let hosts: Vec<HostId> = (0..40).map(|_| HostId::random()).collect();
        let all = |name: &str| hosts.iter().map(|host| node(*host, name)).collect::<Vec<_>>();
        let first =
            NodeChanges { revision: 3, whole: true, nodes: all("a"), ..NodeChanges::default() };
        let view = NodeView::default().after(first);
        assert_eq!((view.revision, view.nodes.len()), (3, 40));
        let next = NodeChanges {
            revision: 4,
            whole: false,
            nodes: vec![node(hosts[1], "b"), node(hosts[0], "new")],
            gone: vec![hosts[0], hosts[2], HostId::random()],
            proxies: vec![ProxyInfo { host_id: hosts[9], public_addr: None }],
            ..NodeChanges::default()
        };
        let view = view.after(next);
        assert_eq!((view.nodes.len(), view.proxies.len()), (39, 1));
        assert_eq!(view.get(hosts[1]).unwrap().spec.hostname, "b");
        assert_eq!(view.get(hosts[0]).unwrap().spec.hostname, "new");
        assert!(view.get(hosts[2]).is_none());
        let many = NodeChanges { revision: 5, nodes: all("c"), ..NodeChanges::default() };
        let view = view.after(many);
        assert_eq!(view.nodes.len(), 40);
        assert!(view.nodes.iter().all(|node| node.spec.hostname == "c"), "the newer counts");
        assert_eq!(NodeView::default().after(view.to_changes()), view);
        let none = NodeChanges { revision: 6, whole: true, ..NodeChanges::default() };
        assert!(view.after(none).nodes.is_empty());
    }

    #[test]
    fn what_a_host_serves_replaces_what_it_served() {
        let (one, other) = (HostId::random(), HostId::random());
        let server = |host: HostId, service: &str| {
            let database = shared_types::Database::new(
                service,
                shared_types::resource::DatabaseSpec::new(shared_types::DbProtocol::Redis, "a:1"),
            );
            DatabaseServer::of(host, "agent", database)
        };
        let serves = |host: HostId, services: &[&str]| HostDatabases {
            host_id: host,
            servers: services.iter().map(|service| server(host, service)).collect(),
        };
        let change = |databases: Vec<HostDatabases>| NodeChanges {
            revision: 1,
            databases,
            ..NodeChanges::default()
        };
        let view = NodeView::default()
            .after(change(vec![serves(one, &["b", "a", "a"]), serves(other, &["b"])]));
        assert_eq!(view.databases.len(), 3);
        let names: Vec<&str> = view.databases.iter().map(|server| server.name()).collect();
        assert_eq!(names, ["a", "b", "b"]);
        assert_eq!(view.database_servers("b").len(), 2);
        assert!(view.database_servers("c").is_empty() && view.database_servers("").is_empty());
        assert_eq!(view.databases_of(one).servers.len(), 2);
        let again = view.after(change(vec![serves(one, &["c"])]));
        let names: Vec<&str> = again.databases.iter().map(|server| server.name()).collect();
        assert_eq!(names, ["b", "c"]);
        assert_eq!(again.after(change(vec![serves(other, &[])])).databases.len(), 1);
        assert_eq!(again.after(change(Vec::new())).databases, again.databases);
        assert_eq!(NodeView::default().after(again.to_changes()), again);
        // A host speaks of itself only.
        let foreign = HostDatabases { host_id: one, servers: vec![server(other, "x")] };
        assert!(NodeView::default().after(change(vec![foreign])).databases.is_empty());
    }
}

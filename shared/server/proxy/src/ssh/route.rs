//! Which node a typed name stands for.
//!
//! What must stay true: a node the user may not see is as if it were not there, also where names are counted.

use std::sync::Arc;
use std::time::Instant;

use server_core::access::sees_node;
use shared_api::{ClusterState, NodeView};
use shared_pki::Identity;
use shared_types::{HostId, HostName, Node};

/// The port of SSH services; also what clients send that were given none.
const SSH_SERVICE: u16 = 3022;
/// The port of `sshd`, which OpenSSH sends where nobody named one.
const SSHD: u16 = 22;
/// Marks the refusal of an ambiguous name for clients that list what it could be.
const AMBIGUOUS: &str = "err-node-is-ambiguous";

/// What a name stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Route {
    /// A node of the cluster.
    Node(Arc<Node>),
    /// No node: whatever has the name in the network.
    Unregistered,
}

/// What a name is looked up in.
pub(super) struct Routes<'a> {
    /// The cluster, and how it routes.
    pub(super) state: &'a ClusterState,
    /// Its nodes.
    pub(super) view: &'a NodeView,
    /// Who asks.
    pub(super) identity: &'a Identity,
    /// Since when the tunnel of a node is there.
    pub(super) connected: &'a dyn Fn(HostId) -> Option<Instant>,
}

impl Routes<'_> {
    /// Finds what `host` and `port` stand for. The error is a text for the client.
    pub(super) fn find(&self, host: &HostName, port: Option<u16>) -> Result<Route, String> {
        if let Ok(id) = host.as_ref().parse::<HostId>() {
            let node = self.view.get(id).filter(|node| self.sees(host, node));
            return match node {
                Some(node) => Ok(Route::Node(Arc::clone(node))),
                None => Err(format!("unable to locate node matching UUID-like target {host}")),
            };
        }
        let no_case = self.state.networking.spec.case_insensitive_routing;
        let nodes = self.view.nodes.iter();
        let meant: Vec<&Arc<Node>> =
            nodes.filter(|node| is_meant(node, host.as_ref(), port, no_case)).collect();
        if meant.is_empty() {
            return Ok(Route::Unregistered);
        }
        let mut seen = meant.into_iter().filter(|node| self.sees(host, node));
        let Some(first) = seen.next() else {
            // What is registered is never taken for a host without labels.
            return Err(offline(host));
        };
        let others: Vec<&Arc<Node>> = seen.collect();
        if others.is_empty() {
            return Ok(Route::Node(Arc::clone(first)));
        }
        if !takes_most_recent(self.state) {
            return Err(format!(
                "{AMBIGUOUS}: ambiguous host could match multiple nodes; name the one that is meant by its id, as \
                 `tsh ls -v` shows it"
            ));
        }
        let since = |node: &&Arc<Node>| node.host_id().and_then(|id| (self.connected)(id));
        let newest = others.into_iter().chain([first]).max_by_key(since).unwrap_or(first);
        Ok(Route::Node(Arc::clone(newest)))
    }

    fn sees(&self, host: &HostName, node: &Node) -> bool {
        sees_node(self.state, self.identity, host, &node.all_labels())
    }
}

/// What the user of a target reads that cannot be reached, or may not be known of.
pub(super) fn offline(host: &HostName) -> String {
    format!("target host {host} is offline or does not exist")
}

fn takes_most_recent(state: &ClusterState) -> bool {
    let strategy = &state.networking.spec.routing_strategy;
    strategy.as_u64() == Some(1) || strategy.as_str() == Some("most_recent")
}

/// Whether a node is what was typed: by its name, or by an address of it. A port that is named has to be the node's,
/// because something else may listen beside it; of a node behind a tunnel there is no other than its own.
fn is_meant(node: &Node, host: &str, port: Option<u16>, no_case: bool) -> bool {
    let same = |name: &str| if no_case { name.eq_ignore_ascii_case(host) } else { name == host };
    let usual = matches!(port, None | Some(0 | SSH_SERVICE));
    let of_addr = |addr: &str| usual || port == port_of(addr);
    if node.spec.use_tunnel {
        return same(&node.spec.hostname) && (usual || port == Some(SSHD));
    }
    if same(&node.spec.hostname) && of_addr(&node.spec.addr) {
        return true;
    }
    std::iter::once(&node.spec.addr)
        .chain(&node.spec.public_addrs)
        .any(|addr| same(crate::settings::host_of(addr)) && of_addr(addr))
}

/// The port of `HOST:PORT`.
pub(super) fn port_of(addr: &str) -> Option<u16> {
    let (host, port) = addr.rsplit_once(':')?;
    (!host.contains(':') || host.ends_with(']')).then(|| port.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use chrono::{TimeDelta, Utc};
    use shared_api::{Account, NodeChanges};
    use shared_pki::Permits;
    use shared_types::resource::NodeSpec;
    use shared_types::{Labels, Role};

    use super::*;

    fn state() -> ClusterState {
        let role = serde_json::json!({
            "kind": "role", "version": "v7", "metadata": {"name": "dev"},
            "spec": {
                "allow": {"logins": ["root"], "node_labels": {"*": "*"}},
                "deny": {"node_labels": {"env": "prod"}},
            },
        });
        let role: Role = serde_json::from_value(role).unwrap();
        let joe = Account { roles: vec!["dev".parse().unwrap()], ..Account::default() };
        ClusterState {
            revision: 1,
            cluster: "main".parse().unwrap(),
            authorities: Vec::new(),
            roles: BTreeMap::from([("dev".parse().unwrap(), role)]),
            users: BTreeMap::from([("joe".parse().unwrap(), joe)]),
            locks: Vec::new(),
            recording: Default::default(),
            networking: Default::default(),
            auth_preference: Default::default(),
            databases: Vec::new(),
        }
    }

    fn joe() -> Identity {
        Identity {
            user: "joe".parse().unwrap(),
            roles: vec!["dev".parse().unwrap()],
            traits: Default::default(),
            logins: Vec::new(),
            cluster: "main".parse().unwrap(),
            login_ip: None,
            pinned_ip: None,
            valid_until: Utc::now() + TimeDelta::hours(1),
            system_role: None,
            host_id: None,
            permits: Permits::default(),
            usage: Vec::new(),
            database: None,
        }
    }

    fn node(hostname: &str, addr: &str, env: &str) -> Node {
        let spec = NodeSpec {
            hostname: hostname.to_owned(),
            addr: addr.to_owned(),
            use_tunnel: addr.is_empty(),
            ..NodeSpec::default()
        };
        let mut node = Node::new(HostId::random().to_string(), spec);
        node.metadata.labels = Labels::from([("env".to_owned(), env.to_owned())]);
        node
    }

    fn view(nodes: &[&Node]) -> NodeView {
        let nodes = nodes.iter().copied().cloned().collect();
        NodeView::default().after(NodeChanges { whole: true, nodes, ..NodeChanges::default() })
    }

    fn find(state: &ClusterState, view: &NodeView, host: &str, port: Option<u16>) -> String {
        let start = Instant::now();
        // Of several, the later by id is connected for longer.
        let connected = |id: HostId| {
            let at = view.nodes.iter().position(|node| node.host_id() == Some(id))?;
            Some(start + Duration::from_secs(100 - at as u64))
        };
        let routes = Routes { state, view, identity: &joe(), connected: &connected };
        match routes.find(&host.parse().unwrap(), port) {
            Ok(Route::Node(node)) => node.name().to_owned(),
            Ok(Route::Unregistered) => "unregistered".to_owned(),
            Err(text) => text,
        }
    }

    #[test]
    fn names_addresses_and_ids_lead_to_nodes() {
        let (tunnel, direct) = (node("web-1", "", "dev"), node("web-2", "10.0.0.2:3022", "dev"));
        let openssh = node("db", "db.internal:22", "dev");
        let view = view(&[&tunnel, &direct, &openssh]);
        let find = |host: &str, port| find(&state(), &view, host, port);
        for port in [None, Some(0), Some(22), Some(3022)] {
            assert_eq!(find("web-1", port), tunnel.name());
        }
        assert_eq!(find("web-1", Some(2222)), "unregistered");
        assert_eq!(find(tunnel.name(), Some(22)), tunnel.name());
        assert_eq!(find("web-2", None), direct.name());
        assert_eq!(find("10.0.0.2", Some(3022)), direct.name());
        assert_eq!(find("web-2", Some(22)), "unregistered", "an sshd may listen beside it");
        for host in ["db", "db.internal"] {
            assert_eq!(find(host, Some(22)), openssh.name());
            assert_eq!(find(host, None), openssh.name());
            assert_eq!(find(host, Some(2222)), "unregistered");
        }
        assert_eq!(find("WEB-1", None), "unregistered");
        let gone = HostId::random().to_string();
        assert_eq!(
            find(&gone, None),
            format!("unable to locate node matching UUID-like target {gone}")
        );
    }

    #[test]
    fn case_counts_unless_the_cluster_says_otherwise() {
        let one = node("Web-1", "", "dev");
        let view = view(&[&one]);
        let mut state = state();
        assert_eq!(find(&state, &view, "web-1", None), "unregistered");
        state.networking.spec.case_insensitive_routing = true;
        assert_eq!(find(&state, &view, "web-1", None), one.name());
    }

    #[test]
    fn an_ambiguous_name_is_refused_or_the_most_recent() {
        let (one, two, hidden) =
            (node("web", "", "dev"), node("web", "", "dev"), node("web", "", "prod"));
        let all = view(&[&one, &two, &hidden]);
        let mut state = state();
        let text = find(&state, &all, "web", None);
        assert!(text.starts_with("err-node-is-ambiguous: ambiguous host could match"), "{text}");
        assert_eq!(find(&state, &all, one.name(), None), one.name());
        assert_eq!(find(&state, &view(&[&one, &hidden]), "web", None), one.name());
        for strategy in [serde_json::json!(1), serde_json::json!("most_recent")] {
            state.networking.spec.routing_strategy = strategy;
            let first = [&one, &two].into_iter().map(|node| node.name()).min().unwrap();
            assert_eq!(find(&state, &all, "web", None), first);
        }
    }

    #[test]
    fn what_may_not_be_seen_is_as_if_it_were_not_there_and_no_plain_host() {
        let hidden = node("vault", "10.0.0.9:22", "prod");
        let view = view(&[&hidden]);
        for host in ["vault", "10.0.0.9"] {
            let text = find(&state(), &view, host, Some(22));
            assert_eq!(text, format!("target host {host} is offline or does not exist"));
        }
        let text = find(&state(), &view, hidden.name(), None);
        assert!(text.starts_with("unable to locate node matching"), "{text}");
    }
}

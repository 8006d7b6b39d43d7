//! What people may know of nodes and of the processes that serve the cluster.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Duration;
use shared_api::{ApiError, Instance, InventoryReply, NodesQuery, NodesReply, VisitedHost};
use shared_authz::{Query, SshTarget, Verb};
use shared_events::{AuditEvent, SessionStart};
use shared_types::{HostId, Labels, Node, SystemRole, parse_labels};

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::service::AuthService;

/// How far back sessions are looked for, in days, and how many.
const VISITS: (i64, usize) = (30, 2000);
/// Where a node listens that does not say so.
const USUAL_PORT: u16 = 3022;
/// Longest filter.
const LONGEST_FILTER: usize = 4096;

/// What a listing is narrowed by.
#[derive(Default)]
struct Filter {
    terms: Vec<String>,
    labels: Labels,
    query: Option<Query>,
}

impl Filter {
    fn parse(ask: &NodesQuery) -> Result<Self> {
        let given = [&ask.search, &ask.labels, &ask.query];
        if given.into_iter().flatten().any(|text| text.len() > LONGEST_FILTER) {
            return Err(AuthError::bad_request("a filter is too long"));
        }
        let words = ask.search.as_deref().unwrap_or_default().split(',').map(str::trim);
        let labels = parse_labels(ask.labels.as_deref().unwrap_or_default())
            .map_err(|error| AuthError::bad_request(error.to_string()))?;
        let query = ask.query.as_deref().filter(|text| !text.trim().is_empty()).map(|text| {
            text.parse::<Query>().map_err(|error| {
                AuthError::Answer(ApiError::bad_request(format!("query: {error}")).with_hint(
                    "for example: labels[\"env\"] == \"prod\" && hasPrefix(name, \"db-\")",
                ))
            })
        });
        Ok(Self {
            terms: words.filter(|word| !word.is_empty()).map(str::to_owned).collect(),
            labels,
            query: query.transpose()?,
        })
    }

    fn is_empty(&self) -> bool {
        self.terms.is_empty() && self.labels.is_empty() && self.query.is_none()
    }

    fn takes(&self, node: &Node, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && (self.terms.is_empty() || node.contains_all(&self.terms))
            && self.query.as_ref().is_none_or(|query| query.matches(node, labels))
    }
}

impl AuthService {
    /// The nodes on which the caller has some login, and unregistered hosts it was lately on.
    pub async fn nodes(&self, caller: &Caller, ask: &NodesQuery) -> Result<NodesReply> {
        let filter = Filter::parse(ask)?;
        self.sweep_nodes();
        let view = self.presence.view();
        let roles = caller.is_user().then(|| self.role_set(caller));
        let exist = self.roles_exist(caller);
        let reaches = |node: &Node, labels: &Labels| match &roles {
            _ if caller.is_admin() => true,
            Some(roles) if exist => {
                let port = node.spec.addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
                roles.reaches(&SshTarget::registered(
                    &node.spec.hostname,
                    node.ip(),
                    port.unwrap_or(USUAL_PORT),
                    labels,
                ))
            }
            _ => false,
        };
        let mut items = Vec::new();
        for node in &view.nodes {
            let labels = node.all_labels();
            if filter.takes(node, &labels) && reaches(node, &labels) {
                let mut node = Node::clone(node);
                node.metadata.expires = node.host_id().and_then(|host| self.presence.ends(host));
                items.push(node);
            }
        }
        items.sort_by(|a, b| (&a.spec.hostname, a.name()).cmp(&(&b.spec.hostname, b.name())));
        let mut visited = Vec::new();
        if filter.is_empty() && caller.is_user() {
            visited = self.visited(caller).await?;
            let known: BTreeSet<&str> = view.nodes.iter().flat_map(|node| node.names()).collect();
            visited.retain(|host| !known.contains(host.hostname.as_str()));
        }
        Ok(NodesReply { items, visited })
    }

    /// The hosts on which the caller lately had sessions; nobody sees another user's.
    async fn visited(&self, caller: &Caller) -> Result<Vec<VisitedHost>> {
        let now = self.now();
        let (days, most) = VISITS;
        let (from, to) = (now - Duration::days(days), now + Duration::minutes(5));
        let found = self.newest(from, to, SessionStart::KIND, most).await?;
        let mut hosts = BTreeMap::new();
        for event in found {
            let AuditEvent::SessionStart(start) = event else { continue };
            if start.user.user != caller.name() || start.server.server_hostname.is_empty() {
                continue;
            }
            // Newest first: the first address of a name is its latest.
            hosts
                .entry(start.server.server_hostname)
                .or_insert((start.server.server_addr, start.server.server_labels));
        }
        let hosts = hosts.into_iter().map(|(hostname, (address, labels))| VisitedHost {
            hostname,
            address,
            labels,
        });
        Ok(hosts.collect())
    }

    /// The processes that serve the cluster.
    pub async fn inventory(&self, caller: &Caller) -> Result<InventoryReply> {
        self.check(caller, "instance", Verb::List)?;
        let mut instances: BTreeMap<HostId, Instance> = BTreeMap::new();
        let view = self.presence.view();
        for (id, host) in self.hosts().await? {
            let Ok(host_id) = id.parse::<HostId>() else { continue };
            let instance = instances.entry(host_id).or_insert_with(|| Instance {
                host_id,
                hostname: host.name,
                version: String::new(),
                services: Vec::new(),
                last_seen: None,
            });
            instance.services.push(host.role);
        }
        for (host_id, instance) in &mut instances {
            let seen = self.presence.seen(*host_id);
            instance.services.sort();
            instance.last_seen = seen.as_ref().map(|seen| seen.at);
            instance.version = seen.map(|seen| seen.version).unwrap_or_default();
            if instance.version.is_empty()
                && let Some(node) = view.get(*host_id)
            {
                instance.version.clone_from(&node.spec.version);
            }
        }
        let mut items: Vec<Instance> = instances.into_values().collect();
        items.push(self.own_instance());
        items.sort_by(|a, b| (&a.hostname, a.host_id).cmp(&(&b.hostname, b.host_id)));
        Ok(InventoryReply { items })
    }

    /// This process.
    fn own_instance(&self) -> Instance {
        let mut services = vec![SystemRole::Auth];
        services.extend(self.own_proxy().map(|_| SystemRole::Proxy));
        services.extend(self.presence.view().get(self.host_id()).map(|_| SystemRole::Node));
        Instance {
            host_id: self.host_id(),
            hostname: self.node_name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            services,
            last_seen: Some(self.now()),
        }
    }
}

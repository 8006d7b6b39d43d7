//! What people may know of nodes and of the processes that serve the cluster.

use std::collections::{BTreeMap, BTreeSet};

use shared_api::{ApiError, Instance, InventoryReply, NodesQuery, NodesReply};
use shared_authz::{Queried, Query, SshTarget, Verb};
use shared_types::{DatabaseServer, HostId, Labels, Node, SystemRole, parse_labels};

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::presence::Part;
use crate::service::AuthService;

/// Where a node listens that does not say so.
const USUAL_PORT: u16 = 3022;
/// Longest filter.
const LONGEST_FILTER: usize = 4096;

/// What a listing is narrowed by.
#[derive(Default)]
pub(crate) struct Filter {
    terms: Vec<String>,
    labels: Labels,
    query: Option<Query>,
}

impl Filter {
    pub(crate) fn parse(ask: &NodesQuery) -> Result<Self> {
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

    pub(crate) fn takes(&self, item: &dyn Queried, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && (self.terms.is_empty() || item.contains_all(&self.terms))
            && self.query.as_ref().is_none_or(|query| query.matches(item, labels))
    }
}

impl AuthService {
    /// The nodes on which the caller has some login, and unregistered hosts it was lately on.
    pub async fn nodes(&self, caller: &Caller, ask: &NodesQuery) -> Result<NodesReply> {
        let filter = Filter::parse(ask)?;
        self.sweep();
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
            if filter.takes(node.as_ref(), &labels) && reaches(node, &labels) {
                let mut node = Node::clone(node);
                node.metadata.expires =
                    node.host_id().and_then(|host| self.presence.ends(Part::Node, host));
                items.push(node);
            }
        }
        items.sort_by(|a, b| (&a.spec.hostname, a.name()).cmp(&(&b.spec.hostname, b.name())));
        let mut visited = Vec::new();
        if filter.is_empty() && caller.is_user() {
            visited = self.visited(caller.name()).await?;
            let known: BTreeSet<&str> = view.nodes.iter().flat_map(|node| node.names()).collect();
            visited.retain(|host| !known.contains(host.hostname.as_str()));
        }
        Ok(NodesReply { items, visited })
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
        let view = self.presence.view();
        services.extend(view.get(self.host_id()).map(|_| SystemRole::Node));
        let own = |server: &DatabaseServer| server.spec.host_id == self.host_id();
        services.extend(view.databases.iter().any(|server| own(server)).then_some(SystemRole::Db));
        Instance {
            host_id: self.host_id(),
            hostname: self.node_name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            services,
            last_seen: Some(self.now()),
        }
    }
}

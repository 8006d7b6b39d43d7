//! Which nodes are there.
//!
//! In memory: every node, its life and what changed since when, so that proxies are told of changes only. On disk: the
//! nodes, written when they change, and else once in half of their life: a cluster of a thousand nodes says that it is
//! there seventeen times a second. What was in memory only is said again within a minute of a restart.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use server_store::Condition;
use shared_api::{ApiError, HeartbeatReply, NodeChanges, NodeView, ProxyInfo, limits};
use shared_authz::address::classify;
use shared_types::resource::host_of;
use shared_types::{HostId, Node, Resource, ResourceKind, SystemRole};
use tokio::sync::watch;

use crate::caller::Caller;
use crate::error::{AuthError, Result, chain};
use crate::service::{AuthService, next_revision};
use crate::state;

/// Most changes that are remembered; who is behind by more is sent everything.
const MOST_CHANGES: usize = 8192;
/// How often nodes whose life is over are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Most hosts of which it is remembered when they were heard of.
const MOST_SEEN: usize = 2 * limits::MAX_NODES;

/// The nodes that are there.
#[derive(Default)]
pub(crate) struct Presence {
    view: watch::Sender<Arc<NodeView>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    lives: HashMap<HostId, Life>,
    /// Which node changed at which revision, oldest first.
    changes: VecDeque<(u64, HostId)>,
    /// Who knows of this revision or a later one can be told what changed since.
    horizon: u64,
    seen: HashMap<HostId, Seen>,
}

/// How long a node is there.
#[derive(Debug, Clone, Copy, Default)]
struct Life {
    /// None is for ever.
    ends: Option<DateTime<Utc>>,
    /// What the disk says of it.
    stored: Option<DateTime<Utc>>,
}

/// When and how a host was heard of.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: DateTime<Utc>,
    pub(crate) version: String,
}

impl Presence {
    /// With the nodes that are stored.
    pub(crate) fn new(stored: Vec<Resource>, now: DateTime<Utc>) -> Self {
        let presence = Self::default();
        let revision = next_revision(0, now);
        let nodes: Vec<Node> = stored
            .into_iter()
            .filter_map(|resource| match resource {
                Resource::Node(node) if !node.is_expired(now) => Some(node),
                _ => None,
            })
            .collect();
        let mut known = presence.known();
        known.horizon = revision;
        for node in &nodes {
            let Some(host) = node.host_id() else { continue };
            let ends = node.metadata.expires;
            known.lives.insert(host, Life { ends, stored: ends });
        }
        drop(known);
        let nodes = nodes.into_iter().map(shown).collect();
        let all = NodeChanges { revision, whole: true, nodes, ..NodeChanges::default() };
        presence.view.send_replace(Arc::new(NodeView::default().after(all)));
        presence
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes and proxies of now.
    pub(crate) fn view(&self) -> Arc<NodeView> {
        Arc::clone(&self.view.borrow())
    }

    /// Tells of every newer view.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<NodeView>> {
        self.view.subscribe()
    }

    /// When a node's life is over, if that is known and it ends.
    pub(crate) fn ends(&self, host: HostId) -> Option<DateTime<Utc>> {
        self.known().lives.get(&host).and_then(|life| life.ends)
    }

    /// A node came or changed, or lives on.
    fn put(&self, node: Node, life: Life, now: DateTime<Utc>) {
        let Some(host) = node.host_id() else { return };
        let node = shown(node);
        let mut known = self.known();
        known.lives.insert(host, life);
        self.view.send_if_modified(|view| {
            if view.get(host).is_some_and(|before| **before == node) {
                return false;
            }
            let revision = known.change(view.revision, host, now);
            let changes = NodeChanges {
                revision,
                nodes: vec![node],
                proxies: view.proxies.clone(),
                ..NodeChanges::default()
            };
            *view = Arc::new(view.after(changes));
            true
        });
    }

    /// Nodes went.
    fn remove(&self, hosts: Vec<HostId>, now: DateTime<Utc>) {
        let mut known = self.known();
        for host in &hosts {
            known.lives.remove(host);
        }
        self.view.send_if_modified(|view| {
            let gone: Vec<HostId> =
                hosts.into_iter().filter(|host| view.get(*host).is_some()).collect();
            if gone.is_empty() {
                return false;
            }
            let mut revision = view.revision;
            for host in &gone {
                revision = known.change(revision, *host, now);
            }
            let proxies = view.proxies.clone();
            let changes = NodeChanges { revision, gone, proxies, ..NodeChanges::default() };
            *view = Arc::new(view.after(changes));
            true
        });
    }

    /// Which proxies there are.
    pub(crate) fn set_proxies(&self, mut proxies: Vec<ProxyInfo>, now: DateTime<Utc>) {
        proxies.sort_by_key(|proxy| proxy.host_id);
        proxies.dedup_by_key(|proxy| proxy.host_id);
        self.view.send_if_modified(|view| {
            if view.proxies == proxies {
                return false;
            }
            let revision = next_revision(view.revision, now);
            *view = Arc::new(NodeView { revision, proxies, nodes: view.nodes.clone() });
            true
        });
    }

    /// What has changed since a revision.
    fn since(&self, after: Option<u64>) -> NodeChanges {
        let known = self.known();
        let view = self.view();
        let Some(after) = after.filter(|after| (known.horizon..=view.revision).contains(after))
        else {
            return view.to_changes();
        };
        let mut changes = NodeChanges {
            revision: view.revision,
            proxies: view.proxies.clone(),
            ..NodeChanges::default()
        };
        let mut told = std::collections::HashSet::new();
        for (revision, host) in known.changes.iter().rev() {
            if *revision <= after {
                break;
            }
            if told.insert(*host) {
                match view.get(*host) {
                    Some(node) => changes.nodes.push(Node::clone(node)),
                    None => changes.gone.push(*host),
                }
            }
        }
        changes
    }

    /// Nodes whose life is over.
    fn over(&self, now: DateTime<Utc>) -> Vec<HostId> {
        let known = self.known();
        let over = known.lives.iter().filter(|(_, life)| life.ends.is_some_and(|end| end <= now));
        over.map(|(host, _)| *host).collect()
    }

    /// A host was heard of.
    pub(crate) fn saw(&self, host: HostId, version: &str, now: DateTime<Utc>) {
        let mut known = self.known();
        if known.seen.len() >= MOST_SEEN && !known.seen.contains_key(&host) {
            let old = now - chrono::Duration::days(1);
            known.seen.retain(|_, seen| seen.at > old);
        }
        let version: String = version.chars().filter(char::is_ascii_graphic).take(64).collect();
        known.seen.insert(host, Seen { at: now, version });
    }

    /// When a host was last heard of.
    pub(crate) fn seen(&self, host: HostId) -> Option<Seen> {
        self.known().seen.get(&host).cloned()
    }
}

impl Known {
    /// Remembers a change; the revision after it.
    fn change(&mut self, last: u64, host: HostId, now: DateTime<Utc>) -> u64 {
        let revision = next_revision(last, now);
        self.changes.push_back((revision, host));
        if self.changes.len() > MOST_CHANGES
            && let Some((lost, _)) = self.changes.pop_front()
        {
            self.horizon = lost;
        }
        revision
    }
}

/// As the view has it: when its life ends is the auth service's matter.
fn shown(mut node: Node) -> Node {
    node.metadata.revision = None;
    node.metadata.expires = None;
    node
}

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
        let name = self.name_of(host).await?;
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
        let stored = {
            let known = self.presence.known();
            known.lives.get(&host).and_then(|life| life.stored)
        };
        let same = before.is_some_and(|before| **before == shown(node.clone()));
        let lasts = match (ends, stored) {
            (None, None) => true,
            (Some(_), Some(stored)) => stored > now + life() / 2,
            _ => false,
        };
        let stored = if same && lasts {
            stored
        } else {
            let put = state::put_resource(&Resource::from(node.clone()), Condition::Any)?;
            self.store().write(vec![put]).await.map_err(AuthError::at("store node"))?;
            ends
        };
        self.presence.put(node, Life { ends, stored }, now);
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
        self.presence.remove(vec![host], self.now());
        Ok(())
    }

    /// Publishes what the store says of a node.
    pub(crate) async fn refresh_node(&self, name: &str) -> Result<()> {
        let Ok(host) = name.parse::<HostId>() else { return Ok(()) };
        let now = self.now();
        match self.store().resource(ResourceKind::Node, name).await? {
            Some(Resource::Node(node)) if !node.is_expired(now) => {
                let ends = node.metadata.expires;
                self.presence.put(node, Life { ends, stored: ends }, now);
            }
            _ => self.presence.remove(vec![host], now),
        }
        Ok(())
    }

    /// The name a node joined with.
    async fn name_of(&self, host: HostId) -> Result<String> {
        if host == self.host_id() {
            return Ok(self.node_name().to_owned());
        }
        let record = self.host(host, SystemRole::Node).await?;
        record
            .map(|record| record.name)
            .ok_or_else(|| ApiError::denied("this host has not joined as a node").into())
    }

    /// Changes of the nodes, at once when there are any since `after`, otherwise at the next one or after a while.
    pub async fn node_changes(&self, after: Option<u64>) -> NodeChanges {
        let mut views = self.presence.watch();
        let newer = views.wait_for(|view| after != Some(view.revision));
        let _ = tokio::time::timeout(limits::STATE_WAIT, newer).await.map(drop);
        self.presence.since(after)
    }

    /// Takes away what has not been heard of for the life of a node.
    pub(crate) fn sweep_nodes(&self) {
        let now = self.now();
        let over = self.presence.over(now);
        if !over.is_empty() {
            tracing::info!(nodes = over.len(), "nodes have not been heard of, they are gone");
            self.presence.remove(over, now);
        }
    }
}

/// Sweeps until the service is gone.
pub(crate) fn keep_swept(service: Weak<AuthService>) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            match service.upgrade() {
                Some(service) => service.sweep_nodes(),
                None => return,
            }
        }
    });
}

fn life() -> chrono::Duration {
    chrono::Duration::from_std(limits::PRESENCE_LIFE).unwrap_or_default()
}

/// The address of a node as the rest of the cluster sees it. One that means the node itself, or that no node may claim
/// (loopback, link-local), is that from which it asks.
fn seen_from(addr: &str, caller: SocketAddr) -> String {
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
    use shared_types::resource::NodeSpec;

    use super::*;

    fn node(host: HostId, name: &str) -> Node {
        Node::new(host.to_string(), NodeSpec { hostname: name.to_owned(), ..NodeSpec::default() })
    }

    #[test]
    fn who_is_behind_hears_what_changed_and_who_is_far_behind_everything() {
        let now = Utc::now();
        let presence = Presence::new(Vec::new(), now);
        let life = Life::default();
        let (one, other) = (HostId::random(), HostId::random());
        let start = presence.view().revision;
        assert_eq!(presence.since(Some(start)).nodes, []);
        presence.put(node(one, "a"), life, now);
        presence.put(node(other, "b"), life, now);
        let both = presence.view();
        presence.put(node(one, "a"), life, now);
        assert_eq!(presence.view().revision, both.revision, "nothing new");
        presence.remove(vec![one], now);
        presence.put(node(other, "c"), life, now);
        let changes = presence.since(Some(both.revision));
        assert_eq!((changes.whole, &changes.gone, changes.nodes.len()), (false, &vec![one], 1));
        assert_eq!(both.after(changes), *presence.view());
        let all = presence.since(None);
        assert!(all.whole && all.nodes.len() == 1);
        assert!(presence.since(Some(start - 1)).whole, "before this service was there");
        assert!(presence.since(Some(u64::MAX)).whole, "of another one");
        for round in 0..MOST_CHANGES {
            presence.put(node(one, &format!("n{round}")), life, now);
        }
        assert!(presence.since(Some(both.revision)).whole, "too far behind");
        assert!(!presence.since(Some(presence.view().revision - 1)).whole);
    }

    #[test]
    fn proxies_are_told_of() {
        let presence = Presence::new(Vec::new(), Utc::now());
        let start = presence.view().revision;
        let proxy = ProxyInfo { host_id: HostId::random(), public_addr: Some("p:443".to_owned()) };
        presence.set_proxies(vec![proxy.clone()], Utc::now());
        let changes = presence.since(Some(start));
        assert!(changes.revision > start && changes.proxies == [proxy]);
    }

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

//! What is known of who is there, and since when.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use shared_api::{HostDatabases, NodeChanges, NodeView, ProxyInfo, limits};
use shared_types::{HostId, Node, Resource};
use tokio::sync::watch;

use super::Served;
use crate::service::next_revision;

/// Most changes that are remembered; who is behind by more is sent everything.
const MOST_CHANGES: usize = 8192;
/// Most hosts of which it is remembered when they were heard of.
const MOST_SEEN: usize = 2 * limits::MAX_NODES;

/// What of a host is there. Each part has a life of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// Its SSH server.
    Node,
    /// The databases it serves.
    Databases,
}

/// Who is there.
#[derive(Default)]
pub(crate) struct Presence {
    view: watch::Sender<Arc<NodeView>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    lives: HashMap<(Part, HostId), Life>,
    /// What changed at which revision, oldest first.
    changes: VecDeque<(u64, Part, HostId)>,
    /// Who knows of this revision or a later one can be told what changed since.
    horizon: u64,
    seen: HashMap<HostId, Seen>,
}

/// How long something is there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Life {
    /// None is for ever.
    pub(super) ends: Option<DateTime<Utc>>,
    /// What the disk says of it.
    pub(super) stored: Option<DateTime<Utc>>,
}

impl Life {
    /// As the disk says.
    pub(super) fn stored(ends: Option<DateTime<Utc>>) -> Self {
        Self { ends, stored: ends }
    }
}

/// When and how a host was heard of.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: DateTime<Utc>,
    pub(crate) version: String,
}

impl Presence {
    /// With what is stored.
    pub(crate) fn new(nodes: Vec<Resource>, served: Vec<Served>, now: DateTime<Utc>) -> Self {
        let presence = Self::default();
        let revision = next_revision(0, now);
        let nodes: Vec<Node> = nodes
            .into_iter()
            .filter_map(|resource| match resource {
                Resource::Node(node) if !node.is_expired(now) => Some(node),
                _ => None,
            })
            .collect();
        let served: Vec<Served> = served.into_iter().filter(|served| served.ends > now).collect();
        let mut known = presence.known();
        known.horizon = revision;
        for node in &nodes {
            let Some(host) = node.host_id() else { continue };
            known.lives.insert((Part::Node, host), Life::stored(node.metadata.expires));
        }
        for served in &served {
            let life = Life::stored(Some(served.ends));
            known.lives.insert((Part::Databases, served.databases.host_id), life);
        }
        drop(known);
        let nodes = nodes.into_iter().map(shown).collect();
        let databases = served.into_iter().map(|served| served.databases).collect();
        let all = NodeChanges { revision, whole: true, nodes, databases, ..NodeChanges::default() };
        presence.view.send_replace(Arc::new(NodeView::default().after(all)));
        presence
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is there now.
    pub(crate) fn view(&self) -> Arc<NodeView> {
        Arc::clone(&self.view.borrow())
    }

    /// Tells of every newer view.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<NodeView>> {
        self.view.subscribe()
    }

    /// When a part's life is over, if that is known and it ends.
    pub(crate) fn ends(&self, part: Part, host: HostId) -> Option<DateTime<Utc>> {
        self.known().lives.get(&(part, host)).and_then(|life| life.ends)
    }

    /// What the disk says of a part's end.
    pub(super) fn stored(&self, part: Part, host: HostId) -> Option<DateTime<Utc>> {
        self.known().lives.get(&(part, host)).and_then(|life| life.stored)
    }

    /// A node came or changed, or lives on.
    pub(super) fn put_node(&self, node: Node, life: Life, now: DateTime<Utc>) {
        let Some(host) = node.host_id() else { return };
        let node = shown(node);
        self.change((Part::Node, host), life, now, |view| {
            let same = view.get(host).is_some_and(|before| **before == node);
            (!same).then(|| NodeChanges { nodes: vec![node], ..NodeChanges::default() })
        });
    }

    /// What a host serves came or changed, or lives on.
    pub(super) fn put_databases(&self, served: HostDatabases, life: Life, now: DateTime<Utc>) {
        self.change((Part::Databases, served.host_id), life, now, |view| {
            let same = view.databases_of(served.host_id) == served;
            (!same).then(|| NodeChanges { databases: vec![served], ..NodeChanges::default() })
        });
    }

    fn change(
        &self,
        what: (Part, HostId),
        life: Life,
        now: DateTime<Utc>,
        news: impl FnOnce(&NodeView) -> Option<NodeChanges>,
    ) {
        let mut known = self.known();
        known.lives.insert(what, life);
        self.view.send_if_modified(|view| {
            let Some(changes) = news(view) else { return false };
            let revision = known.change(view.revision, what, now);
            let proxies = view.proxies.clone();
            *view = Arc::new(view.after(NodeChanges { revision, proxies, ..changes }));
            true
        });
    }

    /// Parts of hosts went.
    pub(super) fn remove(&self, gone: &[(Part, HostId)], now: DateTime<Utc>) {
        let mut known = self.known();
        for what in gone {
            known.lives.remove(what);
        }
        self.view.send_if_modified(|view| {
            let serving: HashSet<HostId> =
                view.databases.iter().map(|server| server.spec.host_id).collect();
            let mut changes =
                NodeChanges { proxies: view.proxies.clone(), ..NodeChanges::default() };
            changes.revision = view.revision;
            for (part, host) in gone {
                match part {
                    Part::Node if view.get(*host).is_some() => changes.gone.push(*host),
                    Part::Databases if serving.contains(host) => {
                        let nothing = HostDatabases { host_id: *host, servers: Vec::new() };
                        changes.databases.push(nothing);
                    }
                    _ => continue,
                }
                changes.revision = known.change(changes.revision, (*part, *host), now);
            }
            let news = changes.revision != view.revision;
            if news {
                *view = Arc::new(view.after(changes));
            }
            news
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
            *view = Arc::new(NodeView { revision, proxies, ..NodeView::clone(view) });
            true
        });
    }

    /// What has changed since a revision.
    pub(super) fn since(&self, after: Option<u64>) -> NodeChanges {
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
        let mut told = HashSet::new();
        for (revision, part, host) in known.changes.iter().rev() {
            if *revision <= after {
                break;
            }
            if !told.insert((*part, *host)) {
                continue;
            }
            match (part, view.get(*host)) {
                (Part::Node, Some(node)) => changes.nodes.push(Node::clone(node)),
                (Part::Node, None) => changes.gone.push(*host),
                (Part::Databases, _) => changes.databases.push(view.databases_of(*host)),
            }
        }
        changes
    }

    /// What has its life behind it.
    pub(super) fn over(&self, now: DateTime<Utc>) -> Vec<(Part, HostId)> {
        let known = self.known();
        let over = known.lives.iter().filter(|(_, life)| life.ends.is_some_and(|end| end <= now));
        over.map(|(what, _)| *what).collect()
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
    fn change(&mut self, last: u64, (part, host): (Part, HostId), now: DateTime<Utc>) -> u64 {
        let revision = next_revision(last, now);
        self.changes.push_back((revision, part, host));
        if self.changes.len() > MOST_CHANGES
            && let Some((lost, ..)) = self.changes.pop_front()
        {
            self.horizon = lost;
        }
        revision
    }
}

/// As the view has it: when its life ends is the auth service's matter.
pub(super) fn shown(mut node: Node) -> Node {
    node.metadata.revision = None;
    node.metadata.expires = None;
    node
}

#[cfg(test)]
mod tests {
    use shared_types::resource::{DatabaseSpec, NodeSpec};
    use shared_types::{Database, DatabaseServer, DbProtocol};

    use super::*;

    fn node(host: HostId, name: &str) -> Node {
        Node::new(host.to_string(), NodeSpec { hostname: name.to_owned(), ..NodeSpec::default() })
    }

    #[test]
    fn who_is_behind_hears_what_changed_and_who_is_far_behind_everything() {
        let now = Utc::now();
        let presence = Presence::new(Vec::new(), Vec::new(), now);
        let life = Life::default();
        let (one, other) = (HostId::random(), HostId::random());
        let start = presence.view().revision;
        assert_eq!(presence.since(Some(start)).nodes, []);
        presence.put_node(node(one, "a"), life, now);
        presence.put_node(node(other, "b"), life, now);
        let both = presence.view();
        presence.put_node(node(one, "a"), life, now);
        assert_eq!(presence.view().revision, both.revision, "nothing new");
        presence.remove(&[(Part::Node, one)], now);
        presence.put_node(node(other, "c"), life, now);
        let changes = presence.since(Some(both.revision));
        assert_eq!((changes.whole, &changes.gone, changes.nodes.len()), (false, &vec![one], 1));
        assert_eq!(both.after(changes), *presence.view());
        let all = presence.since(None);
        assert!(all.whole && all.nodes.len() == 1);
        assert!(presence.since(Some(start - 1)).whole, "before this service was there");
        assert!(presence.since(Some(u64::MAX)).whole, "of another one");
        for round in 0..MOST_CHANGES {
            presence.put_node(node(one, &format!("n{round}")), life, now);
        }
        assert!(presence.since(Some(both.revision)).whole, "too far behind");
        assert!(!presence.since(Some(presence.view().revision - 1)).whole);
    }

    #[test]
    fn proxies_are_told_of() {
        let presence = Presence::new(Vec::new(), Vec::new(), Utc::now());
        let start = presence.view().revision;
        let proxy = ProxyInfo { host_id: HostId::random(), public_addr: Some("p:443".to_owned()) };
        presence.set_proxies(vec![proxy.clone()], Utc::now());
        let changes = presence.since(Some(start));
        assert!(changes.revision > start && changes.proxies == [proxy]);
    }

    fn serves(host: HostId, services: &[&str]) -> HostDatabases {
        let server = |service: &&str| {
            let spec = DatabaseSpec::new(DbProtocol::Redis, "a:1");
            DatabaseServer::of(host, "agent", Database::new(*service, spec))
        };
        HostDatabases { host_id: host, servers: services.iter().map(server).collect() }
    }

    #[test]
    fn what_hosts_serve_is_told_by_host() {
        let now = Utc::now();
        let presence = Presence::new(Vec::new(), Vec::new(), now);
        let life = Life { ends: Some(now + chrono::Duration::minutes(1)), stored: None };
        let (one, other) = (HostId::random(), HostId::random());
        let start = presence.view();
        presence.put_databases(serves(one, &["a", "b"]), life, now);
        presence.put_databases(serves(other, &["b"]), life, now);
        presence.put_node(node(one, "n"), Life::default(), now);
        let revision = presence.view().revision;
        presence.put_databases(serves(one, &["a", "b"]), life, now);
        assert_eq!(presence.view().revision, revision, "nothing new");
        let changes = presence.since(Some(start.revision));
        assert_eq!((changes.whole, changes.databases.len(), changes.nodes.len()), (false, 2, 1));
        assert_eq!(start.after(changes), *presence.view());
        // Parts of a host come and go on their own.
        assert!(presence.over(now).is_empty());
        let before = presence.view();
        let over = presence.over(now + chrono::Duration::minutes(2));
        assert_eq!(over.len(), 2);
        presence.remove(&over, now);
        assert!(presence.view().databases.is_empty() && presence.view().get(one).is_some());
        let changes = presence.since(Some(before.revision));
        assert!(changes.databases.iter().all(|host| host.servers.is_empty()));
        assert_eq!(before.after(changes), *presence.view());
        let gone = presence.view().revision;
        presence.remove(&over, now);
        assert_eq!(presence.view().revision, gone, "what is not there does not go");
    }

    #[test]
    fn what_is_stored_is_there_until_its_life_is_over() {
        let now = Utc::now();
        let (one, other) = (HostId::random(), HostId::random());
        let stored = |host, minutes| Served {
            ends: now + chrono::Duration::minutes(minutes),
            databases: serves(host, &["a"]),
        };
        let presence = Presence::new(Vec::new(), vec![stored(one, 5), stored(other, -1)], now);
        assert_eq!(presence.view().databases.len(), 1);
        assert!(presence.ends(Part::Databases, one).is_some());
        assert!(presence.ends(Part::Node, one).is_none());
    }
}

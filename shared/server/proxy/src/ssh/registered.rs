//! Where nodes are registered, in addresses.
//!
//! A node may be registered by a name, and be asked for by an address of it: what its labels forbid is forbidden there
//! too. So the names are looked up ahead, when nodes come and again and again. A name that cannot be looked up keeps
//! the addresses it had.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use server_core::Authority;
use shared_api::NodeView;
use shared_types::Node;
use tokio_util::sync::CancellationToken;

use super::{network, route};

/// Names may lead elsewhere after this.
const AGAIN: Duration = Duration::from_secs(60);
/// Changes of the nodes within this are looked at together.
const TOGETHER: Duration = Duration::from_millis(200);
/// Names that are looked up at a time.
const AT_ONCE: usize = 16;

/// A name and a port that a node is registered with.
type Name = (String, u16);

/// What names of nodes stand for.
#[derive(Default)]
pub(crate) struct Registered {
    addresses: Mutex<HashMap<Name, Vec<SocketAddr>>>,
}

impl Registered {
    /// The node that is registered with an address, whatever name led there.
    pub(super) fn at<'a>(&self, view: &'a NodeView, addr: SocketAddr) -> Option<&'a Arc<Node>> {
        let addresses = self.lock();
        view.nodes.iter().filter(|node| !node.spec.use_tunnel).find(|node| {
            match (node.ip(), name_of(node)) {
                (Some(ip), _) => {
                    ip.to_canonical() == addr.ip()
                        && route::port_of(&node.spec.addr) == Some(addr.port())
                }
                (None, Some(name)) => addresses.get(&name).is_some_and(|all| all.contains(&addr)),
                (None, None) => false,
            }
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Vec<SocketAddr>>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is known current, until `stop`.
    pub(crate) async fn follow(&self, authority: &dyn Authority, stop: CancellationToken) {
        let mut views = authority.watch_nodes();
        let following = async {
            loop {
                views.mark_unchanged();
                self.look_up(&authority.nodes(), true).await;
                let again = tokio::time::sleep(AGAIN);
                tokio::pin!(again);
                loop {
                    tokio::select! {
                        () = &mut again => break,
                        Ok(()) = views.changed() => {
                            tokio::time::sleep(TOGETHER).await;
                            views.mark_unchanged();
                            self.look_up(&authority.nodes(), false).await;
                        }
                    }
                }
            }
        };
        stop.run_until_cancelled(following).await;
    }

    /// Looks up the names of the nodes: all, or those that are new.
    async fn look_up(&self, view: &NodeView, all: bool) {
        let names: BTreeSet<Name> = view.nodes.iter().filter_map(|node| name_of(node)).collect();
        let wanted: Vec<Name> = {
            let mut addresses = self.lock();
            addresses.retain(|name, _| names.contains(name));
            names.into_iter().filter(|name| all || !addresses.contains_key(name)).collect()
        };
        let looked_up = futures::stream::iter(wanted).map(async |(host, port)| {
            let found = network::resolve(&host, port).await;
            ((host, port), found)
        });
        let mut looked_up = std::pin::pin!(looked_up.buffer_unordered(AT_ONCE));
        while let Some((name, found)) = looked_up.next().await {
            match found {
                Ok(found) if !found.is_empty() => drop(self.lock().insert(name, found)),
                // A name without an address is asked for again with the others.
                _ => drop(self.lock().entry(name).or_default()),
            }
        }
    }
}

/// The name of a node that is registered by one.
fn name_of(node: &Node) -> Option<Name> {
    if node.spec.use_tunnel || node.ip().is_some() {
        return None;
    }
    let port = route::port_of(&node.spec.addr)?;
    Some((crate::settings::host_of(&node.spec.addr).to_owned(), port))
}

#[cfg(test)]
mod tests {
    use shared_api::NodeChanges;
    use shared_types::HostId;
    use shared_types::resource::NodeSpec;

    use super::*;

    fn view(nodes: &[&Node]) -> NodeView {
        let nodes = nodes.iter().copied().cloned().collect();
        NodeView::default().after(NodeChanges {
            revision: 1,
            whole: true,
            nodes,
            ..NodeChanges::default()
        })
    }

    fn node(addr: &str, use_tunnel: bool) -> Node {
        let spec = NodeSpec {
            addr: addr.to_owned(),
            hostname: "db".to_owned(),
            use_tunnel,
            ..NodeSpec::default()
        };
        Node::new(HostId::random().to_string(), spec)
    }

    #[tokio::test]
    async fn a_node_registered_by_name_is_found_by_its_address() {
        let (named, literal, tunnel) = (
            node("localhost:2200", false),
            node("10.0.0.2:22", false),
            node("localhost:2300", true),
        );
        let view = view(&[&named, &literal, &tunnel]);
        let registered = Registered::default();
        let at = |addr: &str| {
            registered.at(&view, addr.parse().unwrap()).map(|node| node.name().to_owned())
        };
        assert_eq!(at("127.0.0.1:2200"), None, "not looked up yet");
        registered.look_up(&view, false).await;
        assert_eq!(at("127.0.0.1:2200").as_deref(), Some(named.name()));
        assert_eq!(at("127.0.0.1:2201"), None);
        assert_eq!(at("127.0.0.1:2300"), None, "nothing listens there for anybody");
        assert_eq!(at("10.0.0.2:22").as_deref(), Some(literal.name()));
        assert_eq!(at("10.0.0.2:23"), None);
    }

    #[tokio::test]
    async fn what_cannot_be_looked_up_keeps_its_addresses_and_what_is_gone_does_not() {
        let named = node("no-such-host.invalid:22", false);
        let registered = Registered::default();
        let addr: SocketAddr = "10.0.0.9:22".parse().unwrap();
        registered.lock().insert(("no-such-host.invalid".to_owned(), 22), vec![addr]);
        registered.look_up(&view(&[&named]), true).await;
        assert!(registered.at(&view(&[&named]), addr).is_some());
        registered.look_up(&view(&[]), true).await;
        assert!(registered.lock().is_empty());
    }
}

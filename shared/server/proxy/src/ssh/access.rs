//! From a user, a login and a host to a connection: look up, decide, make the decision durable, dial.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use server_core::access::{
    AccessRefused, Reach, SshRequest, authorize_ssh, check_ssh, check_user, sees_node,
};
use server_core::tunnel::BoxedStream;
use shared_api::ClusterState;
use shared_types::{HostId, Labels, Login, Node};

use super::visit::Visit;
use super::{network, openssh, reach, route};

/// A connection that was granted.
pub(super) struct Dialled {
    pub(super) stream: BoxedStream,
    /// Where to, where an address was dialled.
    pub(super) addr: Option<SocketAddr>,
    /// Where from, where the target is sure to see that address.
    pub(super) source: Option<IpAddr>,
}

/// Why there is none.
pub(super) struct Refusal {
    /// For the client: does not say what exists that it may not see.
    pub(super) text: String,
    /// For the log and the event.
    pub(super) why: String,
}

static NO_LABELS: Labels = Labels::new();

fn request<'a>(visit: &'a Visit, login: &'a Login, addr: SocketAddr) -> SshRequest<'a> {
    SshRequest {
        identity: &visit.identity,
        login,
        host: visit.host(),
        reach: Reach::Addr(addr),
        labels: &NO_LABELS,
        protected: visit.proxy.is_own(addr),
        via: visit.proxy.via(),
    }
}

fn request_node<'a>(
    visit: &'a Visit,
    login: &'a Login,
    node: HostId,
    labels: &'a Labels,
) -> SshRequest<'a> {
    SshRequest {
        identity: &visit.identity,
        login,
        host: visit.host(),
        reach: Reach::Node(node),
        labels,
        protected: false,
        via: visit.proxy.via(),
    }
}

/// Decides about an address that no node was asked for by. What is registered there all the same is judged as well.
fn check_addr(
    visit: &Visit,
    state: &ClusterState,
    login: &Login,
    addr: SocketAddr,
) -> Result<(), AccessRefused> {
    check_ssh(state, &request(visit, login, addr))?;
    let view = visit.proxy.authority.nodes();
    let registered = visit.proxy.registered.at(&view, addr);
    match registered.and_then(|node| Some((node.host_id()?, node.all_labels()))) {
        Some((id, labels)) => check_ssh(state, &request_node(visit, login, id, &labels)).map(drop),
        None => Ok(()),
    }
}

/// Decides about the node of a visit, by the labels it has now.
fn check_node(
    visit: &Visit,
    state: &ClusterState,
    login: &Login,
    node: &Node,
) -> Result<(), AccessRefused> {
    let Some(id) = node.host_id() else { return Ok(()) };
    let view = visit.proxy.authority.nodes();
    let labels = view.get(id).map_or_else(|| node.all_labels(), |node| node.all_labels());
    check_ssh(state, &request_node(visit, login, id, &labels)).map(drop)
}

/// Why a connection that was granted would not be granted again, as the user may read it.
pub(super) fn revoked(visit: &Visit, state: &ClusterState, login: &str) -> Option<String> {
    let checked = match (login.parse::<Login>(), &visit.node, visit.dialled()) {
        (Ok(login), Some(node), _) => check_node(visit, state, &login, node),
        (Ok(login), None, Some(addr)) => check_addr(visit, state, &login, addr),
        _ => check_user(state, &visit.identity, Some(login), visit.proxy.via()),
    };
    let refusal = checked.err()?;
    Some(match refusal.is_of_the_user() {
        true => refusal.peer_text().into_owned(),
        false => "access was revoked".to_owned(),
    })
}

fn denied(visit: &Visit, login: &Login, refusal: &AccessRefused) -> Refusal {
    let text = match refusal {
        AccessRefused::NotDurable(_) => refusal.peer_text().into_owned(),
        refusal if refusal.is_of_the_user() => refusal.peer_text().into_owned(),
        _ => format!(
            "user {}@{} is not authorized to login as {login}@{}: {}",
            visit.identity.user,
            visit.identity.cluster,
            visit.host(),
            refusal.peer_text(),
        ),
    };
    Refusal { text, why: refusal.to_string() }
}

fn unreachable(visit: &Visit, why: String) -> Refusal {
    Refusal { text: route::offline(visit.host()), why }
}

/// Connects to the node that was asked for, or looks the host up.
pub(super) async fn dial(visit: &Visit, login: &Login) -> Result<Dialled, Refusal> {
    match &visit.node {
        Some(node) => dial_node(visit, login, node).await,
        None => dial_host(visit, login).await,
    }
}

async fn dial_node(visit: &Visit, login: &Login, node: &Arc<Node>) -> Result<Dialled, Refusal> {
    let Some(id) = node.host_id() else {
        return Err(unreachable(visit, "the node has no id".to_owned()));
    };
    let (state, labels) = (visit.proxy.authority.state(), node.all_labels());
    let party = visit.party(login.as_ref(), None);
    let asked = request_node(visit, login, id, &labels);
    let granted =
        authorize_ssh(&state, visit.proxy.events.as_ref(), asked, party.connecting(), |why| {
            party.refused(why)
        })
        .await;
    let access = match granted {
        Ok(granted) => granted.redeem(),
        Err(refusal) => {
            // Some other login may be allowed, and then the user may know of the node.
            let known = sees_node(&state, &visit.identity, visit.host(), &labels);
            return Err(match known || refusal.is_of_the_user() {
                true => denied(visit, login, &refusal),
                false => unreachable(visit, refusal.to_string()),
            });
        }
    };
    let Reach::Node(id) = access.reach else {
        return Err(unreachable(visit, "granted for an address".to_owned()));
    };
    let limit = visit.proxy.settings.timeouts.dial;
    if node.is_openssh() {
        let reached = openssh::dial(visit, node, limit).await;
        let openssh::Reached { stream, addr } = reached.map_err(|why| unreachable(visit, why))?;
        let source = openssh::source(&stream);
        return Ok(Dialled { stream: Box::new(stream), addr: Some(addr), source });
    }
    match visit.proxy.tunnels.dial(node, id, visit.ends, limit).await {
        Ok(stream) => Ok(Dialled { stream, addr: None, source: None }),
        Err(err) => Err(Refusal { text: err.to_string(), why: err.to_string() }),
    }
}

/// Looks the host up, and connects to the first of its addresses that the user's roles admit and that answers.
async fn dial_host(visit: &Visit, login: &Login) -> Result<Dialled, Refusal> {
    let addrs = match network::resolve(visit.host().as_ref(), visit.port()).await {
        Ok(addrs) if !addrs.is_empty() => addrs,
        Ok(_) => return Err(unreachable(visit, "name has no address".to_owned())),
        Err(err) => return Err(unreachable(visit, format!("look up: {err}"))),
    };
    let state = visit.proxy.authority.state();
    let mut refused = None;
    for addr in addrs {
        let asked = request(visit, login, addr);
        if let Err(refusal) = check_addr(visit, &state, login, addr) {
            refused.get_or_insert(denied(visit, login, &refusal));
            continue;
        }
        // The event is about this dial; it is durable before there is anything to dial with.
        let party = visit.party(login.as_ref(), Some(addr));
        let granted =
            authorize_ssh(&state, visit.proxy.events.as_ref(), asked, party.connecting(), |why| {
                party.refused(why)
            })
            .await;
        let access = match granted {
            Ok(granted) => granted.redeem(),
            Err(refusal) => return Err(denied(visit, login, &refusal)),
        };
        let Reach::Addr(addr) = access.reach else { continue };
        match reach::connect(addr, visit.proxy.settings.timeouts.dial).await {
            Ok(stream) => {
                visit.remember(addr);
                return Ok(Dialled { stream: Box::new(stream), addr: Some(addr), source: None });
            }
            Err(err) => {
                tracing::info!(host = %visit.host(), %addr, error = %err, "target does not answer");
                refused = Some(unreachable(visit, format!("connect to {addr}: {err}")));
            }
        }
    }
    Err(refused.unwrap_or_else(|| unreachable(visit, "no address left".to_owned())))
}

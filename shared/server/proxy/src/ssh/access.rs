//! From a user, a login and a host to a connection: look up, decide, make the decision durable, dial.

use std::net::SocketAddr;
use std::time::Duration;

use server_core::access::{AccessRefused, SshRequest, authorize_ssh, check_ssh, check_user, roles};
use shared_api::ClusterState;
use shared_authz::MergedOptions;
use shared_pki::Identity;
use shared_types::{Labels, Login};
use tokio::net::TcpStream;

use super::network;
use super::visit::{self, Visit};

/// A connection that was granted.
pub(super) struct Dialled {
    pub(super) stream: TcpStream,
    pub(super) addr: SocketAddr,
}

/// Why there is none.
pub(super) struct Refusal {
    /// For the client: does not say what exists that it may not see.
    pub(super) text: String,
    /// For the log and the event.
    pub(super) why: String,
}

static NO_LABELS: Labels = Labels::new();

/// The options of a user's roles, as they are now.
pub(super) fn options(state: &ClusterState, identity: &Identity) -> MergedOptions {
    roles(state, identity).options().clone()
}

/// Whether sessions end with the certificate.
pub(super) fn ends_with_certificate(state: &ClusterState, identity: &Identity) -> bool {
    options(state, identity)
        .disconnect_expired_cert
        .unwrap_or(state.auth_preference.spec.disconnect_expired_cert)
}

/// After how long without traffic a connection ends: the shortest of the roles' and the cluster's.
pub(super) fn idle_timeout(state: &ClusterState, identity: &Identity) -> Option<Duration> {
    let cluster = state.networking.spec.client_idle_timeout;
    let cluster = (!cluster.is_zero()).then(|| cluster.as_std());
    [options(state, identity).client_idle_timeout, cluster].into_iter().flatten().min()
}

fn request<'a>(visit: &'a Visit, login: &'a Login, addr: SocketAddr) -> SshRequest<'a> {
    SshRequest {
        identity: &visit.identity,
        login,
        host: visit.host(),
        addr,
        labels: &NO_LABELS,
        protected: visit.proxy.is_own(addr),
        via: visit.proxy.via(),
    }
}

/// Why a connection that was granted would not be granted again, as the user may read it.
pub(super) fn revoked(visit: &Visit, state: &ClusterState, login: &str) -> Option<String> {
    let checked = match (login.parse::<Login>(), visit.dialled()) {
        (Ok(login), Some(addr)) => check_ssh(state, &request(visit, &login, addr)).map(drop),
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

/// Looks the host up, and connects to the first of its addresses that the user's roles admit and that answers.
pub(super) async fn dial(visit: &Visit, login: &Login) -> Result<Dialled, Refusal> {
    const OFFLINE: &str = "is offline or does not exist";
    let unreachable =
        |why: String| Refusal { text: format!("target host {} {OFFLINE}", visit.host()), why };
    let addrs = match network::resolve(visit.host().as_ref(), visit.port()).await {
        Ok(addrs) if !addrs.is_empty() => addrs,
        Ok(_) => return Err(unreachable("name has no address".to_owned())),
        Err(err) => return Err(unreachable(format!("look up: {err}"))),
    };
    let state = visit.proxy.authority.state();
    let mut refused = None;
    for addr in addrs {
        let asked = request(visit, login, addr);
        if let Err(refusal) = check_ssh(&state, &asked) {
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
        match visit::connect(access.addr, visit.proxy.settings.timeouts.dial).await {
            Ok(stream) => {
                visit.remember(access.addr);
                return Ok(Dialled { stream, addr: access.addr });
            }
            Err(err) => {
                tracing::info!(host = %visit.host(), addr = %access.addr, error = %err, "target does not answer");
                refused = Some(unreachable(format!("connect to {}: {err}", access.addr)));
            }
        }
    }
    Err(refused.unwrap_or_else(|| unreachable("no address left".to_owned())))
}

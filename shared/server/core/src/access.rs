//! From a decision to something one may dial with.
//!
//! `shared-authz` decides and nothing more. Here the decision becomes an event, the event becomes durable, and only then
//! a [`Granted`] exists. It cannot be copied and is used up by the dial; every later channel needs its own.

use std::borrow::Cow;
use std::net::SocketAddr;

use chrono::{DateTime, TimeDelta, Utc};
use shared_api::ClusterState;
use shared_authz::{DenyReason, RoleSet, RuleId, SshTarget};
use shared_events::AuditEvent;
use shared_pki::Identity;
use shared_types::resource::LockSubject;
use shared_types::{HostId, HostName, Labels, Login, RoleName, Strictness};

/// Where locks are held to strictly, what is known of them may be so old.
const STRICT_AGE: TimeDelta = TimeDelta::minutes(5);
/// The port that roles see of a node, wherever it is reached.
const NODE_PORT: u16 = 3022;

use crate::authority::{EmitError, EventSink};

mod database;

pub use database::{DbAccess, DbRequest, authorize_db, check_db, check_db_user, sees_database};

/// An access that was decided and whose event is durable. Whoever dials needs one, and it carries whom to dial.
#[derive(Debug)]
#[must_use = "an access was granted and written down; dial with it"]
pub struct Granted<T> {
    identity: Identity,
    target: T,
    rules: Vec<RuleId>,
}

impl<T> Granted<T> {
    /// Who was granted it.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What was granted.
    pub fn target(&self) -> &T {
        &self.target
    }

    /// The rules that allow it.
    pub fn rules(&self) -> &[RuleId] {
        &self.rules
    }

    /// Uses it up: the one dial it is good for.
    pub fn redeem(self) -> T {
        self.target
    }
}

/// An SSH login on one host.
#[derive(Debug)]
pub struct SshAccess {
    /// As whom.
    pub login: Login,
    /// The name that was asked for, and that the host's certificate has to carry.
    pub host: HostName,
    /// Where the decision leads to; nothing else is dialled.
    pub reach: Reach,
}

/// Where an access leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// An address at which no node is registered.
    Addr(SocketAddr),
    /// A node of the cluster, through its tunnel or at the address it is registered with.
    Node(HostId),
}

/// What a user asks for.
#[derive(Debug, Clone, Copy)]
pub struct SshRequest<'a> {
    /// The user, out of a verified certificate.
    pub identity: &'a Identity,
    /// The OS login.
    pub login: &'a Login,
    /// The host as it was typed.
    pub host: &'a HostName,
    /// The node it stands for, or one address of it, looked up already.
    pub reach: Reach,
    /// Labels of a registered host; none for others.
    pub labels: &'a Labels,
    /// Whether address and port are one of the cluster's own.
    pub protected: bool,
    /// The service through which it is asked for.
    pub via: Via,
}

/// A service through which something is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Via {
    /// Its host.
    pub server: HostId,
    /// When the auth service last vouched for the state it decides by.
    pub confirmed: DateTime<Utc>,
}

/// Why an access is not granted. The text is for the log and the event.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccessRefused {
    /// The roles do not allow it.
    #[error("{0}")]
    Denied(#[from] DenyReason),
    /// A role of the certificate is gone; what it denied is not known any more.
    #[error("role {0} does not exist")]
    UnknownRole(RoleName),
    /// The certificate is no user's.
    #[error("certificate is a service's, not a user's")]
    NotAUser,
    /// The certificate is of another cluster.
    #[error("certificate is of another cluster")]
    OtherCluster,
    /// The user is gone, or the account is locked or has ended.
    #[error("the account is locked or does not exist any more")]
    NoAccount,
    /// A lock is in force; its text.
    #[error("{0}")]
    Locked(String),
    /// Locks may have come meanwhile, and a role or the cluster does not want to take the chance.
    #[error("the locks in force are not known, auth service is away")]
    LocksUnknown,
    /// The certificate is limited to another use, or to another database.
    #[error("certificate is for another database")]
    OtherDatabase,
    /// The certificate may not be used from where its user is.
    #[error("certificate is not valid for the source address")]
    OtherAddress,
    /// The certificate has run out.
    #[error("certificate has expired")]
    Expired,
    /// It is allowed, and cannot be written down.
    #[error("audit event is not durable: {0}")]
    NotDurable(EmitError),
}

impl AccessRefused {
    /// What the client may read; it does not say what exists.
    pub fn peer_text(&self) -> Cow<'static, str> {
        match self {
            // Who shows a certificate for a database knows of it, and reads back what was typed.
            Self::Denied(reason @ (DenyReason::NoDbUser { .. } | DenyReason::NoDbName { .. })) => {
                format!("access to db denied. User does not have permissions. Confirm database user and name: {reason}").into()
            }
            Self::Denied(reason) => reason.peer_text().into(),
            Self::UnknownRole(_) | Self::NotAUser | Self::OtherCluster => "access denied".into(),
            // The certificate has proved who reads it: one may know what is about oneself.
            Self::NoAccount | Self::Locked(_) | Self::LocksUnknown => self.to_string().into(),
            Self::Expired | Self::OtherDatabase | Self::OtherAddress => self.to_string().into(),
            Self::NotDurable(_) => "the audit log cannot be written".into(),
        }
    }

    /// Whether it is about the user, whatever was asked for.
    pub fn is_of_the_user(&self) -> bool {
        matches!(self, Self::NoAccount | Self::Locked(_) | Self::LocksUnknown)
    }
}

/// The roles that count: in the certificate, and still the user's.
fn held<'a>(
    state: &'a ClusterState,
    identity: &'a Identity,
) -> impl Iterator<Item = &'a RoleName> + 'a {
    let account = state.users.get(&identity.user);
    identity
        .roles
        .iter()
        .filter(move |role| account.is_some_and(|account| account.roles.contains(role)))
}

/// The user's roles as they are now. A role that is gone is left out: for options and listings, not for decisions.
pub fn roles(state: &ClusterState, identity: &Identity) -> RoleSet {
    let found = held(state, identity).filter_map(|name| state.roles.get(name)).cloned().collect();
    RoleSet::new(found, &identity.traits, &identity.user)
}

/// Refuses who may do nothing at all through `via`: services, users who are gone, whose account is locked, or on whom a
/// lock is in force. With `login`, also locks on that.
pub fn check_user(
    state: &ClusterState,
    identity: &Identity,
    login: Option<&str>,
    via: Via,
) -> Result<(), AccessRefused> {
    if identity.system_role.is_some() {
        return Err(AccessRefused::NotAUser);
    }
    if identity.cluster != state.cluster {
        return Err(AccessRefused::OtherCluster);
    }
    let now = Utc::now();
    if !state.users.get(&identity.user).is_some_and(|account| account.is_open(now)) {
        return Err(AccessRefused::NoAccount);
    }
    // A lock on a role stops whoever can show it, also who has lost it meanwhile.
    let subject = LockSubject {
        user: Some(&identity.user),
        roles: &identity.roles,
        login,
        server: Some(via.server),
    };
    if let Some(lock) = state.lock_on(&subject, now) {
        return Err(AccessRefused::Locked(lock.text()));
    }
    if now - via.confirmed > STRICT_AGE {
        let of_roles = roles(state, identity).options().lock;
        if of_roles.unwrap_or(state.auth_preference.spec.locking_mode) == Strictness::Strict {
            return Err(AccessRefused::LocksUnknown);
        }
    }
    Ok(())
}

/// Decides, and leaves nothing behind: for a look at an access that is in use, or at one of several addresses.
pub fn check_ssh(
    state: &ClusterState,
    request: &SshRequest<'_>,
) -> Result<Vec<RuleId>, AccessRefused> {
    let identity = request.identity;
    check_user(state, identity, Some(request.login.as_ref()), request.via)?;
    check_roles_exist(state, identity)?;
    let host = request.host.as_ref();
    let target = match request.reach {
        Reach::Addr(addr) => SshTarget {
            labels: request.labels,
            protected: request.protected,
            ..SshTarget::unregistered(host, addr.ip(), addr.port())
        },
        Reach::Node(node) => {
            check_node(state, request, node)?;
            SshTarget::registered(host, None, NODE_PORT, request.labels)
        }
    };
    Ok(roles(state, identity).check_ssh(request.login, &target).into_result()?)
}

/// What a role denied that is gone is not known any more.
fn check_roles_exist(state: &ClusterState, identity: &Identity) -> Result<(), AccessRefused> {
    match held(state, identity).find(|name| !state.roles.contains_key(*name)) {
        Some(gone) => Err(AccessRefused::UnknownRole(gone.clone())),
        None => Ok(()),
    }
}

/// Refuses who may not come to a node because of a lock on it.
fn check_node(
    state: &ClusterState,
    request: &SshRequest<'_>,
    node: HostId,
) -> Result<(), AccessRefused> {
    let subject = LockSubject {
        user: Some(&request.identity.user),
        roles: &request.identity.roles,
        login: Some(request.login.as_ref()),
        server: Some(node),
    };
    match state.lock_on(&subject, Utc::now()) {
        Some(lock) => Err(AccessRefused::Locked(lock.text())),
        None => Ok(()),
    }
}

/// Whether a user may know of a node: some login of the roles is allowed there.
pub fn sees_node(
    state: &ClusterState,
    identity: &Identity,
    host: &HostName,
    labels: &Labels,
) -> bool {
    let target = SshTarget::registered(host.as_ref(), None, NODE_PORT, labels);
    roles(state, identity).reaches(&target)
}

/// Decides, makes `allowed` durable, and grants. A refusal's event is made by `refused` from its reason and is emitted
/// as well; when even that cannot be written down, the refusal stands all the same.
pub async fn authorize_ssh(
    state: &ClusterState,
    sink: &dyn EventSink,
    request: SshRequest<'_>,
    allowed: AuditEvent,
    refused: impl FnOnce(&str) -> AuditEvent,
) -> Result<Granted<SshAccess>, AccessRefused> {
    let decision = unexpired(request.identity).and_then(|()| check_ssh(state, &request));
    let target = || SshAccess {
        login: request.login.clone(),
        host: request.host.clone(),
        reach: request.reach,
    };
    grant(sink, request.identity, decision, target, allowed, refused).await
}

fn unexpired(identity: &Identity) -> Result<(), AccessRefused> {
    if identity.valid_until <= Utc::now() { Err(AccessRefused::Expired) } else { Ok(()) }
}

/// Makes a decision durable, and what was allowed a grant.
async fn grant<T>(
    sink: &dyn EventSink,
    identity: &Identity,
    decision: Result<Vec<RuleId>, AccessRefused>,
    target: impl FnOnce() -> T,
    allowed: AuditEvent,
    refused: impl FnOnce(&str) -> AuditEvent,
) -> Result<Granted<T>, AccessRefused> {
    match decision {
        Ok(rules) => {
            sink.emit(vec![allowed]).await.map_err(AccessRefused::NotDurable)?;
            Ok(Granted { identity: identity.clone(), target: target(), rules })
        }
        Err(refusal) => {
            if let Err(err) = sink.emit(vec![refused(&refusal.to_string())]).await {
                tracing::error!(error = %err, reason = %refusal, user = %identity.user, "refusal is not in the audit log");
            }
            Err(refusal)
        }
    }
}

#[cfg(test)]
mod tests;

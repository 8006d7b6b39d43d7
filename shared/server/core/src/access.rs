//! From a decision to something one may dial with.
//!
//! `shared-authz` decides and nothing more. Here the decision becomes an event, the event becomes durable, and only then
//! a [`Granted`] exists. It cannot be copied and is used up by the dial; every later channel needs its own.

use std::net::SocketAddr;

use chrono::Utc;
use shared_api::ClusterState;
use shared_authz::{DenyReason, RoleSet, RuleId, SshTarget};
use shared_events::AuditEvent;
use shared_pki::Identity;
use shared_types::{HostName, Labels, Login, RoleName};

use crate::authority::{EmitError, EventSink};

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
    /// The address the decision is about; no other is dialled.
    pub addr: SocketAddr,
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
    /// One address of it, looked up already.
    pub addr: SocketAddr,
    /// Labels of a registered host; none for others.
    pub labels: &'a Labels,
    /// Whether address and port are one of the cluster's own.
    pub protected: bool,
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
    /// The certificate has run out.
    #[error("certificate has expired")]
    Expired,
    /// It is allowed, and cannot be written down.
    #[error("audit event is not durable: {0}")]
    NotDurable(EmitError),
}

impl AccessRefused {
    /// What the client may read; it does not say what exists.
    pub fn peer_text(&self) -> &'static str {
        match self {
            Self::Denied(reason) => reason.peer_text(),
            Self::UnknownRole(_) | Self::NotAUser | Self::OtherCluster => "access denied",
            Self::Expired => "certificate has expired",
            Self::NotDurable(_) => "the audit log cannot be written",
        }
    }
}

/// The user's roles as they are now. A role that is gone is left out: for options and listings, not for decisions.
pub fn roles(state: &ClusterState, identity: &Identity) -> RoleSet {
    let found = identity.roles.iter().filter_map(|name| state.roles.get(name)).cloned().collect();
    RoleSet::new(found, &identity.traits, &identity.user)
}

/// Decides, and leaves nothing behind: for a look at an access that is in use, or at one of several addresses.
pub fn check_ssh(
    state: &ClusterState,
    request: &SshRequest<'_>,
) -> Result<Vec<RuleId>, AccessRefused> {
    let identity = request.identity;
    if identity.system_role.is_some() {
        return Err(AccessRefused::NotAUser);
    }
    if identity.cluster != state.cluster {
        return Err(AccessRefused::OtherCluster);
    }
    if let Some(gone) = identity.roles.iter().find(|name| !state.roles.contains_key(*name)) {
        return Err(AccessRefused::UnknownRole(gone.clone()));
    }
    let target = SshTarget {
        host: request.host.as_ref(),
        resolved: Some(request.addr.ip()),
        port: request.addr.port(),
        labels: request.labels,
        protected: request.protected,
    };
    Ok(roles(state, identity).check_ssh(request.login, &target).into_result()?)
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
    let decision = if request.identity.valid_until <= Utc::now() {
        Err(AccessRefused::Expired)
    } else {
        check_ssh(state, &request)
    };
    match decision {
        Ok(rules) => {
            sink.emit(vec![allowed]).await.map_err(AccessRefused::NotDurable)?;
            let target = SshAccess {
                login: request.login.clone(),
                host: request.host.clone(),
                addr: request.addr,
            };
            Ok(Granted { identity: request.identity.clone(), target, rules })
        }
        Err(refusal) => {
            if let Err(err) = sink.emit(vec![refused(&refusal.to_string())]).await {
                tracing::error!(error = %err, reason = %refusal, user = %request.identity.user, "refusal is not in the audit log");
            }
            Err(refusal)
        }
    }
}

#[cfg(test)]
mod tests {
    use shared_events::{AuthAttempt, SessionConnect};

    use super::*;
    use crate::testing::{FakeAuthority, identity, state};

    fn request<'a>(
        who: &'a Identity,
        login: &'a Login,
        host: &'a HostName,
        labels: &'a Labels,
    ) -> SshRequest<'a> {
        SshRequest {
            identity: who,
            login,
            host,
            addr: "192.0.2.7:22".parse().unwrap(),
            labels,
            protected: false,
        }
    }

    fn refused(why: &str) -> AuditEvent {
        let mut event = AuthAttempt::default();
        event.status.error = why.to_owned();
        event.into()
    }

    #[tokio::test]
    async fn granted_only_after_the_event_is_durable() {
        let (state, who, labels) = (state(), identity(), Labels::new());
        let (login, host) = ("root".parse().unwrap(), "db-7".parse().unwrap());
        let asked = request(&who, &login, &host, &labels);
        let sink = FakeAuthority::new();
        let granted =
            authorize_ssh(&state, &sink, asked, SessionConnect::default().into(), refused)
                .await
                .unwrap();
        assert_eq!(sink.kinds(), ["session.connect"]);
        assert!(!granted.rules().is_empty());
        assert_eq!(granted.redeem().addr, asked.addr);

        sink.set_away(true);
        let err = authorize_ssh(&state, &sink, asked, SessionConnect::default().into(), refused)
            .await
            .unwrap_err();
        assert!(matches!(err, AccessRefused::NotDurable(_)), "{err}");
    }

    #[tokio::test]
    async fn refusals_are_written_down_and_say_nothing_to_the_peer() {
        let (state, labels) = (state(), Labels::new());
        let host = "db-7".parse().unwrap();
        let (root, nobody): (Login, Login) = ("root".parse().unwrap(), "nobody".parse().unwrap());
        let good = identity();
        let mut cases = vec![(good.clone(), &nobody, "no role allows the login nobody there")];
        cases.push((
            Identity { valid_until: Utc::now(), ..good.clone() },
            &root,
            "certificate has expired",
        ));
        cases.push((
            Identity { roles: vec!["gone".parse().unwrap()], ..good.clone() },
            &root,
            "role gone does not exist",
        ));
        cases.push((
            Identity { system_role: Some(shared_types::SystemRole::Proxy), ..good.clone() },
            &root,
            "certificate is a service's, not a user's",
        ));
        cases.push((
            Identity { cluster: "other".parse().unwrap(), ..good },
            &root,
            "certificate is of another cluster",
        ));
        for (who, login, why) in cases {
            let sink = FakeAuthority::new();
            let asked = request(&who, login, &host, &labels);
            let err =
                authorize_ssh(&state, &sink, asked, SessionConnect::default().into(), refused)
                    .await
                    .unwrap_err();
            assert_eq!(err.to_string(), why);
            assert!(["access denied", "certificate has expired"].contains(&err.peer_text()));
            let told = sink.events();
            assert!(
                matches!(told.as_slice(), [AuditEvent::AuthAttempt(event)] if event.status.error == why),
                "{why}"
            );
        }
    }
}

//! From a decision to an access: the roles decide, the event becomes durable, and only then there is
//! a [`Granted`], which is used up by one dial.

use std::net::SocketAddr;

use shared_api::ClusterState;
use shared_authz::{DenyReason, RoleSet, RuleId, SshTarget};
use shared_events::AuditEvent;
use shared_pki::Identity;
use shared_types::{HostName, Labels, Login, UserName};

use crate::authority::{EmitError, EventSink};

/// An access that was decided, and whose event is durable. It cannot be copied, and only this module
/// makes one.
#[derive(Debug)]
pub struct Granted<T> {
    user: UserName,
    target: T,
    rules: Vec<RuleId>,
}

impl<T> Granted<T> {
    /// Who was granted it.
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// What was granted.
    pub fn target(&self) -> &T {
        &self.target
    }

    /// The rules that allow it.
    pub fn rules(&self) -> &[RuleId] {
        &self.rules
    }

    /// Uses it up, for one dial.
    pub fn redeem(self) -> T {
        self.target
    }
}

/// A login on a host, at the address that was checked: that one is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAccess {
    /// The OS login.
    pub login: Login,
    /// The host as the user typed it.
    pub host: HostName,
    /// Where it is.
    pub addr: SocketAddr,
}

/// What a user asks for.
#[derive(Debug, Clone, Copy)]
pub struct SshRequest<'a> {
    /// Who, as verified.
    pub identity: &'a Identity,
    /// As whom.
    pub login: &'a Login,
    /// The host as typed.
    pub host: &'a HostName,
    /// Its address as resolved.
    pub addr: SocketAddr,
    /// Labels of a registered host; empty for others.
    pub labels: &'a Labels,
    /// Whether address and port are one of the cluster's own.
    pub protected: bool,
}

/// Why there is no access. The text is for logs; a peer reads [`AccessRefused::peer_text`].
#[derive(Debug, thiserror::Error)]
pub enum AccessRefused {
    /// The roles do not allow it; the refusal's event was emitted.
    #[error(transparent)]
    Denied(DenyReason),
    /// The login is not in the certificate.
    #[error("the certificate does not hold the login {0}")]
    NotInCertificate(Login),
    /// The roles allow it, and its event could not be made durable.
    #[error("audit event is not durable")]
    NotDurable(#[source] EmitError),
}

impl AccessRefused {
    /// What a peer may read: it does not say what exists.
    pub fn peer_text(&self) -> &'static str {
        match self {
            Self::Denied(_) | Self::NotInCertificate(_) => "access denied",
            Self::NotDurable(_) => "the audit log cannot be written, so no session is started",
        }
    }
}

/// The roles of a user, as they are now. A role that is gone gives nothing.
pub fn roles(state: &ClusterState, identity: &Identity) -> RoleSet {
    let held = identity.roles.iter().filter_map(|name| state.roles.get(name).cloned()).collect();
    RoleSet::new(held, &identity.traits, &identity.user)
}

/// Whether the roles, as they are now, allow what was asked for.
pub fn check_ssh(state: &ClusterState, request: &SshRequest<'_>) -> Result<Vec<RuleId>, AccessRefused> {
    if !request.identity.logins.contains(request.login) {
        return Err(AccessRefused::NotInCertificate(request.login.clone()));
    }
    let target = SshTarget {
        host: request.host.as_ref(),
        resolved: Some(request.addr.ip()),
        port: request.addr.port(),
        labels: request.labels,
        protected: request.protected,
    };
    roles(state, request.identity).check_ssh(request.login, &target).into_result().map_err(AccessRefused::Denied)
}

/// Decides, and makes the decision durable: `granted` before there is an access, or what `refused`
/// makes of the reason.
pub async fn authorize_ssh(
    state: &ClusterState,
    events: &dyn EventSink,
    request: SshRequest<'_>,
    granted: AuditEvent,
    refused: impl FnOnce(&str) -> AuditEvent,
) -> Result<Granted<SshAccess>, AccessRefused> {
    match check_ssh(state, &request) {
        Ok(rules) => {
            events.emit(vec![granted]).await.map_err(AccessRefused::NotDurable)?;
            let target = SshAccess { login: request.login.clone(), host: request.host.clone(), addr: request.addr };
            Ok(Granted { user: request.identity.user.clone(), target, rules })
        }
        Err(refusal) => {
            // Refused it stays, whether or not the log can be written.
            if let Err(error) = events.emit(vec![refused(&refusal.to_string())]).await {
                tracing::error!(%error, "event of a refusal is lost");
            }
            Err(refusal)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use shared_types::{ClusterAuthPreference, ClusterNetworkingConfig, Role, SessionRecordingConfig};

    use super::*;

    #[derive(Default)]
    struct Sink {
        fails: bool,
        seen: Mutex<Vec<&'static str>>,
    }

    #[async_trait]
    impl EventSink for Sink {
        async fn emit(&self, events: Vec<AuditEvent>) -> Result<(), EmitError> {
            if self.fails {
                return Err(EmitError::Closed);
            }
            self.seen.lock().unwrap().extend(events.iter().map(AuditEvent::kind));
            Ok(())
        }
    }

    fn state() -> ClusterState {
        let role = serde_json::json!({
            "kind": "role", "version": "v7", "metadata": {"name": "web"},
            "spec": {"allow": {"logins": ["deploy"], "node_labels": {"teleport.dev/host": "192.0.2.7"}}},
        });
        let role: Role = serde_json::from_value(role).unwrap();
        ClusterState {
            revision: 1,
            cluster: "example.test".parse().unwrap(),
            authorities: Vec::new(),
            roles: [("web".parse().unwrap(), role)].into(),
            recording: SessionRecordingConfig::default(),
            networking: ClusterNetworkingConfig::default(),
            auth_preference: ClusterAuthPreference::default(),
        }
    }

    fn identity() -> Identity {
        serde_json::from_value(serde_json::json!({
            "user": "joe", "roles": ["web"], "traits": {}, "logins": ["deploy", "root"], "cluster": "example.test",
            "login_ip": null, "pinned_ip": null, "valid_until": "2099-01-01T00:00:00Z", "system_role": null, "host_id": null,
            "permits": {"pty": true, "port_forwarding": true, "agent_forwarding": false, "x11_forwarding": false},
        }))
        .unwrap()
    }

    async fn ask(sink: &Sink, login: &str, host: &str) -> Result<Granted<SshAccess>, AccessRefused> {
        let (identity, login, host, labels) = (identity(), login.parse().unwrap(), host.parse().unwrap(), Labels::new());
        let request = SshRequest {
            identity: &identity,
            login: &login,
            host: &host,
            addr: format!("{host}:22").parse().unwrap(),
            labels: &labels,
            protected: false,
        };
        let granted = AuditEvent::from(shared_events::SessionConnect::default());
        let refused = |_: &str| AuditEvent::from(shared_events::AuthAttempt::default());
        authorize_ssh(&state(), sink, request, granted, refused).await
    }

    #[tokio::test]
    async fn granted_only_after_the_event() {
        let sink = Sink::default();
        let granted = ask(&sink, "deploy", "192.0.2.7").await.unwrap();
        assert_eq!(*sink.seen.lock().unwrap(), ["session.connect"]);
        assert_eq!(granted.redeem().addr.to_string(), "192.0.2.7:22");
        let sink = Sink { fails: true, ..Sink::default() };
        assert!(matches!(ask(&sink, "deploy", "192.0.2.7").await, Err(AccessRefused::NotDurable(_))));
    }

    #[tokio::test]
    async fn refusals_have_their_event_and_say_nothing_to_a_peer() {
        for (login, host) in [("root", "192.0.2.7"), ("deploy", "192.0.2.8"), ("nobody", "192.0.2.7")] {
            let sink = Sink::default();
            let refused = ask(&sink, login, host).await.unwrap_err();
            assert_eq!(refused.peer_text(), "access denied");
            assert_eq!(*sink.seen.lock().unwrap(), ["auth"], "{login}@{host}");
        }
    }
}

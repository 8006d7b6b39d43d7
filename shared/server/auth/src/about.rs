//! What anybody, or any caller, may know of the cluster.

use std::sync::Arc;

use shared_api::{
    AuthoritiesReply, AuthorityStatus, ClusterState, MeReply, SessionRecordingReply, StatusReply,
};

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::service::AuthService;

impl AuthService {
    /// The public halves of the authorities.
    pub fn authorities(&self) -> AuthoritiesReply {
        AuthoritiesReply {
            cluster: self.cluster.clone(),
            authorities: self.current_state().authorities.clone(),
        }
    }

    /// The pins of the host CA.
    pub fn ca_pins(&self) -> Result<Vec<String>> {
        Ok(self.host_ca.trusted().pins().iter().map(ToString::to_string).collect())
    }

    /// Cluster, version, pins.
    pub fn status(&self) -> Result<StatusReply> {
        let all = [
            &self.host_ca,
            &self.user_ca,
            &self.db_ca,
            &self.db_client_ca,
            &self.openssh_ca,
            &self.recording_ca,
        ];
        let authorities = all.map(|ca| AuthorityStatus {
            kind: ca.kind().to_string(),
            state: "never updated".to_owned(),
        });
        Ok(StatusReply {
            cluster: self.cluster.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ca_pins: self.ca_pins()?,
            authorities: authorities.into(),
        })
    }

    /// The text of an authority: `user`, `host`, `tls-host`, `tls-user`, `openssh`, `db`,
    /// `db-client`, `recording`; host and user without a kind.
    pub fn export(&self, kind: Option<&str>) -> Result<String> {
        let (host, user) = (self.host_ca.trusted(), self.user_ca.trusted());
        let text = match kind.unwrap_or_default() {
            "" => format!("{}\n{}", host.known_hosts_line(None), user.authorized_line()),
            "user" => user.authorized_line(),
            "host" => host.known_hosts_line(None),
            "tls" | "tls-host" => host.tls_certs.concat(),
            "tls-user" => user.tls_certs.concat(),
            "db" => self.db_ca.trusted().tls_certs.concat(),
            "db-client" => self.db_client_ca.trusted().tls_certs.concat(),
            "openssh" => self.openssh_ca.trusted().authorized_line(),
            "recording" => self.recording_ca.trusted().authorized_line(),
            other => {
                let shown: String = other.chars().take(64).collect();
                return Err(AuthError::bad_request(format!(
                    "{shown:?} authority type is not supported"
                )));
            }
        };
        Ok(format!("{}\n", text.trim_end()))
    }

    /// Where sessions are recorded, and what the caller's client has to keep to.
    pub fn session_recording(&self, caller: &Caller) -> SessionRecordingReply {
        let state = self.current_state();
        SessionRecordingReply {
            hostbound_only: caller.is_user() && self.role_set(caller).options().ssh_hostbound_only,
            mode: state.recording.spec.mode,
            proxy_checks_host_keys: state.recording.spec.proxy_checks_host_keys,
        }
    }

    /// The caller, with the logins its roles give now.
    pub async fn me(&self, caller: &Caller) -> Result<MeReply> {
        Ok(MeReply {
            user: caller.user_name().clone(),
            roles: caller.roles().into_iter().cloned().collect(),
            logins: if caller.is_user() { self.role_set(caller).logins() } else { Vec::new() },
            traits: caller.traits(),
            cluster: self.cluster.clone(),
            valid_until: caller.identity().valid_until,
        })
    }

    /// The state, at once when it is not `after`, otherwise at the next change or after a while.
    pub async fn next_state(&self, after: Option<u64>) -> Arc<ClusterState> {
        let mut changes = self.state.subscribe();
        let newer = changes.wait_for(|state| after != Some(state.revision));
        match tokio::time::timeout(shared_api::limits::STATE_WAIT, newer).await {
            Ok(Ok(state)) => Arc::clone(&state),
            _ => self.current_state(),
        }
    }
}

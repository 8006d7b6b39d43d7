//! Logins on registered servers without an agent, which trust the `openssh` authority.
//!
//! What must stay true: a proxy gets a certificate only for a user whose own certificate it can show, for one login,
//! on one registered server, and only when this service finds that the user may log in there now: what a proxy thinks
//! of it does not count. The certificate opens nothing of the cluster itself.

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use server_core::access::{self, SshRequest, Via, check_ssh};
use server_core::{AccessRefused, Reach};
use shared_api::{ClusterState, HostCertReply, OpensshUserRequest};
use shared_events::AuditEvent;
use shared_pki::verify::SshVerifier;
use shared_pki::{Cidr, Identity, OpensshUserSpec};
use shared_types::{HostId, HostName, Login};

use crate::caller::Caller;
use crate::certs::{sign_error, ssh_key};
use crate::error::{AuthError, Result};
use crate::events;
use crate::service::AuthService;

/// Life of such a certificate; it is shown at once, and a session that it opened goes on.
const LIFE: Duration = Duration::from_secs(60);

impl AuthService {
    /// A certificate for one login of a user on one registered server without an agent.
    pub async fn sign_openssh_user(
        &self,
        caller: &Caller,
        ask: OpensshUserRequest,
    ) -> Result<HostCertReply> {
        let Some(proxy) = caller.host_id().filter(|_| caller.is_proxy()) else {
            return Err(AuthError::denied("access denied"));
        };
        let public_key = ssh_key(&ask.public_key)?;
        let (now, state) = (self.now(), self.current_state());
        let identity = shared_pki::parse_certificate_line(&ask.certificate)
            .and_then(|certificate| {
                let verifier = SshVerifier::new(&state.authorities, now);
                verifier.user(&certificate, ask.login.as_str(), Some(ask.client_ip))
            })
            .map_err(|refusal| {
                tracing::warn!(%proxy, why = %refusal, "a proxy shows a certificate that is not accepted");
                AuthError::denied(format!("certificate of the user: {refusal}"))
            })?;
        if let Err(refusal) = self.check_openssh(&state, &identity, &ask, proxy) {
            let why = refusal.to_string();
            tracing::warn!(%proxy, node = %ask.node, user = %identity.user, login = %ask.login, why, "no certificate for a login");
            self.record(vec![events::refused(&identity, &why, caller.address())]).await?;
            return Err(AuthError::denied(refusal.peer_text()));
        }

        let roles = access::roles(&state, &identity);
        let options = roles.options();
        let left = (identity.valid_until - now).to_std().unwrap_or_default();
        let ttl = LIFE.min(left);
        let spec = OpensshUserSpec {
            public_key,
            user: identity.user.clone(),
            login: ask.login.clone(),
            now,
            ttl,
            permit_port_forwarding: options.port_forwarding && identity.permits.port_forwarding,
            permit_agent_forwarding: options.forward_agent && identity.permits.agent_forwarding,
            source_addresses: ask.source.map(Cidr::single).into_iter().collect(),
        };
        let certificate = self
            .openssh_ca
            .ssh_ca()
            .and_then(|ca| ca.sign_openssh_user(&spec))
            .map_err(|error| sign_error("public_key", error))?
            .to_openssh()
            .map_err(AuthError::at("encode certificate"))?;
        let valid_until = now + chrono::Duration::from_std(ttl).unwrap_or_default();
        self.record(vec![made(&identity, &ask.login, ask.client_ip, valid_until)]).await?;
        Ok(HostCertReply { certificate, valid_until: Some(valid_until) })
    }

    /// Whether the user may log in there, as things stand here and now.
    fn check_openssh(
        &self,
        state: &ClusterState,
        identity: &Identity,
        ask: &OpensshUserRequest,
        proxy: HostId,
    ) -> Result<(), AccessRefused> {
        let view = self.presence.view();
        // What is not there is refused in the words of what is not allowed.
        let unknown = || AccessRefused::Denied(shared_authz::DenyReason::NoHost);
        let node = view.get(ask.node).filter(|node| node.is_openssh()).ok_or_else(unknown)?;
        let host = HostName::new(node.spec.hostname.as_str()).map_err(|_| unknown())?;
        let labels = node.all_labels();
        let request = SshRequest {
            identity,
            login: &ask.login,
            host: &host,
            reach: Reach::Node(ask.node),
            labels: &labels,
            protected: false,
            via: Via { server: proxy, confirmed: self.now() },
        };
        check_ssh(state, &request).map(drop)
    }
}

/// A certificate was made.
fn made(
    identity: &Identity,
    login: &Login,
    client: IpAddr,
    valid_until: DateTime<Utc>,
) -> AuditEvent {
    let cluster = identity.cluster.to_string();
    let identity = shared_events::Identity {
        user: identity.user.to_string(),
        roles: identity.roles.iter().map(ToString::to_string).collect(),
        logins: vec![login.to_string()],
        expires: valid_until.into(),
        route_to_cluster: cluster.clone(),
        teleport_cluster: cluster,
        traits: (&identity.traits).into(),
        client_ip: client.to_canonical().to_string(),
        ..shared_events::Identity::default()
    };
    events::cert_create("openssh", identity)
}

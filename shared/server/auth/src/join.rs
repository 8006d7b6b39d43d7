//! Services that join, and renew what they have.

use std::net::SocketAddr;
use std::time::Duration;

use server_core::host::HostKeys;
use shared_api::{JoinReply, JoinRequest, RenewRequest};
use shared_pki::{HostCertSpec, HostTlsSpec, KeyPair, TlsKey};
use shared_types::{HostId, SystemRole};

use crate::caller::Caller;
use crate::certs::{Keys, sign_error};
use crate::error::{AuthError, Result};
use crate::events;
use crate::hosts::Wish;
use crate::service::AuthService;

/// Life of a joined service's certificates; it renews them well before.
pub(crate) const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

impl AuthService {
    /// Certificates for a service with a token. `holder`: who asks, where it has shown a certificate; a host that has
    /// one role already shows it to get another.
    pub async fn join(
        &self,
        ask: JoinRequest,
        from: SocketAddr,
        holder: Option<&Caller>,
    ) -> Result<JoinReply> {
        match self.try_join(&ask, from, holder).await {
            Ok(reply) => Ok(reply),
            Err(AuthError::Answer(answer)) => {
                self.record(vec![events::instance_join(&ask, Err(&answer.message), from)]).await?;
                tracing::warn!(host = %ask.host_id, role = %ask.role, from = %from, reason = answer.message, "join refused");
                Err(answer.into())
            }
            Err(error) => Err(error),
        }
    }

    async fn try_join(
        &self,
        ask: &JoinRequest,
        from: SocketAddr,
        holder: Option<&Caller>,
    ) -> Result<JoinReply> {
        let ticket = self.redeem(&ask.token, ask.role).await?;
        // Whoever has a copy of the keys of a host that was put out could come back with them.
        self.check_host_lock(ask.host_id).map_err(|error| match error {
            AuthError::Answer(answer) => answer
                .with_hint(
                    "stop it and remove its data directory: it then joins with a new host id",
                )
                .into(),
            other => other,
        })?;
        let wish = Wish {
            host_id: ask.host_id,
            role: ask.role,
            name: &ask.node_name,
            further: &ask.additional_principals,
            public_addr: ask.public_addr.as_deref(),
            keys: Keys::parse(&ask.ssh_public_key, &ask.tls_public_key)?,
        };
        let known = holder.is_some_and(|holder| holder.host_id() == Some(ask.host_id));
        // What is wrong with the keys is said before the name is taken and the token is used up.
        let reply = self.issue_host(&wish)?;
        self.admit(&wish, known, ticket.spend).await?;
        self.record(vec![events::instance_join(ask, Ok(ticket.expires), from)]).await?;
        tracing::info!(host = %ask.host_id, name = ask.node_name, role = %ask.role, from = %from, "joined");
        Ok(reply)
    }

    /// New certificates for a service that has valid ones; role and host stay what they are.
    pub async fn renew(&self, caller: &Caller, ask: RenewRequest) -> Result<JoinReply> {
        let (Some(role), Some(host_id)) = (caller.identity().system_role, caller.host_id()) else {
            return Err(AuthError::denied("access denied"));
        };
        let wish = Wish {
            host_id,
            role,
            name: &ask.node_name,
            further: &ask.additional_principals,
            public_addr: ask.public_addr.as_deref(),
            keys: Keys::parse(&ask.ssh_public_key, &ask.tls_public_key)?,
        };
        let reply = self.issue_host(&wish)?;
        self.admit(&wish, true, Vec::new()).await?;
        tracing::info!(host = %host_id, role = %role, "certificates renewed");
        Ok(reply)
    }

    /// Keys and certificates for a service in this process, with `names` beside its host's own.
    pub fn host_keys(&self, role: SystemRole, host: HostId, names: &[String]) -> Result<HostKeys> {
        let ssh = KeyPair::generate().map_err(AuthError::at("make SSH key"))?;
        let tls = TlsKey::generate().map_err(AuthError::at("make TLS key"))?;
        let wish = Wish {
            host_id: host,
            role,
            name: self.node_name(),
            further: names,
            public_addr: None,
            keys: Keys::parse(&ssh.public_openssh(), &tls.public().to_pem())?,
        };
        let reply = self.issue_host(&wish)?;
        Ok(HostKeys {
            tls_cert_pem: reply.tls_cert,
            tls_key_pem: tls.to_pem(),
            ssh_cert: reply.ssh_cert,
            ssh_key_pem: ssh.to_openssh_private_pem().map_err(AuthError::at("encode host key"))?,
            valid_until: reply.valid_until,
        })
    }

    fn issue_host(&self, wish: &Wish<'_>) -> Result<JoinReply> {
        wish.check_names()?;
        let now = self.now();
        let principals = if wish.takes_names() {
            HostCertSpec::service_principals(wish.host_id, wish.name, self.cluster(), wish.further)
        } else {
            vec![format!("{}.{}", wish.host_id, self.cluster()), wish.host_id.to_string()]
        };
        let authority = self.host_authority();
        let ssh_cert = authority
            .ssh_ca()
            .and_then(|ca| {
                ca.sign_host(HostCertSpec {
                    public_key: wish.keys.ssh().clone(),
                    principals: principals.clone(),
                    role: wish.role,
                    cluster: self.cluster().clone(),
                    now,
                    ttl: Some(LIFE),
                })
            })
            .map_err(|error| sign_error("ssh_public_key", error))?
            .to_openssh()
            .map_err(AuthError::at("encode certificate"))?;
        let spec = HostTlsSpec {
            host_id: wish.host_id,
            role: wish.role,
            cluster: self.cluster().clone(),
            names: principals,
        };
        let tls_cert = authority
            .tls_ca()
            .and_then(|ca| ca.sign_server(&spec, wish.keys.tls(), now, Some(LIFE)))
            .map_err(|error| sign_error("tls_public_key", error))?;
        Ok(JoinReply {
            ssh_cert,
            tls_cert: tls_cert.pem(),
            authorities: self.current_state().authorities.clone(),
            cluster: self.cluster().clone(),
            valid_until: now + chrono::Duration::from_std(LIFE).unwrap_or_default(),
        })
    }
}

//! Services that join, and renew what they have.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use server_store::Condition;
use shared_api::{ApiError, JoinReply, JoinRequest, RenewRequest, limits};
use shared_pki::{HostCertSpec, HostTlsSpec};
use shared_types::resource::{ProxyServer, ServerSpec};
use shared_types::{HostId, HostName, Resource, SystemRole};

use crate::caller::Caller;
use crate::certs::{Keys, sign_error};
use crate::error::{AuthError, Result};
use crate::events;
use crate::service::AuthService;
use crate::state;

/// Life of a joined service's certificates; it renews them well before.
pub(crate) const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

const NOT_RECOGNIZED: &str = "the token is not recognized, has expired, or is not for this role";

/// What is kept of a service that joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Host {
    role: SystemRole,
    name: String,
    #[serde(default)]
    public_addr: Option<String>,
}

/// Names and keys of a service that asks for certificates.
struct Wish<'a> {
    host_id: HostId,
    role: SystemRole,
    name: &'a str,
    further: &'a [String],
    public_addr: Option<&'a str>,
    keys: Keys,
}

impl AuthService {
    /// Certificates for a service with a token.
    pub async fn join(&self, ask: JoinRequest, from: SocketAddr) -> Result<JoinReply> {
        match self.try_join(&ask, from).await {
            Ok(reply) => Ok(reply),
            Err(AuthError::Answer(answer)) => {
                self.record(vec![events::instance_join(&ask, Err(&answer.message), from)]).await?;
                tracing::warn!(host = %ask.host_id, role = %ask.role, from = %from, reason = answer.message, "join refused");
                Err(answer.into())
            }
            Err(error) => Err(error),
        }
    }

    async fn try_join(&self, ask: &JoinRequest, from: SocketAddr) -> Result<JoinReply> {
        // A Node-role certificate vouches for a server by the names in it. No service asks for one yet,
        // and a token alone must not give a stranger names.
        if ask.role != SystemRole::Proxy {
            return Err(AuthError::denied(NOT_RECOGNIZED));
        }
        let ticket = self
            .redeem(&ask.token, ask.role)
            .await?
            .ok_or_else(|| AuthError::denied(NOT_RECOGNIZED))?;
        // Whoever has a copy of the keys of a host that was put out could come back with them.
        self.check_host_lock(ask.host_id).map_err(|error| match error {
            AuthError::Answer(answer) => answer
                .with_hint("stop the proxy and remove its data directory: it then joins with a new host id")
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
        self.admit(&wish).await?;
        let reply = self.issue_host(wish)?;
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
        self.admit(&wish).await?;
        let reply = self.issue_host(wish)?;
        tracing::info!(host = %host_id, role = %role, "certificates renewed");
        Ok(reply)
    }

    /// Refuses names that are no names, and ids and names that another host of the cluster has.
    async fn admit(&self, wish: &Wish<'_>) -> Result<()> {
        if wish.further.len() + 8 > limits::MAX_PRINCIPALS {
            return Err(AuthError::bad_request("too many additional principals"));
        }
        for name in std::iter::once(wish.name).chain(wish.further.iter().map(String::as_str)) {
            if HostName::new(name).is_err() {
                let shown: String = name.chars().take(64).collect();
                return Err(AuthError::bad_request(format!("{shown:?} is not a host name")));
            }
        }
        let held = || {
            AuthError::Answer(ApiError::already_exists(
                "the host id or name belongs to another host of the cluster",
            ))
        };
        if wish.name.eq_ignore_ascii_case("localhost") || wish.host_id == self.host_id() {
            return Err(held());
        }
        if wish.name.eq_ignore_ascii_case(self.node_name()) && wish.role == SystemRole::Node {
            return Err(held());
        }
        let own = wish.host_id.to_string();
        for (id, host) in self.hosts().await? {
            let clash = if id == own {
                host.role != wish.role
            } else {
                host.name.eq_ignore_ascii_case(wish.name)
            };
            // A proxy that lost its data directory comes back under a new id; of a name, the role may not change.
            if clash
                && !(id != own && host.role == SystemRole::Proxy && wish.role == SystemRole::Proxy)
            {
                return Err(held());
            }
        }
        let public_addr = wish.public_addr.filter(|addr| is_address(addr)).map(str::to_owned);
        let record = Host { role: wish.role, name: wish.name.to_owned(), public_addr };
        // The record ends with the certificates: a host that is gone gives its name back.
        let end = self.now() + chrono::Duration::from_std(LIFE).unwrap_or_default();
        let op = state::put(
            state::key("hosts", &own)?,
            &(own.clone(), record),
            Some(end),
            Condition::Any,
        )?;
        self.store().write(vec![op]).await.map_err(AuthError::at("store host"))?;
        Ok(())
    }

    /// `host:port` of a proxy, for the links that users get.
    pub(crate) async fn proxy_address(&self) -> Option<String> {
        if let Some(address) = self.proxy.get() {
            return Some(address.clone());
        }
        let hosts = self.hosts().await.unwrap_or_default();
        hosts
            .into_iter()
            .filter(|(_, host)| host.role == SystemRole::Proxy)
            .find_map(|(_, host)| host.public_addr)
    }

    /// The proxies that joined, by host id.
    pub(crate) async fn proxies(&self) -> Result<Vec<Resource>> {
        let hosts = self.hosts().await?.into_iter();
        let proxies = hosts.filter(|(_, host)| host.role == SystemRole::Proxy).map(|(id, host)| {
            let public_addrs = host.public_addr.into_iter().collect();
            ProxyServer::new(id, ServerSpec { hostname: host.name, public_addrs }).into()
        });
        Ok(proxies.collect())
    }

    async fn hosts(&self) -> Result<Vec<(String, Host)>> {
        let stored = self.store().list::<(String, Host)>(&state::folder(["hosts"])?).await?;
        Ok(stored.into_iter().map(|stored| stored.value).collect())
    }

    fn issue_host(&self, wish: Wish<'_>) -> Result<JoinReply> {
        let now = self.now();
        let principals =
            HostCertSpec::service_principals(wish.host_id, wish.name, self.cluster(), wish.further);
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

/// `host:port`, safe to print in a link.
fn is_address(text: &str) -> bool {
    match text.rsplit_once(':') {
        Some((host, port)) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            HostName::new(host).is_ok() && port.parse::<u16>().is_ok_and(|port| port > 0)
        }
        None => false,
    }
}

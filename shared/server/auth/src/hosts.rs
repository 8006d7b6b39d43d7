//! Hosts that joined, and whose names are whose.
//!
//! What must stay true: a certificate of role Node vouches for a server by the names in it, so no host gets a name by
//! which users may mean another one; a host id belongs to who joined with it first, until that host's certificates have
//! ended.

use std::collections::HashSet;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use server_store::{Condition, Key, Op};
use shared_api::{ApiError, ProxyInfo, limits};
use shared_types::resource::{ProxyServer, ServerSpec};
use shared_types::{HostId, HostName, Resource, ResourceKind, SystemRole};

use crate::certs::Keys;
use crate::error::{AuthError, Result};
use crate::join::LIFE;
use crate::service::AuthService;
use crate::state;

/// What is kept of a service that joined. A host that serves in several roles has a record for each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) role: SystemRole,
    pub(crate) name: String,
    /// Further names in its certificates.
    #[serde(default)]
    pub(crate) names: Vec<String>,
    #[serde(default)]
    pub(crate) public_addr: Option<String>,
    /// Fingerprint of the keys it joined with.
    #[serde(default)]
    keys: String,
}

/// Names and keys of a service that asks for certificates.
pub(crate) struct Wish<'a> {
    pub(crate) host_id: HostId,
    pub(crate) role: SystemRole,
    pub(crate) name: &'a str,
    pub(crate) further: &'a [String],
    pub(crate) public_addr: Option<&'a str>,
    pub(crate) keys: Keys,
}

/// A name that `tctl auth sign --host` gave away.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Signed {
    /// When the last certificate with it ends, if it does.
    until: Option<DateTime<Utc>>,
}

impl Wish<'_> {
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name).chain(self.further.iter().map(String::as_str))
    }

    /// Whether its certificates carry its names, and not its host id alone.
    pub(crate) fn takes_names(&self) -> bool {
        takes_names(self.role)
    }

    /// Refuses what is no name.
    pub(crate) fn check_names(&self) -> Result<()> {
        if self.further.len() + 8 > limits::MAX_PRINCIPALS {
            return Err(AuthError::bad_request("too many additional principals"));
        }
        match self.names().find(|name| HostName::new(*name).is_err()) {
            None => Ok(()),
            Some(name) => {
                let shown: String = name.chars().take(64).collect();
                Err(AuthError::bad_request(format!("{shown:?} is not a host name")))
            }
        }
    }
}

impl AuthService {
    /// Refuses names that are no names, and ids and names that belong to another host. Where all is well, the record
    /// of the host is stored together with `also`. `known`: the caller has shown a certificate of this very host.
    pub(crate) async fn admit(&self, wish: &Wish<'_>, known: bool, also: Vec<Op>) -> Result<()> {
        wish.check_names()?;
        // Two that ask for the same name at the same time.
        let _one = self.joins.lock().await;
        let hosts = self.hosts().await?;
        self.check_id(wish, known, &hosts)?;
        if wish.takes_names() {
            self.check_held(wish, &hosts)?;
        }
        if wish.role == SystemRole::Node {
            self.check_signed(wish).await?;
        }
        let record = Host {
            role: wish.role,
            name: wish.name.to_owned(),
            names: wish.further.to_vec(),
            public_addr: wish.public_addr.filter(|addr| is_address(addr)).map(str::to_owned),
            keys: wish.keys.fingerprint(),
        };
        // The record ends with the certificates: a host that is gone gives its name back.
        let end = self.now() + chrono::Duration::from_std(LIFE).unwrap_or_default();
        let value = (wish.host_id.to_string(), record);
        let key = host_key(wish.host_id, wish.role)?;
        let mut ops = vec![state::put(key, &value, Some(end), Condition::Any)?];
        ops.extend(also);
        self.store().write(ops).await.map_err(|error| match error {
            server_store::BackendError::NotFound { .. }
            | server_store::BackendError::Conflict { .. } => {
                AuthError::denied(crate::tokens::ALREADY_USED)
            }
            other => AuthError::internal("store host", other),
        })?;
        if wish.role == SystemRole::Proxy {
            self.refresh_proxies().await?;
        }
        Ok(())
    }

    /// An id that is in use is given again only to who shows its certificate, or asks with the same keys once more
    /// because the answer did not arrive; for other keys the certificates would be another host's.
    fn check_id(&self, wish: &Wish<'_>, known: bool, hosts: &[(String, Host)]) -> Result<()> {
        let own = wish.host_id.to_string();
        let mut records = hosts.iter().filter(|(id, _)| *id == own).map(|(_, host)| host);
        let taken = wish.host_id == self.host_id()
            || (!known
                && records
                    .any(|host| host.role != wish.role || host.keys != wish.keys.fingerprint()));
        if !taken {
            return Ok(());
        }
        let role = match wish.role {
            SystemRole::Db => ResourceKind::DbServer.as_str().to_owned(),
            role => role.as_str().to_ascii_lowercase(),
        };
        Err(AuthError::Answer(
            ApiError::already_exists("the host id belongs to a host of the cluster").with_hint(
                format!(
                    "if this host has lost its identity: remove it from the cluster (tctl rm {role}/HOST-ID), and the file host_uuid from its data directory"
                ),
            ),
        ))
    }

    /// Refuses names of the auth service and of other hosts, in any spelling.
    fn check_held(&self, wish: &Wish<'_>, hosts: &[(String, Host)]) -> Result<()> {
        let cluster = self.cluster().as_str();
        let wanted: HashSet<String> = wish
            .names()
            .filter(|name| !is_loopback(name))
            .flat_map(|name| spellings(name, cluster))
            .collect();
        let own = wish.host_id.to_string();
        let is_wanted =
            |name: &str| spellings(name, cluster).iter().any(|name| wanted.contains(name));
        if is_local(wish.name) {
            return Err(held(wish.name));
        }
        if let Some(id) =
            wish.names().find(|name| name.parse::<HostId>().is_ok_and(|id| id != wish.host_id))
        {
            return Err(held(id));
        }
        if wish.role == SystemRole::Node {
            let auth = [self.node_name(), cluster].into_iter();
            let auth = auth.chain(self.settings.names.iter().map(String::as_str));
            if let Some(name) = auth.filter(|name| !is_loopback(name)).find(|name| is_wanted(name))
            {
                return Err(held(name));
            }
        }
        let holders = hosts.iter().filter(|(id, host)| *id != own && takes_names(host.role));
        for (id, host) in holders {
            // Several proxies may be one name; also, one that lost its data directory comes back under a new id.
            let both_proxies = host.role == SystemRole::Proxy && wish.role == SystemRole::Proxy;
            let names = std::iter::once(&host.name).chain(&host.names);
            let clash = names.filter(|name| !is_loopback(name)).find(|name| is_wanted(name));
            if let Some(name) = clash.filter(|_| !both_proxies) {
                tracing::info!(host = own, holder = id, name, "the name is held");
                return Err(held(name));
            }
        }
        for node in self.presence.view().nodes.iter().filter(|node| node.name() != own) {
            let names = node.names().filter(|name| !is_loopback(name));
            if let Some(name) = names.filter(|_| node.is_openssh()).find(|name| is_wanted(name)) {
                return Err(held(name));
            }
        }
        Ok(())
    }

    /// Refuses a name for which a host certificate was signed that is still valid.
    async fn check_signed(&self, wish: &Wish<'_>) -> Result<()> {
        for name in wish.names().filter(|name| !is_loopback(name)) {
            for name in spellings(name, self.cluster().as_str()) {
                let found = self.store().read::<Signed>(&signed_key(&name)?).await?;
                if found.is_some_and(|found| found.value.until.is_none_or(|end| end > self.now())) {
                    return Err(held(&name));
                }
            }
        }
        Ok(())
    }

    /// Remembers names that stand in a host certificate, so that no agent joins under one of them. `until`: when the
    /// certificate ends, if it does.
    pub(crate) async fn keep_signed(
        &self,
        names: &[String],
        until: Option<DateTime<Utc>>,
    ) -> Result<()> {
        let _one = self.joins.lock().await;
        let mut ops = Vec::new();
        for name in names {
            let key = signed_key(&normal(name))?;
            let before = self.store().read::<Signed>(&key).await?;
            let until = match (before.map(|before| before.value.until), until) {
                (Some(before), Some(until)) => before.map(|before| before.max(until)),
                (_, until) => until,
            };
            ops.push(state::put(key, &Signed { until }, until, Condition::Any)?);
        }
        self.store().write(ops).await.map_err(AuthError::at("store names of certificate"))?;
        Ok(())
    }

    /// All records of hosts, each with the host's id.
    pub(crate) async fn hosts(&self) -> Result<Vec<(String, Host)>> {
        let stored = self.store().list::<(String, Host)>(&state::folder(["hosts"])?).await?;
        Ok(stored.into_iter().map(|stored| stored.value).collect())
    }

    /// The record of a host in one role.
    pub(crate) async fn host(&self, host: HostId, role: SystemRole) -> Result<Option<Host>> {
        let stored = self.store().read::<(String, Host)>(&host_key(host, role)?).await?;
        Ok(stored.map(|stored| stored.value.1))
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

    /// Publishes which proxies there are.
    pub(crate) async fn refresh_proxies(&self) -> Result<()> {
        let mut proxies: Vec<ProxyInfo> = self
            .hosts()
            .await?
            .into_iter()
            .filter(|(_, host)| host.role == SystemRole::Proxy)
            .filter_map(|(id, host)| {
                Some(ProxyInfo { host_id: id.parse().ok()?, public_addr: host.public_addr })
            })
            .collect();
        proxies.extend(self.own_proxy());
        self.presence.set_proxies(proxies, self.now());
        Ok(())
    }

    /// The proxy in this process.
    pub(crate) fn own_proxy(&self) -> Option<ProxyInfo> {
        let public_addr = Some(self.proxy.get()?.clone());
        Some(ProxyInfo { host_id: self.host_id(), public_addr })
    }
}

/// Agents that are found by their host id only get no names, so none can be taken for another host.
fn takes_names(role: SystemRole) -> bool {
    role != SystemRole::Db
}

/// Where a host's record in one role is.
pub(crate) fn host_key(host: HostId, role: SystemRole) -> Result<Key> {
    match role {
        SystemRole::Proxy => state::key("hosts", &host.to_string()),
        other => state::key("hosts", &format!("{host}.{}", other.as_str().to_ascii_lowercase())),
    }
}

fn signed_key(name: &str) -> Result<Key> {
    state::hashed_key("signed_names", name)
}

fn held(name: &str) -> AuthError {
    let shown: String = name.chars().take(64).collect();
    AuthError::Answer(
        ApiError::already_exists(format!("the name {shown:?} is held in the cluster")).with_hint(
            "choose another teleport.nodename; or, if the host that has it is gone, remove that one: tctl inventory ls, tctl rm node/HOST-ID",
        ),
    )
}

/// In small letters, without the dot of a complete name.
fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// As certificates name a host: its name, and its name in the cluster.
fn spellings(name: &str, cluster: &str) -> [String; 2] {
    let name = normal(name);
    let long = format!("{name}.{}", normal(cluster));
    [name, long]
}

fn is_local(name: &str) -> bool {
    let name = normal(name);
    name == "localhost" || name.ends_with(".localhost") || is_loopback(&name)
}

/// A name that means this very host to everybody; every host's certificate has it.
fn is_loopback(name: &str) -> bool {
    normal(name) == "localhost"
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
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

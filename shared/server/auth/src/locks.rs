//! Locks: what they stop here, and how a proxy or a node is put out of the cluster.
//!
//! A lock counts from the moment it is stored: every request is checked against the published state, and services hear
//! of it with the next one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use chrono::Duration;
use server_store::{Condition, Op};
use shared_api::{ApiError, ClusterState};
use shared_pki::Identity;
use shared_types::resource::{Lock, LockSpec, LockSubject, LockTarget, NodeSpec};
use shared_types::{HostId, Node, Resource, ResourceKind, RoleName, SystemRole, UserName};

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::events;
use crate::hosts::host_key;
use crate::presence::{Part, served_key};
use crate::service::{AuthService, next_revision};
use crate::state;

/// Most locks of a cluster; every proxy holds all of them.
const MOST: usize = 10_000;

impl AuthService {
    /// Refuses what a lock in force stops.
    fn check_lock(&self, subject: &LockSubject<'_>) -> Result<()> {
        match self.current_state().lock_on(subject, self.now()) {
            Some(lock) => Err(ApiError::locked(lock.text()).into()),
            None => Ok(()),
        }
    }

    /// Refuses a user on whom, or on one of whose roles, a lock is in force.
    pub(crate) fn check_user_lock(&self, user: &UserName, roles: &[RoleName]) -> Result<()> {
        self.check_lock(&LockSubject { user: Some(user), roles, ..LockSubject::default() })
    }

    /// Refuses a service on whose host a lock is in force.
    pub(crate) fn check_host_lock(&self, host: HostId) -> Result<()> {
        self.check_lock(&LockSubject { server: Some(host), ..LockSubject::default() })
    }

    /// Refuses a caller on whom a lock is in force. The administrator on this host stays able to take locks away.
    pub(crate) async fn check_caller_lock(
        &self,
        identity: &Identity,
        address: SocketAddr,
    ) -> Result<()> {
        let checked = match (identity.system_role, identity.host_id) {
            (None, _) => self.check_user_lock(&identity.user, &identity.roles),
            (Some(role), Some(host)) if role.joins() => self.check_host_lock(host),
            (Some(_), _) => Ok(()),
        };
        if let Err(AuthError::Answer(answer)) = &checked {
            tracing::info!(user = %identity.user, from = %address.ip(), reason = answer.message, "request refused");
            // Who goes on asking does not fill the log with it.
            if self.limiter.take(address.ip(), Instant::now()).is_ok() {
                let event = events::refused(identity, &answer.message, address);
                self.record(vec![event]).await?;
            }
        }
        checked
    }

    /// Refuses one lock more than a cluster may have.
    pub(crate) fn check_lock_count(&self) -> Result<()> {
        if self.current_state().locks.len() >= MOST {
            return Err(AuthError::bad_request(format!(
                "the cluster has {MOST} locks, remove old ones first: tctl get locks"
            )));
        }
        Ok(())
    }

    /// What the auth service says of a lock, whatever its document says.
    pub(crate) fn complete_lock(&self, lock: &mut Lock, before: Option<&Resource>, by: &Caller) {
        let before = match before {
            Some(Resource::Lock(before)) => Some(&before.spec),
            _ => None,
        };
        lock.spec.created_at = before.map_or_else(|| Some(self.now()), |spec| spec.created_at);
        lock.spec.created_by =
            before.map_or_else(|| Some(by.name().to_owned()), |spec| spec.created_by.clone());
    }

    /// What puts a service that joined in this role out of the cluster: its record goes, with it what its host serves as
    /// an agent, and the host id is locked until the last of its certificates has ended.
    pub(crate) fn evict(
        &self,
        host: HostId,
        role: SystemRole,
        by: &Caller,
    ) -> Result<(Vec<Op>, Resource)> {
        self.check_lock_count()?;
        let what = role.as_str().to_ascii_lowercase();
        let spec = LockSpec {
            target: LockTarget { server_id: Some(host), ..LockTarget::default() },
            message: format!("the {what} was removed from the cluster"),
            expires: Some(self.now() + Duration::from_std(crate::join::LIFE).unwrap_or_default()),
            ..LockSpec::default()
        };
        let mut lock = Lock::new(format!("evicted-{host}"), spec);
        self.complete_lock(&mut lock, None, by);
        let lock = Resource::from(lock);
        let node = state::resource_key(ResourceKind::Node, &host.to_string())?;
        let mut ops = vec![
            state::delete(host_key(host, role)?, Condition::Present),
            state::put_resource(&lock, Condition::Any)?,
            state::delete(node, Condition::Any),
            state::delete(served_key(host)?, Condition::Any),
        ];
        for agent in SystemRole::AGENTS.into_iter().filter(|agent| *agent != role) {
            ops.push(state::delete(host_key(host, agent)?, Condition::Any));
        }
        Ok((ops, lock))
    }

    /// What puts a proxy out; what else its host serves as goes with it.
    pub(crate) fn remove_proxy(&self, name: &str, by: &Caller) -> Result<(Vec<Op>, Resource)> {
        let host: HostId = name.parse().map_err(|_| {
            AuthError::bad_request("a proxy is named by its host id: tctl get proxies")
        })?;
        self.evict(host, SystemRole::Proxy, by)
    }

    /// What puts an agent in front of databases out, by its host id; what else its host serves as goes with it. `None`
    /// where no such agent has joined.
    pub(crate) async fn remove_db_agent(
        &self,
        name: &str,
        by: &Caller,
    ) -> Result<Option<(Vec<Op>, Resource)>> {
        let Ok(host) = name.parse::<HostId>() else { return Ok(None) };
        if self.host(host, SystemRole::Db).await?.is_none() {
            return Ok(None);
        }
        self.check_no_proxy(host).await?;
        self.evict(host, SystemRole::Db, by).map(Some)
    }

    /// A proxy takes everything of its host with it, so it is removed as what it is.
    async fn check_no_proxy(&self, host: HostId) -> Result<()> {
        match self.host(host, SystemRole::Proxy).await? {
            None => Ok(()),
            Some(_) => Err(AuthError::bad_request(format!(
                "this host serves as a proxy too, and is removed as one: tctl rm proxy/{host}"
            ))),
        }
    }

    /// What removes a node. An agent is put out; a server that was only registered is forgotten.
    pub(crate) async fn remove_node(
        &self,
        name: &str,
        by: &Caller,
    ) -> Result<(Vec<Op>, Option<Resource>)> {
        let host: HostId = name
            .parse()
            .map_err(|_| AuthError::bad_request("a node is named by its host id: tctl nodes ls"))?;
        if host == self.host_id() {
            return Err(AuthError::bad_request(
                "this node runs in the auth service's own process; to end it, set ssh_service.enabled to no there",
            ));
        }
        if self.host(host, SystemRole::Node).await?.is_none() {
            let key = state::resource_key(ResourceKind::Node, name)?;
            return Ok((vec![state::delete(key, Condition::Any)], None));
        }
        self.check_no_proxy(host).await?;
        let (evict, lock) = self.evict(host, SystemRole::Node, by)?;
        Ok((evict, Some(lock)))
    }

    /// Refuses to write over an agent's node: an agent says itself how it is.
    pub(crate) async fn check_node_write(
        &self,
        resource: &Resource,
        stored: Option<&Resource>,
    ) -> Result<()> {
        let Resource::Node(node) = resource else { return Ok(()) };
        let registered = match stored {
            Some(Resource::Node(stored)) => stored.is_openssh(),
            _ => {
                let host = node.host_id();
                let record = match host {
                    Some(host) => self.host(host, SystemRole::Node).await?,
                    None => None,
                };
                record.is_none() && host != Some(self.host_id())
            }
        };
        if node.is_openssh() && registered {
            return Ok(());
        }
        Err(AuthError::bad_request(
            "an agent's node is not written: it joins with a token (tctl nodes add), and says itself how it is; a document is of sub_kind openssh",
        ))
    }

    /// Publishes what a change of one resource changed. An account alone is not worth reading all of them.
    pub(crate) async fn refresh_after(&self, kind: ResourceKind, name: &str) -> Result<()> {
        if kind == ResourceKind::Node {
            self.refresh_node(name).await?;
            return Ok(());
        }
        let (ResourceKind::User, Ok(user)) = (kind, UserName::new(name)) else {
            return self.refresh().await;
        };
        let stored = self.store().resource(kind, name).await?;
        self.state.send_modify(|current| {
            let mut next = ClusterState::clone(current);
            match stored {
                Some(Resource::User(account)) => next.users.insert(user, (&account).into()),
                _ => next.users.remove(&user),
            };
            next.revision = next_revision(current.revision, self.now());
            *current = Arc::new(next);
        });
        Ok(())
    }

    /// All resources of a kind.
    pub(crate) async fn all_of(&self, kind: ResourceKind) -> Result<Vec<Resource>> {
        match kind {
            ResourceKind::Proxy => self.proxies().await,
            ResourceKind::Node => {
                let mut nodes = self.store().resources(kind).await?;
                nodes.iter_mut().for_each(|node| self.with_life(node));
                Ok(nodes)
            }
            ResourceKind::DbServer => Ok(self.database_servers()),
            kind => self.store().resources(kind).await,
        }
    }

    /// When a node's life is over is in memory; the disk is behind.
    fn with_life(&self, node: &mut Resource) {
        let host = node.name().parse().ok();
        if let Some(ends) = host.and_then(|host| self.presence.ends(Part::Node, host)) {
            node.metadata_mut().expires = Some(ends);
        }
    }

    /// One resource.
    pub(crate) async fn one_of(&self, kind: ResourceKind, name: &str) -> Result<Option<Resource>> {
        match kind {
            ResourceKind::Proxy => {
                let proxies = self.proxies().await?;
                Ok(proxies.into_iter().find(|proxy| proxy.name() == name))
            }
            ResourceKind::Node => {
                let mut node = self.store().resource(kind, name).await?;
                node.iter_mut().for_each(|node| self.with_life(node));
                match (node, name.parse()) {
                    // One that has joined, and is not there just now.
                    (None, Ok(host)) => Ok(self.host(host, SystemRole::Node).await?.map(|host| {
                        let spec = NodeSpec { hostname: host.name, ..NodeSpec::default() };
                        Node::new(name, spec).into()
                    })),
                    (node, _) => Ok(node),
                }
            }
            ResourceKind::DbServer => Ok(self.one_database_server(name)),
            kind => self.store().resource(kind, name).await,
        }
    }
}

//! Locks: what they stop here, and how a proxy is put out of the cluster.
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
use shared_types::resource::{Lock, LockSpec, LockSubject, LockTarget};
use shared_types::{HostId, Resource, ResourceKind, RoleName, SystemRole, UserName};

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::events;
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
            (Some(SystemRole::Proxy | SystemRole::Node), Some(host)) => self.check_host_lock(host),
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

    /// What puts a proxy out of the cluster: its record goes, and its id is locked until the last of its certificates
    /// has ended.
    pub(crate) fn evict(&self, name: &str, by: &Caller) -> Result<(Vec<Op>, Resource)> {
        let host: HostId = name.parse().map_err(|_| {
            AuthError::bad_request("a proxy is named by its host id: tctl get proxies")
        })?;
        self.check_lock_count()?;
        let spec = LockSpec {
            target: LockTarget { server_id: Some(host), ..LockTarget::default() },
            message: "the proxy was removed from the cluster".to_owned(),
            expires: Some(self.now() + Duration::from_std(crate::join::LIFE).unwrap_or_default()),
            ..LockSpec::default()
        };
        let mut lock = Lock::new(format!("evicted-{host}"), spec);
        self.complete_lock(&mut lock, None, by);
        let lock = Resource::from(lock);
        let ops = vec![
            state::delete(state::key("hosts", name)?, Condition::Present),
            state::put_resource(&lock, Condition::Any)?,
        ];
        Ok((ops, lock))
    }

    /// Publishes what a change of one resource changed. An account alone is not worth reading all of them.
    pub(crate) async fn refresh_after(&self, kind: ResourceKind, name: &str) -> Result<()> {
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
            kind => self.store().resources(kind).await,
        }
    }

    /// One resource.
    pub(crate) async fn one_of(&self, kind: ResourceKind, name: &str) -> Result<Option<Resource>> {
        match kind {
            ResourceKind::Proxy => {
                let proxies = self.proxies().await?;
                Ok(proxies.into_iter().find(|proxy| proxy.name() == name))
            }
            kind => self.store().resource(kind, name).await,
        }
    }
}

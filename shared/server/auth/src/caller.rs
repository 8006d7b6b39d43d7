//! Who asks: an identity out of a certificate that was verified for this very request.

use std::net::SocketAddr;

use shared_pki::Identity;
use shared_types::{ClusterName, HostId, RoleName, SystemRole, Traits, User, UserName};

/// A caller with a valid certificate.
#[derive(Debug, Clone)]
pub struct Caller {
    identity: Identity,
    address: SocketAddr,
    /// For users: the account as it is now.
    account: Option<User>,
}

impl Caller {
    pub(crate) fn service(identity: Identity, address: SocketAddr) -> Self {
        Self { identity, address, account: None }
    }

    pub(crate) fn user(identity: Identity, address: SocketAddr, account: User) -> Self {
        Self { identity, address, account: Some(account) }
    }

    /// What the certificate says.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The user's name, or `HOSTID.CLUSTER` of a service.
    pub fn name(&self) -> &str {
        self.identity.user.as_str()
    }

    /// The same as a type.
    pub fn user_name(&self) -> &UserName {
        &self.identity.user
    }

    /// Where the connection comes from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The cluster that vouches for the caller.
    pub fn cluster(&self) -> &ClusterName {
        &self.identity.cluster
    }

    /// The caller's host, when it is a service.
    pub fn host_id(&self) -> Option<HostId> {
        self.identity.system_role.and(self.identity.host_id)
    }

    /// A user with an account.
    pub fn is_user(&self) -> bool {
        self.identity.system_role.is_none() && self.account.is_some()
    }

    /// The local administrator on the auth service's host.
    pub fn is_admin(&self) -> bool {
        self.identity.system_role == Some(SystemRole::Admin)
    }

    /// A proxy.
    pub fn is_proxy(&self) -> bool {
        self.identity.system_role == Some(SystemRole::Proxy)
    }

    /// An SSH server.
    pub fn is_node(&self) -> bool {
        self.identity.system_role == Some(SystemRole::Node)
    }

    /// An agent in front of databases.
    pub fn is_db(&self) -> bool {
        self.identity.system_role == Some(SystemRole::Db)
    }

    /// A service that joined.
    pub fn is_service(&self) -> bool {
        self.identity.system_role.is_some_and(SystemRole::joins)
    }

    /// The roles that count: in the certificate, and still the user's. Taking a role away works at once,
    /// giving one takes a new login.
    pub(crate) fn roles(&self) -> Vec<&RoleName> {
        let Some(account) = &self.account else { return Vec::new() };
        self.identity.roles.iter().filter(|role| account.spec.roles.contains(role)).collect()
    }

    /// The user's traits as they are now.
    pub(crate) fn traits(&self) -> Traits {
        self.account.as_ref().map(|account| account.spec.traits.clone()).unwrap_or_default()
    }
}

//! The roles a service of the cluster can have in its certificate.

use serde::{Deserialize, Serialize};

/// What a host certificate says its holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SystemRole {
    /// The auth service.
    Auth,
    /// The local administrator on the auth service's host.
    Admin,
    /// The proxy service.
    Proxy,
    /// An SSH server.
    Node,
    /// An agent in front of databases.
    Db,
}

/// The text names no system role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown system role {0:?}, expected one of Auth, Admin, Proxy, Node, Db")]
pub struct UnknownSystemRole(String);

impl SystemRole {
    /// All roles.
    pub const ALL: [SystemRole; 5] =
        [SystemRole::Auth, SystemRole::Admin, SystemRole::Proxy, SystemRole::Node, SystemRole::Db];

    /// Those of agents: they serve what users reach through the proxies.
    pub const AGENTS: [SystemRole; 2] = [SystemRole::Node, SystemRole::Db];

    /// Whether it is an agent's.
    #[must_use]
    pub fn is_agent(self) -> bool {
        Self::AGENTS.contains(&self)
    }

    /// Whether it is that of a service that joins with a token.
    #[must_use]
    pub fn joins(self) -> bool {
        self == SystemRole::Proxy || self.is_agent()
    }

    /// The name as it stands in certificates.
    pub fn as_str(self) -> &'static str {
        match self {
            SystemRole::Auth => "Auth",
            SystemRole::Admin => "Admin",
            SystemRole::Proxy => "Proxy",
            SystemRole::Node => "Node",
            SystemRole::Db => "Db",
        }
    }
}

impl std::fmt::Display for SystemRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for SystemRole {
    type Err = UnknownSystemRole;
    fn from_str(text: &str) -> Result<Self, UnknownSystemRole> {
        // Commands write them in lower case (`--type=node`), certificates with a capital.
        Self::ALL
            .into_iter()
            .find(|role| role.as_str().eq_ignore_ascii_case(text.trim()))
            .ok_or_else(|| UnknownSystemRole(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for SystemRole {
    type Error = UnknownSystemRole;
    fn try_from(text: String) -> Result<Self, UnknownSystemRole> {
        text.parse()
    }
}

impl From<SystemRole> for String {
    fn from(role: SystemRole) -> String {
        role.as_str().to_owned()
    }
}

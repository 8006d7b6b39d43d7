//! A database as one agent serves it.

use serde::{Deserialize, Serialize};

use super::{Database, DatabaseServer, LONGEST};
use crate::resource::ResourceKind;
use crate::resource::node::{MOST_ADDRS, is_host_and_port, refuse};
use crate::resource::object::{ResourceError, Spec};
use crate::{HostId, HostName, NameError, flex};

/// Whether a database answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// It takes connections.
    Healthy,
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// It does not.
    Unhealthy,
}

/// Whether a database answers, as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DbHealth {
    /// Whether it does.
    pub status: HealthStatus,
    /// Why it does not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A database that an agent serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseServerSpec {
    /// The agent.
    pub host_id: HostId,
    /// Name of the agent's host.
    pub hostname: String,
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Where the agent listens, `host:port`; empty for one that is reached through a tunnel only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub addr: String,
    /// Whether it is reached through the tunnel it holds to the proxies.
    #[serde(default, deserialize_with = "flex::bool", skip_serializing_if = "std::ops::Not::not")]
    pub use_tunnel: bool,
    /// The proxies it holds tunnels to.
    #[serde(
        default,
        deserialize_with = "flex::null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub proxy_ids: Vec<HostId>,
    /// The database.
    pub database: Database,
    /// Whether the database answers.
    #[serde(default)]
    pub health: DbHealth,
}

impl Spec for DatabaseServerSpec {
    const KIND: ResourceKind = ResourceKind::DbServer;
    const VERSIONS: &'static [&'static str] = &["v3"];
    const DEFAULT_VERSION: &'static str = "v3";

    fn check_name(name: &str) -> Result<(), NameError> {
        crate::name::check_database(name)
    }

    fn check(&self) -> Result<(), ResourceError> {
        if let Err(error) = HostName::new(self.hostname.as_str()) {
            return refuse("spec.hostname", error.to_string());
        }
        if !self.addr.is_empty() && !is_host_and_port(&self.addr) {
            return refuse("spec.addr", "expected HOST:PORT, such as 10.0.0.7:3022".to_owned());
        }
        if self.version.len() > 64 || !self.version.chars().all(|c| c.is_ascii_graphic()) {
            return refuse("spec.version", "is no version".to_owned());
        }
        if self.proxy_ids.len() > MOST_ADDRS {
            return refuse("spec.proxy_ids", "too many".to_owned());
        }
        if self.health.message.len() > LONGEST {
            return refuse("spec.health.message", format!("has more than {LONGEST} bytes"));
        }
        Ok(())
    }

    fn check_object(object: &DatabaseServer) -> Result<(), ResourceError> {
        if object.name() != object.spec.database.name() {
            return refuse("metadata.name", "expected the name of spec.database".to_owned());
        }
        Ok(())
    }
}

impl DatabaseServer {
    /// A database that a host serves, reached through its tunnel.
    pub fn of(host_id: HostId, hostname: impl Into<String>, database: Database) -> Self {
        let spec = DatabaseServerSpec {
            host_id,
            hostname: hostname.into(),
            version: String::new(),
            addr: String::new(),
            use_tunnel: true,
            proxy_ids: Vec::new(),
            health: DbHealth::default(),
            database,
        };
        Self::new(spec.database.name().to_owned(), spec)
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.spec.database
    }
}

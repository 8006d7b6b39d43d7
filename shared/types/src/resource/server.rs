//! Services that joined, as `tctl get proxies` shows them. They are not written: they join, and are removed.

use super::ResourceKind;
use super::object::{Object, Spec};
use crate::NameError;
use serde::{Deserialize, Serialize};

/// A proxy that joined; its name is its host id.
pub type ProxyServer = Object<ServerSpec>;

/// What is known of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSpec {
    /// The host's name.
    pub hostname: String,
    /// Where users reach it, `host:port`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub public_addrs: Vec<String>,
}

impl Spec for ServerSpec {
    const KIND: ResourceKind = ResourceKind::Proxy;
    const VERSIONS: &'static [&'static str] = &["v2"];
    const DEFAULT_VERSION: &'static str = "v2";

    fn check_name(name: &str) -> Result<(), NameError> {
        crate::name::check_host_id(name)
    }
}

//! Time-outs and routing of the cluster.

use super::ResourceKind;
use super::object::{Object, Spec};
use crate::{GoDuration, NameError, flex};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Time-outs and routing of the cluster.
pub type ClusterNetworkingConfig = Object<NetworkingSpec>;

/// How agents reach proxies.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TunnelStrategy {
    /// `agent_mesh` or `proxy_peering`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Connections per agent with `proxy_peering`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_connection_count: Option<u32>,
}

/// What a networking configuration says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkingSpec {
    /// After how long without traffic sessions end; 0 never.
    pub client_idle_timeout: GoDuration,
    /// What the user of an ended idle session reads.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub idle_timeout_message: String,
    /// After how long without traffic web sessions end.
    pub web_idle_timeout: GoDuration,
    /// How often connections are probed.
    pub keep_alive_interval: GoDuration,
    /// How many probes may stay unanswered.
    pub keep_alive_count_max: u32,
    /// How long a session's slot outlives a lost auth service.
    pub session_control_timeout: GoDuration,
    /// How long a dial to a target may take.
    pub ssh_dial_timeout: GoDuration,
    /// 0 separate ports, 1 everything on one.
    pub proxy_listener_mode: u8,
    /// How a name with several hosts is resolved: 0 unambiguous, 1 the most recent.
    pub routing_strategy: Value,
    /// How agents reach proxies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_strategy: Option<TunnelStrategy>,
    /// How often proxies probe agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_ping_interval: Option<GoDuration>,
    /// Whether host names compare without case.
    #[serde(deserialize_with = "flex::bool")]
    pub case_insensitive_routing: bool,
    /// Whether every client gets all authorities.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub load_all_cas: Option<bool>,
}

impl NetworkingSpec {
    /// Whether a name of several nodes means the one that was heard of last; else it means none.
    pub fn routes_to_most_recent(&self) -> bool {
        self.routing_strategy == 1 || self.routing_strategy == "most_recent"
    }
}

impl Default for NetworkingSpec {
    fn default() -> Self {
        NetworkingSpec {
            client_idle_timeout: GoDuration::default(),
            idle_timeout_message: String::new(),
            web_idle_timeout: GoDuration::from_secs(600),
            keep_alive_interval: GoDuration::from_secs(300),
            keep_alive_count_max: 3,
            session_control_timeout: GoDuration::from_secs(120),
            ssh_dial_timeout: GoDuration::from_secs(30),
            proxy_listener_mode: 0,
            routing_strategy: Value::from(0),
            tunnel_strategy: None,
            proxy_ping_interval: None,
            case_insensitive_routing: false,
            load_all_cas: None,
        }
    }
}

impl Spec for NetworkingSpec {
    const KIND: ResourceKind = ResourceKind::ClusterNetworkingConfig;
    const VERSIONS: &'static [&'static str] = &["v2"];
    const DEFAULT_VERSION: &'static str = "v2";

    fn check_name(_: &str) -> Result<(), NameError> {
        Ok(())
    }
}

impl Default for ClusterNetworkingConfig {
    fn default() -> Self {
        Object::new("cluster-networking-config", NetworkingSpec::default())
    }
}

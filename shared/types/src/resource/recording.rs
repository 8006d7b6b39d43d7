//! How sessions are recorded.

use super::ResourceKind;
use super::object::{Object, Spec};
use crate::{NameError, flex};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where sessions are recorded.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum RecordingMode {
    /// Nowhere.
    Off,
    /// On the node, uploaded at the end.
    #[default]
    Node,
    /// On the node, streamed to the auth service.
    NodeSync,
    /// On the proxy, uploaded at the end.
    Proxy,
    /// On the proxy, streamed to the auth service.
    ProxySync,
}

/// The text names no recording mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown recording mode {0:?}, expected one of node, node-sync, proxy, proxy-sync, off")]
pub struct UnknownRecordingMode(String);

impl RecordingMode {
    /// All modes.
    pub const ALL: [RecordingMode; 5] = [
        RecordingMode::Off,
        RecordingMode::Node,
        RecordingMode::NodeSync,
        RecordingMode::Proxy,
        RecordingMode::ProxySync,
    ];

    /// The name as documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            RecordingMode::Off => "off",
            RecordingMode::Node => "node",
            RecordingMode::NodeSync => "node-sync",
            RecordingMode::Proxy => "proxy",
            RecordingMode::ProxySync => "proxy-sync",
        }
    }

    /// Whether the proxy records, and so ends the user's SSH connection itself.
    pub fn is_proxy(self) -> bool {
        matches!(self, RecordingMode::Proxy | RecordingMode::ProxySync)
    }

    /// Whether recordings are streamed instead of uploaded at the end.
    pub fn is_sync(self) -> bool {
        matches!(self, RecordingMode::NodeSync | RecordingMode::ProxySync)
    }
}

impl std::fmt::Display for RecordingMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for RecordingMode {
    type Err = UnknownRecordingMode;
    fn from_str(text: &str) -> Result<Self, UnknownRecordingMode> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| UnknownRecordingMode(text.chars().take(64).collect()))
    }
}

/// How sessions are recorded.
pub type SessionRecordingConfig = Object<RecordingSpec>;

/// What a recording configuration says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordingSpec {
    /// Where sessions are recorded. YAML reads a bare `off` as a boolean, which is taken too.
    #[serde(deserialize_with = "mode")]
    pub mode: RecordingMode,
    /// Whether a recording proxy insists on a host certificate of the cluster's host CA.
    #[serde(deserialize_with = "flex::bool")]
    pub proxy_checks_host_keys: bool,
    /// Encryption of recordings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Value>,
}

struct ModeVisitor;

impl serde::de::Visitor<'_> for ModeVisitor {
    type Value = RecordingMode;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("one of node, node-sync, proxy, proxy-sync, off")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RecordingMode, E> {
        text.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<RecordingMode, E> {
        if value {
            Err(E::invalid_value(serde::de::Unexpected::Bool(value), &self))
        } else {
            Ok(RecordingMode::Off)
        }
    }
}

fn mode<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<RecordingMode, D::Error> {
    deserializer.deserialize_any(ModeVisitor)
}

impl Default for RecordingSpec {
    fn default() -> Self {
        RecordingSpec { mode: RecordingMode::Node, proxy_checks_host_keys: true, encryption: None }
    }
}

impl Spec for RecordingSpec {
    const KIND: ResourceKind = ResourceKind::SessionRecordingConfig;
    const VERSIONS: &'static [&'static str] = &["v2"];
    const DEFAULT_VERSION: &'static str = "v2";

    fn check_name(_: &str) -> Result<(), NameError> {
        Ok(())
    }
}

impl Default for SessionRecordingConfig {
    fn default() -> Self {
        Object::new("session-recording-config", RecordingSpec::default())
    }
}

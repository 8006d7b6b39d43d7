//! `spec.options` of a role.

use crate::{GoDuration, flex};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

/// Whether a session goes on when it cannot be recorded.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Strictness {
    /// It goes on, and the failure is an event.
    #[default]
    BestEffort,
    /// It ends.
    Strict,
}

/// Form of user certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertFormat {
    /// With the cluster's extensions.
    #[default]
    Standard,
    /// For OpenSSH before 7.1, which cannot read them.
    Oldssh,
}

/// Whether a second factor is asked for with every session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionMfa {
    /// No.
    #[default]
    No,
    /// Yes, any.
    Yes,
    /// A key in hardware.
    HardwareKey,
    /// A key in hardware, touched.
    HardwareKeyTouch,
    /// A key in hardware, with its PIN.
    HardwareKeyPin,
    /// A key in hardware, touched and with its PIN.
    HardwareKeyTouchAndPin,
}

struct MfaVisitor;

impl de::Visitor<'_> for MfaVisitor {
    type Value = SessionMfa;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no, yes, hardware_key, hardware_key_touch, hardware_key_pin or hardware_key_touch_and_pin")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<SessionMfa, E> {
        Ok(if value { SessionMfa::Yes } else { SessionMfa::No })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SessionMfa, E> {
        Ok(match text {
            "hardware_key" => SessionMfa::HardwareKey,
            "hardware_key_touch" => SessionMfa::HardwareKeyTouch,
            "hardware_key_pin" => SessionMfa::HardwareKeyPin,
            "hardware_key_touch_and_pin" => SessionMfa::HardwareKeyTouchAndPin,
            other => match flex::parse_bool(other) {
                Some(value) => return self.visit_bool(value),
                None => return Err(E::invalid_value(de::Unexpected::Str(other), &self)),
            },
        })
    }
}

impl<'de> Deserialize<'de> for SessionMfa {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MfaVisitor)
    }
}

/// What happens when a session cannot be recorded, per protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordSession {
    /// For protocols not named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Strictness>,
    /// For SSH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh: Option<Strictness>,
    /// Whether desktops are recorded.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub desktop: Option<bool>,
}

/// A switch of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForwardSwitch {
    /// On or off.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Port forwarding by direction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SshPortForwarding {
    /// From the client to the target (`-L`, `-D`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<ForwardSwitch>,
    /// From the target to the client (`-R`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<ForwardSwitch>,
}

/// An extension added to SSH certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertExtension {
    /// `ssh`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `extension`.
    pub mode: String,
    /// Its name.
    pub name: String,
    /// Its value, or a template of it.
    pub value: String,
}

/// A way files are copied, as the user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferDirection {
    /// From the client to the server, and whatever else changes files there.
    Upload,
    /// From the server to the client.
    Download,
}

impl TransferDirection {
    /// As roles and events spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
        }
    }
}

/// How sessions and certificates of a role's holders behave. What is absent has the documented default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoleOptions {
    /// Longest life of a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_session_ttl: Option<GoDuration>,
    /// Whether the agent may be forwarded to the target.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub forward_agent: Option<bool>,
    /// Whether ports may be forwarded.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub port_forwarding: Option<bool>,
    /// Port forwarding by direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_port_forwarding: Option<SshPortForwarding>,
    /// Whether files may be copied.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub ssh_file_copy: Option<bool>,
    /// The only ways files may be copied; absent, both. An empty list allows none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_file_transfer: Option<Vec<TransferDirection>>,
    /// Whether `tsh` signs only logins that name the server, which an sshd before 8.9 cannot ask for.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub ssh_hostbound_only: Option<bool>,
    /// Whether X11 may be forwarded.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub permit_x11_forwarding: Option<bool>,
    /// After how long without traffic a session ends; 0 never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_idle_timeout: Option<GoDuration>,
    /// Whether a session ends with its certificate.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub disconnect_expired_cert: Option<bool>,
    /// Sessions per connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<i64>,
    /// Connections per user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
    /// Kubernetes connections per user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_kubernetes_connections: Option<i64>,
    /// What the kernel records on nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enhanced_recording: Option<Vec<String>>,
    /// What happens when a session cannot be recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_session: Option<RecordSession>,
    /// Form of user certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_format: Option<CertFormat>,
    /// Trusted devices: `off`, `optional`, `required`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_trust_mode: Option<String>,
    /// Whether a second factor is asked for with every session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_session_mfa: Option<SessionMfa>,
    /// How long a second factor counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfa_verification_interval: Option<GoDuration>,
    /// What happens when locks are not up to date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<Strictness>,
    /// `optional`, `always`, `reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_access: Option<String>,
    /// What to ask when a reason is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_prompt: Option<String>,
    /// Whether a certificate is good only from the address that logged in.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub pin_source_ip: Option<bool>,
    /// Whether desktops share the clipboard.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub desktop_clipboard: Option<bool>,
    /// Whether desktops share folders.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub desktop_directory_sharing: Option<bool>,
    /// Extensions added to SSH certificates.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub cert_extensions: Vec<CertExtension>,
    /// Users created on hosts: `off`, `keep`, `insecure-drop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_host_user_mode: Option<String>,
    /// Shell of users created on hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_host_user_default_shell: Option<String>,
    /// Old form of `create_host_user_mode`.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub create_host_user: Option<bool>,
    /// Users created in databases: `off`, `keep`, `best_effort_drop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_db_user_mode: Option<String>,
    /// Old form of `create_db_user_mode`.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub create_db_user: Option<bool>,
    /// Users created on desktops.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub create_desktop_user: Option<bool>,
    /// Identity provider settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idp: Option<Value>,
}

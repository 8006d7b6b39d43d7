//! How users authenticate.

use super::object::{Object, Spec};
use super::{ResourceKind, SessionMfa, Strictness};
use crate::{GoDuration, NameError, flex};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How users authenticate.
pub type ClusterAuthPreference = Object<AuthPreferenceSpec>;

/// What an authentication preference says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthPreferenceSpec {
    /// `local` or a kind of connector.
    #[serde(rename = "type")]
    pub kind: String,
    /// Kinds of second factors: `on`, `otp`, `webauthn`, `optional`, `off`.
    #[serde(deserialize_with = "second_factor", skip_serializing_if = "Option::is_none")]
    pub second_factor: Option<String>,
    /// Kinds of second factors, as a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_factors: Option<Vec<Value>>,
    /// Default connector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector_name: Option<String>,
    /// Whether local users may log in.
    #[serde(deserialize_with = "flex::bool")]
    pub allow_local_auth: bool,
    /// Whether login without a password is offered.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub allow_passwordless: Option<bool>,
    /// Whether login from a machine without a browser is offered.
    #[serde(deserialize_with = "flex::option_bool", skip_serializing_if = "Option::is_none")]
    pub allow_headless: Option<bool>,
    /// Whether a second factor is asked for with every session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_session_mfa: Option<SessionMfa>,
    /// What happens when locks are not up to date.
    pub locking_mode: Strictness,
    /// Whether a session ends with its certificate.
    #[serde(deserialize_with = "flex::bool")]
    pub disconnect_expired_cert: bool,
    /// Life of a certificate when none is asked for.
    pub default_session_ttl: GoDuration,
    /// Shown and acknowledged before a login.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message_of_the_day: String,
    /// WebAuthn settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webauthn: Option<Value>,
    /// U2F settings of old releases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub u2f: Option<Value>,
    /// Trusted devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_trust: Option<Value>,
    /// Keys in hardware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware_key: Option<Value>,
    /// Key types.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature_algorithm_suite: Option<Value>,
    /// Stable user ids on hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable_unix_user_config: Option<Value>,
    /// Identity provider settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idp: Option<Value>,
    /// Okta settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub okta: Option<Value>,
}

fn second_factor<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    // `on` and `off` are booleans to a YAML reader.
    Ok(match Option::<Value>::deserialize(deserializer)? {
        None | Some(Value::Null) => None,
        Some(Value::Bool(on)) => Some(if on { "on" } else { "off" }.to_owned()),
        Some(Value::String(text))
            if matches!(text.as_str(), "on" | "off" | "otp" | "webauthn" | "optional" | "u2f") =>
        {
            Some(text)
        }
        Some(other) => {
            let text = other.to_string();
            let expected = "one of on, off, otp, webauthn, optional";
            return Err(serde::de::Error::invalid_value(
                serde::de::Unexpected::Other(&text),
                &expected,
            ));
        }
    })
}

impl Default for AuthPreferenceSpec {
    fn default() -> Self {
        AuthPreferenceSpec {
            kind: "local".to_owned(),
            second_factor: None,
            second_factors: None,
            connector_name: None,
            allow_local_auth: true,
            allow_passwordless: None,
            allow_headless: None,
            require_session_mfa: None,
            locking_mode: Strictness::BestEffort,
            disconnect_expired_cert: false,
            default_session_ttl: GoDuration::from_hours(12),
            message_of_the_day: String::new(),
            webauthn: None,
            u2f: None,
            device_trust: None,
            hardware_key: None,
            signature_algorithm_suite: None,
            stable_unix_user_config: None,
            idp: None,
            okta: None,
        }
    }
}

impl Spec for AuthPreferenceSpec {
    const KIND: ResourceKind = ResourceKind::ClusterAuthPreference;
    const VERSIONS: &'static [&'static str] = &["v2"];
    const DEFAULT_VERSION: &'static str = "v2";

    fn check_name(_: &str) -> Result<(), NameError> {
        Ok(())
    }
}

impl Default for ClusterAuthPreference {
    fn default() -> Self {
        Object::new("cluster-auth-preference", AuthPreferenceSpec::default())
    }
}

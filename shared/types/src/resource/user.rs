//! Users.

use super::ResourceKind;
use super::object::{Object, Spec};
use crate::{NameError, RoleName, Traits, UserName, flex};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A user.
pub type User = Object<UserSpec>;

/// What is known of a user. Password hashes are not part of the resource.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserSpec {
    /// Roles.
    #[serde(deserialize_with = "flex::null_default")]
    pub roles: Vec<RoleName>,
    /// Attributes that role templates use.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Traits::is_empty")]
    pub traits: Traits,
    /// Whether the user is locked out.
    #[serde(deserialize_with = "flex::null_default")]
    pub status: UserStatus,
    /// When the user ceases to exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<DateTime<Utc>>,
    /// Who made the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<CreatedBy>,
    /// Identities of connectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc_identities: Option<Value>,
    /// Identities of connectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saml_identities: Option<Value>,
    /// Identities of connectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub github_identities: Option<Value>,
    /// Trusted devices.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub trusted_device_ids: Vec<String>,
}

/// Whether a user is locked out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserStatus {
    /// Whether the user is locked out.
    #[serde(deserialize_with = "flex::bool")]
    pub is_locked: bool,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked_message: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked_time: Option<DateTime<Utc>>,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_expires: Option<DateTime<Utc>>,
    /// Written by other releases; read and kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_attempt_lock_expires: Option<DateTime<Utc>>,
}

/// Who made a user.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreatedBy {
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<DateTime<Utc>>,
    /// Which user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<CreatedByUser>,
    /// Which connector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector: Option<Value>,
}

/// The user who made another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreatedByUser {
    /// The name.
    pub name: String,
}

impl User {
    /// The name as a type; `None` if a user was built by hand with a bad one.
    pub fn user_name(&self) -> Option<UserName> {
        UserName::new(self.metadata.name.as_str()).ok()
    }

    /// Whether the user is locked out at `now`.
    pub fn is_locked(&self, now: DateTime<Utc>) -> bool {
        self.spec.status.is_locked && self.spec.status.lock_expires.is_none_or(|until| until > now)
    }
}

impl Spec for UserSpec {
    const KIND: ResourceKind = ResourceKind::User;
    const VERSIONS: &'static [&'static str] = &["v2", "v1"];
    const DEFAULT_VERSION: &'static str = "v2";

    fn check_name(name: &str) -> Result<(), NameError> {
        UserName::new(name).map(drop)
    }
}

//! Roles.

use super::object::{Object, ResourceError, Spec};
use super::{ResourceKind, RoleConditions, RoleOptions};
use crate::{NameError, RoleName, flex::Values};
use serde::{Deserialize, Serialize};

/// A role: options, and what it allows and denies.
pub type Role = Object<RoleSpec>;

/// What a role says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoleSpec {
    /// How sessions and certificates behave.
    #[serde(deserialize_with = "crate::flex::null_default")]
    pub options: RoleOptions,
    /// What is allowed.
    #[serde(deserialize_with = "crate::flex::null_default")]
    pub allow: RoleConditions,
    /// What is denied; checked first, and wins over any role's allow.
    #[serde(deserialize_with = "crate::flex::null_default")]
    pub deny: RoleConditions,
}

impl Spec for RoleSpec {
    const KIND: ResourceKind = ResourceKind::Role;
    const VERSIONS: &'static [&'static str] = &["v3", "v4", "v5", "v6", "v7", "v8"];
    const DEFAULT_VERSION: &'static str = "v7";

    fn check_name(name: &str) -> Result<(), NameError> {
        RoleName::new(name).map(drop)
    }

    fn check(&self) -> Result<(), ResourceError> {
        self.allow.check("spec.allow")?;
        self.deny.check("spec.deny")?;
        for (field, present) in [
            ("spec.deny.require_session_join", self.deny.require_session_join.is_some()),
            ("spec.deny.join_sessions", self.deny.join_sessions.is_some()),
        ] {
            if present {
                let why = "belongs into allow only".to_owned();
                return Err(ResourceError::Field { field: field.to_owned(), why });
            }
        }
        Ok(())
    }
}

impl Role {
    /// The name as a type; `None` if a role was built by hand with a bad one.
    pub fn role_name(&self) -> Option<RoleName> {
        RoleName::new(self.metadata.name.as_str()).ok()
    }

    /// Fills in what old versions of the form mean when they leave it out: v3 admits every node once a login is
    /// listed.
    pub fn with_version_defaults(mut self) -> Role {
        if self.version == "v3" {
            let allow = &mut self.spec.allow;
            let everything = || [("*".to_owned(), Values::from("*"))].into();
            if allow.node_labels.is_empty() && !allow.logins.is_empty() {
                allow.node_labels = everything();
            }
            for labels in
                [&mut allow.app_labels, &mut allow.kubernetes_labels, &mut allow.db_labels]
            {
                if labels.is_empty() {
                    *labels = everything();
                }
            }
        }
        self
    }
}

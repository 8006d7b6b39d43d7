//! Join tokens.

use super::ResourceKind;
use super::object::{Object, ResourceError, Spec};
use crate::{Labels, NameError, SystemRole, flex};
use serde::{Deserialize, Serialize};

/// A join token. Its name is the secret a joining service presents, so it stays out of debug output.
pub type ProvisionToken = Object<TokenSpec>;

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenSpec {
    /// What the joining service may become.
    #[serde(deserialize_with = "flex::null_default")]
    pub roles: Vec<SystemRole>,
    /// How the joining service proves itself; `token` by the secret alone.
    pub join_method: String,
    /// Whether it lets one service in, and no second.
    #[serde(deserialize_with = "flex::bool", skip_serializing_if = "std::ops::Not::not")]
    pub single_use: bool,
    /// Labels of joining nodes.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Labels::is_empty")]
    pub suggested_labels: Labels,
    /// Labels of resources that a joining agent should serve.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Labels::is_empty")]
    pub suggested_agent_matcher_labels: Labels,
}

impl Default for TokenSpec {
    fn default() -> Self {
        TokenSpec {
            roles: Vec::new(),
            join_method: "token".to_owned(),
            single_use: false,
            suggested_labels: Labels::new(),
            suggested_agent_matcher_labels: Labels::new(),
        }
    }
}

impl Spec for TokenSpec {
    const KIND: ResourceKind = ResourceKind::Token;
    const VERSIONS: &'static [&'static str] = &["v2"];
    const DEFAULT_VERSION: &'static str = "v2";
    const SECRET_NAME: bool = true;

    fn check_name(name: &str) -> Result<(), NameError> {
        crate::name::check_secret("token", name)
    }

    fn check(&self) -> Result<(), ResourceError> {
        let refuse =
            |field: &str, why: String| Err(ResourceError::Field { field: field.to_owned(), why });
        if self.join_method != "token" {
            return refuse(
                "spec.join_method",
                format!("unknown join method {:?}, expected token", self.join_method),
            );
        }
        if self.roles.is_empty() {
            return refuse(
                "spec.roles",
                "is empty, expected at least one of Auth, Proxy, Node, Db".to_owned(),
            );
        }
        if self.roles.contains(&SystemRole::Admin) {
            return refuse(
                "spec.roles",
                "no service joins as Admin, expected Auth, Proxy, Node or Db".to_owned(),
            );
        }
        Ok(())
    }
}

//! `spec.allow` and `spec.deny` of a role.
//!
//! Fields of services this release does not run are read, checked for shape and kept, so that a role survives
//! a round trip.

use super::ResourceError;
use crate::flex::{self, Values};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Label key to accepted values.
pub type LabelMap = BTreeMap<String, Values>;

/// What a role allows or denies.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoleConditions {
    /// OS logins, or templates of them.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<String>,
    /// OS logins on Windows desktops.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub windows_desktop_logins: Vec<String>,
    /// Labels of SSH nodes.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "LabelMap::is_empty")]
    pub node_labels: LabelMap,
    /// Labels of applications.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "LabelMap::is_empty")]
    pub app_labels: LabelMap,
    /// Labels of trusted clusters.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "LabelMap::is_empty")]
    pub cluster_labels: LabelMap,
    /// Labels of Kubernetes clusters.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "LabelMap::is_empty")]
    pub kubernetes_labels: LabelMap,
    /// Labels of databases.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "LabelMap::is_empty")]
    pub db_labels: LabelMap,
    /// Labels of database services.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "LabelMap::is_empty")]
    pub db_service_labels: LabelMap,
    /// Labels of Windows desktops.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "LabelMap::is_empty")]
    pub windows_desktop_labels: LabelMap,
    /// Labels of user groups.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "LabelMap::is_empty")]
    pub group_labels: LabelMap,
    /// Labels of workload identities.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "LabelMap::is_empty")]
    pub workload_identity_labels: LabelMap,
    /// Predicate over labels of SSH nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_labels_expression: Option<String>,
    /// Predicate over labels of applications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_labels_expression: Option<String>,
    /// Predicate over labels of trusted clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_labels_expression: Option<String>,
    /// Predicate over labels of Kubernetes clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_labels_expression: Option<String>,
    /// Predicate over labels of databases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_labels_expression: Option<String>,
    /// Predicate over labels of database services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_service_labels_expression: Option<String>,
    /// Predicate over labels of Windows desktops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows_desktop_labels_expression: Option<String>,
    /// Predicate over labels of user groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_labels_expression: Option<String>,
    /// Predicate over labels of workload identities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_identity_labels_expression: Option<String>,
    /// Kubernetes groups.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_groups: Vec<String>,
    /// Kubernetes users.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_users: Vec<String>,
    /// Kubernetes objects.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_resources: Vec<KubernetesResource>,
    /// Database users.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub db_users: Vec<String>,
    /// Database names.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub db_names: Vec<String>,
    /// Database roles.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub db_roles: Vec<String>,
    /// Database permissions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_permissions: Option<Value>,
    /// AWS roles.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub aws_role_arns: Vec<String>,
    /// Azure identities.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub azure_identities: Vec<String>,
    /// Google Cloud service accounts.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub gcp_service_accounts: Vec<String>,
    /// Groups of users created on hosts.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub host_groups: Vec<String>,
    /// Sudo rules of users created on hosts.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub host_sudoers: Vec<String>,
    /// Groups of users created on desktops.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub desktop_groups: Vec<String>,
    /// Whom a holder may act for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonate: Option<Value>,
    /// Which roles a holder may ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// Which requests a holder may review.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review_requests: Option<Value>,
    /// Who has to be present in a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_session_join: Option<Value>,
    /// Which sessions a holder may join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_sessions: Option<Value>,
    /// GitHub organisations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub github_permissions: Option<Value>,
    /// Tools of model servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp: Option<Value>,
    /// Workload identities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe: Option<Value>,
    /// Actions on the cluster's own resources.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// Which actions on which kinds of resources.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Kinds, or `*`.
    #[serde(deserialize_with = "flex::null_default")]
    pub resources: Vec<String>,
    /// Verbs, or `*`.
    #[serde(deserialize_with = "flex::null_default")]
    pub verbs: Vec<String>,
    /// A condition on user and resource.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub r#where: Option<String>,
    /// Read for compatibility; has no effect.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
}

/// Objects within a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesResource {
    /// Kind, or `*`.
    pub kind: String,
    /// API group (v8).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// Name space, or `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name, or `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Verbs, or `*`.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<String>,
}

const VERBS: [&str; 11] = [
    "*",
    "list",
    "create",
    "read",
    "readnosecrets",
    "update",
    "delete",
    "rotate",
    "use",
    "enroll",
    "create_enroll_token",
];

impl RoleConditions {
    /// Label maps by field name.
    pub fn label_maps(&self) -> [(&'static str, &LabelMap); 9] {
        [
            ("node_labels", &self.node_labels),
            ("app_labels", &self.app_labels),
            ("cluster_labels", &self.cluster_labels),
            ("kubernetes_labels", &self.kubernetes_labels),
            ("db_labels", &self.db_labels),
            ("db_service_labels", &self.db_service_labels),
            ("windows_desktop_labels", &self.windows_desktop_labels),
            ("group_labels", &self.group_labels),
            ("workload_identity_labels", &self.workload_identity_labels),
        ]
    }

    pub(super) fn check(&self, at: &str) -> Result<(), ResourceError> {
        for (name, labels) in self.label_maps() {
            if labels.get("*").is_some_and(|values| values.iter().any(|value| value != "*")) {
                let why = "the key '*' takes only the value '*'".to_owned();
                return Err(ResourceError::Field { field: format!("{at}.{name}"), why });
            }
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let field = |name: &str| format!("{at}.rules[{index}].{name}");
            if rule.resources.is_empty() {
                return Err(ResourceError::Field {
                    field: field("resources"),
                    why: "is empty".to_owned(),
                });
            }
            if rule.verbs.is_empty() {
                return Err(ResourceError::Field {
                    field: field("verbs"),
                    why: "is empty".to_owned(),
                });
            }
            if let Some(verb) = rule.verbs.iter().find(|verb| !VERBS.contains(&verb.as_str())) {
                let why = format!("unknown verb {verb:?}, expected one of {}", VERBS.join(", "));
                return Err(ResourceError::Field { field: field("verbs"), why });
            }
        }
        Ok(())
    }
}

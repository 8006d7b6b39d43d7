//! The roles every cluster starts with.

use super::conditions::{KubernetesResource, LabelMap, RoleConditions, Rule};
use super::options::{CertFormat, RecordSession, RoleOptions};
use super::role::{Role, RoleSpec};
use crate::{GoDuration, flex::Values};

const READ_WRITE: &[&str] = &["list", "create", "read", "update", "delete"];
const READ: &[&str] = &["list", "read"];
const READ_WRITE_USE: &[&str] = &["list", "create", "read", "update", "delete", "use"];
const READ_USE: &[&str] = &["list", "read", "use"];
const DEVICE: &[&str] =
    &["list", "create", "read", "update", "delete", "create_enroll_token", "enroll"];

const EDITOR: &[(&str, &[&str])] = &[
    ("user", READ_WRITE),
    ("role", READ_WRITE),
    ("bot", READ_WRITE),
    ("crown_jewel", READ_WRITE),
    ("db_object_import_rule", READ_WRITE),
    ("oidc", READ_WRITE),
    ("saml", READ_WRITE),
    ("github", READ_WRITE),
    ("oidc_request", READ_WRITE),
    ("saml_request", READ_WRITE),
    ("github_request", READ_WRITE),
    ("cluster_audit_config", READ_WRITE),
    ("cluster_auth_preference", READ_WRITE),
    ("auth_connector", READ_WRITE),
    ("cluster_name", READ_WRITE),
    ("cluster_networking_config", READ_WRITE),
    ("session_recording_config", READ_WRITE),
    ("external_audit_storage", READ_WRITE),
    ("ui_config", READ_WRITE),
    ("trusted_cluster", READ_WRITE),
    ("remote_cluster", READ_WRITE),
    ("token", READ_WRITE),
    ("connection_diagnostic", READ_WRITE),
    ("db", READ_WRITE),
    ("database_certificate", READ_WRITE),
    ("installer", READ_WRITE),
    ("device", DEVICE),
    ("db_service", READ),
    ("instance", READ),
    ("login_rule", READ_WRITE),
    ("saml_idp_service_provider", READ_WRITE),
    ("user_group", READ_WRITE),
    ("plugin", READ_WRITE),
    ("okta_import_rule", READ_WRITE),
    ("okta_assignment", READ_WRITE),
    ("lock", READ_WRITE),
    ("integration", READ_WRITE_USE),
    ("billing", READ_WRITE),
    ("cluster_alert", READ_WRITE),
    ("access_list", READ_WRITE),
    ("node", READ_WRITE),
    ("discovery_config", READ_WRITE),
    ("security_report", READ_WRITE_USE),
    ("audit_query", READ_WRITE_USE),
    ("access_graph", READ_WRITE),
    ("server_info", READ_WRITE),
    ("access_monitoring_rule", READ_WRITE),
    ("app_server", READ_WRITE),
    ("vnet_config", READ_WRITE),
    ("bot_instance", READ_WRITE),
    ("access_graph_settings", READ_WRITE),
    ("spiffe_federation", READ_WRITE),
    ("notification", READ_WRITE),
    ("static_host_user", READ_WRITE),
    ("user_task", READ_WRITE),
];

const AUDITOR: &[(&str, &[&str])] = &[
    ("session", READ),
    ("event", READ),
    ("session_tracker", READ),
    ("cluster_alert", READ),
    ("instance", READ),
    ("security_report", READ_USE),
    ("audit_query", READ_USE),
    ("bot_instance", READ),
    ("notification", READ),
];

fn rule(resource: &str, verbs: &[&str]) -> Rule {
    Rule {
        resources: vec![resource.to_owned()],
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..Rule::default()
    }
}

fn rules(table: &[(&str, &[&str])]) -> Vec<Rule> {
    table.iter().map(|(resource, verbs)| rule(resource, verbs)).collect()
}

fn everything() -> LabelMap {
    [("*".to_owned(), Values::from("*"))].into()
}

fn trait_of(name: &str) -> Vec<String> {
    vec![format!("{{{{internal.{name}}}}}")]
}

fn options(desktop: bool) -> RoleOptions {
    RoleOptions {
        max_session_ttl: Some(GoDuration::from_hours(30)),
        cert_format: Some(CertFormat::Standard),
        port_forwarding: Some(true),
        forward_agent: Some(true),
        enhanced_recording: Some(vec!["command".to_owned(), "network".to_owned()]),
        record_session: Some(RecordSession { desktop: Some(desktop), ..RecordSession::default() }),
        ..RoleOptions::default()
    }
}

fn preset(name: &str, description: &str, options: RoleOptions, allow: RoleConditions) -> Role {
    let mut role = Role::new(name, RoleSpec { options, allow, deny: RoleConditions::default() });
    role.metadata.description = Some(description.to_owned());
    role.metadata.labels.insert("teleport.internal/resource-type".to_owned(), "preset".to_owned());
    role
}

impl Role {
    /// `access`: every resource, under the logins of the user's own traits.
    pub fn preset_access() -> Role {
        let own_sessions = Rule {
            r#where: Some("contains(session.participants, user.metadata.name)".to_owned()),
            ..rule("session", &["read", "list"])
        };
        let allow = RoleConditions {
            logins: trait_of("logins"),
            windows_desktop_logins: trait_of("windows_logins"),
            kubernetes_users: trait_of("kubernetes_users"),
            kubernetes_groups: trait_of("kubernetes_groups"),
            db_users: trait_of("db_users"),
            db_names: trait_of("db_names"),
            db_roles: trait_of("db_roles"),
            aws_role_arns: trait_of("aws_role_arns"),
            azure_identities: trait_of("azure_identities"),
            gcp_service_accounts: trait_of("gcp_service_accounts"),
            node_labels: everything(),
            app_labels: everything(),
            kubernetes_labels: everything(),
            windows_desktop_labels: everything(),
            db_labels: everything(),
            db_service_labels: everything(),
            kubernetes_resources: vec![KubernetesResource {
                kind: "*".to_owned(),
                namespace: Some("*".to_owned()),
                name: Some("*".to_owned()),
                verbs: vec!["*".to_owned()],
                ..KubernetesResource::default()
            }],
            rules: vec![
                rule("event", READ),
                own_sessions,
                rule("instance", READ),
                rule("cluster_maintenance_config", READ),
            ],
            ..RoleConditions::default()
        };
        preset("access", "Access cluster resources", options(true), allow)
    }

    /// `editor`: the cluster's own configuration.
    pub fn preset_editor() -> Role {
        let allow = RoleConditions { rules: rules(EDITOR), ..RoleConditions::default() };
        preset("editor", "Edit cluster configuration", options(false), allow)
    }

    /// `auditor`: what happened. Its login is random, so that certificates have a principal and it opens nothing.
    pub fn preset_auditor() -> Role {
        let allow = RoleConditions {
            logins: vec![format!("no-login-{}", uuid::Uuid::new_v4())],
            rules: rules(AUDITOR),
            ..RoleConditions::default()
        };
        let mut options = options(false);
        (options.port_forwarding, options.forward_agent) = (None, None);
        preset("auditor", "Review cluster events and replay sessions", options, allow)
    }

    /// All presets.
    pub fn presets() -> [Role; 3] {
        [Role::preset_access(), Role::preset_editor(), Role::preset_auditor()]
    }
}

#[cfg(test)]
mod tests {
    use crate::resource::{Resource, Role};

    #[test]
    fn presets_are_valid_documents() {
        for role in Role::presets() {
            role.check().unwrap();
            let resource = Resource::from(role);
            assert_eq!(Resource::from_json(resource.to_json()).unwrap(), resource);
        }
    }
}

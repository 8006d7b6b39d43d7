//! The views there are: one for each event type of the catalogue, and the documented ones whose events
//! nothing emits here yet. These exist so that saved queries run, and so that logs which hold such
//! events can be asked; when the catalogue gets the event, its view wins.

use std::{borrow::Cow, collections::HashSet, sync::LazyLock};

use shared_events::{Column, SqlType};

/// A view over the events of one type.
#[derive(Debug)]
pub(crate) struct View {
    /// The event type with dots and dashes as underscores.
    pub(crate) name: String,
    /// The event type.
    pub(crate) event_type: &'static str,
    /// In the order of `SELECT *`.
    pub(crate) columns: Cow<'static, [Column]>,
}

static VIEWS: LazyLock<Vec<View>> = LazyLock::new(|| {
    let catalogue = shared_events::views().iter().map(|view| View {
        name: view.name.clone(),
        event_type: view.event_type,
        columns: Cow::Borrowed(shared_events::columns(view.event_type).unwrap_or_default()),
    });
    let documented = DOCUMENTED.iter().map(|(event_type, groups)| View {
        name: event_type.replace(['.', '-'], "_"),
        event_type,
        columns: Cow::Owned(columns(groups)),
    });
    let mut names = HashSet::new();
    catalogue.chain(documented).filter(|view| names.insert(view.name.clone())).collect()
});

/// All of them.
pub(crate) fn views() -> &'static [View] {
    &VIEWS
}

// Columns as words: the path of the JSON key with `/` between levels, then the type: nothing for text,
// `:i` a number, `:b` a boolean, `:a` a list of texts, `:m` a map's two columns, `:R` and `:M` rows.
const BASE: &str = "ei:i event uid code time cluster_name";
const USER: &str = "user login impersonator aws_role_arn access_requests:a azure_identity gcp_service_account \
    trusted_device/device_id trusted_device/os_type:i trusted_device/asset_tag trusted_device/credential_id \
    trusted_device/device_origin:i trusted_device/web_authentication:b trusted_device/web_authentication_id \
    required_private_key_policy user_kind:i bot_name bot_instance_id";
const SESSION: &str = "sid with_mfa private_key_policy";
const SERVER: &str = "namespace server_id server_hostname server_addr server_labels:m forwarded_by server_sub_kind server_version";
const CONN: &str = "addr.local addr.remote proto";
const STATUS: &str = "success:b error message";
const RES: &str = "name expires updated_by ttl";
const KUBE: &str = "kubernetes_cluster kubernetes_users:a kubernetes_groups:a kubernetes_labels:m";
const BPF: &str = "pid:i cgroup_id:i program";
const DEV: &str = "device/device_id device/os_type:i device/asset_tag device/credential_id device/device_origin:i \
    device/web_authentication:b device/web_authentication_id";
const REQUEST: &str = "id roles:a resource_ids:R reason state proposed_state reviewer delegator max_duration \
    promoted_access_list_name assume_start_time";
const MEMBER: &str = "access_list_name members:M";
const DESKTOP: &str = "windows_desktop_service desktop_addr desktop_name windows_domain windows_user desktop_labels:m";

/// The fields of `:R` and `:M`, by name.
const RESOURCE: &[&str] = &["cluster", "kind", "name", "sub_resource"];
const MEMBERSHIP: &[&str] =
    &["joined_on", "member_name", "membership_kind:i", "reason", "removed_on"];

const DOCUMENTED: &[(&str, &[&str])] = &[
    ("access_list.create", &[RES, STATUS]),
    ("access_list.update", &[RES, STATUS]),
    ("access_list.delete", &[RES, STATUS]),
    ("access_list.member.create", &[RES, STATUS, MEMBER]),
    ("access_list.member.update", &[RES, STATUS, MEMBER]),
    ("access_list.member.delete", &[RES, STATUS, MEMBER]),
    (
        "access_list.review",
        &[
            RES,
            STATUS,
            "review_id membership_requirements_changed/roles:a membership_requirements_changed/traits:m \
             review_frequency_changed review_day_of_month_changed removed_members:a",
        ],
    ),
    ("access_request.create", &[USER, RES, REQUEST]),
    ("access_request.review", &[USER, RES, REQUEST]),
    ("bot.join", &[STATUS, CONN, "bot_name method token_name user_name bot_instance_id"]),
    ("device.authenticate", &[USER, STATUS, DEV]),
    ("device.enroll", &[USER, STATUS, DEV]),
    (
        "kube.request",
        &[
            USER,
            CONN,
            SERVER,
            SESSION,
            KUBE,
            "request_path verb resource_api_group resource_namespace resource_kind resource_name response_code:i",
        ],
    ),
    ("recovery_code.used", &[USER, STATUS]),
    (
        "saml.idp.auth",
        &[
            USER,
            SESSION,
            STATUS,
            "service_provider_entity_id service_provider_shortcut attribute_mapping:m",
        ],
    ),
    ("session.command", &[USER, SESSION, SERVER, BPF, "ppid:i path argv:a return_code:i"]),
    (
        "windows.desktop.session.start",
        &[USER, SESSION, CONN, STATUS, DESKTOP, "allow_user_creation:b nla:b"],
    ),
    (
        "windows.desktop.session.end",
        &[USER, SESSION, DESKTOP, "session_start session_stop recorded:b participants:a"],
    ),
];

fn columns(groups: &[&'static str]) -> Vec<Column> {
    let words = std::iter::once(&BASE).chain(groups).flat_map(|group| group.split_whitespace());
    let mut columns: Vec<Column> = words.flat_map(column).collect();
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    columns.dedup_by(|a, b| a.name == b.name);
    let time = |name: &str, sql_type| Column { name: name.into(), sql_type, path: vec!["time"] };
    columns
        .splice(0..0, [time("event_date", SqlType::Date), time("event_time", SqlType::Timestamp)]);
    columns
}

fn column(word: &'static str) -> Vec<Column> {
    let (path, kind) = word.split_once(':').unwrap_or((word, ""));
    let name = path.replace(['/', '.'], "_");
    let path: Vec<&'static str> = path.split('/').collect();
    // The documented columns of a map are always NULL.
    let nowhere = |suffix: &str| Column {
        name: format!("{name}{suffix}"),
        sql_type: SqlType::Varchar,
        path: Vec::new(),
    };
    match kind {
        "m" => vec![nowhere("_key"), nowhere("_value")],
        kind => vec![Column { name, sql_type: sql_type(kind), path }],
    }
}

fn sql_type(kind: &str) -> SqlType {
    let rows = |fields: &[&'static str]| {
        let field = |field: &&'static str| {
            let (name, kind) = field.split_once(':').unwrap_or((field, ""));
            (name.to_owned(), sql_type(kind))
        };
        SqlType::Rows(fields.iter().map(field).collect())
    };
    match kind {
        "i" => SqlType::BigInt,
        "b" => SqlType::Boolean,
        "a" => SqlType::VarcharArray,
        "R" => rows(RESOURCE),
        "M" => rows(MEMBERSHIP),
        _ => SqlType::Varchar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The views that the guide documents.
    const GUIDE: [&str; 35] = [
        "access_list_create",
        "access_list_update",
        "access_list_delete",
        "access_list_member_create",
        "access_list_member_update",
        "access_list_member_delete",
        "access_list_review",
        "access_request_create",
        "access_request_review",
        "auth",
        "bot_join",
        "cert_create",
        "db_session_start",
        "db_session_query",
        "db_session_query_failed",
        "device_authenticate",
        "device_enroll",
        "exec",
        "instance_join",
        "join_token_create",
        "kube_request",
        "lock_created",
        "lock_deleted",
        "recovery_code_used",
        "reset_password_token_create",
        "saml_idp_auth",
        "session_command",
        "session_join",
        "session_rejected",
        "session_start",
        "user_create",
        "user_login",
        "user_password_change",
        "windows_desktop_session_start",
        "windows_desktop_session_end",
    ];

    #[test]
    fn every_documented_view_is_there_once() {
        for name in GUIDE {
            assert_eq!(views().iter().filter(|view| view.name == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn every_view_begins_alike_and_names_no_column_twice() {
        for view in views() {
            let names: Vec<_> =
                view.columns.iter().map(|column| column.name.to_lowercase()).collect();
            assert_eq!(names[..2], ["event_date", "event_time"], "{}", view.name);
            assert_eq!(
                names.iter().collect::<HashSet<_>>().len(),
                names.len(),
                "{}: {names:?}",
                view.name
            );
            for base in ["ei", "event", "uid", "code", "time", "cluster_name"] {
                assert!(names.iter().any(|name| name == base), "{}: {base}", view.name);
            }
        }
    }
}

//! The options of several roles, merged by the documented rule of each.

use shared_types::resource::{
    CertExtension, CertFormat, RoleOptions, SessionMfa, TransferDirection,
};
use shared_types::{Role, Strictness};
use std::time::Duration;

/// What the options of all roles together say.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedOptions {
    /// Longest life of a certificate: the shortest of the roles'.
    pub max_session_ttl: Duration,
    /// Whether the agent may be forwarded to the target: any role's yes.
    pub forward_agent: bool,
    /// Whether ports may be forwarded from the client to the target.
    pub port_forwarding: bool,
    /// Whether ports may be forwarded from the target to the client.
    pub remote_port_forwarding: bool,
    /// Whether files may be copied at all: any role's no wins.
    pub ssh_file_copy: bool,
    /// Whether files may be copied to the target: every role has to allow it.
    pub file_upload: bool,
    /// Whether files may be copied from the target: every role has to allow it.
    pub file_download: bool,
    /// Whether logins that do not name the server are not signed: any role's yes.
    pub ssh_hostbound_only: bool,
    /// Whether X11 may be forwarded: any role's yes.
    pub permit_x11_forwarding: bool,
    /// After how long without traffic a session ends: the shortest.
    pub client_idle_timeout: Option<Duration>,
    /// Whether a session ends with its certificate; `None` leaves it to the cluster.
    pub disconnect_expired_cert: Option<bool>,
    /// What happens when an SSH session cannot be recorded: the strictest.
    pub record_session_ssh: Strictness,
    /// What happens when a session with a database cannot be recorded: the strictest.
    pub record_session_db: Strictness,
    /// What happens when locks are not up to date; `None` leaves it to the cluster.
    pub lock: Option<Strictness>,
    /// Sessions per connection: the lowest.
    pub max_sessions: Option<u64>,
    /// Connections per user: the lowest.
    pub max_connections: Option<u64>,
    /// Form of user certificates: the most permissive.
    pub cert_format: CertFormat,
    /// Whether a certificate is good only from the address that logged in: any role's yes.
    pub pin_source_ip: bool,
    /// Whether a second factor is asked for with every session: the strictest.
    pub require_session_mfa: SessionMfa,
    /// Extensions added to SSH certificates, from all roles.
    pub cert_extensions: Vec<CertExtension>,
}

const DEFAULT_TTL: Duration = Duration::from_secs(30 * 3600);

impl MergedOptions {
    /// Merges the options of roles. Without roles everything is off.
    pub fn of<'a>(roles: impl Iterator<Item = &'a Role> + Clone) -> MergedOptions {
        let all = || roles.clone().map(|role| &role.spec.options);
        let any = |field: fn(&RoleOptions) -> Option<bool>, absent: bool| {
            all().any(|options| field(options).unwrap_or(absent))
        };
        let lowest = |field: fn(&RoleOptions) -> Option<i64>| {
            // Zero and less mean unlimited.
            all()
                .filter_map(field)
                .filter_map(|value| u64::try_from(value).ok())
                .filter(|value| *value > 0)
                .min()
        };
        let forwarding = |direction: fn(&RoleOptions) -> Option<bool>| {
            let explicit = |wanted: bool| all().any(|options| direction(options) == Some(wanted));
            !explicit(false) && (explicit(true) || any(|options| options.port_forwarding, true))
        };
        let ssh_file_copy =
            all().next().is_some() && all().all(|options| options.ssh_file_copy.unwrap_or(true));
        let transfer = |direction: TransferDirection| {
            let allows = |options: &RoleOptions| match &options.ssh_file_transfer {
                Some(only) => only.contains(&direction),
                None => true,
            };
            ssh_file_copy && all().all(allows)
        };
        let mut cert_extensions: Vec<CertExtension> = Vec::new();
        for extension in all().flat_map(|options| &options.cert_extensions) {
            if !cert_extensions.contains(extension) {
                cert_extensions.push(extension.clone());
            }
        }
        MergedOptions {
            max_session_ttl: all()
                .filter_map(|options| options.max_session_ttl)
                .filter(|ttl| !ttl.is_zero())
                .map(|ttl| ttl.as_std())
                .fold(DEFAULT_TTL, Duration::min),
            forward_agent: any(|options| options.forward_agent, false),
            port_forwarding: forwarding(|options| {
                options.ssh_port_forwarding.as_ref()?.local.as_ref()?.enabled
            }),
            remote_port_forwarding: forwarding(|options| {
                options.ssh_port_forwarding.as_ref()?.remote.as_ref()?.enabled
            }),
            ssh_file_copy,
            file_upload: transfer(TransferDirection::Upload),
            file_download: transfer(TransferDirection::Download),
            ssh_hostbound_only: any(|options| options.ssh_hostbound_only, false),
            permit_x11_forwarding: any(|options| options.permit_x11_forwarding, false),
            client_idle_timeout: all()
                .filter_map(|options| options.client_idle_timeout)
                .filter(|timeout| !timeout.is_zero())
                .map(|timeout| timeout.as_std())
                .min(),
            disconnect_expired_cert: all()
                .filter_map(|options| options.disconnect_expired_cert)
                .reduce(|a, b| a || b),
            record_session_ssh: all().map(record_session_ssh).max().unwrap_or(Strictness::Strict),
            record_session_db: all().map(record_session_db).max().unwrap_or(Strictness::Strict),
            lock: all().filter_map(|options| options.lock).max(),
            max_sessions: lowest(|options| options.max_sessions),
            max_connections: lowest(|options| options.max_connections),
            cert_format: all().filter_map(|options| options.cert_format).max().unwrap_or_default(),
            pin_source_ip: any(|options| options.pin_source_ip, false),
            require_session_mfa: all()
                .filter_map(|options| options.require_session_mfa)
                .max()
                .unwrap_or_default(),
            cert_extensions,
        }
    }
}

fn record_session_ssh(options: &RoleOptions) -> Strictness {
    let record = options.record_session.as_ref();
    record.and_then(|record| record.ssh.or(record.default)).unwrap_or_default()
}

/// There is no key of its own for databases.
fn record_session_db(options: &RoleOptions) -> Strictness {
    options.record_session.as_ref().and_then(|record| record.default).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use shared_types::{Resource, resource::RoleSpec};

    fn role(options: Value) -> Role {
        let document = json!({"kind": "role", "version": "v7", "metadata": {"name": "r"}, "spec": {"options": options}});
        match Resource::from_json(document).unwrap() {
            Resource::Role(role) => role,
            other => panic!("{other:?}"),
        }
    }

    fn merged(options: &[Value]) -> MergedOptions {
        let roles: Vec<Role> = options.iter().cloned().map(role).collect();
        MergedOptions::of(roles.iter())
    }

    #[test]
    fn defaults() {
        let one = MergedOptions::of([Role::new("x", RoleSpec::default())].iter());
        assert_eq!(one.max_session_ttl, DEFAULT_TTL);
        assert!(
            !one.forward_agent
                && one.port_forwarding
                && one.ssh_file_copy
                && !one.permit_x11_forwarding
                && !one.pin_source_ip
        );
        assert_eq!(one.record_session_ssh, Strictness::BestEffort);
        let none = MergedOptions::of([].iter());
        assert!(
            !none.forward_agent
                && !none.port_forwarding
                && !none.ssh_file_copy
                && !none.remote_port_forwarding
        );
    }

    #[test]
    fn merge_rules() {
        let both = merged(&[
            json!({"max_session_ttl": "8h", "forward_agent": true, "port_forwarding": false, "ssh_file_copy": false,
                   "client_idle_timeout": "10m", "ssh_hostbound_only": "yes", "record_session": {"default": "strict"}, "max_sessions": 10}),
            json!({"max_session_ttl": "12h", "port_forwarding": true, "client_idle_timeout": "0", "cert_format": "oldssh",
                   "disconnect_expired_cert": true, "max_sessions": 3, "require_session_mfa": "yes", "pin_source_ip": "yes"}),
        ]);
        assert_eq!(both.max_session_ttl.as_secs(), 8 * 3600);
        assert!(
            both.forward_agent && both.port_forwarding && !both.ssh_file_copy && both.pin_source_ip
        );
        assert_eq!(both.client_idle_timeout, Some(Duration::from_secs(600)));
        assert!(both.ssh_hostbound_only && !merged(&[json!({})]).ssh_hostbound_only);
        assert_eq!(both.disconnect_expired_cert, Some(true));
        assert_eq!(both.record_session_ssh, Strictness::Strict);
        assert_eq!(both.max_sessions, Some(3));
        assert_eq!(both.cert_format, CertFormat::Oldssh);
        assert_eq!(both.require_session_mfa, SessionMfa::Yes);
        let explicit =
            merged(&[json!({}), json!({"ssh_port_forwarding": {"local": {"enabled": false}}})]);
        assert!(!explicit.port_forwarding && explicit.remote_port_forwarding);
        let ssh = merged(&[json!({"record_session": {"default": "strict", "ssh": "best_effort"}})]);
        assert_eq!(ssh.record_session_ssh, Strictness::BestEffort);
        assert_eq!(ssh.record_session_db, Strictness::Strict);
        assert_eq!(merged(&[json!({})]).record_session_db, Strictness::BestEffort);
    }

    #[test]
    fn a_way_to_copy_files_is_open_where_every_role_leaves_it_open() {
        let ways = |options: &[Value]| {
            let merged = merged(options);
            (merged.file_upload, merged.file_download)
        };
        assert_eq!(ways(&[]), (false, false));
        assert_eq!(ways(&[json!({})]), (true, true));
        let (up, down) =
            (json!({"ssh_file_transfer": ["upload"]}), json!({"ssh_file_transfer": ["download"]}));
        assert_eq!(ways(&[up.clone(), json!({})]), (true, false));
        assert_eq!(ways(&[json!({}), down.clone()]), (false, true));
        assert_eq!(ways(&[up.clone(), down]), (false, false));
        assert_eq!(ways(&[json!({"ssh_file_transfer": []})]), (false, false));
        assert_eq!(ways(&[up, json!({"ssh_file_copy": false})]), (false, false));
    }
}

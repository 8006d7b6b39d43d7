//! The variables of a session: what a client may set, and what its programs are told.

use std::net::SocketAddr;
use std::path::Path;

use shared_pki::Identity;
use shared_types::SessionId;

use crate::settings::SshServiceSettings;

/// What a client may set without being allowed more: how to speak, and how to look.
const HARMLESS: &[&str] = &["LANG", "LANGUAGE", "TZ", "COLORTERM", "NO_COLOR", "TERM_PROGRAM"];
/// The longest name of a variable.
const MAX_NAME: usize = 256;

/// Whether a client may set a variable. The session's own are set after the client's, and win.
pub(crate) fn takes(name: &str, permit_user_env: bool) -> bool {
    let sound = name.len() <= MAX_NAME
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    sound && (permit_user_env || HARMLESS.contains(&name) || name.starts_with("LC_"))
}

/// What programs of a session are told.
pub(crate) fn of_session(
    settings: &SshServiceSettings,
    identity: &Identity,
    sid: SessionId,
    client: SocketAddr,
    agent: Option<&Path>,
) -> Vec<(String, String)> {
    let (from, local) = (client.ip().to_canonical(), settings.local);
    let mut vars = vec![
        ("SSH_TELEPORT_USER", identity.user.to_string()),
        ("SSH_SESSION_ID", sid.to_string()),
        ("SSH_TELEPORT_HOST_UUID", settings.host_id.to_string()),
        ("SSH_TELEPORT_CLUSTER_NAME", identity.cluster.to_string()),
        ("SSH_SESSION_WEBPROXY_ADDR", settings.web_proxy.clone()),
        ("TELEPORT_SESSION", sid.to_string()),
        ("SSH_CLIENT", format!("{from} {} {}", client.port(), local.port())),
        ("SSH_CONNECTION", format!("{from} {} {} {}", client.port(), local.ip(), local.port())),
    ];
    if let Some(path) = agent {
        vars.push(("SSH_AUTH_SOCK", path.display().to_string()));
    }
    vars.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_names_pass_unless_more_is_permitted() {
        for (name, always, permitted) in [
            ("LANG", true, true),
            ("LC_ALL", true, true),
            ("LD_PRELOAD", false, true),
            ("PATH", false, true),
            ("FOO", false, true),
            ("A=B", false, false),
            ("1A", false, false),
            ("LC_\u{e4}", false, false),
        ] {
            assert_eq!(takes(name, false), always, "{name}");
            assert_eq!(takes(name, true), permitted, "{name}");
        }
        assert!(!takes(&"A".repeat(300), true));
    }
}

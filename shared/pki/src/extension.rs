//! Names of SSH certificate extensions and options, and the JSON inside some of them.

use crate::PkiError;
use serde::{Deserialize, Serialize};
use shared_types::{RoleName, Traits};

/// Critical option: the addresses a certificate may be used from.
pub const SOURCE_ADDRESS: &str = "source-address";
/// Host certificates: what the host is, a system role.
pub const X_TELEPORT_ROLE: &str = "x-teleport-role";
/// Host certificates: the cluster that signed.
pub const X_TELEPORT_AUTHORITY: &str = "x-teleport-authority";

/// Critical option and key id of a recorder's certificate.
pub(crate) const RECORDER: &str = "gatehouse-recorder";
pub(crate) const PERMIT_PTY: &str = "permit-pty";
pub(crate) const PERMIT_PORT_FORWARDING: &str = "permit-port-forwarding";
pub(crate) const PERMIT_AGENT_FORWARDING: &str = "permit-agent-forwarding";
pub(crate) const PERMIT_X11_FORWARDING: &str = "permit-X11-forwarding";
pub(crate) const ROLES: &str = "teleport-roles";
pub(crate) const TRAITS: &str = "teleport-traits";
pub(crate) const ROUTE_TO_CLUSTER: &str = "teleport-route-to-cluster";
pub(crate) const LOGIN_IP: &str = "login-ip";

/// The principal every user certificate has besides its logins.
pub(crate) const INTERNAL_JOIN_PRINCIPAL: &str = "-teleport-internal-join";
/// What a principal starts with that no one can log in as.
pub(crate) const INTERNAL_PRINCIPAL_PREFIX: &str = "-teleport-";
/// The only principal but the internal one of a user without logins; a random id follows.
pub(crate) const NO_LOGIN_PRINCIPAL_PREFIX: &str = "-teleport-nologin-";

#[derive(Serialize, Deserialize)]
struct Roles {
    version: String,
    roles: Vec<RoleName>,
}

pub(crate) fn encode_roles(roles: &[RoleName]) -> Result<String, PkiError> {
    serde_json::to_string(&Roles { version: "v1".to_owned(), roles: roles.to_vec() })
        .map_err(PkiError::Json)
}

pub(crate) fn decode_roles(text: &str) -> Option<Vec<RoleName>> {
    let parsed: Roles = serde_json::from_str(text).ok()?;
    (parsed.version == "v1").then_some(parsed.roles)
}

pub(crate) fn encode_traits(traits: &Traits) -> Result<String, PkiError> {
    serde_json::to_string(traits).map_err(PkiError::Json)
}

pub(crate) fn decode_traits(text: &str) -> Option<Traits> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_as_documented() {
        let roles = [RoleName::new("a").unwrap(), RoleName::new("b").unwrap()];
        let text = encode_roles(&roles).unwrap();
        assert_eq!(text, r#"{"version":"v1","roles":["a","b"]}"#);
        assert_eq!(decode_roles(&text).unwrap(), roles);
        for bad in [
            "",
            "[]",
            r#"{"roles":["a"]}"#,
            r#"{"version":"v2","roles":["a"]}"#,
            r#"{"version":"v1","roles":["a b"]}"#,
        ] {
            assert!(decode_roles(bad).is_none(), "{bad}");
        }
        assert!(decode_traits(&"[".repeat(100_000)).is_none());
    }
}

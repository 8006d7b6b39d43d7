//! What a node does with every channel type and request. Nothing is served that is not here.

use crate::relay::table::Treatment::{self, Answered, Metadata, Recorded, Refused};

/// Channel types that a client opens.
pub const CHANNELS: &[(&str, Treatment)] = &[
    ("session", Recorded),
    ("direct-tcpip", Metadata),
    ("direct-streamlocal@openssh.com", Refused),
    ("forwarded-tcpip", Refused),
    ("auth-agent@openssh.com", Refused),
    ("x11", Refused),
];

/// Channel types that the node opens.
pub const OPENED: &[(&str, Treatment)] =
    &[("forwarded-tcpip", Metadata), ("auth-agent@openssh.com", Metadata)];

/// Requests on a session channel.
pub const SESSION_REQUESTS: &[(&str, Treatment)] = &[
    ("pty-req", Recorded),
    ("shell", Recorded),
    ("exec", Recorded),
    ("window-change", Recorded),
    ("env", Metadata),
    ("subsystem", Metadata),
    ("signal", Metadata),
    ("auth-agent-req@openssh.com", Metadata),
    ("x11-req", Refused),
];

/// Subsystems.
pub const SUBSYSTEMS: &[(&str, Treatment)] = &[("sftp", Metadata)];

/// Global requests.
pub const GLOBAL_REQUESTS: &[(&str, Treatment)] = &[
    ("keepalive@openssh.com", Answered),
    ("tcpip-forward", Metadata),
    ("cancel-tcpip-forward", Metadata),
    ("streamlocal-forward@openssh.com", Refused),
    ("cancel-streamlocal-forward@openssh.com", Refused),
];

/// What is done with an entry of one of the tables; refused where it is not there.
pub fn treatment(table: &[(&str, Treatment)], name: &str) -> Treatment {
    table.iter().find(|(known, _)| *known == name).map_or(Refused, |(_, treatment)| *treatment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_a_table_is_refused() {
        assert_eq!(treatment(CHANNELS, "tun@openssh.com"), Refused);
        assert_eq!(treatment(SESSION_REQUESTS, "break"), Refused);
        assert_eq!(treatment(SUBSYSTEMS, "proxy:host:22"), Refused);
        assert_eq!(treatment(SUBSYSTEMS, "sftp"), Metadata);
        for table in [CHANNELS, OPENED, SESSION_REQUESTS, SUBSYSTEMS, GLOBAL_REQUESTS] {
            for (at, (name, _)) in table.iter().enumerate() {
                assert!(!table[..at].iter().any(|(other, _)| other == name), "{name} twice");
            }
        }
    }
}

//! What the relay does with every channel type and request. Nothing passes that is not here.

/// The treatment of a channel type or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Passed on, and its content goes to the recorder.
    Recorded,
    /// Passed on; that it happened is known, its content is not kept.
    Metadata,
    /// Answered by the relay itself.
    Answered,
    /// Refused.
    Refused,
}

use Treatment::{Answered, Metadata, Recorded, Refused};

/// Channel types, by who opens them.
pub const CHANNELS: &[(&str, Opener, Treatment)] = &[
    ("session", Opener::Client, Recorded),
    ("direct-tcpip", Opener::Client, Metadata),
    ("direct-streamlocal@openssh.com", Opener::Client, Refused),
    ("forwarded-tcpip", Opener::Client, Refused),
    ("x11", Opener::Client, Refused),
    ("auth-agent@openssh.com", Opener::Target, Metadata),
    ("session", Opener::Target, Refused),
    ("direct-tcpip", Opener::Target, Refused),
    ("forwarded-tcpip", Opener::Target, Refused),
    ("forwarded-streamlocal@openssh.com", Opener::Target, Refused),
    ("x11", Opener::Target, Refused),
];

/// Who opens a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// The user's client.
    Client,
    /// The target.
    Target,
}

/// Requests on a session channel, from the client.
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

/// Requests on a session channel, from the target.
pub const TARGET_REQUESTS: &[(&str, Treatment)] =
    &[("exit-status", Metadata), ("exit-signal", Metadata)];

/// Global requests, from either side.
pub const GLOBAL_REQUESTS: &[(&str, Treatment)] = &[
    ("keepalive@openssh.com", Answered),
    ("tcpip-forward", Refused),
    ("cancel-tcpip-forward", Refused),
    ("streamlocal-forward@openssh.com", Refused),
    ("cancel-streamlocal-forward@openssh.com", Refused),
];

/// What is done with a channel; refused where it is not in the table.
pub fn channel(name: &str, opener: Opener) -> Treatment {
    CHANNELS
        .iter()
        .find(|(known, by, _)| *known == name && *by == opener)
        .map_or(Refused, |(.., treatment)| *treatment)
}

/// What is done with a client's request on a session channel; refused where it is not in the table.
pub fn session_request(name: &str) -> Treatment {
    SESSION_REQUESTS
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(Refused, |(_, treatment)| *treatment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        assert_eq!(channel("tun@openssh.com", Opener::Client), Refused);
        assert_eq!(channel("auth-agent@openssh.com", Opener::Client), Refused);
        assert_eq!(session_request("x11-req"), Refused);
        assert_eq!(session_request("break"), Refused);
    }

    #[test]
    fn each_entry_is_there_once() {
        for (at, (name, opener, _)) in CHANNELS.iter().enumerate() {
            assert!(
                !CHANNELS[..at].iter().any(|(other, by, _)| other == name && by == opener),
                "{name}"
            );
        }
    }
}

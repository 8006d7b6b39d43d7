//! The audit events of SSH sessions, with what they have in common filled in.

use chrono::{DateTime, Utc};
use shared_events::{
    AuditEvent, AuthAttempt, ClientDisconnect, CommandMetadata, ConnectionMetadata, DATA_INDEX,
    Exec, Metadata, PortForward, Resize, Scp, ServerMetadata, SessionConnect, SessionData,
    SessionEnd, SessionLeave, SessionMetadata, SessionReject, SessionStart, Sftp, Status,
    Subsystem, UserMetadata, codes,
};
use shared_pki::Identity;
use shared_ssh::relay::{Ended, Size};
use shared_types::resource::TransferDirection;
use shared_types::{HostId, Labels, SessionId, Strictness};

use super::Ends;

/// Texts of clients in events are cut to this.
const MAX_TEXT: usize = 8 * 1024;

/// Who, from where, to where: what every event about one target says.
#[derive(Debug, Clone)]
pub struct Party {
    /// The user.
    pub user: UserMetadata,
    /// The server.
    pub server: ServerMetadata,
    /// The client's connection.
    pub connection: ConnectionMetadata,
}

/// The connection part of events.
pub fn connection(ends: Ends) -> ConnectionMetadata {
    ConnectionMetadata {
        remote_addr: ends.peer.to_string(),
        local_addr: ends.local.map(|addr| addr.to_string()).unwrap_or_default(),
        proto: "ssh".into(),
    }
}

/// The user part of events.
pub fn user(identity: &Identity, login: &str) -> UserMetadata {
    UserMetadata {
        user: identity.user.to_string(),
        login: cut(login),
        user_kind: 1,
        user_roles: identity.roles.iter().map(ToString::to_string).collect(),
        user_traits: (&identity.traits).into(),
        user_cluster_name: identity.cluster.to_string(),
        ..UserMetadata::default()
    }
}

/// The server part of events: a plain SSH server reached through this proxy.
pub fn target(host: &str, addr: &str, proxy: HostId) -> ServerMetadata {
    ServerMetadata {
        namespace: "default".into(),
        server_id: proxy.to_string(),
        server_hostname: host.to_owned(),
        server_addr: addr.to_owned(),
        forwarded_by: proxy.to_string(),
        server_sub_kind: "openssh".into(),
        server_version: env!("CARGO_PKG_VERSION").into(),
        ..ServerMetadata::default()
    }
}

/// The server part of events: a node with an SSH service of ours, which tells of itself.
pub fn node(host_id: HostId, hostname: &str, labels: &Labels, addr: &str) -> ServerMetadata {
    ServerMetadata {
        namespace: "default".into(),
        server_id: host_id.to_string(),
        server_hostname: hostname.to_owned(),
        server_addr: addr.to_owned(),
        server_labels: labels.clone(),
        server_version: env!("CARGO_PKG_VERSION").into(),
        ..ServerMetadata::default()
    }
}

/// A text of a peer, cut to what an event may hold.
pub fn cut(text: &str) -> String {
    let end =
        (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

pub(super) fn session(sid: SessionId) -> SessionMetadata {
    SessionMetadata {
        sid: sid.to_string(),
        private_key_policy: "none".into(),
        ..SessionMetadata::default()
    }
}

fn code(code: &str) -> Metadata {
    Metadata { code: code.into(), ..Metadata::default() }
}

/// `W:H`, as the documented events have it.
pub fn size_text(size: Size) -> String {
    format!("{}:{}", size.columns, size.rows)
}

impl Party {
    /// `session.start`.
    pub fn start(
        &self,
        sid: SessionId,
        size: Option<Size>,
        command: Option<&str>,
        mode: &str,
        strictness: Strictness,
    ) -> AuditEvent {
        SessionStart {
            user: self.user.clone(),
            session: session(sid),
            server: self.server.clone(),
            connection: self.connection.clone(),
            size: size.map(size_text).unwrap_or_default(),
            initial_command: command.map(cut).into_iter().collect(),
            session_recording: mode.to_owned(),
            record_session: match strictness {
                Strictness::Strict => "strict".to_owned(),
                Strictness::BestEffort => "best_effort".to_owned(),
            },
            ..SessionStart::default()
        }
        .into()
    }

    /// `resize`.
    pub fn resize(&self, sid: SessionId, size: Size) -> AuditEvent {
        Resize {
            user: self.user.clone(),
            session: session(sid),
            server: self.server.clone(),
            connection: self.connection.clone(),
            size: size_text(size),
            ..Resize::default()
        }
        .into()
    }

    /// `session.leave`.
    pub fn leave(&self, sid: SessionId) -> AuditEvent {
        SessionLeave {
            user: self.user.clone(),
            session: session(sid),
            server: self.server.clone(),
            connection: self.connection.clone(),
            ..SessionLeave::default()
        }
        .into()
    }

    /// `session.end`.
    pub fn end(
        &self,
        sid: SessionId,
        interactive: bool,
        command: Option<&str>,
        (start, stop): (DateTime<Utc>, DateTime<Utc>),
        mode: &str,
    ) -> AuditEvent {
        SessionEnd {
            user: self.user.clone(),
            session: session(sid),
            server: self.server.clone(),
            connection: ConnectionMetadata { local_addr: String::new(), ..self.connection.clone() },
            interactive,
            participants: vec![self.user.user.clone()],
            session_start: start.into(),
            session_stop: stop.into(),
            initial_command: command.map(cut).into_iter().collect(),
            session_recording: mode.to_owned(),
            ..SessionEnd::default()
        }
        .into()
    }

    /// `session.data`.
    pub fn data(&self, sid: SessionId, ended: &Ended) -> AuditEvent {
        SessionData {
            metadata: Metadata { index: DATA_INDEX, ..Metadata::default() },
            user: self.user.clone(),
            session: session(sid),
            server: self.server.clone(),
            connection: self.connection.clone(),
            bytes_transmitted: ended.to_client,
            bytes_received: ended.to_target,
        }
        .into()
    }

    /// `exec`.
    pub fn exec(&self, sid: SessionId, command: &str, ended: &Ended) -> AuditEvent {
        Exec {
            user: self.user.clone(),
            session: session(sid),
            server: self.server.clone(),
            connection: self.connection.clone(),
            command: outcome(command, ended),
            ..Exec::default()
        }
        .into()
    }

    /// `scp`.
    pub fn scp(
        &self,
        sid: SessionId,
        command: &str,
        path: &str,
        direction: TransferDirection,
        ended: &Ended,
    ) -> AuditEvent {
        Scp {
            user: self.user.clone(),
            session: session(sid),
            server: self.server.clone(),
            connection: self.connection.clone(),
            command: outcome(command, ended),
            path: cut(path),
            action: direction.as_str().to_owned(),
            ..Scp::default()
        }
        .into()
    }

    /// A file copy that the role forbids.
    pub fn copy_refused(
        &self,
        sid: SessionId,
        command: Option<(&str, &str)>,
        why: &str,
    ) -> AuditEvent {
        match command {
            Some((command, path)) => Scp {
                metadata: code(codes::SCP_DISALLOWED),
                user: self.user.clone(),
                session: session(sid),
                server: self.server.clone(),
                connection: self.connection.clone(),
                command: CommandMetadata {
                    command: cut(command),
                    exit_error: why.to_owned(),
                    ..CommandMetadata::default()
                },
                path: cut(path),
                ..Scp::default()
            }
            .into(),
            None => Sftp {
                metadata: code(codes::SFTP_DISALLOWED),
                user: self.user.clone(),
                session: session(sid),
                server: self.server.clone(),
                connection: self.connection.clone(),
                error: why.to_owned(),
                ..Sftp::default()
            }
            .into(),
        }
    }

    /// `subsystem`.
    pub fn subsystem(&self, name: &str, ended: &Ended) -> AuditEvent {
        let error = failure(ended);
        Subsystem {
            metadata: if error.is_empty() {
                Metadata::default()
            } else {
                code(codes::SUBSYSTEM_FAILURE)
            },
            user: self.user.clone(),
            server: self.server.clone(),
            connection: self.connection.clone(),
            name: cut(name),
            error,
        }
        .into()
    }

    /// `port`.
    pub fn port(&self, addr: &str, how: PortStep<'_>) -> AuditEvent {
        let (metadata, status) = match how {
            PortStep::Begin => (Metadata::default(), Status { success: true, ..Status::default() }),
            PortStep::End => {
                (code(codes::PORT_FORWARD_STOP), Status { success: true, ..Status::default() })
            }
            PortStep::Failed(why) => {
                (code(codes::PORT_FORWARD_FAILURE), Status { error: cut(why), ..Status::default() })
            }
        };
        PortForward {
            metadata,
            user: self.user.clone(),
            connection: self.connection.clone(),
            status,
            addr: cut(addr),
            ..PortForward::default()
        }
        .into()
    }

    /// `client.disconnect`.
    pub fn disconnected(&self, reason: &str) -> AuditEvent {
        ClientDisconnect {
            user: self.user.clone(),
            server: self.server.clone(),
            connection: self.connection.clone(),
            reason: reason.to_owned(),
            ..ClientDisconnect::default()
        }
        .into()
    }

    /// `session.rejected`.
    pub fn rejected(&self, reason: &str) -> AuditEvent {
        SessionReject {
            user: self.user.clone(),
            server: self.server.clone(),
            connection: self.connection.clone(),
            reason: reason.to_owned(),
            ..SessionReject::default()
        }
        .into()
    }

    /// A limit of the user's roles was reached.
    pub fn limited(&self, reason: &str, most: u64) -> AuditEvent {
        SessionReject {
            user: self.user.clone(),
            server: self.server.clone(),
            connection: self.connection.clone(),
            reason: reason.to_owned(),
            maximum: i64::try_from(most).unwrap_or(i64::MAX),
            ..SessionReject::default()
        }
        .into()
    }

    /// The proxy is about to connect to a target.
    pub fn connecting(&self) -> AuditEvent {
        SessionConnect {
            server: self.server.clone(),
            connection: self.connection.clone(),
            ..SessionConnect::default()
        }
        .into()
    }

    /// An access that failed behind the door: at the target, or by role.
    pub fn refused(&self, error: &str) -> AuditEvent {
        AuthAttempt {
            user: self.user.clone(),
            server: self.server.clone(),
            connection: self.connection.clone(),
            status: Status { error: cut(error), ..Status::default() },
            ..AuthAttempt::default()
        }
        .into()
    }
}

/// A step of a forwarded connection.
#[derive(Debug, Clone, Copy)]
pub enum PortStep<'a> {
    /// It is allowed and about to be made.
    Begin,
    /// It is over.
    End,
    /// It was not allowed, or did not work.
    Failed(&'a str),
}

/// Somebody who did not get in at the listener of `server`.
pub fn not_admitted(
    login: &str,
    why: &str,
    connection: ConnectionMetadata,
    server: HostId,
) -> AuditEvent {
    let user = UserMetadata { login: cut(login), ..UserMetadata::default() };
    attempt(user, why, connection, server)
}

/// Somebody who proved who they are at the listener of `server`, and may do nothing.
pub fn shut_out(
    identity: &Identity,
    login: &str,
    why: &str,
    ends: Ends,
    server: HostId,
) -> AuditEvent {
    attempt(user(identity, login), why, connection(ends), server)
}

fn attempt(
    user: UserMetadata,
    why: &str,
    connection: ConnectionMetadata,
    server: HostId,
) -> AuditEvent {
    AuthAttempt {
        server: ServerMetadata {
            namespace: "default".into(),
            server_id: server.to_string(),
            ..ServerMetadata::default()
        },
        user,
        connection,
        status: Status { error: cut(why), ..Status::default() },
        ..AuthAttempt::default()
    }
    .into()
}

fn failure(ended: &Ended) -> String {
    match (&ended.cut, &ended.exit_signal, ended.exit_status) {
        (Some(why), ..) => why.clone(),
        (None, Some(signal), _) => format!("killed by signal {signal}"),
        (None, None, Some(0)) => String::new(),
        (None, None, Some(status)) => format!("exit status {status}"),
        (None, None, None) => "channel was closed without an exit status".to_owned(),
    }
}

fn outcome(command: &str, ended: &Ended) -> CommandMetadata {
    CommandMetadata {
        command: cut(command),
        exit_code: ended.exit_status.unwrap_or(255).to_string(),
        exit_error: failure(ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        let ended = |exit_status, exit_signal: Option<&str>| Ended {
            exit_status,
            exit_signal: exit_signal.map(str::to_owned),
            ..Ended::default()
        };
        assert_eq!(outcome("true", &ended(Some(0), None)).exit_error, "");
        assert_eq!(outcome("x", &ended(Some(7), None)).exit_code, "7");
        assert_eq!(outcome("x", &ended(None, Some("KILL"))).exit_code, "255");
        assert_eq!(outcome("x", &ended(None, Some("KILL"))).exit_error, "killed by signal KILL");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("abc"), "abc");
        let long = "ä".repeat(MAX_TEXT);
        assert_eq!(cut(&long).len(), MAX_TEXT);
        assert_eq!(cut(&format!("a{long}")).len(), MAX_TEXT - 1);
    }
}

//! Events that services send: only kinds such a service makes, only in its own name.

use shared_events::{AuditEvent, ServerMetadata, SessionMetadata, SessionRecordingFailed};
use shared_types::{HostId, SessionId, SystemRole};

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::service::AuthService;

/// Longest id and code of an event.
const LONGEST_WORD: usize = 64;
/// How far a service's clock may be ahead.
const AHEAD_MINUTES: i64 = 5;

impl AuthService {
    /// Makes the events of a service durable. Repeats of a `uid` count once.
    pub async fn emit(&self, caller: &Caller, mut events: Vec<AuditEvent>) -> Result<()> {
        let (Some(role), Some(host)) = (caller.identity().system_role, caller.host_id()) else {
            return Err(AuthError::denied("access denied"));
        };
        let now = self.now();
        for event in &mut events {
            check(event, role, host, self.cluster().as_str())?;
            if let Some(session) = session(event)
                && !self.sessions.claim(session, host)
            {
                return Err(AuthError::bad_request("an event is of another host's session"));
            }
            if begins(event)
                && let Some(session) = session(event)
            {
                self.sessions.renew(session, host, now);
            }
            event.prepare(now, self.cluster().as_str());
            let time = event.metadata().time.get();
            if time.is_some_and(|time| time > now + chrono::Duration::minutes(AHEAD_MINUTES)) {
                event.metadata_mut().time = shared_events::Timestamp::rounded(now);
            }
        }
        let failed: Vec<_> = events.iter().filter_map(failure).cloned().collect();
        self.visits.note(&events, now);
        self.record(events).await?;
        for failed in failed {
            self.keep_failure(&failed).await?;
        }
        Ok(())
    }
}

/// Whether a session runs from this event on.
fn begins(event: &AuditEvent) -> bool {
    match event {
        AuditEvent::SessionStart(_) => true,
        AuditEvent::DatabaseSessionStart(start) => start.status.success,
        _ => false,
    }
}

fn check(event: &AuditEvent, role: SystemRole, host: HostId, cluster: &str) -> Result<()> {
    let kind = event.event_type();
    if !may_make(role, event) {
        let shown: String = kind.chars().take(64).collect();
        return Err(AuthError::bad_request(format!(
            "a service of role {role} does not make events of type {shown:?}"
        )));
    }
    if kind != event.kind() {
        return Err(AuthError::bad_request("the type of an event is not what it says"));
    }
    let metadata = event.metadata();
    if metadata.uid.len() > LONGEST_WORD || metadata.code.len() > LONGEST_WORD {
        return Err(AuthError::bad_request("an event's id or code is too long"));
    }
    let named = event.metadata().cluster_name.as_str();
    if !named.is_empty() && named != cluster {
        return Err(AuthError::bad_request("an event names another cluster"));
    }
    let own = host.to_string();
    match server(event) {
        Some(server) if server.server_id == own => Ok(()),
        // A proxy speaks of the hosts behind it; a node is the host.
        Some(server) if role == SystemRole::Proxy && server.forwarded_by == own => Ok(()),
        None => Ok(()),
        Some(_) => Err(AuthError::bad_request(format!(
            "event {kind:?} does not name the sender as its server"
        ))),
    }
}

/// What happens on a proxy or an agent. Users, roles, certificates and uploads are for the auth service to tell of.
fn may_make(role: SystemRole, event: &AuditEvent) -> bool {
    match role {
        // A session with a database is an agent's; a proxy tells of those it refused before an agent was asked.
        SystemRole::Proxy => is_ssh(event) || is_common(event) || is_database_start(event),
        SystemRole::Node => is_ssh(event) || is_common(event),
        SystemRole::Db => is_common(event) || is_database(event),
        SystemRole::Auth | SystemRole::Admin => false,
    }
}

/// What tells of a connection, whatever is spoken on it.
fn is_common(event: &AuditEvent) -> bool {
    use AuditEvent as E;
    matches!(
        event,
        E::ClientDisconnect(_)
            | E::AuthAttempt(_)
            | E::SessionReject(_)
            | E::SessionRecordingFailed(_)
    )
}

fn is_ssh(event: &AuditEvent) -> bool {
    use AuditEvent as E;
    matches!(
        event,
        E::SessionConnect(_)
            | E::SessionStart(_)
            | E::SessionJoin(_)
            | E::SessionLeave(_)
            | E::SessionEnd(_)
            | E::SessionData(_)
            | E::Resize(_)
            | E::Exec(_)
            | E::Scp(_)
            | E::Sftp(_)
            | E::SftpSummary(_)
            | E::FileTransferUntracked(_)
            | E::Subsystem(_)
            | E::PortForward(_)
            | E::X11Forward(_)
    )
}

fn is_database_start(event: &AuditEvent) -> bool {
    matches!(event, AuditEvent::DatabaseSessionStart(start) if !start.status.success)
}

/// What happens in a session with a database; what stands in recordings only is not sent here.
fn is_database(event: &AuditEvent) -> bool {
    event.kind().starts_with("db.session.") && !event.is_recording_only()
}

fn failure(event: &AuditEvent) -> Option<&SessionRecordingFailed> {
    match event {
        AuditEvent::SessionRecordingFailed(failed) => Some(failed),
        _ => None,
    }
}

/// The session an event is of, where it is of one.
fn session(event: &AuditEvent) -> Option<SessionId> {
    event.part::<SessionMetadata>()?.sid.parse().ok()
}

/// The server an event names, where its kind names one.
fn server(event: &AuditEvent) -> Option<&ServerMetadata> {
    event.part::<ServerMetadata>()
}

#[cfg(test)]
mod tests {
    use shared_events::{
        DatabaseCreate, DatabaseSessionCommandResult, DatabaseSessionEnd, DatabaseSessionQuery,
        DatabaseSessionStart, FileTransferUntracked, PortForward, SessionConnect, SessionStart,
        UserLogin,
    };

    use super::*;

    #[test]
    fn proxies_and_nodes_tell_of_connections_and_of_what_they_could_not_follow() {
        let host = HostId::random();
        let server = ServerMetadata { server_id: host.to_string(), ..ServerMetadata::default() };
        let connect = SessionConnect { server: server.clone(), ..SessionConnect::default() };
        let untracked = FileTransferUntracked { server, ..FileTransferUntracked::default() };
        for role in [SystemRole::Proxy, SystemRole::Node] {
            for event in [AuditEvent::from(connect.clone()), untracked.clone().into()] {
                assert!(check(&event, role, host, "example.test").is_ok(), "{role} {event:?}");
                assert!(check(&event, role, HostId::random(), "example.test").is_err(), "{role}");
            }
        }
    }

    #[test]
    fn an_agent_tells_of_what_it_serves() {
        let host = HostId::random();
        let server = ServerMetadata { server_id: host.to_string(), ..ServerMetadata::default() };
        let may = |role, event: AuditEvent| check(&event, role, host, "example.test").is_ok();
        let (db, node, proxy) = (SystemRole::Db, SystemRole::Node, SystemRole::Proxy);
        let ssh = SessionStart { server: server.clone(), ..SessionStart::default() };
        let start = |success| {
            let server = server.clone();
            let mut start = DatabaseSessionStart { server, ..DatabaseSessionStart::default() };
            start.status.success = success;
            AuditEvent::from(start)
        };
        let query = || AuditEvent::from(DatabaseSessionQuery::default());
        assert!(may(db, start(true)) && may(db, start(false)) && may(db, query()));
        assert!(may(db, DatabaseSessionEnd::default().into()));
        assert!(!may(db, ssh.clone().into()) && may(node, ssh.into()));
        assert!(!may(node, start(true)) && !may(node, start(false)) && !may(node, query()));
        // A proxy refuses on its own, and never opens a session with a database.
        assert!(may(proxy, start(false)) && !may(proxy, start(true)) && !may(proxy, query()));
        // What belongs into recordings, and what is the auth service's to tell.
        assert!(!may(db, DatabaseSessionCommandResult::default().into()));
        assert!(!may(db, DatabaseCreate::default().into()));
        assert!(!may(db, UserLogin::default().into()));
        let other = HostId::random();
        assert!(check(&start(true), db, other, "example.test").is_err());
        assert!(begins(&start(true)) && !begins(&start(false)) && !begins(&query()));
    }

    #[test]
    fn a_proxy_speaks_only_of_itself_and_of_sessions() {
        let host = HostId::random();
        let ok = |event: AuditEvent| check(&event, SystemRole::Proxy, host, "example.test").is_ok();
        let server =
            |id: HostId| ServerMetadata { server_id: id.to_string(), ..ServerMetadata::default() };
        let start = SessionStart { server: server(host), ..SessionStart::default() };
        assert!(ok(start.clone().into()));
        assert!(ok(PortForward::default().into()));
        let mut elsewhere = start.clone();
        elsewhere.metadata.cluster_name = "other.test".to_owned();
        assert!(!ok(elsewhere.into()));
        let mut disguised = start.clone();
        disguised.metadata.event = "user.login".to_owned();
        assert!(!ok(disguised.into()));
        assert!(!ok(SessionStart { server: server(HostId::random()), ..start }.into()));
        assert!(!ok(SessionStart::default().into()));
        assert!(!ok(UserLogin::default().into()));
        assert!(!ok(AuditEvent::Other(Default::default())));
    }
}

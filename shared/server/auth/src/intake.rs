//! Events that services send: only kinds such a service makes, only in its own name.

use shared_events::{AuditEvent, ServerMetadata, SessionRecordingFailed};
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
            if let (AuditEvent::SessionStart(_), Some(session)) = (&*event, session(event)) {
                self.sessions.renew(session, host, now);
            }
            event.prepare(now, self.cluster().as_str());
            let time = event.metadata().time.get();
            if time.is_some_and(|time| time > now + chrono::Duration::minutes(AHEAD_MINUTES)) {
                event.metadata_mut().time = shared_events::Timestamp::rounded(now);
            }
        }
        let failed: Vec<_> = events.iter().filter_map(failure).cloned().collect();
        self.record(events).await?;
        for failed in failed {
            self.keep_failure(&failed).await?;
        }
        Ok(())
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

/// What happens on a proxy or a node. Users, roles, certificates and uploads are for the auth service to tell of.
fn may_make(role: SystemRole, event: &AuditEvent) -> bool {
    use AuditEvent as E;
    let session = matches!(
        event,
        E::SessionConnect(_)
            | E::SessionStart(_)
            | E::SessionJoin(_)
            | E::SessionLeave(_)
            | E::SessionEnd(_)
            | E::SessionData(_)
            | E::SessionReject(_)
            | E::Resize(_)
            | E::Exec(_)
            | E::Scp(_)
            | E::Sftp(_)
            | E::SftpSummary(_)
            | E::FileTransferUntracked(_)
            | E::Subsystem(_)
            | E::PortForward(_)
            | E::X11Forward(_)
            | E::ClientDisconnect(_)
            | E::AuthAttempt(_)
            | E::SessionRecordingFailed(_)
    );
    match role {
        SystemRole::Proxy | SystemRole::Node => session,
        SystemRole::Auth | SystemRole::Admin => false,
    }
}

fn failure(event: &AuditEvent) -> Option<&SessionRecordingFailed> {
    match event {
        AuditEvent::SessionRecordingFailed(failed) => Some(failed),
        _ => None,
    }
}

/// The session an event is of, where it is of one.
fn session(event: &AuditEvent) -> Option<SessionId> {
    use AuditEvent as E;
    let session = match event {
        E::SessionStart(event) => &event.session,
        E::SessionJoin(event) => &event.session,
        E::SessionLeave(event) => &event.session,
        E::SessionEnd(event) => &event.session,
        E::SessionData(event) => &event.session,
        E::SessionRecordingFailed(event) => &event.session,
        E::Resize(event) => &event.session,
        E::Exec(event) => &event.session,
        E::Scp(event) => &event.session,
        E::Sftp(event) => &event.session,
        E::SftpSummary(event) => &event.session,
        E::FileTransferUntracked(event) => &event.session,
        _ => return None,
    };
    session.sid.parse().ok()
}

/// The server an event names, where its kind names one.
fn server(event: &AuditEvent) -> Option<&ServerMetadata> {
    use AuditEvent as E;
    Some(match event {
        E::SessionStart(event) => &event.server,
        E::SessionJoin(event) => &event.server,
        E::SessionLeave(event) => &event.server,
        E::SessionEnd(event) => &event.server,
        E::SessionData(event) => &event.server,
        E::SessionReject(event) => &event.server,
        E::SessionConnect(event) => &event.server,
        E::Resize(event) => &event.server,
        E::Exec(event) => &event.server,
        E::Scp(event) => &event.server,
        E::Sftp(event) => &event.server,
        E::SftpSummary(event) => &event.server,
        E::FileTransferUntracked(event) => &event.server,
        E::Subsystem(event) => &event.server,
        E::X11Forward(event) => &event.server,
        E::ClientDisconnect(event) => &event.server,
        E::AuthAttempt(event) => &event.server,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use shared_events::{
        FileTransferUntracked, PortForward, SessionConnect, SessionStart, UserLogin,
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

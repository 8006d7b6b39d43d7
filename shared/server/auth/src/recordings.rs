//! Recordings: which there are, and their bytes.
//!
//! A recording the caller may not see is answered as one that does not exist.

use std::collections::HashSet;

use bytes::Bytes;
use chrono::Duration;
use futures::{Stream, StreamExt as _};
use serde_json::Value;
use server_store::{RecordingError, RecordingReader, StoreFault};
use shared_api::{RecordingsQuery, RecordingsReply, limits};
use shared_authz::{Verb, WhereCtx};
use shared_events::{AuditEvent, DatabaseSessionEnd, SessionEnd};
use shared_recording::Decoder;
use shared_types::SessionId;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::caller::Caller;
use crate::endings::Ending;
use crate::error::{AuthError, Result};
use crate::events;
use crate::service::AuthService;

/// Longest time a listing covers.
const LONGEST_DAYS: i64 = 365;
/// Most ends looked through for one listing.
const LOOKED_THROUGH: usize = 20_000;
/// The events that stand for a recording.
const ENDS: [&str; 2] = [SessionEnd::KIND, DatabaseSessionEnd::KIND];
/// The mode in which nothing is recorded.
const OFF: &str = "off";
/// How much of a recording is read to see whose it is.
const HEAD: u64 = 1 << 20;

impl AuthService {
    /// The ended sessions the caller may see, newest first.
    pub async fn recordings(
        &self,
        caller: &Caller,
        ask: RecordingsQuery,
    ) -> Result<RecordingsReply> {
        self.check_sessions(caller, Verb::List)?;
        let now = self.now();
        let to = ask.to.unwrap_or(now + Duration::minutes(5));
        let from = ask.from.unwrap_or(now - Duration::days(1));
        let days = (to - from).num_days();
        if days > LONGEST_DAYS {
            return Err(AuthError::bad_request(format!(
                "date range for recording listing too large: {days} days specified: limit {LONGEST_DAYS} days"
            )));
        }
        let limit = ask.limit.unwrap_or(50).min(limits::MAX_LISTED);
        let found = self.newest(from, to, &ENDS, LOOKED_THROUGH).await?;
        let (mut items, mut seen) = (Vec::new(), HashSet::new());
        for event in found {
            let Some(end) = Ended::of(&event) else { continue };
            let whose = &end.participants;
            if !end.is_asked_for(&ask)
                || !self.allowed(caller, "session", Verb::List, &WhereCtx::session(whose))
            {
                continue;
            }
            let Ok(session) = end.sid.parse() else { continue };
            // An end may be told twice: by the proxy, and made up here.
            if !seen.insert(session) {
                continue;
            }
            let ending = self.ending_of(&session).await?;
            if ask.state.is_some_and(|state| state != ending.state) {
                continue;
            }
            items.push(item(&event, &ending)?);
            if items.len() >= limit {
                break;
            }
        }
        Ok(RecordingsReply { items })
    }

    /// The bytes of a recording with its seal, after the access is in the audit log.
    pub async fn recording(
        &self,
        caller: &Caller,
        session: &SessionId,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>> {
        let reader = self.permitted_recording(caller, session, Verb::Read).await?;
        self.record(vec![events::recording_access(session, caller)]).await?;
        let seal = futures::stream::iter(self.seal_part(session).await?.map(Ok));
        Ok(ReaderStream::with_capacity(reader, 128 * 1024).chain(seal))
    }

    /// Removes a recording for good, after that is in the audit log.
    pub async fn remove_recording(&self, caller: &Caller, session: &SessionId) -> Result<()> {
        let bytes = self.permitted_recording(caller, session, Verb::Delete).await?.bytes();
        let url = self.recordings.url(*session);
        self.record(vec![events::recording_delete(session, url, bytes, caller)]).await?;
        let removed = self.recordings.remove(*session).await;
        match removed.map_err(AuthError::at("remove recording"))? {
            true => {
                self.forget_seal(session).await?;
                tracing::info!(user = caller.name(), %session, bytes, "recording removed");
                Ok(())
            }
            // Somebody else was faster.
            false => Err(not_found(session)),
        }
    }

    /// Opens a recording with which the caller may do this; any other is not found.
    async fn permitted_recording(
        &self,
        caller: &Caller,
        session: &SessionId,
        verb: Verb,
    ) -> Result<RecordingReader> {
        self.check_sessions(caller, verb)?;
        let reader = self.open_recording(session).await?;
        // Who may do it with any recording needs no look at whose this one is.
        if !self.allowed(caller, "session", verb, &WhereCtx::none()) {
            let participants = self.recorded_participants(session).await?;
            if !self.allowed(caller, "session", verb, &WhereCtx::session(&participants)) {
                tracing::info!(user = caller.name(), %session, %verb, "recording denied");
                return Err(not_found(session));
            }
        }
        Ok(reader)
    }

    pub(crate) async fn open_recording(&self, session: &SessionId) -> Result<RecordingReader> {
        self.recordings.open(*session).await.map_err(|error| match error {
            RecordingError::NotFound { .. } => not_found(session),
            RecordingError::Store(fault) => store_fault(&fault),
            other => AuthError::internal("open recording", other),
        })
    }

    /// Refuses who may do it to no session, not even an own one.
    fn check_sessions(&self, caller: &Caller, verb: Verb) -> Result<()> {
        if self.may_some(caller, "session", verb) {
            return Ok(());
        }
        self.check(caller, "session", verb)
    }

    /// The user who began the session, as the recording itself says.
    async fn recorded_participants(&self, session: &SessionId) -> Result<Vec<String>> {
        let reader = self.open_recording(session).await?;
        let mut head = Vec::new();
        reader.take(HEAD).read_to_end(&mut head).await.map_err(AuthError::at("read recording"))?;
        let session = *session;
        let started = tokio::task::spawn_blocking(move || {
            let mut decoder = Decoder::of_session(head.as_slice(), session);
            // A cut head gives its whole slices and then an error, which means nothing here.
            while let Ok(Some(event)) = decoder.next_event() {
                match event {
                    AuditEvent::SessionStart(start) => return Some(start.user.user),
                    AuditEvent::DatabaseSessionStart(start) => return Some(start.user.user),
                    _ => {}
                }
            }
            None
        });
        let started = started.await.map_err(AuthError::at("read recording"))?;
        Ok(started.into_iter().filter(|user| !user.is_empty()).collect())
    }
}

/// The end of a session as it is listed, with what became of its recording.
fn item(event: &AuditEvent, ending: &Ending) -> Result<Value> {
    let mut item: Value =
        serde_json::from_str(&event.to_json()).map_err(AuthError::at("encode event"))?;
    item["recording_state"] = ending.state.as_str().into();
    if let Some(until) = ending.until {
        item["recording_until"] = until.to_rfc3339().into();
    }
    if !ending.reason.is_empty() {
        item["recording_reason"] = ending.reason.as_str().into();
    }
    Ok(item)
}

/// The end of a recorded session, of whatever kind.
struct Ended<'a> {
    sid: &'a str,
    participants: Vec<String>,
    /// As whom: on the host, or in the database.
    login: &'a str,
    /// Where: the host, or the database.
    target: &'a str,
}

impl<'a> Ended<'a> {
    /// Nothing for a session that was not to be recorded, and for other events.
    fn of(event: &'a AuditEvent) -> Option<Self> {
        Some(match event {
            AuditEvent::SessionEnd(end) => Self {
                sid: &end.session.sid,
                participants: participants(&end.participants, &end.user.user),
                login: &end.user.login,
                target: &end.server.server_hostname,
            },
            AuditEvent::DatabaseSessionEnd(end) if end.session_recording != OFF => Self {
                sid: &end.session.sid,
                participants: participants(&end.participants, &end.user.user),
                login: &end.database.db_user,
                target: &end.database.db_service,
            },
            _ => return None,
        })
    }

    /// Whether a listing asks for it.
    fn is_asked_for(&self, ask: &RecordingsQuery) -> bool {
        ask.user.as_ref().is_none_or(|user| self.participants.contains(user))
            && ask.login.as_ref().is_none_or(|login| login == self.login)
            && ask.host.as_ref().is_none_or(|host| host.eq_ignore_ascii_case(self.target))
    }
}

fn participants(named: &[String], user: &str) -> Vec<String> {
    if named.is_empty() && !user.is_empty() { vec![user.to_owned()] } else { named.to_vec() }
}

/// The object store does not do what it should: the log says what and why, the caller may come again.
pub(crate) fn store_fault(fault: &StoreFault) -> AuthError {
    tracing::warn!(error = %fault, "recording store");
    AuthError::unavailable(
        "the recording store cannot be used now; the auth service's log says why",
    )
}

pub(crate) fn not_found(session: &SessionId) -> AuthError {
    AuthError::not_found(format!("Recording for session {session} not found."))
}

//! Recordings: which there are, and their bytes.
//!
//! A recording the caller may not see is answered as one that does not exist.

use bytes::Bytes;
use chrono::Duration;
use futures::Stream;
use server_store::{RecordingError, RecordingReader};
use shared_api::{RecordingsQuery, RecordingsReply, limits};
use shared_authz::{Verb, WhereCtx};
use shared_events::{AuditEvent, SessionEnd};
use shared_recording::Decoder;
use shared_types::SessionId;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::events;
use crate::service::AuthService;

/// Longest time a listing covers.
const LONGEST_DAYS: i64 = 365;
/// Most ends looked through for one listing.
const LOOKED_THROUGH: usize = 20_000;
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
        let found = self.newest(from, to, SessionEnd::KIND, LOOKED_THROUGH).await?;
        let mut items = Vec::new();
        for event in found {
            let AuditEvent::SessionEnd(end) = &event else { continue };
            let participants = participants(&end.participants, &end.user.user);
            if !self.allowed(caller, "session", Verb::List, &WhereCtx::session(&participants)) {
                continue;
            }
            items.push(
                serde_json::from_str(&event.to_json()).map_err(AuthError::at("encode event"))?,
            );
            if items.len() >= limit {
                break;
            }
        }
        Ok(RecordingsReply { items })
    }

    /// The bytes of a recording, after the access is in the audit log.
    pub async fn recording(
        &self,
        caller: &Caller,
        session: &SessionId,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>> {
        self.check_sessions(caller, Verb::Read)?;
        let reader = self.open_recording(session).await?;
        // Who may read any recording needs no look at whose this one is.
        if !self.allowed(caller, "session", Verb::Read, &WhereCtx::none()) {
            let participants = self.recorded_participants(session).await?;
            if !self.allowed(caller, "session", Verb::Read, &WhereCtx::session(&participants)) {
                tracing::info!(user = caller.name(), %session, "recording denied");
                return Err(not_found(session));
            }
        }
        self.record(vec![events::recording_access(session, caller)]).await?;
        Ok(ReaderStream::with_capacity(reader, 128 * 1024))
    }

    pub(crate) async fn open_recording(&self, session: &SessionId) -> Result<RecordingReader> {
        self.recordings.open(*session).await.map_err(|error| match error {
            RecordingError::NotFound { .. } => not_found(session),
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
                if let AuditEvent::SessionStart(start) = event {
                    return Some(start.user.user);
                }
            }
            None
        });
        let started = started.await.map_err(AuthError::at("read recording"))?;
        Ok(started.into_iter().filter(|user| !user.is_empty()).collect())
    }
}

fn participants(named: &[String], user: &str) -> Vec<String> {
    if named.is_empty() && !user.is_empty() { vec![user.to_owned()] } else { named.to_vec() }
}

pub(crate) fn not_found(session: &SessionId) -> AuthError {
    AuthError::not_found(format!("Recording for session {session} not found."))
}

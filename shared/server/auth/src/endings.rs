//! What has become of recordings, kept beside them.
//!
//! The state of a recording is final once it is stored. One that failed may still come: its proxy has the file.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use server_store::Condition;
use shared_api::RecordingState;
use shared_events::{AuditEvent, SessionRecordingFailed};
use shared_types::SessionId;

use crate::error::{AuthError, Result};
use crate::seals::Arrived;
use crate::service::AuthService;
use crate::state;

/// Longest reason kept.
const LONGEST_REASON: usize = 1024;

/// The end of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub(crate) state: RecordingState,
    /// When that was so.
    pub(crate) at: DateTime<Utc>,
    /// Of a truncated one: the time of the last event that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<DateTime<Utc>>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
}

impl Ending {
    /// A recording that is not there, for this reason.
    pub(crate) fn failed(at: DateTime<Utc>, reason: &str) -> Self {
        let reason = reason.chars().take(LONGEST_REASON).collect();
        Self { state: RecordingState::Failed, at, until: None, reason }
    }
}

impl AuthService {
    /// Keeps how a recording that was stored ended.
    pub(crate) async fn keep_ending(&self, session: &SessionId, arrived: &Arrived) -> Result<()> {
        let until = match &arrived.end {
            Some(AuditEvent::SessionEnd(end)) => end.session_stop.get(),
            Some(AuditEvent::DatabaseSessionEnd(end)) => end.session_stop.get(),
            _ => None,
        };
        let (state, reason) = match arrived.state {
            "complete" => (RecordingState::Complete, ""),
            "truncated" => (RecordingState::Truncated, ""),
            _ => (RecordingState::Failed, "stored, but not as it was recorded"),
        };
        let until = until.filter(|_| state == RecordingState::Truncated);
        let ending = Ending { state, at: self.now(), until, reason: reason.to_owned() };
        self.put_ending(session, &ending).await
    }

    /// Keeps that a recording will not come, as its proxy says.
    pub(crate) async fn keep_failure(&self, failed: &SessionRecordingFailed) -> Result<()> {
        let Ok(session) = failed.session.sid.parse::<SessionId>() else { return Ok(()) };
        let stored = self.ending(&session).await?;
        if stored.is_some_and(|stored| stored.state != RecordingState::Failed) {
            return Ok(());
        }
        self.put_ending(&session, &Ending::failed(self.now(), &failed.reason)).await
    }

    pub(crate) async fn put_ending(&self, session: &SessionId, ending: &Ending) -> Result<()> {
        let key = state::key("endings", &session.to_string())?;
        let put = state::put(key, ending, None, Condition::Any)?;
        self.store().write(vec![put]).await.map_err(AuthError::at("store state of recording"))?;
        Ok(())
    }

    async fn ending(&self, session: &SessionId) -> Result<Option<Ending>> {
        let key = state::key("endings", &session.to_string())?;
        Ok(self.store().read::<Ending>(&key).await?.map(|stored| stored.value))
    }

    /// How the recording of a session that has ended is.
    pub(crate) async fn ending_of(&self, session: &SessionId) -> Result<Ending> {
        if let Some(ending) = self.ending(session).await? {
            return Ok(ending);
        }
        // Stored before endings were kept, or not stored yet.
        let size =
            self.recordings.size(*session).await.map_err(AuthError::at("look at recording"))?;
        let state = match size {
            Some(_) => RecordingState::Complete,
            None => RecordingState::Uploading,
        };
        Ok(Ending { state, at: self.now(), until: None, reason: String::new() })
    }
}

//! Sessions that began and have not ended, as far as events tell.
//!
//! The recording of a session tells of its end when nobody else does. Of one whose host died before the first of it was
//! sent there is no recording either; so those that began are remembered, and given an end when their host was not
//! heard of for the life of a session tracker, or, where the recording may still be on its disk, for as long as that is
//! waited for. In memory, and in the state where they outlast a look: short sessions cost nothing there.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use server_core::stable_uid;
use server_store::Condition;
use shared_events::{AuditEvent, Metadata, SessionMetadata, SessionRecordingFailed};
use shared_types::{RecordingMode, SessionId};

use crate::endings::Ending;
use crate::error::{AuthError, Result};
use crate::made_up::{At, end_of};
use crate::service::AuthService;
use crate::state;

/// Most sessions remembered.
const MOST: usize = 100_000;
/// Why a recording is not there.
const NOTHING_CAME: &str = "its recorder was not heard of again, and nothing of the recording came";

/// How a session began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// The event that said so.
    start: String,
    /// When its host was last heard of, as far as is known.
    #[serde(skip)]
    heard: DateTime<Utc>,
    /// Whether it stands in the state.
    #[serde(skip)]
    stored: bool,
}

/// The sessions that have not ended.
#[derive(Default)]
pub(crate) struct Unfinished(Mutex<BTreeMap<SessionId, Begun>>);

impl Unfinished {
    /// Those that stood in the state. Their hosts may have been heard of until now.
    fn new(stored: impl IntoIterator<Item = (SessionId, Begun)>, now: DateTime<Utc>) -> Self {
        let stored = stored
            .into_iter()
            .map(|(sid, begun)| (sid, Begun { stored: true, heard: now, ..begun }));
        Self(Mutex::new(stored.take(MOST).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Begun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what begins. Gives back which of those in the state have ended.
    pub(crate) fn note(&self, events: &[AuditEvent], now: DateTime<Utc>) -> Vec<SessionId> {
        let mut ended = Vec::new();
        for event in events {
            let begins = match event {
                AuditEvent::SessionStart(_) => true,
                AuditEvent::DatabaseSessionStart(start) => start.status.success,
                event if event.ends_recording() => false,
                _ => continue,
            };
            let sid = event.part::<SessionMetadata>().and_then(|session| session.sid.parse().ok());
            let Some(sid) = sid else { continue };
            let mut known = self.lock();
            if !begins {
                ended.extend(known.remove(&sid).filter(|begun| begun.stored).map(|_| sid));
            } else if known.len() < MOST {
                let start = event.to_json();
                known.entry(sid).or_insert(Begun { start, heard: now, stored: false });
            }
        }
        ended
    }

    fn heard(&self, sid: &SessionId, now: DateTime<Utc>) {
        if let Some(begun) = self.lock().get_mut(sid) {
            begun.heard = now;
        }
    }

    fn all(&self) -> Vec<(SessionId, Begun)> {
        self.lock().iter().map(|(sid, begun)| (*sid, begun.clone())).collect()
    }
}

impl AuthService {
    /// Remembers sessions that begin, and forgets those that end.
    pub(crate) async fn note_sessions(&self, events: &[AuditEvent]) -> Result<()> {
        for ended in self.unfinished.note(events, self.now()) {
            self.forget_begun(ended).await?;
        }
        Ok(())
    }

    async fn forget_begun(&self, sid: SessionId) -> Result<()> {
        let gone = state::delete(state::key("begun", &sid.to_string())?, Condition::Any);
        self.store().write(vec![gone]).await.map_err(AuthError::at("forget session"))?;
        Ok(())
    }

    /// Ends the sessions of which nothing more will come. `uploading` are those with recordings on their way here.
    pub(crate) async fn end_unfinished(&self, uploading: &HashSet<SessionId>) {
        for (sid, begun) in self.unfinished.all() {
            let done = if self.may_run(&sid) {
                self.unfinished.heard(&sid, self.now());
                self.keep_begun(sid, &begun).await
            } else if uploading.contains(&sid) {
                self.keep_begun(sid, &begun).await
            } else {
                self.end_begun(sid, &begun).await
            };
            if let Err(error) = done {
                tracing::warn!(session = %sid, %error, "could not look after a session");
            }
        }
    }

    /// Puts a session that goes on into the state, once.
    async fn keep_begun(&self, sid: SessionId, begun: &Begun) -> Result<()> {
        if begun.stored {
            return Ok(());
        }
        let put = state::put(state::key("begun", &sid.to_string())?, begun, None, Condition::Any)?;
        self.store().write(vec![put]).await.map_err(AuthError::at("remember session"))?;
        if let Some(begun) = self.unfinished.lock().get_mut(&sid) {
            begun.stored = true;
            return Ok(());
        }
        // It ended meanwhile.
        self.forget_begun(sid).await
    }

    async fn end_begun(&self, sid: SessionId, begun: &Begun) -> Result<()> {
        let Ok(start) = AuditEvent::from_json(&begun.start) else {
            return self.drop_begun(sid).await;
        };
        let mode = recording_of(&start);
        let grace = match mode {
            Some(RecordingMode::Node | RecordingMode::Proxy) => self.settings.upload_grace,
            _ => std::time::Duration::ZERO,
        };
        let grace = chrono::Duration::from_std(grace).unwrap_or_default();
        if self.now() - begun.heard < grace {
            return self.keep_begun(sid, begun).await;
        }
        let size = self.recordings.size(sid).await.map_err(AuthError::at("look at recording"))?;
        if size.is_some() {
            // Whoever stored it has told, or will tell, of its end.
            return self.drop_begun(sid).await;
        }
        let user = start.part::<shared_events::UserMetadata>().map(|user| user.user.clone());
        let last = start.metadata().time.get();
        let at = At {
            session: sid,
            cluster: self.cluster().as_str(),
            index: start.metadata().index + 1,
        };
        let mut made: Vec<AuditEvent> =
            end_of(start, user.into_iter().collect(), last, &at).into_iter().collect();
        if mode != Some(RecordingMode::Off) {
            self.put_ending(&sid, &Ending::failed(self.now(), NOTHING_CAME)).await?;
            made.push(self.nothing_came(sid));
        }
        tracing::warn!(session = %sid, "session without an end is ended");
        self.record(made).await?;
        self.drop_begun(sid).await
    }

    fn nothing_came(&self, sid: SessionId) -> AuditEvent {
        let uid = stable_uid("session.recording.failed", sid.uuid().as_bytes());
        let failed = SessionRecordingFailed {
            metadata: Metadata {
                uid,
                time: self.now().into(),
                cluster_name: self.cluster().to_string(),
                ..Metadata::default()
            },
            session: SessionMetadata { sid: sid.to_string(), ..SessionMetadata::default() },
            reason: NOTHING_CAME.to_owned(),
        };
        failed.into()
    }

    async fn drop_begun(&self, sid: SessionId) -> Result<()> {
        let stored = self.unfinished.lock().remove(&sid).is_some_and(|begun| begun.stored);
        if stored { self.forget_begun(sid).await } else { Ok(()) }
    }
}

/// How a session is recorded, as its beginning says.
fn recording_of(start: &AuditEvent) -> Option<RecordingMode> {
    match start {
        AuditEvent::SessionStart(start) => start.session_recording.parse().ok(),
        AuditEvent::DatabaseSessionStart(start) => start.session_recording.parse().ok(),
        _ => None,
    }
}

/// What the state holds of sessions that had not ended.
pub(crate) async fn stored(store: &state::Store, now: DateTime<Utc>) -> Result<Unfinished> {
    let found = store.list::<Begun>(&state::folder(["begun"])?).await?;
    let begun = found.into_iter().filter_map(|stored| {
        let start = AuditEvent::from_json(&stored.value.start).ok()?;
        let sid = start.part::<SessionMetadata>()?.sid.parse().ok()?;
        Some((sid, stored.value))
    });
    Ok(Unfinished::new(begun, now))
}

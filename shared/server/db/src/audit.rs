//! What a session did, on its way into the recording and into the audit log.
//!
//! What must stay true: a statement is in the recorder's queue, or the audit queue where nothing is recorded, before
//! [`Audit::statement`] returns, and so before it is sent on; what was taken is not lost but by a crash of this
//! process, and then at most what had not been flushed. Nobody waits for a disk or the auth service while there is
//! room; where there is none the session stands still, and ends when that lasts.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use server_core::recorder::{EventOutlet, RecordError, Recorder};
use server_core::spool::{EventQueue, QueueError};
use shared_events::{
    AuditEvent, DatabaseMetadata, DatabaseSessionMalformedPacket, MAX_STATEMENT, SessionMetadata,
    UserMetadata,
};

use crate::parts;

/// What an event of a malformed packet keeps of it.
const MAX_PAYLOAD: usize = 4 * 1024;

/// Why what happens cannot be written down.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// The session has not begun.
    #[error("the session has not begun")]
    NotBegun,
    /// There was no room for too long.
    #[error("no room for audit events for {} s", .0.as_secs())]
    Full(Duration),
    /// The recording has ended.
    #[error("record what happens")]
    Record(#[from] RecordError),
    /// The audit log does not take it.
    #[error("queue audit events")]
    Queue(#[from] QueueError),
}

impl AuditError {
    /// What the client may read.
    pub(crate) fn peer_text(&self) -> &'static str {
        "the audit log cannot be written"
    }
}

/// What all events of a session share.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Who.
    pub(crate) user: UserMetadata,
    /// In which session.
    pub(crate) session: SessionMetadata,
    /// On which database.
    pub(crate) database: DatabaseMetadata,
}

/// Where events go.
enum Way {
    /// Into the recording, and from there into the audit log.
    Recorded(Arc<Recorder>),
    /// Into the audit log only.
    Told,
}

struct Begun {
    parts: Arc<Parts>,
    way: Way,
    queue: Arc<EventQueue>,
    /// The session ends where it cannot be recorded.
    strict: bool,
    patience: Duration,
}

/// One session's way into the audit log. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Audit(Arc<OnceLock<Begun>>);

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

impl Audit {
    /// The session begins: with a recorder, or without in mode `off`.
    pub(crate) fn begin(
        &self,
        parts: Arc<Parts>,
        recorder: Option<Arc<Recorder>>,
        queue: Arc<EventQueue>,
        strict: bool,
        patience: Duration,
    ) {
        let way = recorder.map_or(Way::Told, Way::Recorded);
        let _ = self.0.set(Begun { parts, way, queue, strict, patience });
    }

    fn begun(&self) -> Result<&Begun, AuditError> {
        self.0.get().ok_or(AuditError::NotBegun)
    }

    /// Takes what happened, in order, and leaves `events` empty for the next. Engines leave metadata, user, session and
    /// database parts as they are by default: they are filled in here, off the session's path. Results
    /// (`db.session.result`) among the events stay in the recording.
    pub(crate) async fn statement(&self, events: &mut Vec<AuditEvent>) -> Result<(), AuditError> {
        if events.is_empty() {
            return Ok(());
        }
        let begun = self.begun()?;
        match tokio::time::timeout(begun.patience, begun.take(events)).await {
            Ok(taken) => taken,
            Err(_) => Err(AuditError::Full(begun.patience)),
        }
    }

    /// Takes a packet that is not of the protocol.
    pub(crate) async fn malformed(&self, payload: &[u8]) -> Result<(), AuditError> {
        let kept = payload.get(..payload.len().min(MAX_PAYLOAD)).unwrap_or_default();
        let event = DatabaseSessionMalformedPacket {
            payload: kept.to_vec().into(),
            ..DatabaseSessionMalformedPacket::default()
        };
        self.statement(&mut vec![event.into()]).await
    }
}

impl Begun {
    async fn take(&self, events: &mut Vec<AuditEvent>) -> Result<(), AuditError> {
        if let Way::Recorded(recorder) = &self.way {
            match recorder.events(events).await {
                Ok(()) => return Ok(()),
                Err(error) if self.strict => return Err(error.into()),
                // It goes on without a recording, which the audit log was told; the events still go there.
                Err(_) => {}
            }
        }
        let outlet = Outlet { parts: Arc::clone(&self.parts), queue: Arc::clone(&self.queue) };
        events.retain(|event| outlet.logs(event));
        events.iter_mut().for_each(|event| outlet.complete(event));
        Ok(self.queue.put(events).await?)
    }
}

/// Where a recorder's events go on to.
pub(crate) struct Outlet {
    pub(crate) parts: Arc<Parts>,
    pub(crate) queue: Arc<EventQueue>,
}

#[async_trait::async_trait]
impl EventOutlet for Outlet {
    fn complete(&self, event: &mut AuditEvent) {
        parts::fill(event, &self.parts);
    }

    fn logs(&self, event: &AuditEvent) -> bool {
        !matches!(event, AuditEvent::DatabaseSessionCommandResult(_))
    }

    async fn take(&self, mut events: Vec<AuditEvent>) {
        if let Err(error) = self.queue.put(&mut events).await {
            let kinds: Vec<_> = events.iter().map(AuditEvent::kind).collect();
            tracing::error!(?kinds, %error, "audit events are lost");
        }
    }
}

/// A statement's text as an event holds it: whole, or cut at [`MAX_STATEMENT`] bytes with a line that says so and names
/// the size and the SHA-256 of the whole.
pub(crate) fn fit(text: &str) -> Cow<'_, str> {
    fit_to(text, MAX_STATEMENT)
}

/// The same with another limit, for the parameters of a statement together.
pub(crate) fn fit_to(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    cut(text.as_bytes(), text, most, text.len() as u64)
}

fn cut<'a>(whole: &[u8], text: &str, most: usize, size: u64) -> Cow<'a, str> {
    use sha2::Digest as _;
    Cow::Owned(cut_text(text, most, size, &sha2::Sha256::digest(whole).into()))
}

/// The text of a statement of which only the beginning was kept: `size` bytes long in all, and `hash` the SHA-256 of
/// them.
pub(crate) fn cut_text(beginning: &str, most: usize, size: u64, hash: &[u8; 32]) -> String {
    let mark = format!("… [cut: {size} bytes, sha256 {}]", hex::encode(hash));
    let room = most.saturating_sub(mark.len()).min(beginning.len());
    let end = (0..=room).rev().find(|at| beginning.is_char_boundary(*at)).unwrap_or_default();
    format!("{}{mark}", beginning.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_statements_are_cut_and_say_so() {
        assert_eq!(fit("select 1"), "select 1");
        let exact = "x".repeat(MAX_STATEMENT);
        assert!(matches!(fit(&exact), Cow::Borrowed(_)));
        let long = "ä".repeat(MAX_STATEMENT);
        let fitted = fit(&long);
        assert!(fitted.len() <= MAX_STATEMENT, "{}", fitted.len());
        let sum = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(long.as_bytes()));
        let mark = format!("… [cut: {} bytes, sha256 {sum}]", long.len());
        assert!(fitted.ends_with(&mark) && fitted.starts_with('ä'));
    }
}

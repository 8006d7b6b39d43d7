//! Recordings on their way in: parts, then the whole.
//!
//! Every step may be repeated. A recording is complete when all its parts are here and on disk; the event
//! that says so has an id that follows from the upload's, so that it is there once.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use server_core::stable_uid;
use server_store::{BackendError, Completed, Condition, RecordingError, UploadId};
use shared_api::{CompleteUpload, limits};
use shared_events::{
    AuditEvent, DatabaseSessionEnd, DatabaseSessionStart, Metadata, SessionEnd, SessionMetadata,
    SessionStart,
};
use shared_recording::Decoder;
use shared_types::{HostId, SessionId};
use uuid::Uuid;

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::events;
use crate::recordings::store_fault;
use crate::service::AuthService;
use crate::state;

/// How long it is known whose an upload is.
const REMEMBERED_DAYS: i64 = 90;
/// Most names of participants in an end that is made here.
const MOST_PARTICIPANTS: usize = 100;
/// Most parts of a recording.
const MAX_PARTS: u64 = 1_000_000;

impl AuthService {
    /// Stores one part; on disk when this returns.
    pub async fn upload_part(
        &self,
        caller: &Caller,
        upload: Uuid,
        session: &SessionId,
        part: u64,
        bytes: Bytes,
    ) -> Result<()> {
        self.own_upload(caller, upload, session).await?;
        let number =
            u32::try_from(part).ok().filter(|number| (1..=MAX_PARTS).contains(&u64::from(*number)));
        let Some(number) = number else {
            return Err(AuthError::bad_request(format!(
                "part {part} is not between 1 and {MAX_PARTS}"
            )));
        };
        if bytes.is_empty() || bytes.len() > limits::MAX_PART {
            return Err(AuthError::bad_request(format!(
                "a part has between 1 and {} bytes",
                limits::MAX_PART
            )));
        }
        self.recordings
            .put_part(UploadId(upload), *session, number, bytes)
            .await
            .map_err(upload_error)?;
        Ok(())
    }

    /// Makes the recording out of its parts.
    pub async fn complete_upload(
        &self,
        caller: &Caller,
        upload: Uuid,
        session: &SessionId,
        ask: CompleteUpload,
    ) -> Result<()> {
        self.own_upload(caller, upload, session).await?;
        match self.recordings.parts(UploadId(upload), *session).await {
            Ok(parts) if parts.is_empty() => {}
            Ok(parts) => {
                let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
                let count = u64::try_from(parts.len()).unwrap_or(u64::MAX);
                let in_order = parts.iter().zip(1u32..).all(|(part, number)| part.number == number);
                if parts.first().is_some_and(|first| first.number > 1) {
                    // Those before were made a recording when nothing more came.
                    return Err(AuthError::not_found("no such upload"));
                }
                if count != ask.parts || bytes != ask.bytes || !in_order {
                    return Err(AuthError::bad_request(format!(
                        "the upload has {count} parts with {bytes} bytes, not {} with {}",
                        ask.parts, ask.bytes
                    )));
                }
            }
            // Completed before, and the answer was lost.
            Err(RecordingError::NotFound { .. }) => {}
            Err(error) => return Err(upload_error(error)),
        }
        match self.recordings.complete(UploadId(upload), *session).await.map_err(upload_error)? {
            Completed::Empty if ask.parts > 0 => Err(AuthError::not_found("no such upload")),
            Completed::Empty => Ok(()),
            stored => self.stored(upload, session, stored, ask.truncated).await,
        }
    }

    /// What follows when a recording is stored: its seal, and the events that tell of it. May be repeated.
    pub(crate) async fn stored(
        &self,
        upload: Uuid,
        session: &SessionId,
        stored: Completed,
        truncated: bool,
    ) -> Result<()> {
        let arrived = if let Completed::Superseded { bytes } = stored {
            tracing::warn!(%session, kept = bytes, "a second recording of this session is kept aside");
            None
        } else {
            // The recorder died: an end is needed for the recording to be listed.
            let owner = self.upload_owner(upload).await?;
            Some(self.receive(session, truncated, owner).await?)
        };
        if let Some(arrived) = &arrived {
            tracing::info!(%session, state = arrived.state, "recording stored");
            self.keep_ending(session, arrived).await?;
        }
        let uid = stable_uid("session.upload", upload.as_bytes());
        let url = self.recordings.url(*session);
        let mut made = vec![events::session_upload(session, url, uid, arrived.as_ref())];
        made.extend(arrived.and_then(|arrived| arrived.end));
        self.record(made).await
    }

    /// The host that began an upload, as far as that is remembered.
    async fn upload_owner(&self, upload: Uuid) -> Result<Option<HostId>> {
        let key = state::key("uploads", &upload.to_string())?;
        Ok(self.store().read::<HostId>(&key).await?.map(|owner| owner.value))
    }

    /// An upload belongs to the host that began it, and is for one of its sessions.
    async fn own_upload(&self, caller: &Caller, upload: Uuid, session: &SessionId) -> Result<()> {
        let Some(host) = caller.host_id().filter(|_| caller.is_service()) else {
            return Err(AuthError::denied("access denied"));
        };
        if !self.sessions.claim(*session, host) {
            return Err(AuthError::bad_request("the session is another host's"));
        }
        let key = state::key("uploads", &upload.to_string())?;
        let owner = match self.upload_owner(upload).await? {
            Some(owner) => owner,
            None => {
                let end = self.now() + chrono::Duration::days(REMEMBERED_DAYS);
                let put = state::put(key.clone(), &host, Some(end), Condition::Absent)?;
                match self.store().write(vec![put]).await {
                    Ok(_) => host,
                    Err(BackendError::AlreadyExists { .. } | BackendError::Conflict { .. }) => {
                        self.upload_owner(upload).await?.unwrap_or(host)
                    }
                    Err(error) => return Err(AuthError::internal("store upload", error)),
                }
            }
        };
        if owner == host { Ok(()) } else { Err(AuthError::not_found("no such upload")) }
    }
}

fn upload_error(error: RecordingError) -> AuthError {
    match error {
        RecordingError::NotFound { .. } => AuthError::not_found("no such upload"),
        RecordingError::Store(fault) => store_fault(&fault),
        RecordingError::PartDiffers { .. }
        | RecordingError::OtherSession { .. }
        | RecordingError::BadPart { .. } => AuthError::bad_request(error.to_string()),
        other => AuthError::internal("store recording", other),
    }
}

/// Who made an end up, and why.
const MADE_UP: &str = "made up by the auth service: the recorder did not end the recording";

/// Reads the recording and answers with its end event, or with one made out of its beginning. A recording says what
/// its recorder wrote: it tells of this session in this cluster, or it counts for nothing.
pub(crate) fn synthesise<R: std::io::Read>(
    decoder: &mut Decoder<R>,
    session: SessionId,
    cluster: &str,
) -> Option<AuditEvent> {
    let sid = session.to_string();
    let mut beginning: Option<AuditEvent> = None;
    let mut participants: Vec<String> = Vec::new();
    let mut last: Option<DateTime<Utc>> = None;
    let mut index = 0;
    // An error is the place where the recorder died; what is before it counts.
    while let Ok(Some(mut event)) = decoder.next_event() {
        last = event.metadata().time.get().or(last);
        index = event.metadata().index;
        let here = is_of(&event, &sid, cluster);
        match &event {
            end if here && end.ends_recording() => {
                let kind = event.kind();
                let metadata = event.metadata_mut();
                kind.clone_into(&mut metadata.event);
                if uuid::Uuid::try_parse(&metadata.uid).is_err() {
                    metadata.uid = stable_uid(kind, session.uuid().as_bytes());
                }
                return Some(event);
            }
            AuditEvent::SessionStart(start) if here => {
                participants.push(start.user.user.clone());
                beginning = Some(event);
            }
            AuditEvent::DatabaseSessionStart(start) if here => {
                participants.push(start.user.user.clone());
                beginning = Some(event);
            }
            AuditEvent::SessionJoin(join)
                if participants.len() < MOST_PARTICIPANTS
                    && !participants.contains(&join.user.user) =>
            {
                participants.push(join.user.user.clone());
            }
            _ => {}
        }
    }
    let mut end = match beginning? {
        AuditEvent::SessionStart(start) => end_of_session(start, participants, last),
        AuditEvent::DatabaseSessionStart(start) => end_of_database(start, participants, last),
        _ => return None,
    };
    let uid = stable_uid(end.kind(), session.uuid().as_bytes());
    *end.metadata_mut() = Metadata {
        index: index.saturating_add(1),
        uid,
        time: last.into(),
        cluster_name: cluster.to_owned(),
        ..Metadata::default()
    };
    Some(end)
}

/// Whether an event tells of this session in this cluster.
fn is_of(event: &AuditEvent, sid: &str, cluster: &str) -> bool {
    let named = event.metadata().cluster_name.as_str();
    (named.is_empty() || named == cluster)
        && event.part::<SessionMetadata>().is_some_and(|session| session.sid == sid)
}

fn end_of_session(
    start: SessionStart,
    participants: Vec<String>,
    last: Option<DateTime<Utc>>,
) -> AuditEvent {
    let end = SessionEnd {
        interactive: !start.size.is_empty(),
        participants,
        session_start: start.metadata.time,
        session_stop: last.into(),
        user: start.user,
        session: start.session,
        connection: start.connection,
        server: start.server,
        initial_command: start.initial_command,
        session_recording: start.session_recording,
        recovered: MADE_UP.to_owned(),
        ..SessionEnd::default()
    };
    end.into()
}

fn end_of_database(
    start: DatabaseSessionStart,
    participants: Vec<String>,
    last: Option<DateTime<Utc>>,
) -> AuditEvent {
    let end = DatabaseSessionEnd {
        participants,
        session_start: start.metadata.time,
        session_stop: last.into(),
        user: start.user,
        session: start.session,
        database: start.database,
        connection: start.connection,
        session_recording: start.session_recording,
        recovered: MADE_UP.to_owned(),
        ..DatabaseSessionEnd::default()
    };
    end.into()
}

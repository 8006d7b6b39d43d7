//! Recordings on their way in: parts, then the whole.
//!
//! Every step may be repeated. A recording is complete when all its parts are here and on disk; the event
//! that says so has an id that follows from the upload's, so that it is there once.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use server_store::{BackendError, Completed, Condition, RecordingError, UploadId};
use sha2::{Digest, Sha256};
use shared_api::{CompleteUpload, limits};
use shared_events::{AuditEvent, Metadata, SessionEnd, SessionStart};
use shared_recording::Decoder;
use shared_types::{HostId, SessionId};
use tokio_util::io::SyncIoBridge;
use uuid::Uuid;

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::events;
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
            Completed::Stored { bytes } | Completed::AlreadyStored { bytes } => {
                tracing::info!(%session, bytes, truncated = ask.truncated, "recording stored");
            }
            Completed::Superseded { bytes } => {
                tracing::warn!(%session, kept = bytes, "a second recording of this session is kept aside");
            }
            Completed::Empty if ask.parts > 0 => {
                return Err(AuthError::not_found("no such upload"));
            }
            Completed::Empty => return Ok(()),
        }
        let uid = stable_uid("session.upload", upload.as_bytes());
        let url = self.recordings.url(*session);
        let mut made = vec![events::session_upload(session, url, uid)];
        if ask.truncated {
            // The recorder died: an end is needed for the recording to be listed.
            made.extend(self.missing_end(session).await?);
        }
        self.record(made).await
    }

    /// An upload belongs to the host that began it, and is for one of its sessions.
    async fn own_upload(&self, caller: &Caller, upload: Uuid, session: &SessionId) -> Result<()> {
        let Some(host) = caller.host_id().filter(|_| caller.is_proxy()) else {
            return Err(AuthError::denied("access denied"));
        };
        if !self.sessions.claim(*session, host) {
            return Err(AuthError::bad_request("the session is another proxy's"));
        }
        let key = state::key("uploads", &upload.to_string())?;
        let owner = match self.store().read::<HostId>(&key).await? {
            Some(owner) => owner.value,
            None => {
                let end = self.now() + chrono::Duration::days(REMEMBERED_DAYS);
                let put = state::put(key.clone(), &host, Some(end), Condition::Absent)?;
                match self.store().write(vec![put]).await {
                    Ok(_) => host,
                    Err(BackendError::AlreadyExists { .. } | BackendError::Conflict { .. }) => {
                        self.store().read::<HostId>(&key).await?.map_or(host, |owner| owner.value)
                    }
                    Err(error) => return Err(AuthError::internal("store upload", error)),
                }
            }
        };
        if owner == host { Ok(()) } else { Err(AuthError::not_found("no such upload")) }
    }

    /// The end of a session whose recorder did not live to write it, unless the recording has one.
    pub(crate) async fn missing_end(&self, session: &SessionId) -> Result<Option<AuditEvent>> {
        let reader = self.open_recording(session).await?;
        let (session, cluster) = (*session, self.cluster().to_string());
        let bridge = SyncIoBridge::new(reader);
        let read = tokio::task::spawn_blocking(move || {
            synthesise(Decoder::of_session(bridge, session), session, &cluster)
        });
        read.await.map_err(AuthError::at("read recording"))
    }
}

fn upload_error(error: RecordingError) -> AuthError {
    match error {
        RecordingError::NotFound { .. } => AuthError::not_found("no such upload"),
        RecordingError::PartDiffers { .. }
        | RecordingError::OtherSession { .. }
        | RecordingError::BadPart { .. } => AuthError::bad_request(error.to_string()),
        other => AuthError::internal("store recording", other),
    }
}

/// The same id for the same thing, however often it is said.
pub(crate) fn stable_uid(what: &str, of: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(what.as_bytes());
    hash.update([0]);
    hash.update(of);
    let mut bytes = [0u8; 16];
    for (to, from) in bytes.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// Reads the recording and answers with its end event, or with one made out of its beginning. A recording says what
/// its recorder wrote: it tells of this session in this cluster, or it counts for nothing.
fn synthesise<R: std::io::Read>(
    mut decoder: Decoder<R>,
    session: SessionId,
    cluster: &str,
) -> Option<AuditEvent> {
    let sid = session.to_string();
    let here = |metadata: &Metadata, named: &str| {
        named == sid && (metadata.cluster_name.is_empty() || metadata.cluster_name == cluster)
    };
    let mut start: Option<SessionStart> = None;
    let mut participants: Vec<String> = Vec::new();
    let mut last: Option<DateTime<Utc>> = None;
    let mut index = 0;
    // An error is the place where the recorder died; what is before it counts.
    while let Ok(Some(event)) = decoder.next_event() {
        last = event.metadata().time.get().or(last);
        index = event.metadata().index;
        match event {
            AuditEvent::SessionEnd(mut end) if here(&end.metadata, &end.session.sid) => {
                end.metadata.event = SessionEnd::KIND.to_owned();
                if uuid::Uuid::try_parse(&end.metadata.uid).is_err() {
                    end.metadata.uid = stable_uid("session.end", session.uuid().as_bytes());
                }
                return Some(end.into());
            }
            AuditEvent::SessionStart(found) if here(&found.metadata, &found.session.sid) => {
                participants.push(found.user.user.clone());
                start = Some(found);
            }
            AuditEvent::SessionJoin(join)
                if participants.len() < MOST_PARTICIPANTS
                    && !participants.contains(&join.user.user) =>
            {
                participants.push(join.user.user);
            }
            _ => {}
        }
    }
    let start = start?;
    let end = SessionEnd {
        metadata: Metadata {
            index: index.saturating_add(1),
            uid: stable_uid("session.end", session.uuid().as_bytes()),
            time: last.into(),
            cluster_name: cluster.to_owned(),
            ..Metadata::default()
        },
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
        ..SessionEnd::default()
    };
    Some(end.into())
}

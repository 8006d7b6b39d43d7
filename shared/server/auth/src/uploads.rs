//! Recordings on their way in: parts, then the whole.
//!
//! Every step may be repeated. A recording is complete when all its parts are here and on disk; the event
//! that says so has an id that follows from the upload's, so that it is there once.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use server_core::stable_uid;
use server_store::{BackendError, Completed, Condition, RecordingError, UploadId};
use shared_api::{CompleteUpload, limits};
use shared_types::{HostId, SessionId};
use uuid::Uuid;

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::events;
use crate::recordings::store_fault;
use crate::remembered::Remembered;
use crate::service::AuthService;
use crate::state;

/// How long it is known whose an upload is.
const REMEMBERED_DAYS: i64 = 90;
/// Most uploads of which the owner is known without asking the store.
const MOST_UPLOADING: usize = 10_000;
/// Most parts of a recording.
const MAX_PARTS: u64 = 1_000_000;

/// Whose the latest uploads are: streamed recordings come in very many parts.
pub(crate) struct Uploading(Mutex<Remembered<Uuid, HostId>>);

impl Default for Uploading {
    fn default() -> Self {
        Self(Mutex::new(Remembered::new(MOST_UPLOADING)))
    }
}

impl Uploading {
    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered<Uuid, HostId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
        if let Some(owner) = self.uploading.lock().get(&upload) {
            return Ok(Some(*owner));
        }
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
        self.uploading.lock().insert(upload, owner);
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

//! What has to be done now and then: uploads that nobody finishes, state whose time is up.

use chrono::Duration;
use server_store::Upload;
use shared_events::AuditEvent;

use crate::error::{AuthError, Result};
use crate::events;
use crate::service::AuthService;
use crate::uploads::stable_uid;

/// An upload without a new part for so many hours is completed as it is.
const GRACE_HOURS: i64 = 24;

impl AuthService {
    /// Completes forgotten uploads and removes expired state. What fails is tried again next time.
    pub async fn tend(&self) {
        match self.backend.remove_expired().await {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "expired state removed"),
            Err(error) => tracing::warn!(%error, "could not remove expired state"),
        }
        let uploads = match self.recordings.uploads().await {
            Ok(uploads) => uploads,
            Err(error) => {
                tracing::warn!(%error, "could not list uploads");
                return;
            }
        };
        for upload in uploads {
            match self.finish_forgotten(&upload).await {
                Ok(false) => {}
                Ok(true) => tracing::info!(session = %upload.session, "forgotten upload completed"),
                Err(error) => {
                    tracing::warn!(session = %upload.session, %error, "could not complete forgotten upload")
                }
            }
        }
    }

    async fn finish_forgotten(&self, upload: &Upload) -> Result<bool> {
        let old = self.now() - Duration::hours(GRACE_HOURS);
        let parts = self
            .recordings
            .parts(upload.id, upload.session)
            .await
            .map_err(AuthError::at("list parts"))?;
        if upload.initiated > old || parts.iter().any(|part| part.modified > old) {
            return Ok(false);
        }
        self.recordings
            .complete(upload.id, upload.session)
            .await
            .map_err(AuthError::at("complete upload"))?;
        if parts.is_empty() {
            return Ok(true);
        }
        let uid = stable_uid("session.upload", upload.id.0.as_bytes());
        let mut made: Vec<AuditEvent> =
            vec![events::session_upload(&upload.session, self.recordings.url(upload.session), uid)];
        made.extend(self.missing_end(&upload.session).await?);
        self.record(made).await?;
        Ok(true)
    }
}

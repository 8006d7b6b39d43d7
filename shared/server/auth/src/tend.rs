//! What has to be done now and then: uploads that nobody finishes, state whose time is up.

use std::time::Duration;

use server_store::{PartInfo, Upload};

use crate::error::{AuthError, Result};
use crate::service::AuthService;

/// A recording that waited on a proxy's disk comes in pieces that are larger than this, but for its last; one that is
/// streamed comes in slices that are smaller.
const LARGEST_SLICE: u64 = 2 * 1024 * 1024;

impl AuthService {
    /// Removes expired state. What fails is tried again next time.
    pub async fn tend(&self) {
        match self.backend.remove_expired().await {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "expired state removed"),
            Err(error) => tracing::warn!(%error, "could not remove expired state"),
        }
    }

    /// Completes the recordings that nobody finishes: their proxy was not heard of for the life of a session tracker.
    /// What fails is tried again next time, which is after `period`.
    pub async fn complete_uploads(&self, period: Duration) {
        self.awake.tick(self.now(), period);
        let uploads = match self.recordings.uploads().await {
            Ok(uploads) => uploads,
            Err(error) => {
                tracing::warn!(%error, "could not list uploads");
                return;
            }
        };
        let uploading = uploads.iter().map(|upload| upload.session).collect();
        for upload in uploads {
            match self.finish_forgotten(&upload).await {
                Ok(false) => {}
                Ok(true) => tracing::warn!(session = %upload.session, "forgotten upload completed"),
                Err(error) => {
                    tracing::warn!(session = %upload.session, %error, "could not complete forgotten upload")
                }
            }
        }
        self.end_unfinished(&uploading).await;
        self.keep_visits().await;
    }

    async fn finish_forgotten(&self, upload: &Upload) -> Result<bool> {
        if self.may_run(&upload.session) {
            return Ok(false);
        }
        let parts = self
            .recordings
            .parts(upload.id, upload.session)
            .await
            .map_err(AuthError::at("list parts"))?;
        let grace = chrono::Duration::from_std(self.grace(&parts)).unwrap_or_default();
        let old = self.now() - grace;
        if upload.initiated > old || parts.iter().any(|part| part.modified > old) {
            return Ok(false);
        }
        self.recordings
            .cut_at_gap(upload.id, upload.session)
            .await
            .map_err(AuthError::at("put parts aside"))?;
        let stored = self
            .recordings
            .complete(upload.id, upload.session)
            .await
            .map_err(AuthError::at("complete upload"))?;
        if !parts.is_empty() {
            self.stored(upload.id.0, &upload.session, stored, true).await?;
        }
        Ok(true)
    }

    /// How long parts wait for those behind them. A whole recording may still be on the disk of a proxy that is away,
    /// and then what is here is not all there is; of one that was streamed it is.
    fn grace(&self, parts: &[PartInfo]) -> Duration {
        let streamed = parts.first().is_none_or(|first| first.bytes <= LARGEST_SLICE);
        if streamed { self.settings.tracker_ttl } else { self.settings.upload_grace }
    }
}

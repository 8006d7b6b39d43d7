//! The end of a session: its last event, and its recording complete.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use server_core::chain;
use server_core::recorder::Recorder;

use super::Session;

/// How long the end of a streamed session waits for its recording to be complete at the auth service.
const LAST_SLICES: Duration = Duration::from_secs(5);

impl Session {
    /// Ends what began: whatever happened, this is called once.
    pub(crate) async fn finish(self) {
        let Some(begun) = self.begun().take() else { return };
        let end = self.ended_event(&begun, Utc::now());
        let queue = Arc::clone(&self.service.queue);
        let mut last = vec![end];
        if let Some(recorder) = &begun.recorder
            && let Some(end) = last.pop()
        {
            // Behind everything that waits in the recorder, and so in the audit log.
            last.push(match recorder.last_event(end.clone()).await {
                Ok(numbered) => numbered,
                Err(_) => end,
            });
        }
        if queue.put(&mut last).await.is_err() {
            self.service.emit(last).await;
        }
        if let Some(recorder) = begun.recorder {
            self.complete(recorder, begun.window.is_some()).await;
        }
        queue.flushed().await;
    }

    async fn complete(&self, recorder: Arc<Recorder>, streamed: bool) {
        let (sid, party) = (self.id(), self.party());
        let service = Arc::clone(&self.service);
        let finishing = async move {
            if let Err(error) = recorder.finish().await {
                let why = chain(&error);
                tracing::error!(%sid, error = why, "finish recording");
                let reason = format!("the end of session {sid} is not recorded: {why}");
                service.emit(vec![party.rejected(&reason)]).await;
            }
        };
        if !streamed {
            finishing.await;
            return;
        }
        // The rest may have to wait for the auth service, and the session does not.
        let mut finishing = tokio::spawn(finishing);
        if tokio::time::timeout(LAST_SLICES, &mut finishing).await.is_err() {
            tracing::warn!(%sid, "the end of the recording waits for the auth service");
        }
    }
}

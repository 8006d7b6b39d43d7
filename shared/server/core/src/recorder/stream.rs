//! Slices sent to the auth service as they are made. Nothing of them is written here.
//!
//! Each slice is a part of an upload. Parts are sent side by side and acknowledged to the window in their order, so
//! that what is acknowledged is a recording up to there. How many are on the way is bounded by the window.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use shared_api::{CompleteUpload, ErrorKind};
use shared_recording::Slice;
use shared_types::SessionId;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::window::Window;
use super::writer::SliceWriter;
use crate::authority::{Authority, AuthorityError};
use crate::backoff::Backoff;
use crate::spool::SpoolError;

/// How long one request may take; one that hangs is sent again.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Waits between attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long the rest of a recording is kept in memory for an auth service that is away when its session has ended.
const LINGER: Duration = Duration::from_secs(600);

/// A recording on its way to the auth service.
pub struct StreamWriter {
    upload: Arc<Upload>,
    parts: u64,
    bytes: u64,
    /// Done when every part so far is acknowledged.
    before: Option<oneshot::Receiver<()>>,
}

struct Upload {
    authority: Arc<dyn Authority>,
    session: SessionId,
    id: Uuid,
    window: Arc<Window>,
}

impl StreamWriter {
    /// A new upload for `session`; acknowledgements open `window`.
    pub fn new(authority: Arc<dyn Authority>, session: SessionId, window: Arc<Window>) -> Self {
        let upload = Upload { authority, session, id: Uuid::new_v4(), window };
        Self { upload: Arc::new(upload), parts: 0, bytes: 0, before: None }
    }
}

impl Upload {
    /// Does `what` until the auth service has done it. An answer that will never be another is an error.
    async fn insist<F: Future<Output = Result<(), AuthorityError>>>(
        &self,
        until: Option<Instant>,
        mut what: impl FnMut() -> F,
    ) -> Result<(), String> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let error = match tokio::time::timeout(ATTEMPT, what()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if is_final(&error) => return Err(error.to_string()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if until.is_some_and(|until| until <= Instant::now()) {
                return Err(error);
            }
            tracing::debug!(session = %self.session, error, "recording waits for the auth service");
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn send(&self, number: u64, bytes: Bytes) -> Result<(), String> {
        let until = Instant::now() + LINGER;
        self.insist(Some(until), || {
            self.authority.upload_part(self.id, &self.session, number, bytes.clone())
        })
        .await
    }
}

/// Whether asking again cannot help.
fn is_final(error: &AuthorityError) -> bool {
    matches!(error.kind(), ErrorKind::BadRequest | ErrorKind::NotFound | ErrorKind::AlreadyExists)
}

#[async_trait]
impl SliceWriter for StreamWriter {
    async fn write(
        &mut self,
        slice: &Slice,
        output: u64,
        _patient: bool,
    ) -> Result<(), SpoolError> {
        self.parts += 1;
        self.bytes += slice.bytes.len() as u64;
        let (done, after) = oneshot::channel();
        let before = self.before.replace(after);
        let (upload, number, bytes) = (Arc::clone(&self.upload), self.parts, slice.bytes.clone());
        tokio::spawn(async move {
            match upload.send(number, bytes).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(session = %upload.session, error, part = number, "recording is lost from here on");
                    upload.window.fail(format!(
                        "the auth service does not take the recording of this session: {error}"
                    ));
                    return;
                }
            }
            // In order; where one before was not taken, none behind it counts.
            let in_order = match before {
                Some(before) => before.await.is_ok(),
                None => true,
            };
            if in_order {
                upload.window.acknowledge(output);
                let _ = done.send(());
            }
        });
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<(), SpoolError> {
        let lost = |why: String| SpoolError::Refused { why };
        if let Some(before) = self.before.take() {
            before.await.map_err(|_| lost("parts of the recording did not arrive".to_owned()))?;
        }
        let whole = CompleteUpload { parts: self.parts, bytes: self.bytes, truncated: false };
        let (upload, until) = (&self.upload, Instant::now() + LINGER);
        upload
            .insist(Some(until), || {
                upload.authority.complete_upload(upload.id, &upload.session, whole.clone())
            })
            .await
            .map_err(lost)
    }
}

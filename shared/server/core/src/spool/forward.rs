//! Sends spooled events to the auth service, oldest first, for as long as it takes.

use std::collections::VecDeque;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shared_api::unpack_event;
use shared_events::AuditEvent;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::events::{EventSpoolSettings, Level, Order};
use super::segment::{self, Sealed};
use super::{SpoolError, at, blocking, sync_folder};
use crate::authority::{Authority, EmitError};
use crate::backoff::Backoff;
use crate::batches::Batches;

/// How much of refused events is kept; behind that they are only logged.
const MAX_REFUSED: u64 = 64 * 1024 * 1024;
/// How long one batch may take.
const BATCH_WAIT: Duration = Duration::from_secs(30);

pub(super) struct Forwarder {
    pub(super) authority: Arc<dyn Authority>,
    pub(super) writer: mpsc::Sender<Order>,
    pub(super) level: Arc<Level>,
    pub(super) settings: EventSpoolSettings,
    pub(super) sealed: VecDeque<Sealed>,
}

pub(super) async fn run(mut forwarder: Forwarder, stop: CancellationToken) {
    let _ = stop.run_until_cancelled(forwarder.forever()).await;
}

impl Forwarder {
    async fn forever(&mut self) {
        let mut backoff = Backoff::new(self.settings.retry_first, self.settings.retry_max);
        loop {
            while let Some(sealed) = self.sealed.front().cloned() {
                match self.segment(&sealed, &mut backoff).await {
                    Ok(()) => self.release(&sealed),
                    Err(err) => {
                        // Unreadable now; what is in it stays on disk and is tried again at the next start.
                        tracing::error!(
                            error = &err as &dyn std::error::Error,
                            "event spool segment is left for later"
                        );
                        self.release(&sealed);
                    }
                }
                self.sealed.pop_front();
            }
            let level = Arc::clone(&self.level);
            let changed = level.changed.notified();
            if level.events.load(Ordering::Acquire) == 0 {
                level.emptied.notify_waiters();
                changed.await;
            }
            let (done, answer) = oneshot::channel();
            if self.writer.send(Order::Seal { done }).await.is_err() {
                return;
            }
            match answer.await {
                Ok(Some(sealed)) => self.sealed.push_back(sealed),
                Ok(None) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(_) => return,
            }
        }
    }

    fn release(&self, sealed: &Sealed) {
        self.level.bytes.fetch_sub(sealed.len, Ordering::AcqRel);
        self.level.events.fetch_sub(sealed.count, Ordering::AcqRel);
        if self.level.events.load(Ordering::Acquire) == 0 {
            self.level.emptied.notify_waiters();
        }
    }

    /// Sends a whole segment and removes it.
    async fn segment(&self, sealed: &Sealed, backoff: &mut Backoff) -> Result<(), SpoolError> {
        let path = sealed.path.clone();
        let batches = blocking(move || batches(&path)).await?;
        for batch in batches {
            if let Err(why) = self.send(&batch, backoff).await {
                // One of them is refused for good: send the others, keep that one for a person.
                for event in batch {
                    let alone = vec![event];
                    if let Err(single) = self.send(&alone, backoff).await {
                        tracing::error!(reason = %single, batch = %why, "auth service refuses a spooled event, it is kept aside");
                        let folder = sealed.path.parent().map(Path::to_owned).unwrap_or_default();
                        blocking(move || keep_refused(&folder, &alone)).await?;
                    }
                }
            }
        }
        let path = sealed.path.clone();
        blocking(move || std::fs::remove_file(&path).map_err(at("remove", &path))).await
    }

    /// Sends until it is answered. The error is a refusal; everything else is waited out.
    async fn send(&self, batch: &[AuditEvent], backoff: &mut Backoff) -> Result<(), String> {
        loop {
            let failure =
                match tokio::time::timeout(BATCH_WAIT, self.authority.emit(batch.to_vec())).await {
                    Ok(Ok(())) => {
                        backoff.reset();
                        return Ok(());
                    }
                    Ok(Err(EmitError::Refused(why))) => return Err(why),
                    Ok(Err(err)) => err.to_string(),
                    Err(_) => "no answer".to_owned(),
                };
            let wait = backoff.next();
            tracing::warn!(error = failure, waiting = self.level.events.load(Ordering::Relaxed), retry_in = ?wait, "forward events");
            tokio::time::sleep(wait).await;
        }
    }
}

/// A segment's events in batches the auth service takes.
fn batches(path: &PathBuf) -> Result<Vec<Vec<AuditEvent>>, SpoolError> {
    let bytes = std::fs::read(path).map_err(at("read", path))?;
    let mut out = Batches::default();
    for frame in segment::frames(&bytes).frames {
        match unpack_event(frame) {
            Ok(event) => out.add(event, frame.len()),
            Err(err) => {
                tracing::error!(path = %path.display(), error = %err, "event spool holds what is no event");
            }
        }
    }
    Ok(out.into_batches())
}

/// Appends events to `refused.jsonl`.
fn keep_refused(folder: &Path, events: &[AuditEvent]) -> Result<(), SpoolError> {
    let path = folder.join("refused.jsonl");
    let mut text = String::new();
    for event in events {
        text.push_str(&event.to_json());
        text.push('\n');
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.append(true).create(true).mode(0o600).open(&path).map_err(at("open", &path))?;
    let kept = file.metadata().map_err(at("look at", &path))?.len();
    if kept + text.len() as u64 > MAX_REFUSED {
        tracing::error!(events = text, path = %path.display(), "no room is left for refused events");
        return Ok(());
    }
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at("write", &path))?;
    sync_folder(folder)
}

//! Recordings on their way: written while the session runs, uploaded when it has ended, for as long as it takes.
//!
//! ```text
//! log/upload/streaming/default/multi/<upload>/<sid>/1.part   while the session runs
//! log/upload/streaming/default/<sid>.tar                     complete, waiting for upload
//! log/upload/streaming/default/<sid>.checkpoint              how far the upload is
//! log/upload/corrupted/default/<sid>.tar, .error             what the auth service will never take, and why
//! ```
//! A slice is on disk before [`RecordingWriter::write`] answers. What a crash left is found at the start and, after a
//! session that ended without closing, at once: cut back to its last whole slice, marked as cut off, and uploaded.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared_types::SessionId;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::writer::RecordingWriter;
use super::{SpoolError, at, blocking, durable_folder, upload};
use crate::authority::Authority;

/// What a recording spool may use.
#[derive(Debug, Clone)]
pub struct RecordingSpoolSettings {
    /// Bytes on disk, of recordings that run and that wait.
    pub max_bytes: u64,
    /// How long a writer waits for room before it fails.
    pub room_wait: Duration,
    /// Uploads at a time.
    pub uploads: usize,
    /// Smallest piece that is sent, but for the last of a recording.
    pub piece: u64,
    /// Wait after the first failed upload of a recording; doubles with each.
    pub retry_first: Duration,
    /// The longest such wait.
    pub retry_max: Duration,
}

impl Default for RecordingSpoolSettings {
    fn default() -> Self {
        Self {
            max_bytes: 10 * 1024 * 1024 * 1024,
            room_wait: Duration::from_secs(30),
            uploads: 4,
            piece: 5 * 1024 * 1024,
            retry_first: Duration::from_secs(1),
            retry_max: Duration::from_secs(300),
        }
    }
}

/// The spool of one service.
pub struct RecordingSpool {
    pub(super) shared: Arc<Shared>,
    stop: CancellationToken,
}

/// What writers and the uploader have in common.
pub(super) struct Shared {
    pub(super) root: PathBuf,
    pub(super) corrupted: PathBuf,
    pub(super) settings: RecordingSpoolSettings,
    pub(super) authority: Arc<dyn Authority>,
    /// Uploads whose recording is being written.
    pub(super) open: Mutex<HashSet<Uuid>>,
    /// Threads that may wait for the disk.
    pub(super) disk: Arc<Semaphore>,
    /// There is something to look at.
    pub(super) wake: Notify,
    /// Recordings that wait.
    pub(super) waiting: AtomicU64,
    pub(super) looked: Notify,
    /// Uploads that failed.
    pub(super) failures: AtomicU64,
    used: AtomicU64,
    room: Notify,
}

impl RecordingSpool {
    /// Opens the spool below `data_dir`, recovers what an earlier run left, and begins to upload.
    pub async fn open(
        data_dir: &Path,
        authority: Arc<dyn Authority>,
        settings: RecordingSpoolSettings,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Self>, SpoolError> {
        let root = data_dir.join("log/upload/streaming/default");
        let corrupted = data_dir.join("log/upload/corrupted/default");
        let (multi, other, made) = (root.join("multi"), corrupted.clone(), root.clone());
        let used = blocking(move || {
            durable_folder(&multi)?;
            durable_folder(&other)?;
            size_below(&made)
        })
        .await?;
        let shared = Arc::new(Shared {
            root,
            corrupted,
            settings,
            authority,
            open: Mutex::default(),
            disk: Arc::new(Semaphore::new(8)),
            wake: Notify::new(),
            waiting: AtomicU64::new(0),
            looked: Notify::new(),
            failures: AtomicU64::new(0),
            used: AtomicU64::new(used),
            room: Notify::new(),
        });
        let stop = shutdown.child_token();
        // The first look is done here, so that what was left is cut back before a session of the same id could begin.
        let found = upload::look(Arc::clone(&shared)).await?;
        shared.waiting.store(found.len() as u64, Ordering::Release);
        tokio::spawn(upload::run(Arc::clone(&shared), found, stop.clone()));
        Ok(Arc::new(Self { shared, stop }))
    }

    /// Begins a recording. Where `demand_room`, fails when the budget is used up.
    pub async fn begin(
        &self,
        session: SessionId,
        demand_room: bool,
    ) -> Result<RecordingWriter, SpoolError> {
        if demand_room {
            self.shared.reserve(0, true).await?;
        }
        RecordingWriter::create(Arc::clone(&self.shared), session).await
    }

    /// Bytes on disk.
    pub fn used(&self) -> u64 {
        self.shared.used()
    }

    /// Recordings that wait for their upload or are being sent.
    pub fn waiting(&self) -> u64 {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Waits until everything that was closed is uploaded, at most `limit`; answers whether that came about.
    pub async fn drain(&self, limit: Duration) -> bool {
        let done = async {
            loop {
                let looked = self.shared.looked.notified();
                self.shared.wake.notify_one();
                looked.await;
                if self.waiting() == 0 {
                    return;
                }
            }
        };
        tokio::time::timeout(limit, done).await.is_ok()
    }
}

impl Drop for RecordingSpool {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    pub(super) fn multi(&self) -> PathBuf {
        self.root.join("multi")
    }

    /// Bytes that are taken.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Takes room out of the budget; a patient caller waits for it within the settings' limit.
    pub(super) async fn reserve(&self, bytes: u64, patient: bool) -> Result<(), SpoolError> {
        let max = self.settings.max_bytes;
        let take = || {
            let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|used| *used < max)
            });
            taken.is_ok()
        };
        if take() {
            return Ok(());
        }
        if !patient {
            return Err(SpoolError::Full { limit: max });
        }
        tracing::warn!(limit = max, "recording spool is full, sessions wait");
        let room = async {
            loop {
                let room = self.room.notified();
                if take() {
                    return;
                }
                room.await;
            }
        };
        tokio::time::timeout(self.settings.room_wait, room)
            .await
            .map_err(|_| SpoolError::Full { limit: max })
    }

    /// Gives room back.
    pub(super) fn release(&self, bytes: u64) {
        let _ = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            Some(used.saturating_sub(bytes))
        });
        self.room.notify_waiters();
    }
}

/// Bytes of all recordings below a folder. What says how far an upload is does not count: it comes and goes uncounted.
fn size_below(folder: &Path) -> Result<u64, SpoolError> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder).map_err(at("read folder", folder))? {
        let entry = entry.map_err(at("read folder", folder))?;
        let meta = entry.metadata().map_err(at("look at", folder))?;
        let path = entry.path();
        if meta.is_dir() {
            total += size_below(&path)?;
        } else if path.extension().is_some_and(|kind| kind == "tar" || kind == "part") {
            total += meta.len();
        }
    }
    Ok(total)
}

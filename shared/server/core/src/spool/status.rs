//! What a recording spool holds, for whoever watches it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use shared_types::SessionId;

use super::recording::{RecordingSpool, Shared};
use super::{SpoolError, at, blocking};

/// What a recording spool holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpoolStatus {
    /// Bytes of recordings on disk, of those that run and those that wait.
    pub bytes: u64,
    /// The budget.
    pub max_bytes: u64,
    /// Recordings that have ended and wait, or are being sent.
    pub waiting: u64,
    /// How long ago the oldest recording that is not sent was begun.
    pub oldest: Option<Duration>,
    /// Uploads that failed and were or will be tried again, since the start.
    pub failures: u64,
    /// Recordings that the auth service will never take.
    pub set_aside: u64,
}

impl RecordingSpool {
    /// What it holds now. Reads its folders.
    pub async fn status(&self) -> Result<SpoolStatus, SpoolError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || look_around(&shared)).await
    }

    /// The sessions whose recordings have ended and wait here.
    pub async fn waiting_sessions(&self) -> Result<Vec<SessionId>, SpoolError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let mut found = Vec::new();
            each(&shared.root, |path, _| {
                let stem = path.file_stem().and_then(|stem| stem.to_str());
                if is_recording(path) {
                    found.extend(stem.and_then(|stem| stem.parse::<SessionId>().ok()));
                }
            })?;
            Ok(found)
        })
        .await
    }
}

fn is_recording(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "tar")
}

fn each(folder: &Path, mut look: impl FnMut(&Path, &std::fs::Metadata)) -> Result<(), SpoolError> {
    for entry in std::fs::read_dir(folder).map_err(at("read folder", folder))? {
        let entry = entry.map_err(at("read folder", folder))?;
        // What goes meanwhile was sent.
        if let Ok(meta) = entry.metadata() {
            look(&entry.path(), &meta);
        }
    }
    Ok(())
}

fn look_around(shared: &Shared) -> Result<SpoolStatus, SpoolError> {
    let mut oldest: Option<SystemTime> = None;
    let mut begun = |meta: &std::fs::Metadata| {
        let at = meta.created().or_else(|_| meta.modified()).ok();
        oldest = oldest.into_iter().chain(at).min();
    };
    each(&shared.root, |path, meta| {
        if is_recording(path) {
            begun(meta);
        }
    })?;
    // A folder for each recording that runs.
    each(&shared.multi(), |_, meta| begun(meta))?;
    let mut set_aside = 0;
    each(&shared.corrupted, |path, _| set_aside += u64::from(is_recording(path)))?;
    Ok(SpoolStatus {
        bytes: shared.used(),
        max_bytes: shared.settings.max_bytes,
        waiting: shared.waiting.load(Ordering::Acquire),
        oldest: oldest.map(|at| at.elapsed().unwrap_or_default()),
        failures: shared.failures.load(Ordering::Relaxed),
        set_aside,
    })
}

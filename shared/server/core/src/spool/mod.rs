//! What waits on this machine's disk until the auth service has it.

mod checkpoint;
mod container;
mod events;
mod forward;
mod frame;
mod queue;
mod recording;
mod recover;
mod segment;
mod status;
mod upload;
mod writer;

pub use events::{EventSpool, EventSpoolSettings};
pub use queue::{EventQueue, QueueError};
pub use recording::{RecordingSpool, RecordingSpoolSettings};
pub use status::SpoolStatus;
pub use writer::RecordingWriter;

use std::io;
use std::path::{Path, PathBuf};

/// Why a spool does not take something.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A step on the disk went wrong.
    #[error("{step} {}", .path.display())]
    Disk {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it did not work.
        #[source]
        source: io::Error,
    },
    /// The disk budget is used up, and waiting did not help.
    #[error("recording spool is full ({limit} bytes)")]
    Full {
        /// The budget.
        limit: u64,
    },
    /// The auth service does not take a recording that is streamed to it.
    #[error("the auth service does not take the recording: {why}")]
    Refused {
        /// Its answer.
        why: String,
    },
    /// The service is stopping.
    #[error("spool is closed")]
    Closed,
}

impl SpoolError {
    /// Whether there is no room, and there may be later.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. }) || self.is_disk_full()
    }

    /// Whether the disk, or what somebody may use of it, is full.
    fn is_disk_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Disk { source, .. } if full.contains(&source.kind()))
    }
}

/// Names the step and the path of an I/O error.
fn at<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SpoolError + 'a {
    move |source| SpoolError::Disk { step, path: path.to_owned(), source }
}

/// Runs blocking work off the runtime's threads. A panic in it is passed on as an error.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(SpoolError::Closed))
}

/// Makes a folder and those above it, readable by us alone.
fn private_folder(path: &Path) -> Result<(), SpoolError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(at("create folder", path))
}

/// The same, and the names of those it made are on disk.
fn durable_folder(path: &Path) -> Result<(), SpoolError> {
    let missing = path.ancestors().take_while(|folder| !folder.exists()).count();
    private_folder(path)?;
    path.ancestors().skip(1).take(missing).try_for_each(|folder| {
        // The parent of a relative path of one name is written as nothing.
        sync_folder(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
    })
}

/// Makes names in a folder durable.
fn sync_folder(path: &Path) -> Result<(), SpoolError> {
    std::fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(at("sync folder", path))
}

//! One recording being written to the spool.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared_recording::Slice;
use shared_types::SessionId;
use tokio::time::Instant;
use uuid::Uuid;

use super::recording::Shared;
use super::{SpoolError, at, blocking, private_folder, sync_folder};

/// How often a patient caller looks whether a full disk has room again.
const LOOK: Duration = Duration::from_millis(200);

/// Writes one recording, slice by slice. Dropped without [`RecordingWriter::close`] it counts as cut off: what is
/// written is uploaded and marked so.
pub struct RecordingWriter {
    shared: Arc<Shared>,
    session: SessionId,
    target: Arc<Mutex<Target>>,
    closed: bool,
}

/// The file, used by blocking threads only.
struct Target {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    len: u64,
    /// Whether the names of folders and file are durable.
    named: bool,
    /// Released with the last thread that might still write.
    _open: Open,
}

/// Room in the budget that was taken and may not be needed.
struct Room {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Room {
    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.shared.release(self.bytes);
        }
    }
}

/// Keeps recovery away from a recording that is being written.
struct Open {
    shared: Arc<Shared>,
    upload: Uuid,
}

impl Open {
    fn new(shared: Arc<Shared>, upload: Uuid) -> Self {
        shared.open.lock().unwrap_or_else(PoisonError::into_inner).insert(upload);
        Self { shared, upload }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.upload);
        self.shared.wake.notify_one();
    }
}

impl RecordingWriter {
    pub(super) async fn create(
        shared: Arc<Shared>,
        session: SessionId,
    ) -> Result<Self, SpoolError> {
        let upload = Uuid::new_v4();
        let open = Open::new(Arc::clone(&shared), upload);
        let folder = shared.multi().join(upload.to_string()).join(session.to_string());
        let target = blocking(move || {
            private_folder(&folder)?;
            let path = folder.join("1.part");
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(at("create", &path))?;
            Ok(Target { folder, path, file, len: 0, named: false, _open: open })
        })
        .await?;
        Ok(Self { shared, session, target: Arc::new(Mutex::new(target)), closed: false })
    }

    /// Whose recording it is.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Writes a slice and waits until it is on disk. A patient caller waits for room, within the budget and on the
    /// disk, as long as the settings say. When this fails, the slice is not in the file and may be written again.
    pub async fn write(&mut self, slice: &Slice, patient: bool) -> Result<(), SpoolError> {
        let until = Instant::now() + self.shared.settings.room_wait;
        loop {
            let written = self.try_write(slice, patient).await;
            let full = patient && written.as_ref().is_err_and(SpoolError::is_disk_full);
            if !full || Instant::now() >= until {
                return written;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn try_write(&self, slice: &Slice, patient: bool) -> Result<(), SpoolError> {
        let bytes = slice.bytes.clone();
        self.shared.reserve(bytes.len() as u64, patient).await?;
        // Given back unless the slice is written, also when nobody waits for that any more.
        let room = Room { shared: Arc::clone(&self.shared), bytes: bytes.len() as u64 };
        // Few threads at a time wait for the disk, however many sessions there are.
        let permit =
            Arc::clone(&self.shared.disk).acquire_owned().await.map_err(|_| SpoolError::Closed)?;
        let target = Arc::clone(&self.target);
        blocking(move || {
            let _permit = permit;
            let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
            target.append(&bytes)?;
            room.keep();
            Ok(())
        })
        .await
    }

    /// The recording is complete: it goes to the auth service as soon as that takes it.
    pub async fn close(mut self) -> Result<(), SpoolError> {
        self.closed = true;
        let (target, root, session) =
            (Arc::clone(&self.target), self.shared.root.clone(), self.session);
        // Where it fails, the folder is found by the next look and taken as cut off.
        blocking(move || {
            let target = target.lock().unwrap_or_else(PoisonError::into_inner);
            target.cut()?;
            finish(&target.folder, (target.len > 0).then_some(&target.path), &root, &session)
        })
        .await
    }
}

impl Drop for RecordingWriter {
    fn drop(&mut self) {
        if !self.closed {
            tracing::warn!(session = %self.session, "recording was not closed, it counts as cut off");
        }
    }
}

impl Target {
    fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        if let Err(err) = self.put(bytes) {
            // Half a slice stays where it cannot be cut off; the next one, or the end, tries again.
            let _ = self.file.set_len(self.len);
            return Err(err);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let written = self.cut().and_then(|()| {
            let written =
                self.file.write_all_at(bytes, self.len).and_then(|()| self.file.sync_data());
            written.map_err(at("write", &self.path))
        });
        written?;
        if !self.named {
            self.folder.ancestors().take(3).try_for_each(sync_folder)?;
            self.named = true;
        }
        Ok(())
    }

    /// Takes away what a failed write left behind the last whole slice.
    fn cut(&self) -> Result<(), SpoolError> {
        let cut = self.file.metadata().and_then(|meta| {
            if meta.len() > self.len { self.file.set_len(self.len) } else { Ok(()) }
        });
        cut.map_err(at("cut", &self.path))
    }
}

/// Gives a recording's file its final name, which never replaces another, and removes its folder.
pub(super) fn finish(
    folder: &Path,
    file: Option<&PathBuf>,
    root: &Path,
    session: &SessionId,
) -> Result<(), SpoolError> {
    if let Some(file) = file {
        let done = root.join(format!("{session}.tar"));
        std::fs::hard_link(file, &done).map_err(at("link", &done))?;
        sync_folder(root)?;
    }
    std::fs::remove_dir_all(folder).map_err(at("remove", folder))?;
    if let Some(upload) = folder.parent() {
        let _ = std::fs::remove_dir(upload);
    }
    Ok(())
}

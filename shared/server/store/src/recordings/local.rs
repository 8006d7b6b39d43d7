//! Recordings in a folder: `<sid>.tar`, and `multi/<upload>/<sid>/<n>.part` for open uploads.
//!
//! A file gets its final name only when its content is on disk, by a link that never replaces; so
//! a crash leaves a `.reservation`, which nobody reads, and never half a part or half a recording.
//!
//! With an object store behind it, finished recordings stand in `outbox/` instead, until they are there.

mod outbox;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use shared_types::SessionId;

use super::{
    Completed, MAX_PART_BYTES, PartInfo, RecordingError, RecordingReader, RecordingStore, Upload,
    UploadId,
};
use crate::files::{create_dir_durable, create_private, publish, sync_dir};

/// Recordings under one folder of the local file system.
#[derive(Debug, Clone)]
pub struct LocalRecordings {
    base: Arc<Path>,
    /// Where finished recordings get their name: the base, or the outbox below it.
    finished: Arc<Path>,
    /// One writer at a time per session: repeated requests may overlap.
    busy: Arc<Mutex<HashMap<SessionId, Weak<tokio::sync::Mutex<()>>>>>,
}

pub(super) fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordingError {
    let path = path.display().to_string();
    move |source| RecordingError::Io { step, path, source: Arc::new(source) }
}

impl LocalRecordings {
    /// Keeps recordings under `base`, which is made when missing.
    pub fn open(base: impl Into<PathBuf>) -> Result<Self, RecordingError> {
        let base = base.into();
        Self::with(base.clone(), base)
    }

    /// Keeps finished recordings in the outbox below `base`.
    pub(super) fn open_outbox(base: impl Into<PathBuf>) -> Result<Self, RecordingError> {
        let base = base.into();
        let finished = base.join(outbox::OUTBOX);
        Self::with(base, finished)
    }

    fn with(base: PathBuf, finished: PathBuf) -> Result<Self, RecordingError> {
        for folder in [&base.join("multi"), &finished] {
            create_dir_durable(folder).map_err(failed("make", folder))?;
        }
        Ok(Self { base: base.into(), finished: finished.into(), busy: Arc::default() })
    }

    /// Where the finished recording of a session is, or will be.
    pub fn path(&self, session: SessionId) -> PathBuf {
        self.finished.join(format!("{session}.tar"))
    }

    fn folder(&self, upload: UploadId, session: SessionId) -> PathBuf {
        self.base.join("multi").join(upload.to_string()).join(session.to_string())
    }

    /// Waits until nobody else works on the recording of this session.
    pub(super) async fn turn(&self, session: SessionId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            busy.retain(|_, turn| turn.strong_count() > 0);
            let turn = busy.get(&session).and_then(Weak::upgrade).unwrap_or_default();
            busy.insert(session, Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }

    async fn exclusive<T: Send + 'static>(
        &self,
        session: SessionId,
        work: impl FnOnce(&Self) -> Result<T, RecordingError> + Send + 'static,
    ) -> Result<T, RecordingError> {
        let turn = self.turn(session).await;
        self.blocking(move |store| {
            let _turn = turn;
            work(store)
        })
        .await
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, RecordingError> + Send + 'static,
    ) -> Result<T, RecordingError> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|gone| Err(failed("work on", &self.base)(io::Error::other(gone))))
    }

    fn put(
        &self,
        upload: UploadId,
        session: SessionId,
        number: u32,
        bytes: &[u8],
    ) -> Result<PartInfo, RecordingError> {
        let folder = self.folder(upload, session);
        self.owned(upload, session)?;
        create_dir_durable(&folder).map_err(failed("make", &folder))?;
        let part = folder.join(format!("{number}.part"));
        if !part.exists() {
            let reserved = folder.join(format!("{number}.reservation"));
            let write = || {
                let mut file = create_private(&reserved)?;
                file.write_all(bytes)?;
                file.sync_all()
            };
            write().map_err(failed("write", &reserved))?;
            if publish(&reserved, &part).map_err(failed("name", &part))? {
                return info(number, &part);
            }
        }
        if !same(&part, bytes).map_err(failed("read", &part))? {
            return Err(RecordingError::PartDiffers { upload, number });
        }
        // The name may not be durable yet when the first attempt was cut short.
        sync_dir(&folder).map_err(failed("sync", &folder))?;
        info(number, &part)
    }

    /// An upload holds one session's folder and no other.
    pub(super) fn owned(&self, upload: UploadId, session: SessionId) -> Result<(), RecordingError> {
        let upload_folder = self.base.join("multi").join(upload.to_string());
        let session = session.to_string();
        match fs::read_dir(&upload_folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("list", &upload_folder)(error)),
            Ok(entries) => {
                for entry in entries {
                    if entry.map_err(failed("list", &upload_folder))?.file_name().to_str()
                        != Some(&session)
                    {
                        return Err(RecordingError::OtherSession { upload });
                    }
                }
                Ok(())
            }
        }
    }

    pub(super) fn list_parts(
        &self,
        upload: UploadId,
        session: SessionId,
    ) -> Result<Vec<PartInfo>, RecordingError> {
        let folder = self.folder(upload, session);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RecordingError::NotFound { session });
            }
            entries => entries.map_err(failed("list", &folder))?,
        };
        let mut parts = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed("list", &folder))?.path();
            if let Some(number) = part_number(&path) {
                parts.push(info(number, &path)?);
            }
        }
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    pub(super) fn finish(
        &self,
        upload: UploadId,
        session: SessionId,
    ) -> Result<Completed, RecordingError> {
        let finished = self.path(session);
        self.owned(upload, session)?;
        let folder = self.folder(upload, session);
        let parts = match self.list_parts(upload, session) {
            // A repeated completion: the folder is gone because the recording is there.
            Err(RecordingError::NotFound { .. }) if finished.exists() => {
                return Ok(Completed::AlreadyStored { bytes: length(&finished)? });
            }
            parts => parts?,
        };
        if parts.is_empty() {
            self.remove_upload(upload)?;
            return Ok(Completed::Empty);
        }
        let paths = part_paths(&folder, &parts);
        if finished.exists() {
            return self.compare(upload, &finished, &paths);
        }
        let whole = folder.join("whole.reservation");
        let bytes = concatenate(&paths, &whole).map_err(failed("write", &whole))?;
        if !publish(&whole, &finished).map_err(failed("name", &finished))? {
            return self.compare(upload, &finished, &paths);
        }
        self.remove_upload(upload)?;
        Ok(Completed::Stored { bytes })
    }

    /// The oldest recording wins; an upload that says something else is kept aside.
    fn compare(
        &self,
        upload: UploadId,
        finished: &Path,
        parts: &[PathBuf],
    ) -> Result<Completed, RecordingError> {
        let bytes = length(finished)?;
        if same_content(finished, parts).map_err(failed("read", finished))? {
            sync_dir(&self.finished).map_err(failed("sync", &self.finished))?;
            self.remove_upload(upload)?;
            return Ok(Completed::AlreadyStored { bytes });
        }
        self.keep_upload_aside(upload)?;
        Ok(Completed::Superseded { bytes })
    }

    pub(super) fn remove_upload(&self, upload: UploadId) -> Result<(), RecordingError> {
        let multi = self.base.join("multi");
        let folder = multi.join(upload.to_string());
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &folder)(error))
            }
            _ => sync_dir(&multi).map_err(failed("sync", &multi)),
        }
    }

    fn list_uploads(&self) -> Result<Vec<Upload>, RecordingError> {
        let multi = self.base.join("multi");
        let mut uploads = Vec::new();
        for entry in fs::read_dir(&multi).map_err(failed("list", &multi))? {
            let folder = entry.map_err(failed("list", &multi))?.path();
            match upload(&folder) {
                Some(upload) => uploads.push(upload),
                None => tracing::warn!(folder = %folder.display(), "not an upload, left alone"),
            }
        }
        uploads.sort_by_key(|upload| (upload.initiated, upload.id));
        Ok(uploads)
    }
}

fn upload(folder: &Path) -> Option<Upload> {
    let id = folder.file_name()?.to_str()?.parse().ok()?;
    let mut children = fs::read_dir(folder).ok()?;
    let session = children.next()?.ok()?.file_name().to_str()?.parse().ok()?;
    if children.next().is_some() {
        return None;
    }
    Some(Upload { id, session, initiated: modified(folder).ok()? })
}

fn part_number(path: &Path) -> Option<u32> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".part")?;
    let number = stem.parse().ok()?;
    (number > 0 && format!("{number}") == stem).then_some(number)
}

fn modified(path: &Path) -> io::Result<DateTime<Utc>> {
    Ok(fs::metadata(path)?.modified()?.into())
}

fn length(path: &Path) -> Result<u64, RecordingError> {
    Ok(fs::metadata(path).map_err(failed("read", path))?.len())
}

fn info(number: u32, path: &Path) -> Result<PartInfo, RecordingError> {
    Ok(PartInfo {
        number,
        bytes: length(path)?,
        modified: modified(path).map_err(failed("read", path))?,
    })
}

fn concatenate(parts: &[PathBuf], whole: &Path) -> io::Result<u64> {
    let mut file = create_private(whole)?;
    let mut bytes = 0;
    for part in parts {
        bytes += io::copy(&mut File::open(part)?, &mut file)?;
    }
    file.sync_all()?;
    Ok(bytes)
}

fn same(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let file = File::open(path)?;
    Ok(file.metadata()?.len() == bytes.len() as u64 && equal(file, bytes)?)
}

fn same_content(finished: &Path, parts: &[PathBuf]) -> io::Result<bool> {
    let (bytes, parts) = chained(parts.to_vec())?;
    let finished = File::open(finished)?;
    Ok(bytes == finished.metadata()?.len() && equal(finished, parts)?)
}

fn part_paths(folder: &Path, parts: &[PartInfo]) -> Vec<PathBuf> {
    parts.iter().map(|part| folder.join(format!("{}.part", part.number))).collect()
}

/// The files one behind the other, opened as they are reached, and their size.
fn chained(parts: Vec<PathBuf>) -> io::Result<(u64, impl Read)> {
    let mut bytes = 0;
    for part in &parts {
        bytes += fs::metadata(part)?.len();
    }
    Ok((bytes, Chained { left: parts.into_iter(), open: None }))
}

struct Chained {
    left: std::vec::IntoIter<PathBuf>,
    open: Option<File>,
}

impl Read for Chained {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.open {
                let read = file.read(into)?;
                if read > 0 || into.is_empty() {
                    return Ok(read);
                }
            }
            match self.left.next() {
                Some(path) => self.open = Some(File::open(path)?),
                None => return Ok(0),
            }
        }
    }
}

pub(super) fn equal(left: impl Read, right: impl Read) -> io::Result<bool> {
    let mut left = io::BufReader::with_capacity(1 << 16, left);
    let mut right = io::BufReader::with_capacity(1 << 16, right);
    loop {
        let (a, b) = (io::BufRead::fill_buf(&mut left)?, io::BufRead::fill_buf(&mut right)?);
        let shared = a.len().min(b.len());
        if shared == 0 {
            return Ok(a.is_empty() && b.is_empty());
        }
        if a.get(..shared) != b.get(..shared) {
            return Ok(false);
        }
        io::BufRead::consume(&mut left, shared);
        io::BufRead::consume(&mut right, shared);
    }
}

#[async_trait]
impl RecordingStore for LocalRecordings {
    async fn create_upload(&self, session: SessionId) -> Result<UploadId, RecordingError> {
        self.blocking(move |store| {
            let upload = UploadId::random();
            let folder = store.folder(upload, session);
            create_dir_durable(&folder).map_err(failed("make", &folder))?;
            Ok(upload)
        })
        .await
    }

    async fn put_part(
        &self,
        upload: UploadId,
        session: SessionId,
        number: u32,
        bytes: Bytes,
    ) -> Result<PartInfo, RecordingError> {
        if number == 0 || bytes.is_empty() || bytes.len() > MAX_PART_BYTES {
            return Err(RecordingError::BadPart { number, bytes: bytes.len() });
        }
        self.exclusive(session, move |store| store.put(upload, session, number, &bytes)).await
    }

    async fn complete(
        &self,
        upload: UploadId,
        session: SessionId,
    ) -> Result<Completed, RecordingError> {
        self.exclusive(session, move |store| store.finish(upload, session)).await
    }

    async fn uploads(&self) -> Result<Vec<Upload>, RecordingError> {
        self.blocking(Self::list_uploads).await
    }

    async fn parts(
        &self,
        upload: UploadId,
        session: SessionId,
    ) -> Result<Vec<PartInfo>, RecordingError> {
        self.blocking(move |store| store.list_parts(upload, session)).await
    }

    async fn cut_at_gap(
        &self,
        upload: UploadId,
        session: SessionId,
    ) -> Result<usize, RecordingError> {
        self.exclusive(session, move |store| store.keep_tail_aside(upload, session)).await
    }

    async fn open(&self, session: SessionId) -> Result<RecordingReader, RecordingError> {
        let path = self.path(session);
        match tokio::fs::File::open(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(RecordingError::NotFound { session })
            }
            Err(error) => Err(failed("open", &path)(error)),
            Ok(file) => {
                let bytes = file.metadata().await.map_err(failed("read", &path))?.len();
                Ok(RecordingReader::new(bytes, file))
            }
        }
    }

    async fn size(&self, session: SessionId) -> Result<Option<u64>, RecordingError> {
        let path = self.path(session);
        match tokio::fs::metadata(&path).await {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    async fn remove(&self, session: SessionId) -> Result<bool, RecordingError> {
        self.exclusive(session, move |store| {
            let aside = store.remove_aside(session)?;
            Ok(store.remove_finished(session)? || aside)
        })
        .await
    }

    fn url(&self, session: SessionId) -> String {
        format!("file://{}/{session}.tar", self.finished.display())
    }
}

#[cfg(test)]
mod tests;

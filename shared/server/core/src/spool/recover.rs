//! What a crash left of recordings: cut back to whole slices and made ready for upload. Blocking.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use shared_types::SessionId;
use uuid::Uuid;

use super::checkpoint::{Checkpoint, save};
use super::recording::Shared;
use super::writer::finish;
use super::{SpoolError, at, container};

/// A recording of which there is nothing: no slice of it was written. Its folder stays until that was told.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    pub(super) session: SessionId,
    pub(super) upload: Uuid,
    folder: PathBuf,
}

impl Lost {
    /// It was told of. Blocking.
    pub(super) fn forget(&self, root: &Path) -> Result<(), SpoolError> {
        finish(&self.folder, None, root, &self.session)
    }
}

/// Folders in `multi` that no writer holds. Answers with those in which nothing is.
pub(super) fn recover(shared: &Shared) -> Result<Vec<Lost>, SpoolError> {
    let multi = shared.multi();
    let mut lost = Vec::new();
    for entry in std::fs::read_dir(&multi).map_err(at("read folder", &multi))? {
        let folder = entry.map_err(at("read folder", &multi))?.path();
        let Some(upload) = folder
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse::<Uuid>().ok())
        else {
            continue;
        };
        if shared.open.lock().unwrap_or_else(PoisonError::into_inner).contains(&upload) {
            continue;
        }
        match recover_one(shared, upload, &folder) {
            Ok(nothing) => lost.extend(nothing),
            Err(err) => {
                tracing::error!(%upload, error = &err as &dyn std::error::Error, "recover recording");
            }
        }
    }
    Ok(lost)
}

fn recover_one(shared: &Shared, upload: Uuid, folder: &Path) -> Result<Option<Lost>, SpoolError> {
    let inner = std::fs::read_dir(folder).map_err(at("read folder", folder))?;
    let inner = inner.filter_map(Result::ok).map(|entry| entry.path()).find(|path| path.is_dir());
    let Some(inner) = inner else {
        std::fs::remove_dir(folder).map_err(at("remove", folder))?;
        return Ok(None);
    };
    let Some(session) = inner
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.parse::<SessionId>().ok())
    else {
        return Ok(None);
    };
    let mut parts: Vec<(u64, PathBuf)> = Vec::new();
    for entry in
        std::fs::read_dir(&inner).map_err(at("read folder", &inner))?.filter_map(Result::ok)
    {
        let path = entry.path();
        let number =
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|ext| ext == "part")) {
            parts.push((number, path));
        }
    }
    parts.sort_unstable();
    // Linked before the crash: only the folder is left over. Another recording of that name waits for its turn.
    let done = shared.root.join(format!("{session}.tar"));
    match (done.metadata(), parts.first().map(|(_, path)| path.metadata())) {
        (Err(_), _) => {}
        (Ok(done), Some(Ok(part))) if (done.dev(), done.ino()) != (part.dev(), part.ino()) => {
            return Ok(None);
        }
        (Ok(_), _) => {
            finish(&inner, None, &shared.root, &session)?;
            return Ok(None);
        }
    }
    let before: u64 =
        parts.iter().filter_map(|(_, path)| path.metadata().ok()).map(|meta| meta.len()).sum();
    let joined = join(&parts)?;
    let Some((path, len)) = joined.filter(|(_, len)| *len > 0) else {
        shared.release(before);
        return Ok(Some(Lost { session, upload, folder: inner }));
    };
    let checkpoint = Checkpoint::new(upload, true);
    save(&shared.root, &session, &checkpoint)?;
    finish(&inner, Some(&path), &shared.root, &session)?;
    let lost = before.saturating_sub(len);
    tracing::warn!(%session, bytes = len, lost, "recording was cut off, what is whole of it will be uploaded");
    shared.release(lost);
    Ok(None)
}

/// Cuts each part back to what is whole and puts them behind each other in the first.
fn join(parts: &[(u64, PathBuf)]) -> Result<Option<(PathBuf, u64)>, SpoolError> {
    let Some(((_, first), rest)) = parts.split_first() else { return Ok(None) };
    let open = |path: &PathBuf| {
        OpenOptions::new().read(true).write(true).open(path).map_err(at("open", path))
    };
    let file = open(first)?;
    let mut len = container::whole(&file).map_err(at("read", first))?;
    file.set_len(len).map_err(at("cut", first))?;
    for (_, path) in rest {
        let more = open(path)?;
        let whole = container::whole(&more).map_err(at("read", path))?;
        let mut from = std::io::Read::take(more, whole);
        let mut to = Appender { file: &file, at: len };
        std::io::copy(&mut from, &mut to).map_err(at("join", path))?;
        len = to.at;
    }
    file.sync_all().map_err(at("sync", first))?;
    Ok(Some((first.clone(), len)))
}

struct Appender<'a> {
    file: &'a File,
    at: u64,
}

impl std::io::Write for Appender<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

//! What lies beside finished recordings: the outbox of those on their way to a store, and those that came second.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use shared_types::SessionId;

use super::{
    LocalRecordings, RecordingError, UploadId, chained, concatenate, equal, failed, part_paths,
    same_content,
};
use crate::files::{create_dir_durable, publish, sync_dir};

/// The folder of finished recordings on their way to a store.
pub(super) const OUTBOX: &str = "outbox";
/// The folder of recordings that came second.
const SUPERSEDED: &str = "superseded";

impl LocalRecordings {
    /// Takes an upload out of the way of a recording that is older.
    pub(in super::super) fn keep_upload_aside(
        &self,
        upload: UploadId,
    ) -> Result<(), RecordingError> {
        let from = self.base.join("multi").join(upload.to_string());
        self.keep_aside(&from, &upload.to_string())
    }

    /// Takes a finished recording out of the way of one that is older.
    pub(in super::super) fn keep_finished_aside(
        &self,
        session: SessionId,
    ) -> Result<(), RecordingError> {
        self.keep_aside(&self.path(session), &format!("{session}.{}.tar", UploadId::random()))
    }

    /// Takes the parts behind the first missing number out of an upload, into one of their own among what is aside.
    pub(super) fn keep_tail_aside(
        &self,
        upload: UploadId,
        session: SessionId,
    ) -> Result<usize, RecordingError> {
        self.owned(upload, session)?;
        let parts = self.list_parts(upload, session)?;
        let run = parts.iter().zip(1u32..).take_while(|(part, number)| part.number == *number);
        let (run, tail) = parts.split_at(run.count());
        // What has no beginning is no recording in any case; its completion says so.
        if run.is_empty() || tail.is_empty() {
            return Ok(0);
        }
        let name = UploadId::random().to_string();
        let aside = self.base.join(SUPERSEDED).join(&name).join(session.to_string());
        create_dir_durable(&aside).map_err(failed("make", &aside))?;
        let folder = self.folder(upload, session);
        // The last first: a crash in between leaves a gap where there was one.
        for from in part_paths(&folder, tail).iter().rev() {
            let to = from.file_name().map(|name| aside.join(name)).unwrap_or_default();
            fs::rename(from, &to).map_err(failed("keep aside", from))?;
        }
        sync_dir(&aside).map_err(failed("sync", &aside))?;
        sync_dir(&folder).map_err(failed("sync", &folder))?;
        tracing::warn!(%session, parts = tail.len(), kept = %aside.display(), "parts behind a gap were kept aside");
        Ok(tail.len())
    }

    fn keep_aside(&self, from: &Path, name: &str) -> Result<(), RecordingError> {
        let aside = self.base.join(SUPERSEDED);
        create_dir_durable(&aside).map_err(failed("make", &aside))?;
        let to = aside.join(name);
        fs::rename(from, &to).map_err(failed("keep aside", from))?;
        sync_dir(&aside).map_err(failed("sync", &aside))?;
        tracing::warn!(kept = %to.display(), "a second, different recording of a session was kept aside");
        Ok(())
    }

    /// Whether the parts of an upload are, in order, what `finished` reads.
    pub(in super::super) fn parts_match(
        &self,
        upload: UploadId,
        session: SessionId,
        finished: impl Read,
    ) -> Result<bool, RecordingError> {
        let folder = self.folder(upload, session);
        let parts = part_paths(&folder, &self.list_parts(upload, session)?);
        chained(parts)
            .and_then(|(_, parts)| equal(finished, parts))
            .map_err(failed("compare", &folder))
    }

    /// The sessions whose finished recordings are here.
    pub(in super::super) fn list_finished(&self) -> Result<Vec<SessionId>, RecordingError> {
        let entries = fs::read_dir(&self.finished).map_err(failed("list", &self.finished))?;
        let mut sessions = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed("list", &self.finished))?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(".tar"));
            sessions.extend(stem.and_then(|stem| stem.parse::<SessionId>().ok()));
        }
        Ok(sessions)
    }

    /// Removes the finished recording; gone for good when this returns.
    pub(in super::super) fn remove_finished(
        &self,
        session: SessionId,
    ) -> Result<bool, RecordingError> {
        let path = self.path(session);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", &path)(error)),
            Ok(()) => {
                sync_dir(&self.finished).map_err(failed("sync", &self.finished))?;
                Ok(true)
            }
        }
    }

    /// Removes what was kept aside of this session.
    pub(in super::super) fn remove_aside(
        &self,
        session: SessionId,
    ) -> Result<bool, RecordingError> {
        let aside = self.base.join(SUPERSEDED);
        let entries = match fs::read_dir(&aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries.map_err(failed("list", &aside))?,
        };
        let mut removed = false;
        for entry in entries {
            let path = entry.map_err(failed("list", &aside))?.path();
            let named = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if named.starts_with(&format!("{session}.")) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            } else if path.join(session.to_string()).is_dir() {
                fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            } else {
                continue;
            }
            removed = true;
        }
        if removed {
            sync_dir(&aside).map_err(failed("sync", &aside))?;
        }
        Ok(removed)
    }

    /// Takes over what waits in the outbox of `base` for a store that is configured no more.
    pub(in super::super) fn adopt_outbox(&self, base: &Path) -> Result<(), RecordingError> {
        if !base.join(OUTBOX).is_dir() {
            return Ok(());
        }
        let waiting = Self::open_outbox(base)?;
        for session in waiting.list_finished()? {
            let (from, to) = (waiting.path(session), self.path(session));
            let copy = self.finished.join(format!("{session}.reservation"));
            let copied = concatenate(std::slice::from_ref(&from), &copy)
                .and_then(|_| publish(&copy, &to))
                .map_err(failed("take over", &from))?;
            if copied
                || same_content(&to, std::slice::from_ref(&from)).map_err(failed("read", &to))?
            {
                waiting.remove_finished(session)?;
            } else {
                waiting.keep_finished_aside(session)?;
            }
            tracing::info!(%session, to = %to.display(), "recording that waited for its store");
        }
        Ok(())
    }
}

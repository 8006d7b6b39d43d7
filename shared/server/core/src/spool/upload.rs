//! The uploader: looks through the spool, cuts back what a crash left, sends what is complete.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared_api::{CompleteUpload, ErrorKind, limits};
use shared_types::SessionId;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::recording::Shared;
use super::writer::finish;
use super::{SpoolError, at, blocking, container, sync_folder};
use crate::authority::AuthorityError;
use crate::backoff::Backoff;

/// How often the folder is looked through without a reason.
const PERIOD: Duration = Duration::from_secs(30);

/// How far an upload is; the file format of `<sid>.checkpoint`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Checkpoint {
    #[serde(rename = "UploadID")]
    upload_id: Uuid,
    #[serde(default = "before_all")]
    last_event_index: i64,
    #[serde(default)]
    last_upload_time: Option<chrono::DateTime<chrono::Utc>>,
    /// Parts the auth service has.
    #[serde(default)]
    parts: u64,
    /// Where the next one begins.
    #[serde(default)]
    offset: u64,
    /// The recording was not closed by its session.
    #[serde(default)]
    truncated: bool,
}

fn before_all() -> i64 {
    -1
}

/// How an upload ended.
enum Outcome {
    Done,
    /// Later again.
    Retry(String),
    /// Never; the file is set aside.
    Bad(String),
}

/// Runs until stopped.
pub(super) async fn run(shared: Arc<Shared>, found: Vec<SessionId>, stop: CancellationToken) {
    let mut uploader = Uploader { shared, sending: HashSet::new(), failed: HashMap::new(), tasks: JoinSet::new() };
    uploader.start(found);
    let _ = stop.run_until_cancelled(uploader.forever()).await;
}

struct Uploader {
    shared: Arc<Shared>,
    sending: HashSet<SessionId>,
    failed: HashMap<SessionId, (Backoff, Instant)>,
    tasks: JoinSet<(SessionId, Result<Outcome, SpoolError>)>,
}

impl Uploader {
    async fn forever(&mut self) {
        loop {
            let now = Instant::now();
            let next = self.failed.values().map(|(_, at)| *at).filter(|at| *at > now).min().unwrap_or(now + PERIOD);
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep_until(next.min(now + PERIOD)) => {}
                Some(done) = self.tasks.join_next() => {
                    if let Ok((session, outcome)) = done {
                        self.ended(session, outcome).await;
                    }
                }
            }
            match look(Arc::clone(&self.shared)).await {
                Ok(found) => self.start(found),
                Err(err) => tracing::error!(error = &err as &dyn std::error::Error, "look through the recording spool"),
            }
        }
    }

    fn start(&mut self, found: Vec<SessionId>) {
        let now = Instant::now();
        self.failed.retain(|session, _| found.contains(session));
        for session in found {
            if self.tasks.len() >= self.shared.settings.uploads.max(1) {
                break;
            }
            let wait = self.failed.get(&session).is_some_and(|(_, at)| *at > now);
            if !wait && self.sending.insert(session) {
                let shared = Arc::clone(&self.shared);
                self.tasks.spawn(async move {
                    let outcome = send(&shared, &session).await;
                    (session, outcome)
                });
            }
        }
        self.shared.looked.notify_waiters();
    }

    async fn ended(&mut self, session: SessionId, outcome: Result<Outcome, SpoolError>) {
        self.sending.remove(&session);
        let why = match outcome {
            Ok(Outcome::Done) => {
                self.failed.remove(&session);
                tracing::debug!(%session, "recording uploaded");
                return;
            }
            Ok(Outcome::Bad(why)) => {
                let (shared, id, text) = (Arc::clone(&self.shared), session, why.clone());
                match blocking(move || set_aside(&shared, &id, &text)).await {
                    Ok(()) => {
                        tracing::error!(%session, reason = why, folder = %self.shared.corrupted.display(), "recording cannot be uploaded and is set aside");
                        return;
                    }
                    Err(err) => err.to_string(),
                }
            }
            Ok(Outcome::Retry(why)) => why,
            Err(err) => err.to_string(),
        };
        let settings = &self.shared.settings;
        let entry = self
            .failed
            .entry(session)
            .or_insert_with(|| (Backoff::new(settings.retry_first, settings.retry_max), Instant::now()));
        let wait = entry.0.next();
        entry.1 = Instant::now() + wait;
        tracing::warn!(%session, error = why, retry_in = ?wait, "upload recording");
    }
}

/// Looks through the spool: cuts back what nobody writes any more, answers what can be sent, oldest first.
pub(super) async fn look(shared: Arc<Shared>) -> Result<Vec<SessionId>, SpoolError> {
    blocking(move || {
        recover(&shared)?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&shared.root).map_err(at("read folder", &shared.root))? {
            let entry = entry.map_err(at("read folder", &shared.root))?;
            let path = entry.path();
            if path.extension().is_some_and(|ext| ext == "tar")
                && let Some(session) = session_of(&path)
            {
                let age = entry.metadata().and_then(|meta| meta.modified()).ok();
                found.push((age, session));
            }
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        shared.waiting.store(found.len() as u64, Ordering::Release);
        Ok(found.into_iter().map(|(_, session)| session).collect())
    })
    .await
}

fn session_of(path: &Path) -> Option<SessionId> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// Folders in `multi` that no writer holds.
fn recover(shared: &Shared) -> Result<(), SpoolError> {
    let multi = shared.multi();
    for entry in std::fs::read_dir(&multi).map_err(at("read folder", &multi))? {
        let folder = entry.map_err(at("read folder", &multi))?.path();
        let Some(upload) = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Uuid>().ok()) else {
            continue;
        };
        if shared.open.lock().unwrap_or_else(PoisonError::into_inner).contains(&upload) {
            continue;
        }
        if let Err(err) = recover_one(shared, upload, &folder) {
            tracing::error!(%upload, error = &err as &dyn std::error::Error, "recover recording");
        }
    }
    Ok(())
}

fn recover_one(shared: &Shared, upload: Uuid, folder: &Path) -> Result<(), SpoolError> {
    let inner = std::fs::read_dir(folder).map_err(at("read folder", folder))?;
    let inner = inner.filter_map(Result::ok).map(|entry| entry.path()).find(|path| path.is_dir());
    let Some(inner) = inner else {
        return std::fs::remove_dir(folder).map_err(at("remove", folder));
    };
    let Some(session) = inner.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<SessionId>().ok()) else {
        return Ok(());
    };
    // Linked before the crash: only the folder is left over.
    let done = shared.root.join(format!("{session}.tar"));
    if done.exists() {
        return finish(&inner, None, &shared.root, &session);
    }
    let mut parts: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(&inner).map_err(at("read folder", &inner))?.filter_map(Result::ok) {
        let path = entry.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|ext| ext == "part")) {
            parts.push((number, path));
        }
    }
    parts.sort_unstable();
    let before: u64 = parts.iter().filter_map(|(_, path)| path.metadata().ok()).map(|meta| meta.len()).sum();
    let joined = join(&parts)?;
    let after = match &joined {
        Some((_, 0)) | None => {
            finish(&inner, None, &shared.root, &session)?;
            tracing::warn!(%session, "recording ended before its first slice was written");
            0
        }
        Some((path, len)) => {
            let checkpoint = Checkpoint {
                upload_id: upload,
                last_event_index: before_all(),
                last_upload_time: None,
                parts: 0,
                offset: 0,
                truncated: true,
            };
            save(&shared.root, &session, &checkpoint)?;
            finish(&inner, Some(path), &shared.root, &session)?;
            tracing::warn!(%session, bytes = len, lost = before.saturating_sub(*len), "recording was cut off, what is whole of it will be uploaded");
            *len
        }
    };
    shared.release(before.saturating_sub(after));
    Ok(())
}

/// Cuts each part back to what is whole and puts them behind each other in the first.
fn join(parts: &[(u64, PathBuf)]) -> Result<Option<(PathBuf, u64)>, SpoolError> {
    let Some(((_, first), rest)) = parts.split_first() else { return Ok(None) };
    let open = |path: &PathBuf| OpenOptions::new().read(true).write(true).open(path).map_err(at("open", path));
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

fn checkpoint_path(root: &Path, session: &SessionId) -> PathBuf {
    root.join(format!("{session}.checkpoint"))
}

/// The checkpoint; one that cannot be read is as good as none, since sending a part again does no harm.
fn load(root: &Path, session: &SessionId) -> Option<Checkpoint> {
    serde_json::from_slice(&std::fs::read(checkpoint_path(root, session)).ok()?).ok()
}

fn save(root: &Path, session: &SessionId, checkpoint: &Checkpoint) -> Result<(), SpoolError> {
    let path = checkpoint_path(root, session);
    let fresh = path.with_extension("checkpoint.new");
    let text = serde_json::to_vec(checkpoint).map_err(|err| at("write", &path)(err.into()))?;
    let write = || {
        use std::io::Write as _;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&text)?;
        file.sync_data()?;
        std::fs::rename(&fresh, &path)
    };
    write().map_err(at("write", &path))
}

/// Sends one recording from where its checkpoint stands.
async fn send(shared: &Arc<Shared>, session: &SessionId) -> Result<Outcome, SpoolError> {
    let (root, id) = (shared.root.clone(), *session);
    let path = root.join(format!("{session}.tar"));
    let opened = {
        let (root, id, path) = (root.clone(), id.clone(), path.clone());
        blocking(move || {
            let file = File::open(&path).map_err(at("open", &path))?;
            let len = file.metadata().map_err(at("look at", &path))?.len();
            let checkpoint = match load(&root, &id).filter(|checkpoint| checkpoint.offset <= len) {
                Some(checkpoint) => checkpoint,
                None => {
                    let fresh = Checkpoint {
                        upload_id: Uuid::new_v4(),
                        last_event_index: before_all(),
                        last_upload_time: None,
                        parts: 0,
                        offset: 0,
                        truncated: false,
                    };
                    save(&root, &id, &fresh)?;
                    fresh
                }
            };
            Ok((Arc::new(file), len, checkpoint))
        })
        .await
    };
    let (file, len, mut checkpoint) = opened?;
    while checkpoint.offset < len {
        let (from, size, source, name) = (checkpoint.offset, shared.settings.piece, Arc::clone(&file), path.clone());
        let piece = blocking(move || read_piece(&source, from, size).map_err(at("read", &name))).await?;
        let end = checkpoint.offset + piece.len() as u64;
        if let Err(err) = shared.authority.upload_part(checkpoint.upload_id, session, checkpoint.parts + 1, piece).await {
            return refused(shared, session, &checkpoint, err).await;
        }
        checkpoint.parts += 1;
        checkpoint.offset = end;
        checkpoint.last_upload_time = Some(chrono::Utc::now());
        let (root, id, now) = (root.clone(), id.clone(), checkpoint.clone());
        blocking(move || save(&root, &id, &now)).await?;
    }
    let complete = CompleteUpload { parts: checkpoint.parts, bytes: len, truncated: checkpoint.truncated };
    if let Err(err) = shared.authority.complete_upload(checkpoint.upload_id, session, complete).await {
        return refused(shared, session, &checkpoint, err).await;
    }
    let shared = Arc::clone(shared);
    blocking(move || {
        std::fs::remove_file(&path).map_err(at("remove", &path))?;
        let _ = std::fs::remove_file(checkpoint_path(&root, &id));
        shared.release(len);
        Ok(Outcome::Done)
    })
    .await
}

fn read_piece(file: &File, from: u64, size: u64) -> std::io::Result<Bytes> {
    let end = container::cut(file, from, size, limits::MAX_PART as u64)?;
    let mut piece = vec![0; usize::try_from(end - from).unwrap_or(0)];
    file.read_exact_at(&mut piece, from)?;
    Ok(piece.into())
}

/// What an answer that is no success means for the recording. Only a request that can never be right sets it aside.
async fn refused(shared: &Arc<Shared>, session: &SessionId, checkpoint: &Checkpoint, err: AuthorityError) -> Result<Outcome, SpoolError> {
    match err.kind() {
        // The auth service does not know this upload: begin again.
        ErrorKind::NotFound => {
            let fresh = Checkpoint { upload_id: Uuid::new_v4(), parts: 0, offset: 0, ..checkpoint.clone() };
            let (root, id) = (shared.root.clone(), *session);
            blocking(move || save(&root, &id, &fresh)).await?;
            Ok(Outcome::Retry(err.to_string()))
        }
        ErrorKind::BadRequest | ErrorKind::AlreadyExists => Ok(Outcome::Bad(err.to_string())),
        _ => Ok(Outcome::Retry(err.to_string())),
    }
}

/// Moves a recording to the folder of what cannot be uploaded, with the reason beside it.
fn set_aside(shared: &Shared, session: &SessionId, why: &str) -> Result<(), SpoolError> {
    let from = shared.root.join(format!("{session}.tar"));
    let to = shared.corrupted.join(format!("{session}.tar"));
    let reason = shared.corrupted.join(format!("{session}.error"));
    std::fs::write(&reason, why).map_err(at("write", &reason))?;
    let len = from.metadata().map_err(at("look at", &from))?.len();
    std::fs::rename(&from, &to).map_err(at("move", &from))?;
    let _ = std::fs::remove_file(checkpoint_path(&shared.root, session));
    sync_folder(&shared.corrupted)?;
    shared.release(len);
    Ok(())
}

//! The uploader: looks through the spool, cuts back what a crash left, sends what is complete.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use shared_api::{CompleteUpload, ErrorKind, limits};
use shared_events::{SessionMetadata, SessionRecordingFailed};
use shared_types::SessionId;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::checkpoint::{Checkpoint, load, path_of, save};
use super::recording::Shared;
use super::recover::{Lost, recover};
use super::{SpoolError, at, blocking, container, sync_folder};
use crate::authority::{AuthorityError, EmitError, prepare};
use crate::backoff::Backoff;

/// How often the folder is looked through without a reason.
const PERIOD: Duration = Duration::from_secs(30);

/// How an upload ended.
enum Outcome {
    Done,
    /// Later again.
    Retry(String),
    /// Never; the file is set aside.
    Bad(String),
}

/// What is to be done for a session.
pub(super) enum Job {
    /// Its recording is to be sent.
    Send(SessionId),
    /// There is none, and that is to be told.
    Tell(Lost),
}

impl Job {
    fn session(&self) -> SessionId {
        match self {
            Self::Send(session) => *session,
            Self::Tell(lost) => lost.session,
        }
    }
}

/// Runs until stopped.
pub(super) async fn run(shared: Arc<Shared>, found: Vec<Job>, stop: CancellationToken) {
    let mut uploader =
        Uploader { shared, sending: HashSet::new(), failed: HashMap::new(), tasks: JoinSet::new() };
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
            let next = self
                .failed
                .values()
                .map(|(_, at)| *at)
                .filter(|at| *at > now)
                .min()
                .unwrap_or(now + PERIOD);
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep_until(next.min(now + PERIOD)) => {}
                Some(done) = self.tasks.join_next() => {
                    match done {
                        Ok((session, outcome)) => self.ended(session, outcome).await,
                        // A task that panicked does not say which it was; none is left, so all may be tried again.
                        Err(_) if self.tasks.is_empty() => self.sending.clear(),
                        Err(_) => {}
                    }
                }
            }
            match look(Arc::clone(&self.shared)).await {
                Ok(found) => self.start(found),
                Err(err) => tracing::error!(
                    error = &err as &dyn std::error::Error,
                    "look through the recording spool"
                ),
            }
        }
    }

    fn start(&mut self, found: Vec<Job>) {
        let now = Instant::now();
        let known: HashSet<SessionId> = found.iter().map(Job::session).collect();
        self.failed.retain(|session, _| known.contains(session));
        for job in found {
            let session = job.session();
            if self.tasks.len() >= self.shared.settings.uploads.max(1) {
                break;
            }
            let wait = self.failed.get(&session).is_some_and(|(_, at)| *at > now);
            if !wait && self.sending.insert(session) {
                let shared = Arc::clone(&self.shared);
                self.tasks.spawn(async move {
                    let outcome = match job {
                        Job::Send(session) => send(&shared, &session).await,
                        Job::Tell(lost) => tell_lost(&shared, lost).await,
                    };
                    (session, outcome)
                });
            }
        }
        let waiting = known.union(&self.sending).count() as u64;
        self.shared.waiting.store(waiting, Ordering::Release);
        self.shared.looked.notify_waiters();
    }

    /// The audit log hears of a recording that will not come. Without an answer, that it is here is in the log.
    async fn tell(&self, session: SessionId, why: &str) {
        let why = format!("{why}; the recording is set aside on the proxy");
        if let Err(err) = tell_failed(&self.shared, session, Uuid::new_v4(), why).await {
            tracing::error!(%session, error = %err, "audit event is lost");
        }
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
                self.tell(session, &why).await;
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
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        let settings = &self.shared.settings;
        let entry = self.failed.entry(session).or_insert_with(|| {
            (Backoff::new(settings.retry_first, settings.retry_max), Instant::now())
        });
        let wait = entry.0.next();
        entry.1 = Instant::now() + wait;
        tracing::warn!(%session, error = why, retry_in = ?wait, "upload recording");
    }
}

/// Emits that the recording of a session failed, under an id that is the same when it is told again.
async fn tell_failed(
    shared: &Shared,
    session: SessionId,
    id: Uuid,
    reason: String,
) -> Result<(), EmitError> {
    let mut event = SessionRecordingFailed {
        session: SessionMetadata { sid: session.to_string(), ..SessionMetadata::default() },
        reason,
        ..SessionRecordingFailed::default()
    };
    event.metadata.uid = id.to_string();
    let mut event = event.into();
    prepare(std::slice::from_mut(&mut event), shared.authority.state().cluster.as_ref());
    shared.authority.emit(vec![event]).await
}

/// Tells of a recording of which there is nothing, and forgets it then.
async fn tell_lost(shared: &Arc<Shared>, lost: Lost) -> Result<Outcome, SpoolError> {
    let why = "nothing of it was written: the disk was full, or the recorder ended too early";
    match tell_failed(shared, lost.session, lost.upload, why.to_owned()).await {
        Ok(()) => {}
        Err(EmitError::Refused(why)) => {
            tracing::error!(session = %lost.session, error = why, "audit event is lost");
        }
        Err(err) => return Ok(Outcome::Retry(err.to_string())),
    }
    tracing::error!(session = %lost.session, "recording failed: {why}");
    let root = shared.root.clone();
    blocking(move || lost.forget(&root)).await?;
    Ok(Outcome::Done)
}

/// Looks through the spool: cuts back what nobody writes any more, answers what is to be sent, oldest first, and told.
pub(super) async fn look(shared: Arc<Shared>) -> Result<Vec<Job>, SpoolError> {
    blocking(move || {
        let lost = recover(&shared)?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&shared.root).map_err(at("read folder", &shared.root))? {
            let entry = entry.map_err(at("read folder", &shared.root))?;
            let path = entry.path();
            if path.extension().is_some_and(|ext| ext == "tar")
                && let Some(session) = session_of(&path)
            {
                let age = entry.metadata().and_then(|meta| meta.modified()).ok();
                found.push((age, session));
            } else if path.extension().is_some_and(|ext| ext == "checkpoint")
                && !path.with_extension("tar").exists()
            {
                // Left by a crash between removing the recording and removing this.
                let _ = std::fs::remove_file(&path);
            }
        }
        found.sort_by_key(|found| found.0);
        let ready = found.into_iter().map(|(_, session)| Job::Send(session));
        Ok(ready.chain(lost.into_iter().map(Job::Tell)).collect())
    })
    .await
}

fn session_of(path: &Path) -> Option<SessionId> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// Sends one recording from where its checkpoint stands.
async fn send(shared: &Arc<Shared>, session: &SessionId) -> Result<Outcome, SpoolError> {
    let (root, id) = (shared.root.clone(), *session);
    let path = root.join(format!("{session}.tar"));
    let opened = {
        let (root, id, path) = (root.clone(), id, path.clone());
        blocking(move || {
            let file = File::open(&path).map_err(at("open", &path))?;
            let len = file.metadata().map_err(at("look at", &path))?.len();
            let checkpoint = match load(&root, &id).filter(|checkpoint| checkpoint.offset <= len) {
                Some(checkpoint) => checkpoint,
                None => {
                    let fresh = Checkpoint::new(Uuid::new_v4(), false);
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
        let (from, size, source, name) =
            (checkpoint.offset, shared.settings.piece, Arc::clone(&file), path.clone());
        let piece =
            blocking(move || read_piece(&source, from, size).map_err(at("read", &name))).await?;
        let end = checkpoint.offset + piece.len() as u64;
        if let Err(err) = shared
            .authority
            .upload_part(checkpoint.upload_id, session, checkpoint.parts + 1, piece)
            .await
        {
            return refused(shared, session, &checkpoint, err).await;
        }
        checkpoint.parts += 1;
        checkpoint.offset = end;
        checkpoint.last_upload_time = Some(chrono::Utc::now());
        let (root, id, now) = (root.clone(), id, checkpoint.clone());
        blocking(move || save(&root, &id, &now)).await?;
    }
    let complete =
        CompleteUpload { parts: checkpoint.parts, bytes: len, truncated: checkpoint.truncated };
    if let Err(err) =
        shared.authority.complete_upload(checkpoint.upload_id, session, complete).await
    {
        return refused(shared, session, &checkpoint, err).await;
    }
    let shared = Arc::clone(shared);
    blocking(move || {
        std::fs::remove_file(&path).map_err(at("remove", &path))?;
        let _ = std::fs::remove_file(path_of(&root, &id));
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
async fn refused(
    shared: &Arc<Shared>,
    session: &SessionId,
    checkpoint: &Checkpoint,
    err: AuthorityError,
) -> Result<Outcome, SpoolError> {
    match err.kind() {
        // The auth service does not know this upload: begin again.
        ErrorKind::NotFound => {
            let fresh =
                Checkpoint { upload_id: Uuid::new_v4(), parts: 0, offset: 0, ..checkpoint.clone() };
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
    let mut to = shared.corrupted.join(format!("{session}.tar"));
    if to.exists() {
        to = shared.corrupted.join(format!("{session}.{}.tar", Uuid::new_v4()));
    }
    let reason = to.with_extension("error");
    std::fs::write(&reason, why).map_err(at("write", &reason))?;
    let len = from.metadata().map_err(at("look at", &from))?.len();
    std::fs::rename(&from, &to).map_err(at("move", &from))?;
    let _ = std::fs::remove_file(path_of(&shared.root, session));
    sync_folder(&shared.corrupted)?;
    shared.release(len);
    Ok(())
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;

//! The audit log as its users see it: append, search.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Days, Utc};
use shared_events::AuditEvent;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::{
    Damage,
    recent::Recent,
    recovery::recover,
    search,
    segment::{Segment, create_dir},
    trim::trimmed,
    writer::{Append, Entry, RealDisk, Writer},
};

/// Appends that may wait for the writer.
const QUEUE: usize = 1024;
/// How long an append may wait for its place in the queue and its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why an event was not taken, or the log could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    /// The log could not be opened.
    #[error("open audit log {}", path.display())]
    Open {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// The disk did not take it.
    #[error("write audit log")]
    Write(#[source] Arc<io::Error>),
    /// The disk did not give it.
    #[error("read audit log")]
    Read(#[source] Arc<io::Error>),
    /// The event has no type.
    #[error("an audit event has no type")]
    Untyped,
    /// The event cannot be written as one line.
    #[error("an audit event of type {kind} is no line of JSON")]
    Encode {
        /// Its type.
        kind: String,
    },
    /// The disk takes too long.
    #[error("the audit log did not answer in time")]
    Slow,
    /// The log is closed.
    #[error("the audit log is closed")]
    Closed,
}

/// How the log behaves.
#[derive(Clone)]
pub struct LogOptions {
    /// The longest line; longer events are cut.
    pub max_line: usize,
    /// How many events back a repeated one is recognised, also across a restart.
    pub window: usize,
    /// Where the time comes from.
    pub clock: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { max_line: 256 << 10, window: 200_000, clock: Arc::new(Utc::now) }
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("max_line", &self.max_line)
            .field("window", &self.window)
            .finish()
    }
}

/// The durable log; clones share it.
#[derive(Clone)]
pub struct AuditLog {
    dir: Arc<Path>,
    cluster: Arc<str>,
    options: LogOptions,
    damage: Arc<[Damage]>,
    appends: Arc<Mutex<Option<mpsc::Sender<Append>>>>,
    writer: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
}

impl AuditLog {
    /// Opens the log in `dir`, the host's folder below `log`, and makes it sound.
    pub async fn open(
        dir: impl Into<PathBuf>,
        cluster: impl AsRef<str>,
    ) -> Result<Self, AuditError> {
        Self::open_with(dir, cluster, LogOptions::default()).await
    }

    /// The same with other limits or another clock.
    pub async fn open_with(
        dir: impl Into<PathBuf>,
        cluster: impl AsRef<str>,
        options: LogOptions,
    ) -> Result<Self, AuditError> {
        let dir: Arc<Path> = dir.into().into();
        let (place, settings) = (dir.clone(), options.clone());
        let prepared = tokio::task::spawn_blocking(move || prepare(&place, &settings)).await;
        let prepared = prepared.unwrap_or_else(|gone| Err(io::Error::other(gone)));
        let (recent, last, damage) = prepared.map_err(|source| AuditError::Open {
            path: dir.to_path_buf(),
            source: Arc::new(source),
        })?;
        let writer = Writer::new(dir.to_path_buf(), options.clock.clone(), recent, last, RealDisk);
        let (appends, requests) = mpsc::channel(QUEUE);
        let writer = tokio::task::spawn_blocking(move || writer.run(requests));
        Ok(Self {
            dir,
            cluster: cluster.as_ref().into(),
            options,
            damage: damage.into(),
            appends: Arc::new(Mutex::new(Some(appends))),
            writer: Arc::new(Mutex::new(Some(writer))),
        })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was found at the start that is no event.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Fills in what events need and writes them; on `Ok` all of them are on disk and can be
    /// queried. An event whose `uid` was written lately is taken for a repetition.
    pub async fn append(&self, events: Vec<AuditEvent>) -> Result<(), AuditError> {
        let now = (self.options.clock)();
        let entries = events
            .into_iter()
            .map(|event| self.entry(event, now))
            .collect::<Result<Vec<_>, _>>()?;
        if entries.is_empty() {
            return Ok(());
        }
        let appends = self.appends.lock().await.clone().ok_or(AuditError::Closed)?;
        let (done, answer) = oneshot::channel();
        // What is in the queue is written even when nobody waits any more.
        let asked = async {
            appends.send(Append { entries, done }).await.map_err(|_| AuditError::Closed)?;
            answer.await.map_err(|_| AuditError::Closed)?.map_err(AuditError::Write)
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(AuditError::Slow))
    }

    fn entry(&self, mut event: AuditEvent, now: DateTime<Utc>) -> Result<Entry, AuditError> {
        event.prepare(now, &self.cluster);
        let kind = event.metadata().event.clone();
        if kind.is_empty() {
            return Err(AuditError::Untyped);
        }
        let line = trimmed(event.to_json(), self.options.max_line);
        match line {
            Ok(line) if !line.is_empty() && !line.contains('\n') => {
                Ok(Entry { uid: event.metadata().uid.clone(), line })
            }
            _ => Err(AuditError::Encode { kind }),
        }
    }

    /// The newest `limit` events from `from` (inclusive) to `to` (exclusive), newest first; of
    /// these types, or of all when `types` is empty.
    pub async fn search(
        &self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        types: &[&str],
        limit: usize,
    ) -> Result<Vec<AuditEvent>, AuditError> {
        let types: Vec<String> = types.iter().map(|&kind| kind.to_owned()).collect();
        let (dir, longest) = (self.dir.clone(), self.options.max_line);
        let found = tokio::task::spawn_blocking(move || {
            search::newest(&dir, from, to, &types, limit, longest)
        })
        .await;
        let lines = found.unwrap_or_else(|gone| Err(io::Error::other(gone)));
        let lines = lines.map_err(|source| AuditError::Read(Arc::new(source)))?;
        Ok(lines.iter().filter_map(|line| AuditEvent::from_json(line).ok()).collect())
    }

    /// Writes what was accepted and ends; later appends are refused.
    pub async fn close(&self) {
        drop(self.appends.lock().await.take());
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(gone) = writer.await
        {
            tracing::error!(error = %gone, "the audit log's writer failed");
        }
    }
}

fn prepare(dir: &Path, options: &LogOptions) -> io::Result<(Recent, Option<Segment>, Vec<Damage>)> {
    create_dir(dir)?;
    let segments = Segment::list(dir)?;
    let mut recent = Recent::new(options.window);
    let mut damage = Vec::new();
    let last = segments.last().cloned();
    // What may be sent again was sent today or yesterday; and the newest file may have a torn end.
    let since = (options.clock)().date_naive().checked_sub_days(Days::new(1)).unwrap_or_default();
    for segment in &segments {
        if segment.day() >= since || Some(segment) == last.as_ref() {
            damage.extend(recover(segment, options.max_line, &mut recent)?);
        }
    }
    Ok((recent, last, damage))
}

#[cfg(test)]
mod tests;

//! The backend on embedded SQLite: write-ahead log, full synchronisation, one writer task.
//!
//! The writer gathers what waits into one transaction, so that many callers share one fsync; it
//! commits, then tells the watchers, then answers. A caller that goes away changes nothing of that.

mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::{
    Row,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous,
    },
};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::{
    Backend, BackendError, Change, Clock, Item, Key, Op, ProcessLock, Range, Revision, Watch,
    files::create_dir_durable, system_clock,
};
use writer::Request;

/// The layout this program writes, in `PRAGMA user_version`.
const SCHEMA: i64 = 1;
/// The largest value.
const MAX_VALUE: usize = 4 << 20;
/// Changes a slow watcher may be behind.
const WATCH_BACKLOG: usize = 4096;
/// Writes that may wait.
const QUEUE: usize = 256;
/// How often expired items are swept away; readers do not see them in between either.
const SWEEP: Duration = Duration::from_secs(30);

/// Cluster state in one SQLite file.
pub struct SqliteBackend {
    readers: SqlitePool,
    writes: mpsc::Sender<Request>,
    changes: broadcast::Sender<Change>,
    clock: Clock,
}

impl SqliteBackend {
    /// Opens or makes the file, and refuses when another process has it. The lock beside it goes
    /// with [`SqliteBackend::close`], or soon after the last handle.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        Self::open_with_clock(path, system_clock()).await
    }

    /// The same with the time from elsewhere.
    pub async fn open_with_clock(
        path: impl AsRef<Path>,
        clock: Clock,
    ) -> Result<Self, BackendError> {
        let path = path.as_ref();
        let lock = prepare_files(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        // One connection that never retires; the pool only looks after it.
        let pool = |options: SqliteConnectOptions, size: u32| {
            SqlitePoolOptions::new()
                .max_connections(size)
                .idle_timeout(None)
                .max_lifetime(None)
                .acquire_timeout(Duration::from_secs(30))
                .connect_with(options)
        };
        let writer = pool(options.clone(), 1).await?;
        migrate(&writer, path).await?;
        let readers = pool(options.pragma("query_only", "ON"), 4).await?;
        let (writes, requests) = mpsc::channel(QUEUE);
        let (changes, _) = broadcast::channel(WATCH_BACKLOG);
        tokio::spawn(writer::run(writer, requests, changes.clone(), clock.clone(), lock));
        tokio::spawn(sweep(writes.downgrade()));
        Ok(Self { readers, writes, changes, clock })
    }

    /// Removes what has expired and tells the watchers; also done every half minute.
    pub async fn remove_expired(&self) -> Result<u64, BackendError> {
        let (done, answer) = oneshot::channel();
        self.writes.send(Request::Sweep { done }).await.map_err(|_| BackendError::Closed)?;
        answer.await.map_err(|_| BackendError::Closed)?
    }

    /// Finishes what was accepted and closes the file; later calls answer that it is closed.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.writes.send(Request::Close { done }).await.is_ok() {
            let _ = closed.await;
        }
        self.readers.close().await;
    }
}

fn prepare_files(path: &Path) -> Result<ProcessLock, BackendError> {
    let files =
        |source| BackendError::Files { path: path.display().to_string(), source: Arc::new(source) };
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_dir_durable(folder).map_err(files)?;
    let mut lock = PathBuf::from(path).into_os_string();
    lock.push(".lock");
    let lock = ProcessLock::acquire(Path::new(&lock), path)?;
    // SQLite gives its companion files the mode of the database.
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(files)?;
    crate::files::sync_dir(folder).map_err(files)?;
    Ok(lock)
}

async fn migrate(pool: &SqlitePool, path: &Path) -> Result<(), BackendError> {
    let found: i64 = sqlx::query("PRAGMA user_version").fetch_one(pool).await?.try_get(0)?;
    if found > SCHEMA {
        return Err(BackendError::TooNew {
            path: path.display().to_string(),
            found,
            known: SCHEMA,
        });
    }
    if found == SCHEMA {
        return Ok(());
    }
    let mut change = pool.begin_with("BEGIN IMMEDIATE").await?;
    for statement in [
        "CREATE TABLE IF NOT EXISTS items (
             key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, expires INTEGER) STRICT",
        "CREATE INDEX IF NOT EXISTS items_expires ON items (expires) WHERE expires IS NOT NULL",
        "CREATE TABLE IF NOT EXISTS meta (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT",
        "INSERT OR IGNORE INTO meta VALUES ('revision', 0)",
        "PRAGMA user_version = 1",
    ] {
        sqlx::query(statement).execute(&mut *change).await?;
    }
    change.commit().await?;
    Ok(())
}

async fn sweep(writes: mpsc::WeakSender<Request>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(writes) = writes.upgrade() else { return };
        let (done, answer) = oneshot::channel();
        if writes.send(Request::Sweep { done }).await.is_err() {
            return;
        }
        drop(writes);
        match answer.await {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => tracing::debug!(removed, "expired items removed"),
            Ok(Err(error)) => tracing::warn!(%error, "expired items were not removed"),
            Err(_) => return,
        }
    }
}

/// A time as it is stored: milliseconds.
fn millis(time: DateTime<Utc>) -> i64 {
    time.timestamp_millis()
}

/// A row of `key, value, revision, expires`.
fn item(row: &SqliteRow) -> Result<Item, BackendError> {
    let value: Vec<u8> = row.try_get(1)?;
    let revision: i64 = row.try_get(2)?;
    let expires: Option<i64> = row.try_get(3)?;
    Ok(Item {
        key: Key::stored(row.try_get(0)?),
        value: Bytes::from(value),
        expires: expires
            .map(|at| DateTime::from_timestamp_millis(at).unwrap_or(DateTime::<Utc>::MAX_UTC)),
        revision: Revision(revision.unsigned_abs()),
    })
}

#[async_trait]
impl Backend for SqliteBackend {
    async fn get(&self, key: &Key) -> Result<Option<Item>, BackendError> {
        let row = sqlx::query(
            "SELECT key, value, revision, expires FROM items WHERE key = ?1 AND (expires IS NULL OR expires > ?2)",
        )
        .bind(key.as_str())
        .bind(millis((self.clock)()))
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(item).transpose()
    }

    async fn range(
        &self,
        folder: &Key,
        from: Option<&Key>,
        limit: usize,
    ) -> Result<Range, BackendError> {
        let (low, high) = folder.bounds();
        let low = from.map_or(low.as_str(), |from| from.as_str().max(&low)).to_owned();
        let more = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let rows = sqlx::query(
            "SELECT key, value, revision, expires FROM items
             WHERE key >= ?1 AND key < ?2 AND (expires IS NULL OR expires > ?3) ORDER BY key LIMIT ?4",
        )
        .bind(low)
        .bind(high)
        .bind(millis((self.clock)()))
        .bind(more)
        .fetch_all(&self.readers)
        .await?;
        let mut items = rows.iter().map(item).collect::<Result<Vec<_>, _>>()?;
        let next = items.get(limit).map(|item| item.key.clone());
        items.truncate(limit);
        Ok(Range { items, next })
    }

    async fn transact(&self, ops: Vec<Op>) -> Result<Revision, BackendError> {
        for (at, op) in ops.iter().enumerate() {
            if ops.iter().take(at).any(|earlier| earlier.key() == op.key()) {
                return Err(BackendError::Repeated { key: op.key().clone() });
            }
            if let Op::Put { key, value, .. } = op
                && value.len() > MAX_VALUE
            {
                return Err(BackendError::TooLarge {
                    key: key.clone(),
                    bytes: value.len(),
                    max: MAX_VALUE,
                });
            }
        }
        let (done, answer) = oneshot::channel();
        self.writes.send(Request::Write { ops, done }).await.map_err(|_| BackendError::Closed)?;
        answer.await.map_err(|_| BackendError::Closed)?
    }

    fn watch(&self, folder: &Key) -> Watch {
        Watch::new(folder.clone(), self.changes.subscribe())
    }

    async fn revision(&self) -> Result<Revision, BackendError> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'revision'")
            .fetch_one(&self.readers)
            .await?;
        Ok(Revision(row.try_get::<i64, _>(0)?.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests;

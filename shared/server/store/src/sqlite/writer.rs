//! The one task that writes: gathers requests, commits them together, then answers.

use std::mem;

use sqlx::{Row, Sqlite, Transaction, sqlite::SqlitePool};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::millis;
use crate::{BackendError, Change, Clock, Condition, Item, Key, Op, ProcessLock, Revision};

/// Requests that share one commit at most.
const BATCH: usize = 128;

/// What the writer is asked for.
pub(super) enum Request {
    /// All of `ops`, or none.
    Write { ops: Vec<Op>, done: oneshot::Sender<Result<Revision, BackendError>> },
    /// Everything expired.
    Sweep { done: oneshot::Sender<Result<u64, BackendError>> },
    /// The end.
    Close { done: oneshot::Sender<()> },
}

/// An answer that is only given once the commit is on disk.
enum Answer {
    Write(oneshot::Sender<Result<Revision, BackendError>>, Result<Revision, BackendError>),
    Sweep(oneshot::Sender<Result<u64, BackendError>>, u64),
}

impl Answer {
    fn give(self) {
        // Who asked may have gone; what was written stays written.
        match self {
            Self::Write(done, answer) => drop(done.send(answer)),
            Self::Sweep(done, removed) => drop(done.send(Ok(removed))),
        }
    }

    fn fail(self, error: &BackendError) {
        match self {
            // A refusal stands whatever became of the others' writes.
            Self::Write(done, Err(refusal)) => drop(done.send(Err(refusal))),
            Self::Write(done, Ok(_)) => drop(done.send(Err(error.clone()))),
            Self::Sweep(done, _) => drop(done.send(Err(error.clone()))),
        }
    }
}

/// Serves until it is closed or nobody can ask any more.
pub(super) async fn run(
    pool: SqlitePool,
    mut requests: mpsc::Receiver<Request>,
    changes: broadcast::Sender<Change>,
    clock: Clock,
    lock: ProcessLock,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut closing = None;
    while closing.is_none() && requests.recv_many(&mut batch, BATCH).await > 0 {
        let mut answers = Vec::new();
        let mut told = Vec::new();
        let requests = mem::take(&mut batch);
        match commit(&pool, &clock, requests, &mut answers, &mut told, &mut closing).await {
            Ok(()) => {
                for change in told {
                    // No watcher is no error.
                    let _ = changes.send(change);
                }
                answers.into_iter().for_each(Answer::give);
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "state was not written");
                answers.into_iter().for_each(|answer| answer.fail(&error));
            }
        }
    }
    requests.close();
    pool.close().await;
    drop(lock);
    if let Some(done) = closing {
        let _ = done.send(());
    }
}

async fn commit(
    pool: &SqlitePool,
    clock: &Clock,
    requests: Vec<Request>,
    answers: &mut Vec<Answer>,
    told: &mut Vec<Change>,
    closing: &mut Option<oneshot::Sender<()>>,
) -> Result<(), BackendError> {
    let mut begun = begin(pool).await;
    for request in requests {
        match request {
            Request::Close { done } => *closing = Some(done),
            Request::Sweep { done } => {
                let removed = match &mut begun {
                    Ok((change, revision)) => sweep(change, clock, revision, told).await,
                    Err(_) => Ok(0),
                };
                answers.push(Answer::Sweep(done, *removed.as_ref().unwrap_or(&0)));
                if let Err(error) = removed {
                    begun = Err(error);
                }
            }
            Request::Write { ops, done } => {
                let outcome = match &mut begun {
                    Ok((change, revision)) => write(change, clock, revision, ops, told).await,
                    Err(error) => Ok(Err(error.clone())),
                };
                match outcome {
                    Ok(answer) => answers.push(Answer::Write(done, answer)),
                    Err(error) => {
                        answers.push(Answer::Write(done, Err(error.clone())));
                        begun = Err(error);
                    }
                }
            }
        }
    }
    let (mut change, revision) = begun?;
    if told.is_empty() {
        change.rollback().await?;
        return Ok(());
    }
    let stored = i64::try_from(revision.0).unwrap_or(i64::MAX);
    sqlx::query("UPDATE meta SET value = ?1 WHERE name = 'revision'")
        .bind(stored)
        .execute(&mut *change)
        .await?;
    change.commit().await?;
    Ok(())
}

async fn begin(
    pool: &SqlitePool,
) -> Result<(Transaction<'static, Sqlite>, Revision), BackendError> {
    let mut change = pool.begin_with("BEGIN IMMEDIATE").await?;
    let row = sqlx::query("SELECT value FROM meta WHERE name = 'revision'")
        .fetch_one(&mut *change)
        .await?;
    let revision = Revision(row.try_get::<i64, _>(0)?.unsigned_abs());
    Ok((change, revision))
}

/// Outer error: the database failed and the whole batch with it. Inner: this request is refused.
async fn write(
    change: &mut Transaction<'static, Sqlite>,
    clock: &Clock,
    revision: &mut Revision,
    ops: Vec<Op>,
    told: &mut Vec<Change>,
) -> Result<Result<Revision, BackendError>, BackendError> {
    let now = millis(clock());
    for op in &ops {
        if let Err(refused) = demand(op, current(change, op.key(), now).await?) {
            return Ok(Err(refused));
        }
    }
    let next = Revision(revision.0 + 1);
    let number = i64::try_from(next.0).unwrap_or(i64::MAX);
    let before = told.len();
    for op in ops {
        match op {
            Op::Check { .. } => {}
            Op::Put { key, value, expires, .. } => {
                sqlx::query(
                    "INSERT INTO items (key, value, revision, expires) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (key) DO UPDATE SET value = ?2, revision = ?3, expires = ?4",
                )
                .bind(key.as_str())
                .bind(value.as_ref())
                .bind(number)
                .bind(expires.map(millis))
                .execute(&mut **change)
                .await?;
                told.push(Change::Put(Item { key, value, expires, revision: next }));
            }
            Op::Delete { key, .. } => {
                let gone = sqlx::query("DELETE FROM items WHERE key = ?1")
                    .bind(key.as_str())
                    .execute(&mut **change);
                if gone.await?.rows_affected() > 0 {
                    told.push(Change::Deleted { key, revision: next, expired: false });
                }
            }
        }
    }
    if told.len() > before {
        *revision = next;
    }
    Ok(Ok(*revision))
}

async fn current(
    change: &mut Transaction<'static, Sqlite>,
    key: &Key,
    now: i64,
) -> Result<Option<Revision>, BackendError> {
    let row = sqlx::query(
        "SELECT revision FROM items WHERE key = ?1 AND (expires IS NULL OR expires > ?2)",
    )
    .bind(key.as_str())
    .bind(now)
    .fetch_optional(&mut **change)
    .await?;
    row.map(|row| Ok(Revision(row.try_get::<i64, _>(0)?.unsigned_abs()))).transpose()
}

fn demand(op: &Op, found: Option<Revision>) -> Result<(), BackendError> {
    let key = || op.key().clone();
    match (op.condition(), found) {
        (Condition::Any, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => Ok(()),
        (Condition::Absent, Some(_)) => Err(BackendError::AlreadyExists { key: key() }),
        (Condition::Present | Condition::Revision(_), None) => {
            Err(BackendError::NotFound { key: key() })
        }
        (Condition::Revision(expected), Some(found)) if expected == found => Ok(()),
        (Condition::Revision(_), Some(_)) => Err(BackendError::Conflict { key: key() }),
    }
}

async fn sweep(
    change: &mut Transaction<'static, Sqlite>,
    clock: &Clock,
    revision: &mut Revision,
    told: &mut Vec<Change>,
) -> Result<u64, BackendError> {
    let gone =
        sqlx::query("DELETE FROM items WHERE expires IS NOT NULL AND expires <= ?1 RETURNING key")
            .bind(millis(clock()))
            .fetch_all(&mut **change)
            .await?;
    let next = Revision(revision.0 + 1);
    for row in &gone {
        told.push(Change::Deleted {
            key: Key::stored(row.try_get(0)?),
            revision: next,
            expired: true,
        });
    }
    if !gone.is_empty() {
        *revision = next;
    }
    Ok(gone.len() as u64)
}

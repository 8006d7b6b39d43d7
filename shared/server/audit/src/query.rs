//! The front of the query engine: one worker process per query, with nothing but the question and
//! the log's folder, killed when it takes too long or when nobody waits any more.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::Semaphore,
    time::timeout,
};

/// The longest statement.
const MAX_SQL: usize = 64 << 10;
/// What is kept of the worker's own messages.
const MAX_NOTES: u64 = 16 << 10;

/// What is asked.
#[derive(Debug, Clone)]
pub struct QueryRequest {
    /// One `SELECT`.
    pub sql: String,
    /// Only events of so many days back from today; all when absent.
    pub days: Option<u32>,
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryColumn {
    /// Its name.
    pub name: String,
    /// Its SQL type.
    #[serde(rename = "type")]
    pub sql_type: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryReply {
    /// What each cell of a row is.
    pub columns: Vec<QueryColumn>,
    /// Cells as text; `None` is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// How much of the log was read.
    #[serde(default)]
    pub scanned_bytes: u64,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryErrorKind {
    /// The statement's.
    Statement,
    /// It asks for more than a query may take.
    Limit,
    /// The program is missing.
    NotInstalled,
    /// Too many queries run.
    Busy,
    /// Ours.
    Internal,
}

/// Why there is no answer; all of it may be shown to who asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", place(.line, .column))]
pub struct QueryError {
    /// Whose fault.
    pub kind: QueryErrorKind,
    /// What is wrong.
    pub message: String,
    /// Where in the statement, from 1.
    pub line: Option<u64>,
    /// Where in that line, from 1.
    pub column: Option<u64>,
    /// What would help.
    pub hint: Option<String>,
}

fn place(line: &Option<u64>, column: &Option<u64>) -> String {
    match (line, column) {
        (Some(line), Some(column)) => format!("line {line}:{column}: "),
        _ => String::new(),
    }
}

impl QueryError {
    fn new(kind: QueryErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), line: None, column: None, hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What one query may take.
#[derive(Debug, Clone)]
pub struct QueryLimits {
    /// From question to answer.
    pub wall: Duration,
    /// Processor seconds.
    pub cpu_seconds: u64,
    /// Memory of the worker.
    pub memory_bytes: u64,
    /// Rows of the answer.
    pub max_rows: usize,
    /// Bytes of the answer.
    pub max_bytes: usize,
    /// Queries at a time; more wait for their turn.
    pub concurrent: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(60),
            cpu_seconds: 120,
            memory_bytes: 1 << 30,
            max_rows: 100_000,
            max_bytes: 32 << 20,
            concurrent: 2,
        }
    }
}

#[derive(Serialize)]
struct Question<'a> {
    sql: &'a str,
    days: Option<u32>,
    log_dir: &'a Path,
    max_rows: usize,
    max_bytes: usize,
    memory_bytes: u64,
    cpu_seconds: u64,
    wall_seconds: u64,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    columns: Vec<QueryColumn>,
    #[serde(default)]
    rows: Vec<Vec<Option<String>>>,
    #[serde(default)]
    scanned_bytes: u64,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    message: String,
    line: Option<u64>,
    column: Option<u64>,
    hint: Option<String>,
    #[serde(default)]
    limit: bool,
}

/// Answers SQL over the log through the program `teleport-query`; clones share the turns.
#[derive(Debug, Clone)]
pub struct QueryEngine {
    worker: Arc<Path>,
    log_dir: Arc<Path>,
    limits: QueryLimits,
    turns: Arc<Semaphore>,
}

impl QueryEngine {
    /// Asks `worker` about the log in `log_dir`.
    pub fn new(worker: impl Into<PathBuf>, log_dir: impl Into<PathBuf>) -> Self {
        Self::with_limits(worker, log_dir, QueryLimits::default())
    }

    /// The same with other limits.
    pub fn with_limits(
        worker: impl Into<PathBuf>,
        log_dir: impl Into<PathBuf>,
        limits: QueryLimits,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(limits.concurrent.max(1)));
        // The worker runs in another folder.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path).into();
        Self { worker: absolute(worker.into()), log_dir: absolute(log_dir.into()), limits, turns }
    }

    /// The program that is installed beside the running one.
    pub fn beside_current_program(log_dir: impl Into<PathBuf>) -> Self {
        let worker = std::env::current_exe()
            .ok()
            .and_then(|program| Some(program.parent()?.join("teleport-query")));
        Self::new(worker.unwrap_or_else(|| "teleport-query".into()), log_dir)
    }

    /// Asks, and waits for the answer.
    pub async fn run(&self, request: QueryRequest) -> Result<QueryReply, QueryError> {
        if request.sql.len() > MAX_SQL {
            let message =
                format!("the statement has {} bytes, more than {MAX_SQL}", request.sql.len());
            return Err(QueryError::new(QueryErrorKind::Limit, message));
        }
        let turn = timeout(self.limits.wall, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(QueryError::new(QueryErrorKind::Busy, "too many queries are running")
                .hint("try again later"));
        };
        let mut child = self.spawn()?;
        let answered = timeout(self.limits.wall, self.ask(&mut child, &request)).await;
        // Dropping the child kills it; waiting for it here leaves no zombie behind.
        let result = answered.unwrap_or_else(|_| Err(self.too_slow()));
        if result.is_err() {
            let _ = child.start_kill();
        }
        let _ = child.wait().await;
        result
    }

    fn spawn(&self) -> Result<Child, QueryError> {
        let mut command = Command::new(self.worker.as_os_str());
        command.env_clear().current_dir("/").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                QueryError::new(QueryErrorKind::NotInstalled, "no query engine is installed")
                    .hint(format!("install teleport-query on the auth host as {}", self.worker.display()))
            }
            _ => {
                tracing::error!(%error, worker = %self.worker.display(), "the query engine was not started");
                QueryError::new(QueryErrorKind::Internal, "the query engine was not started")
                    .hint("the auth service's log says why")
            }
        })
    }

    fn too_slow(&self) -> QueryError {
        let message = format!("the query took longer than {} s", self.limits.wall.as_secs());
        QueryError::new(QueryErrorKind::Limit, message)
            .hint("ask for fewer days, or narrow it by event_date")
    }

    async fn ask(
        &self,
        child: &mut Child,
        request: &QueryRequest,
    ) -> Result<QueryReply, QueryError> {
        let question = Question {
            sql: &request.sql,
            days: request.days,
            log_dir: &self.log_dir,
            max_rows: self.limits.max_rows,
            max_bytes: self.limits.max_bytes,
            memory_bytes: self.limits.memory_bytes,
            cpu_seconds: self.limits.cpu_seconds,
            wall_seconds: self.limits.wall.as_secs().max(1),
        };
        let broken = |what: &'static str| {
            move |error: &dyn std::fmt::Display| {
                tracing::error!(%error, "query engine: {what}");
                QueryError::new(QueryErrorKind::Internal, "the query engine failed")
            }
        };
        let question =
            serde_json::to_vec(&question).map_err(|error| broken("encode question")(&error))?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(QueryError::new(QueryErrorKind::Internal, "the query engine has no pipes"));
        };
        let send = async move {
            // A worker that ends early says why on its output.
            let _ = stdin.write_all(&question).await;
            let _ = stdin.shutdown().await;
        };
        // JSON quoting makes an answer larger than its cells, sixfold at worst.
        let room = (self.limits.max_bytes as u64).saturating_mul(6).saturating_add(1 << 20);
        let ((), answer, notes) = tokio::join!(send, drain(stdout, room), drain(stderr, MAX_NOTES));
        let status = child.wait().await.map_err(|error| broken("wait")(&error))?;
        if !notes.is_empty() {
            tracing::warn!(notes = %String::from_utf8_lossy(&notes).escape_debug(), "query engine");
        }
        let Ok(answer) = serde_json::from_slice::<Answer>(&answer) else {
            tracing::error!(%status, bytes = answer.len(), "the query engine ended without an answer");
            return Err(QueryError::new(
                QueryErrorKind::Limit,
                "the query needs more memory or time than it may take",
            )
            .hint("ask for fewer days, fewer columns, or narrow it by event_date"));
        };
        match answer.error {
            Some(AnswerError { message, line, column, hint, limit }) => {
                let kind = if limit { QueryErrorKind::Limit } else { QueryErrorKind::Statement };
                Err(QueryError { kind, message, line, column, hint })
            }
            None => Ok(QueryReply {
                columns: answer.columns,
                rows: answer.rows,
                scanned_bytes: answer.scanned_bytes,
            }),
        }
    }
}

/// Reads to the end and keeps the first `limit` bytes, so that the other side is never stuck.
async fn drain(mut from: impl AsyncRead + Unpin, limit: u64) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = (&mut from).take(limit).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    kept
}

#[cfg(test)]
mod tests;

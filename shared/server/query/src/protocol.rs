//! What the worker is asked and what it answers: one JSON object each way.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Failure;

/// The question.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// One query.
    pub sql: String,
    /// Only events of so many days back from today.
    #[serde(default)]
    pub days: Option<u32>,
    /// The folder of the audit log.
    pub log_dir: PathBuf,
    /// The most rows an answer may have.
    #[serde(default = "max_rows")]
    pub max_rows: usize,
    /// The most bytes its cells may have.
    #[serde(default = "max_bytes")]
    pub max_bytes: usize,
    /// The memory this process may have.
    #[serde(default = "memory_bytes")]
    pub memory_bytes: u64,
    /// The processor time this process may have.
    #[serde(default = "cpu_seconds")]
    pub cpu_seconds: u64,
    /// How long this process may live.
    #[serde(default = "wall_seconds")]
    pub wall_seconds: u64,
}

fn max_rows() -> usize {
    100_000
}

fn max_bytes() -> usize {
    32 << 20
}

fn memory_bytes() -> u64 {
    1 << 30
}

fn cpu_seconds() -> u64 {
    120
}

fn wall_seconds() -> u64 {
    60
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name as it was written, or as documented.
    pub name: String,
    /// Its SQL type.
    #[serde(rename = "type")]
    pub sql_type: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// What each cell of a row is.
    pub columns: Vec<Column>,
    /// Cells as text; `None` is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// How much of the log was read.
    pub scanned_bytes: u64,
}

/// What goes out.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Response {
    /// The answer.
    Reply(Reply),
    /// Why there is none.
    Error {
        /// What and where.
        error: Failure,
    },
}

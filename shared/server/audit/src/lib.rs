//! The durable audit log, and the front of its query engine.
//!
//! What must stay true: an event is acknowledged only when it is on disk; an acknowledged event is
//! found by the next search and the next query; nothing that was written is thrown away. Which
//! events there are and who may ask is decided elsewhere.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod lines;
mod log;
mod query;
mod recent;
mod recovery;
mod search;
mod segment;
mod trim;
mod writer;

pub use log::{AuditError, AuditLog, LogOptions};
pub use query::{
    QueryColumn, QueryEngine, QueryError, QueryErrorKind, QueryLimits, QueryReply, QueryRequest,
};
pub use recovery::Damage;

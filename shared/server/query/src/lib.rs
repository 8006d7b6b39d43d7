//! The SQL worker: DataFusion over the audit log, in a process of its own.
//!
//! One question comes in, one answer goes out. What must stay true: a statement reads the log and
//! does nothing else; what it may take is limited before it runs; what cannot be answered as users
//! know it is refused instead of being answered differently. The dialect's known differences are
//! listed in the module `rewrite`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cell;
mod engine;
mod failure;
mod functions;
mod limits;
mod parse;
mod planner;
mod protocol;
mod rewrite;
mod rows;
mod snapshot;
mod table;
mod views;

pub use engine::answer;
pub use failure::Failure;
pub use limits::apply as apply_limits;
pub use protocol::{Column, Reply, Request, Response};

//! The audit catalogue: one declaration per event, from which its struct, protobuf encoding, JSON,
//! default code and SQL columns follow.
//!
//! What must stay true: field numbers and JSON keys are an interface. Recordings and logs written
//! years ago, and by other programs, are read with them. A number or key is never reused.
//!
//! Left to others: where events go. This crate does no I/O and has no clock.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod codes;
mod columns;
mod event;
mod events;
mod gap;
mod label_values;
mod listing;
mod macros;
mod parts;
mod structure;
mod timestamp;
mod value;

pub use columns::{Column, SqlType, View, columns, views};
pub use event::{AuditEvent, EventError, MAX_RECORD, OtherEvent};
pub use events::*;
pub use gap::{GAP_EVENT, OutputGap};
pub use label_values::{LabelValues, StringValues};
pub use listing::{RecordingRow, recording_row};
pub use parts::*;
pub use prost::bytes::Bytes;
pub use structure::{ListValue, Struct, StructValue, ValueKind};
pub use timestamp::Timestamp;

/// `session.upload` arrives long after the session and has this index.
pub const UPLOAD_INDEX: i64 = i32::MAX as i64;
/// The index of `session.data`.
pub const DATA_INDEX: i64 = i32::MAX as i64 - 1;

//! Protocols of databases on the wire: framing and messages, without I/O.
//!
//! What must stay true: every cut of the bytes gives the same, memory is bounded whatever a length says, and what is not
//! understood is an error that names the place.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod http;
pub mod mysql;
pub mod postgres;
pub mod redis;

//! Where services meet: the authority they ask, access that was granted, and spools that lose nothing.
//!
//! What must stay true:
//! - A [`Granted`] exists only after its event is durable, and is used for one dial.
//! - An event or a slice that was accepted is on disk or acknowledged by the auth service; nothing is dropped because
//!   the auth service is away. Where the disk budget is used up, callers wait and then fail; they are never lied to.
//! - No disk or network wait happens on the async runtime's own threads without an await.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
mod authority;
mod backoff;
mod batches;
pub mod remote;
pub mod spool;
#[cfg(test)]
mod testing;

pub use access::{AccessRefused, Granted, SshAccess, SshRequest, authorize_ssh};
pub use authority::{Authority, AuthorityError, EmitError, EventSink};
pub use remote::RemoteAuthority;
pub use shared_api::{ClusterState, CompleteUpload};
pub use spool::{EventSpool, RecordingSpool, RecordingWriter, SpoolError};

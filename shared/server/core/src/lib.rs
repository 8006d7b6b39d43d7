//! Where services meet: the authority they ask, access that was granted, spools that lose nothing, and what those that
//! end SSH sessions share.
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
pub mod db;
mod follow_nodes;
pub mod host;
pub mod http;
mod kept;
pub mod labels;
pub mod recorder;
pub mod remote;
pub mod spool;
pub mod ssh;
#[cfg(test)]
mod testing;
pub mod tunnel;

pub use access::{
    AccessRefused, DbAccess, DbRequest, Granted, Reach, SshAccess, SshRequest, Via, authorize_db,
    authorize_ssh,
};
pub use authority::{Authority, AuthorityError, EmitError, EventSink};
pub use kept::{KeptError, KeptState};
pub use remote::RemoteAuthority;
pub use shared_api::{ClusterState, CompleteUpload};
pub use spool::{EventSpool, RecordingSpool, RecordingWriter, SpoolError};

/// An error with its causes, in one line.
pub fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text.push_str(": ");
        text.push_str(&err.to_string());
        cause = err.source();
    }
    text
}

/// An id for an event: the same for the same thing, however often and by whom it is said, so that it counts once.
pub fn stable_uid(what: &str, of: &[u8]) -> String {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    hash.update(what.as_bytes());
    hash.update([0]);
    hash.update(of);
    let mut bytes = [0u8; 16];
    for (to, from) in bytes.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

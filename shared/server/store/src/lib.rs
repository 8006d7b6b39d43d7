//! State and objects: the key-value [`Backend`] on SQLite, and recordings on a [`RecordingStore`].
//!
//! What must stay true: whatever is acknowledged is on disk; a second process on the same state
//! refuses; a finished recording is never overwritten. What the values mean is for others.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backend;
#[cfg(test)]
mod conformance;
mod files;
mod key;
mod lease;
mod lock;
mod recordings;
mod sqlite;

pub use backend::{
    Backend, BackendError, Change, Clock, Condition, Item, Op, Range, Revision, Watch, WatchError,
    system_clock,
};
pub use key::{Key, KeyError};
pub use lease::{Lease, LeaseError};
pub use lock::{LockError, ProcessLock};
pub use recordings::{
    Completed, FaultKind, LocalRecordings, MAX_PART_BYTES, ObjectRecordings, PartInfo,
    RecordingError, RecordingReader, RecordingStore, StoreEnv, StoreFault, Upload, UploadId,
    UploadIdError, open_recordings,
};
pub use shared_config::SessionsUri;
pub use sqlite::SqliteBackend;

//! The key-value trait that holds cluster state, and what travels through it.
//!
//! Every change goes through [`Backend::transact`]: conditions are checked and writes made in one
//! step, and `Ok` means it is on disk. Expired items do not exist for any reader.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::broadcast;

use crate::{Key, LockError};

/// Where a backend takes the time from.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// The wall clock.
pub fn system_clock() -> Clock {
    Arc::new(Utc::now)
}

/// Names one state of an item; grows with every change of the whole store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// One stored item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its path.
    pub key: Key,
    /// Its content.
    pub value: Bytes,
    /// When it vanishes.
    pub expires: Option<DateTime<Utc>>,
    /// The change that wrote it.
    pub revision: Revision,
}

/// What must hold for an [`Op`] to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// No such item.
    Absent,
    /// An item, of any revision.
    Present,
    /// An item of this revision.
    Revision(Revision),
}

/// One write of a transaction.
#[derive(Debug, Clone)]
pub enum Op {
    /// Stores a value.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Bytes,
        /// Until when.
        expires: Option<DateTime<Utc>>,
        /// Only if.
        condition: Condition,
    },
    /// Removes a value.
    Delete {
        /// Where.
        key: Key,
        /// Only if; [`Condition::Any`] makes removing nothing a success.
        condition: Condition,
    },
    /// Changes nothing, but demands.
    Check {
        /// Where.
        key: Key,
        /// What is demanded.
        condition: Condition,
    },
}

impl Op {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } | Self::Check { key, .. } => key,
        }
    }

    /// What it demands.
    pub fn condition(&self) -> Condition {
        match self {
            Self::Put { condition, .. }
            | Self::Delete { condition, .. }
            | Self::Check { condition, .. } => *condition,
        }
    }
}

/// A page of a folder.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// In key order.
    pub items: Vec<Item>,
    /// Where the next page begins, when there is one.
    pub next: Option<Key>,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An item was written.
    Put(Item),
    /// An item is gone.
    Deleted {
        /// Which.
        key: Key,
        /// The change that removed it.
        revision: Revision,
        /// Whether its time was up.
        expired: bool,
    },
}

impl Change {
    /// Which item changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(item) => &item.key,
            Self::Deleted { key, .. } => key,
        }
    }
}

/// Why state could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// The item exists already.
    #[error("{key} exists already")]
    AlreadyExists {
        /// Which.
        key: Key,
    },
    /// There is no such item.
    #[error("{key} does not exist")]
    NotFound {
        /// Which.
        key: Key,
    },
    /// Somebody else changed the item in the meantime.
    #[error("{key} was changed in the meantime")]
    Conflict {
        /// Which.
        key: Key,
    },
    /// One transaction names a key twice.
    #[error("one transaction names {key} twice")]
    Repeated {
        /// Which.
        key: Key,
    },
    /// The value is larger than the backend takes.
    #[error("the value of {key} has {bytes} bytes, more than {max}")]
    TooLarge {
        /// Which.
        key: Key,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Another process has the state open.
    #[error(transparent)]
    InUse(#[from] LockError),
    /// The files could not be made.
    #[error("open {path}")]
    Files {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A later version wrote the store.
    #[error("{path} was written by a later version (schema {found}, this program knows {known})")]
    TooNew {
        /// Which.
        path: String,
        /// What it has.
        found: i64,
        /// What we know.
        known: i64,
    },
    /// The database refused.
    #[error("state database")]
    Database(#[source] Arc<sqlx::Error>),
    /// The backend is shut down.
    #[error("the state database is closed")]
    Closed,
}

impl From<sqlx::Error> for BackendError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// Why a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Changes were missed: watch anew, then read the folder again.
    #[error("{0} changes were missed")]
    Lagged(u64),
    /// The backend is shut down.
    #[error("the state database is closed")]
    Closed,
}

/// The changes below one folder, from the moment it was asked for. Begin to watch, then read.
#[derive(Debug)]
pub struct Watch {
    folder: Key,
    changes: broadcast::Receiver<Change>,
}

impl Watch {
    /// A watch on what `changes` brings below `folder`.
    pub fn new(folder: Key, changes: broadcast::Receiver<Change>) -> Self {
        Self { folder, changes }
    }

    /// The next change; cancel-safe.
    pub async fn next(&mut self) -> Result<Change, WatchError> {
        loop {
            match self.changes.recv().await {
                Ok(change) if self.folder.contains(change.key()) => return Ok(change),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    return Err(WatchError::Lagged(missed));
                }
                Err(broadcast::error::RecvError::Closed) => return Err(WatchError::Closed),
            }
        }
    }
}

/// How many items [`Backend::all`] asks for at once.
const PAGE: usize = 500;

/// Where cluster state lives.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// One item, unless it is absent or expired.
    async fn get(&self, key: &Key) -> Result<Option<Item>, BackendError>;

    /// Up to `limit` items below `folder`, in key order, from `from` (a page's `next`) on.
    async fn range(
        &self,
        folder: &Key,
        from: Option<&Key>,
        limit: usize,
    ) -> Result<Range, BackendError>;

    /// Carries out all of `ops` or none; a key may occur once. All writes get the returned revision.
    async fn transact(&self, ops: Vec<Op>) -> Result<Revision, BackendError>;

    /// Tells of changes below `folder` from now on.
    fn watch(&self, folder: &Key) -> Watch;

    /// The last change of the whole store.
    async fn revision(&self) -> Result<Revision, BackendError>;

    /// Everything below `folder`, in key order.
    async fn all(&self, folder: &Key) -> Result<Vec<Item>, BackendError> {
        let mut items = Vec::new();
        let mut from = None;
        loop {
            let page = self.range(folder, from.as_ref(), PAGE).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(items),
            }
        }
    }

    /// Writes, whatever was there.
    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        expires: Option<DateTime<Utc>>,
    ) -> Result<Revision, BackendError> {
        self.transact(vec![Op::Put { key: key.clone(), value, expires, condition: Condition::Any }])
            .await
    }

    /// Writes what must not exist yet.
    async fn create(
        &self,
        key: &Key,
        value: Bytes,
        expires: Option<DateTime<Utc>>,
    ) -> Result<Revision, BackendError> {
        self.transact(vec![Op::Put {
            key: key.clone(),
            value,
            expires,
            condition: Condition::Absent,
        }])
        .await
    }

    /// Writes what must exist.
    async fn update(
        &self,
        key: &Key,
        value: Bytes,
        expires: Option<DateTime<Utc>>,
    ) -> Result<Revision, BackendError> {
        self.transact(vec![Op::Put {
            key: key.clone(),
            value,
            expires,
            condition: Condition::Present,
        }])
        .await
    }

    /// Writes if nobody has since `expected`.
    async fn compare_and_swap(
        &self,
        key: &Key,
        expected: Revision,
        value: Bytes,
        expires: Option<DateTime<Utc>>,
    ) -> Result<Revision, BackendError> {
        let condition = Condition::Revision(expected);
        self.transact(vec![Op::Put { key: key.clone(), value, expires, condition }]).await
    }

    /// Removes what must exist.
    async fn delete(&self, key: &Key) -> Result<Revision, BackendError> {
        self.transact(vec![Op::Delete { key: key.clone(), condition: Condition::Present }]).await
    }

    /// Removes if nobody has written since `expected`.
    async fn compare_and_delete(
        &self,
        key: &Key,
        expected: Revision,
    ) -> Result<Revision, BackendError> {
        self.transact(vec![Op::Delete {
            key: key.clone(),
            condition: Condition::Revision(expected),
        }])
        .await
    }
}

/// `now` plus a span, at the end of time when it would pass it.
pub(crate) fn after(now: DateTime<Utc>, span: Duration) -> DateTime<Utc> {
    chrono::TimeDelta::from_std(span)
        .ok()
        .and_then(|span| now.checked_add_signed(span))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

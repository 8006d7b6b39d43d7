//! A lease: an item that only its owner renews and that vanishes when nobody does.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{Backend, BackendError, Clock, Key, Revision, backend::after};

/// Why a lease was not got or kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else has it.
    #[error("{key} is held by somebody else")]
    Held {
        /// Which.
        key: Key,
    },
    /// It ran out, or was taken away.
    #[error("the lease on {key} is lost")]
    Lost {
        /// Which.
        key: Key,
    },
    /// The store failed.
    #[error(transparent)]
    Backend(BackendError),
}

/// Ownership of a key for a time. Dropping it lets it run out; [`Lease::release`] is quicker.
pub struct Lease {
    backend: Arc<dyn Backend>,
    clock: Clock,
    key: Key,
    value: Bytes,
    ttl: Duration,
    revision: Revision,
}

impl Lease {
    /// Takes `key` for `ttl`, storing `value`, which says who holds it.
    pub async fn acquire(
        backend: Arc<dyn Backend>,
        clock: Clock,
        key: Key,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Self, LeaseError> {
        let expires = after(clock(), ttl);
        match backend.create(&key, value.clone(), Some(expires)).await {
            Ok(revision) => Ok(Self { backend, clock, key, value, ttl, revision }),
            Err(BackendError::AlreadyExists { key }) => Err(LeaseError::Held { key }),
            Err(error) => Err(LeaseError::Backend(error)),
        }
    }

    /// Extends it by its full time from now.
    pub async fn renew(&mut self) -> Result<(), LeaseError> {
        let expires = after((self.clock)(), self.ttl);
        let swap = self
            .backend
            .compare_and_swap(&self.key, self.revision, self.value.clone(), Some(expires))
            .await;
        self.revision = swap.map_err(|error| self.lost(error))?;
        Ok(())
    }

    /// Gives it back.
    pub async fn release(self) -> Result<(), LeaseError> {
        let removed = self.backend.compare_and_delete(&self.key, self.revision).await;
        removed.map(drop).map_err(|error| self.lost(error))
    }

    fn lost(&self, error: BackendError) -> LeaseError {
        match error {
            BackendError::NotFound { .. } | BackendError::Conflict { .. } => {
                LeaseError::Lost { key: self.key.clone() }
            }
            error => LeaseError::Backend(error),
        }
    }
}

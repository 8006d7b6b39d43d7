//! Requests that wait for their answer.

use std::collections::HashMap;

use super::files::Id;
use crate::observer::{Limits, Lost};
use crate::record::Operation;

/// What an answer will be to.
pub(super) enum Pending {
    Open { path: String, flags: u32 },
    OpenDir { path: String },
    Close { id: Option<Id> },
    Read { id: Option<Id>, offset: u64 },
    Write { id: Option<Id>, bytes: u64 },
    Stat { path: String },
    FStat { id: Option<Id> },
    FSetStat { id: Option<Id>, operation: Operation },
    ReadDir { id: Option<Id> },
    RealPath { of_nothing: bool },
    Operation(Operation),
    Other,
}

impl Pending {
    /// Bytes of names.
    fn names(&self) -> usize {
        match self {
            Self::Open { path, .. } | Self::OpenDir { path } | Self::Stat { path } => path.len(),
            Self::Operation(operation) | Self::FSetStat { operation, .. } => {
                operation.path.len() + operation.target.as_ref().map_or(0, String::len)
            }
            _ => 0,
        }
    }
}

/// All of them, by request id.
#[derive(Default)]
pub(super) struct Requests {
    waiting: HashMap<u32, Pending>,
    names: usize,
}

impl Requests {
    pub(super) fn insert(
        &mut self,
        id: u32,
        pending: Pending,
        limits: &Limits,
    ) -> Result<(), Lost> {
        self.names += pending.names();
        if self.waiting.len() >= limits.requests || self.names > limits.names {
            return Err(Lost::new("sftp: too many requests without an answer"));
        }
        match self.waiting.insert(id, pending) {
            None => Ok(()),
            Some(_) => Err(Lost::new("sftp: a request id is used twice")),
        }
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.waiting.contains_key(&id)
    }

    pub(super) fn remove(&mut self, id: u32) -> Result<Pending, Lost> {
        let pending = self.waiting.remove(&id);
        let pending = pending.ok_or_else(|| Lost::new("sftp: an answer to nothing"))?;
        self.names = self.names.saturating_sub(pending.names());
        Ok(pending)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

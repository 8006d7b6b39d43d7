//! What the topics share: a cluster with one user and one sshd.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use shared_testkit::Stage;

static ALONE: Mutex<()> = Mutex::new(());

/// One at a time of the tests that run twenty sessions and more: two of them would wait for each other's work.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

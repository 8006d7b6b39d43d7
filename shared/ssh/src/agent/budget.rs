//! How much one `tsh` lets the proxy do with its agent: as many signatures as it opened session channels,
//! and one more for the connection itself.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Agent channels beyond the signatures that may still come; each is small, but not free.
const SPARE_CHANNELS: u32 = 16;

/// Counters shared by all agent channels of one `tsh`.
#[derive(Debug, Default)]
pub struct Budget {
    sessions: AtomicU32,
    inner: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    signatures: u32,
    channels: u32,
    seen: BTreeSet<Vec<u8>>,
}

impl Budget {
    /// A session channel was asked for: one signature more may be needed.
    pub fn note_session(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// How many signatures may be made in all.
    #[must_use]
    pub fn allowed(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed).saturating_add(1)
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        // The counters are plain numbers: a panic elsewhere leaves them usable.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a new agent channel; `false` when there are far more than there is to sign.
    pub(crate) fn take_channel(&self) -> bool {
        let allowed = self.allowed().saturating_add(SPARE_CHANNELS);
        let mut counts = self.counts();
        if counts.channels >= allowed {
            return false;
        }
        counts.channels += 1;
        true
    }

    /// Remembers a session id; `false` when it was used before.
    pub(crate) fn take_session_id(&self, session_id: &[u8]) -> bool {
        self.counts().seen.insert(session_id.to_vec())
    }

    /// Whether a channel bound this session id before.
    pub(crate) fn knows_session_id(&self, session_id: &[u8]) -> bool {
        self.counts().seen.contains(session_id)
    }

    /// Takes one signature out of the budget.
    pub(crate) fn take_signature(&self) -> bool {
        let allowed = self.allowed();
        let mut counts = self.counts();
        if counts.signatures >= allowed {
            return false;
        }
        counts.signatures += 1;
        true
    }
}

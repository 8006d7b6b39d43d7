//! Sessions that run on this proxy, so that the auth service can be told that they do.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use shared_types::SessionId;

/// The sessions that run.
#[derive(Debug, Default)]
pub(crate) struct RunningSessions(Mutex<HashSet<SessionId>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    all: Arc<RunningSessions>,
    sid: SessionId,
}

impl RunningSessions {
    /// Lists a session.
    pub(crate) fn begin(self: &Arc<Self>, sid: SessionId) -> Running {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(sid);
        Running { all: Arc::clone(self), sid }
    }

    /// Those that run now.
    pub(crate) fn all(&self) -> Vec<SessionId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.sid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_listed_while_it_runs() {
        let all = Arc::new(RunningSessions::default());
        let sid = SessionId::random();
        let running = all.begin(sid);
        assert_eq!(all.all(), [sid]);
        drop(running);
        assert!(all.all().is_empty());
    }
}

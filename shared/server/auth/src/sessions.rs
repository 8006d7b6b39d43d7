//! Which proxy a session belongs to, so that no other one speaks of it or uploads a recording for it.
//!
//! Kept in memory and bounded: the first proxy that names a session has it. What was forgotten, after a restart or
//! after very many sessions, may be named by anybody again; a finished recording is never replaced all the same.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use shared_types::{HostId, SessionId};

/// Most sessions remembered.
const MOST: usize = 100_000;

/// The owners of sessions.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<Known>);

#[derive(Default)]
struct Known {
    owners: HashMap<SessionId, HostId>,
    order: VecDeque<SessionId>,
}

impl Sessions {
    /// Whether the session is this host's; one that nobody has is from now on.
    pub(crate) fn claim(&self, session: SessionId, host: HostId) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = known.owners.get(&session) {
            return *owner == host;
        }
        if known.order.len() >= MOST
            && let Some(oldest) = known.order.pop_front()
        {
            known.owners.remove(&oldest);
        }
        known.owners.insert(session, host);
        known.order.push_back(session);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_has_it_and_nothing_grows() {
        let sessions = Sessions::default();
        let (one, other) = (HostId::random(), HostId::random());
        let first = SessionId::random();
        assert!(sessions.claim(first, one) && sessions.claim(first, one));
        assert!(!sessions.claim(first, other));
        for _ in 0..MOST {
            assert!(sessions.claim(SessionId::random(), other));
        }
        let known = sessions.0.lock().unwrap();
        assert_eq!((known.owners.len(), known.order.len()), (MOST, MOST));
    }
}

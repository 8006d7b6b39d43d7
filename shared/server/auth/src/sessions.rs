//! Which host (a proxy or a node) a session belongs to, so that no other one speaks of it or uploads a recording for it; and whether it
//! still runs: the session trackers.
//!
//! Kept in memory and bounded: the first proxy that names a session has it. What was forgotten, after a restart or
//! after very many sessions, may be named by anybody again; a finished recording is never replaced all the same. For
//! the life of a tracker after the start, and after a time in which this service did not run, every session counts as
//! running, so that its proxy can say that it does.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use shared_api::limits;
use shared_types::{HostId, SessionId};

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::remembered::Remembered;
use crate::service::AuthService;

/// Most sessions remembered.
const MOST: usize = 100_000;
/// A proxy renews so many times in the life of a tracker.
const RENEWALS: u32 = 4;
/// And at least so often.
const RENEW_WITHIN: Duration = Duration::from_secs(60);

/// What is known of sessions.
pub(crate) struct Sessions(Mutex<Remembered<SessionId, Tracked>>);

impl Default for Sessions {
    fn default() -> Self {
        Self(Mutex::new(Remembered::new(MOST)))
    }
}

struct Tracked {
    owner: HostId,
    /// When its proxy last said that it runs, or that its recording waits there.
    renewed: Option<DateTime<Utc>>,
}

impl Sessions {
    /// Whether the session is this host's; one that nobody has is from now on.
    pub(crate) fn claim(&self, session: SessionId, host: HostId) -> bool {
        self.with(session, host, |_| ())
    }

    /// The session runs at `now`.
    pub(crate) fn renew(&self, session: SessionId, host: HostId, now: DateTime<Utc>) -> bool {
        self.with(session, host, |tracked| tracked.renewed = Some(now))
    }

    fn with(&self, session: SessionId, host: HostId, change: impl FnOnce(&mut Tracked)) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tracked) = known.get_mut(&session) {
            let own = tracked.owner == host;
            if own {
                change(tracked);
            }
            return own;
        }
        let mut tracked = Tracked { owner: host, renewed: None };
        change(&mut tracked);
        known.insert(session, tracked);
        true
    }

    /// Whether its proxy was heard of since `since`.
    pub(crate) fn is_live(&self, session: &SessionId, since: DateTime<Utc>) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(session)
            .and_then(|tracked| tracked.renewed)
            .is_some_and(|renewed| renewed > since)
    }
}

/// Since when proxies could be heard.
pub(crate) struct Awake(Mutex<(DateTime<Utc>, DateTime<Utc>)>);

impl Awake {
    pub(crate) fn new(now: DateTime<Utc>) -> Self {
        Self(Mutex::new((now, now)))
    }

    /// Called every `period`: when that was much longer ago, this process stood still, and so did the renewals.
    pub(crate) fn tick(&self, now: DateTime<Utc>, period: Duration) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let late = chrono::Duration::from_std(period * 2).unwrap_or_default();
        if now - known.1 > late {
            known.0 = now;
        }
        known.1 = now;
    }

    fn since(&self) -> DateTime<Utc> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl AuthService {
    /// A host says which sessions run on it, and whose recordings wait there. Answers within what time it has to come
    /// again. Sessions of other hosts are left out.
    pub fn renew_sessions(&self, caller: &Caller, sessions: &[SessionId]) -> Result<Duration> {
        let Some(host) = caller.host_id().filter(|_| caller.is_service()) else {
            return Err(AuthError::denied("access denied"));
        };
        if sessions.len() > limits::MAX_RENEWED {
            return Err(AuthError::bad_request(format!(
                "more than {} sessions in a renewal",
                limits::MAX_RENEWED
            )));
        }
        let now = self.now();
        for session in sessions {
            self.sessions.renew(*session, host, now);
        }
        Ok((self.settings.tracker_ttl / RENEWALS).min(RENEW_WITHIN))
    }

    /// Whether a session may still run, or its recording still come from the proxy.
    pub(crate) fn may_run(&self, session: &SessionId) -> bool {
        let life = chrono::Duration::from_std(self.settings.tracker_ttl).unwrap_or_default();
        let since = self.now() - life;
        self.awake.since() > since || self.sessions.is_live(session, since)
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
        assert_eq!(known.len(), MOST);
    }

    #[test]
    fn a_time_in_which_nobody_could_be_heard_does_not_count() {
        let at = |second: i64| DateTime::from_timestamp(second, 0).unwrap_or_default();
        let awake = Awake::new(at(0));
        for second in 1..10 {
            awake.tick(at(second), Duration::from_secs(1));
        }
        assert_eq!(awake.since(), at(0));
        awake.tick(at(60), Duration::from_secs(1));
        awake.tick(at(61), Duration::from_secs(1));
        assert_eq!(awake.since(), at(60));
    }

    #[test]
    fn only_its_own_proxy_keeps_a_session_alive() {
        let sessions = Sessions::default();
        let (one, other, sid) = (HostId::random(), HostId::random(), SessionId::random());
        let at = |second: i64| DateTime::from_timestamp(second, 0).unwrap_or_default();
        assert!(
            sessions.claim(sid, one) && !sessions.is_live(&sid, at(0)),
            "nobody said that it runs"
        );
        assert!(sessions.renew(sid, one, at(10)));
        assert!(!sessions.renew(sid, other, at(50)));
        assert!(sessions.is_live(&sid, at(9)) && !sessions.is_live(&sid, at(10)));
    }
}

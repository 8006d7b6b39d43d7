//! Lock-out after repeated failed logins: five failures in thirty minutes close the account for thirty.
//!
//! Pure: the record is stored beside the user and the clock is an argument. A lock-out outlives a
//! restart, and counts for names that do not exist as well, so it tells nothing about them.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

/// Failures that lock.
pub(crate) const FAILURES: usize = 5;
/// In how long a time they count, and how long the lock lasts.
pub(crate) fn window() -> Duration {
    Duration::minutes(30)
}

/// Failed logins of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempts {
    /// When the failures within the window happened, oldest first; at most [`FAILURES`].
    pub(crate) failures: Vec<DateTime<Utc>>,
    /// Locked until then.
    pub(crate) locked_until: Option<DateTime<Utc>>,
}

impl Attempts {
    /// Until when the name is locked, if it is.
    pub(crate) fn locked(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.locked_until.filter(|until| *until > now)
    }

    /// Notes one more failure. True when this one locks.
    pub(crate) fn fail(&mut self, now: DateTime<Utc>) -> bool {
        self.failures.retain(|at| now - *at < window());
        self.failures.push(now);
        if self.failures.len() < FAILURES {
            return false;
        }
        self.failures.clear();
        self.locked_until = Some(now + window());
        true
    }

    /// When the record can be forgotten.
    pub(crate) fn expires(&self) -> Option<DateTime<Utc>> {
        let last = self.failures.last().map(|at| *at + window());
        last.max(self.locked_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap() + Duration::minutes(minutes)
    }

    #[test]
    fn the_fifth_failure_locks_for_thirty_minutes() {
        let mut attempts = Attempts::default();
        for minute in 0..4 {
            assert!(!attempts.fail(at(minute)));
        }
        assert_eq!(attempts.locked(at(4)), None);
        assert!(attempts.fail(at(4)));
        assert_eq!(attempts.locked(at(5)), Some(at(34)));
        assert_eq!(attempts.locked(at(33)), Some(at(34)));
        assert_eq!(attempts.locked(at(34)), None);
    }

    #[test]
    fn old_failures_do_not_count() {
        let mut attempts = Attempts::default();
        for minute in [0, 1, 2, 3, 31, 32] {
            assert!(!attempts.fail(at(minute)), "minute {minute}");
        }
        assert_eq!(attempts.failures, [at(3), at(31), at(32)]);
        assert!(!attempts.fail(at(32)));
        assert!(attempts.fail(at(32)));
    }
}

//! How much output of a command without a terminal goes into its recording.

use chrono::{DateTime, Utc};

/// Once dry, a bucket gives this much at once or, to output that is smaller, all it wants: a flood is then recorded
/// as a few pieces with gaps between, and not as a sliver of each of its packets. What a program says after the flood
/// is small, and recorded.
const PIECE: u64 = 16 * 1024;

/// A bucket of bytes that fills up again with time.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    capacity: u64,
    per_second: u64,
    tokens: u64,
    dry: bool,
    since: Option<DateTime<Utc>>,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(capacity: u64, per_second: u64) -> Self {
        Self { capacity, per_second, tokens: capacity, dry: false, since: None }
    }

    /// How many of `want` bytes may go in now.
    pub fn take(&mut self, want: usize, now: DateTime<Utc>) -> usize {
        let since = *self.since.get_or_insert(now);
        let elapsed = (now - since).num_milliseconds();
        if let Ok(elapsed @ 1..) = u64::try_from(elapsed) {
            let fresh = elapsed.saturating_mul(self.per_second) / 1000;
            // Time that made no whole byte stays to be counted.
            if fresh > 0 {
                self.tokens = self.tokens.saturating_add(fresh).min(self.capacity);
                self.since = Some(now);
            }
        }
        let want_bytes = want as u64;
        if self.dry && self.tokens < want_bytes.min(PIECE).min(self.capacity) {
            return 0;
        }
        let taken = want_bytes.min(self.tokens);
        self.tokens -= taken;
        self.dry = taken < want_bytes;
        usize::try_from(taken).unwrap_or(want)
    }
}

impl Default for TokenBucket {
    /// 16 MiB, filled up again with 64 KiB in a second.
    fn default() -> Self {
        Self::new(16 * 1024 * 1024, 64 * 1024)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_flood_is_cut_and_a_trickle_is_not() {
        let start = DateTime::UNIX_EPOCH;
        let mut bucket = TokenBucket::new(1000, 100);
        assert_eq!(bucket.take(900, start), 900);
        assert_eq!(bucket.take(900, start), 100);
        assert_eq!(bucket.take(900, start), 0);
        // Dry: what fits goes in, what does not waits for a piece's worth.
        assert_eq!(bucket.take(900, start + TimeDelta::milliseconds(500)), 0);
        assert_eq!(bucket.take(50, start + TimeDelta::milliseconds(500)), 50);
        // A clock that goes back gives nothing and takes nothing.
        assert_eq!(bucket.take(10, start), 0);
        assert_eq!(bucket.take(9000, start + TimeDelta::days(9)), 1000);
        let mut slow = TokenBucket::new(0, 1);
        slow.capacity = 10;
        let taken: usize =
            (0..=5000).map(|ms| slow.take(1, start + TimeDelta::milliseconds(ms))).sum();
        assert_eq!(taken, 5);
    }
}

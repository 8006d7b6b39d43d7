//! Waiting longer after each failure.

use std::time::Duration;

use rand::RngExt as _;

/// Doubles from `first` to `cap`, each wait shortened by up to a seventh, so that many senders do not come at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, failures: 0 }
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let whole = self.first.saturating_mul(1_u32 << self.failures.min(16)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(1.0 - rand::rng().random::<f64>() / 7.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let first = backoff.next();
        assert!(
            first <= Duration::from_millis(100) && first >= Duration::from_millis(85),
            "{first:?}"
        );
        let mut last = first;
        for _ in 0..100 {
            last = backoff.next();
        }
        assert!(last <= Duration::from_secs(5) && last >= Duration::from_millis(4280), "{last:?}");
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }
}

//! How often one address may use the endpoints that need no certificate.
//!
//! A token bucket per address (IPv6 by /64), in a table of fixed size: when it is full, buckets that
//! have filled up again are dropped first, and then new addresses share one bucket. Nothing grows.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Most addresses remembered.
const ADDRESSES: usize = 16_384;

/// Rate limits per address.
pub(crate) struct Limiter {
    burst: f64,
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limiter {
    /// `burst` at once, then `per_minute`.
    pub(crate) fn new(burst: u32, per_minute: u32) -> Self {
        Self {
            burst: f64::from(burst),
            per_second: f64::from(per_minute) / 60.0,
            buckets: Mutex::new(HashMap::new()),
        }
    }

    /// Takes one token; otherwise how long until there is one.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut key = group(address);
        if buckets.len() >= ADDRESSES && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| self.level(*bucket, now) < self.burst);
            if buckets.len() >= ADDRESSES {
                key = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: self.burst, at: now });
        bucket.tokens = self.level(*bucket, now);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let missing = 1.0 - bucket.tokens;
        Err(Duration::from_secs_f64(missing / self.per_second.max(0.001)))
    }

    fn level(&self, bucket: Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.tokens + passed * self.per_second).min(self.burst)
    }
}

/// IPv4 in IPv6 counts as IPv4; one IPv6 customer has a /64.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_rate() {
        let limiter = Limiter::new(3, 60);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let start = Instant::now();
        for _ in 0..3 {
            assert!(limiter.take(one, start).is_ok());
        }
        assert!(limiter.take(one, start).is_err());
        assert!(limiter.take("::ffff:192.0.2.1".parse().unwrap(), start).is_err());
        assert!(limiter.take("192.0.2.2".parse().unwrap(), start).is_ok());
        assert!(limiter.take(one, start + Duration::from_secs(1)).is_ok());
        assert!(limiter.take(one, start + Duration::from_secs(1)).is_err());
    }

    #[test]
    fn the_table_does_not_grow() {
        let limiter = Limiter::new(2, 60);
        let now = Instant::now();
        for n in 0..(ADDRESSES as u32 + 5000) {
            let _ = limiter.take(IpAddr::V4(n.into()), now);
        }
        assert!(limiter.buckets.lock().unwrap().len() <= ADDRESSES + 1);
    }
}

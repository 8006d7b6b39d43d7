//! How often one address may ask.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses remembered; beyond it the ones with a full bucket are forgotten, then all.
const MAX_ADDRESSES: usize = 10_000;

/// A token bucket per address. IPv6 addresses count by their /64.
#[derive(Debug)]
pub struct RateLimit {
    burst: f64,
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl RateLimit {
    /// `burst` at once, then `count` in every `period`.
    pub fn new(count: u32, period: Duration, burst: u32) -> Self {
        Self {
            burst: f64::from(burst),
            per_second: f64::from(count) / period.as_secs_f64(),
            buckets: Mutex::default(),
        }
    }

    /// Whether `address` may go on.
    pub fn admit(&self, address: IpAddr, now: Instant) -> bool {
        let key = network_of(address);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&key) {
            buckets.retain(|_, (tokens, since)| {
                *tokens + elapsed(*since, now) * self.per_second < self.burst
            });
            if buckets.len() >= MAX_ADDRESSES {
                buckets.clear();
            }
        }
        let (tokens, since) = buckets.entry(key).or_insert((self.burst, now));
        *tokens = (*tokens + elapsed(*since, now) * self.per_second).min(self.burst);
        *since = now;
        let admitted = *tokens >= 1.0;
        if admitted {
            *tokens -= 1.0;
        }
        admitted
    }
}

fn elapsed(since: Instant, now: Instant) -> f64 {
    now.saturating_duration_since(since).as_secs_f64()
}

fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let limit = RateLimit::new(20, Duration::from_secs(60), 40);
        let (start, peer) = (Instant::now(), "192.0.2.1".parse().unwrap());
        assert_eq!((0..100).filter(|_| limit.admit(peer, start)).count(), 40);
        assert_eq!(
            (0..100).filter(|_| limit.admit(peer, start + Duration::from_secs(30))).count(),
            10
        );
        assert!(limit.admit("192.0.2.2".parse().unwrap(), start), "others are not affected");
    }

    #[test]
    fn one_ipv6_network_is_one_peer() {
        let limit = RateLimit::new(1, Duration::from_secs(60), 1);
        let now = Instant::now();
        assert!(limit.admit("2001:db8::1".parse().unwrap(), now));
        assert!(!limit.admit("2001:db8::2".parse().unwrap(), now));
        assert!(limit.admit("2001:db8:0:1::2".parse().unwrap(), now));
    }

    #[test]
    fn memory_is_bounded() {
        let limit = RateLimit::new(1, Duration::from_secs(60), 1);
        let now = Instant::now();
        for n in 0..30_000_u32 {
            limit.admit(IpAddr::from(n.to_be_bytes()), now);
        }
        assert!(limit.buckets.lock().unwrap().len() <= MAX_ADDRESSES);
    }
}

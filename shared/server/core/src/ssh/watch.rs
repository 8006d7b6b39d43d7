//! When a running access has to end.

use std::time::Duration;

use chrono::Utc;
use shared_api::ClusterState;
use shared_pki::Identity;
use shared_types::GoDuration;
use tokio::time::Instant;

use super::options::{ends_with_certificate, idle_timeout};
use crate::Authority;

/// A clock that was set is noticed after this.
const LOOK: Duration = Duration::from_secs(30);
/// Traffic is looked at so many times within an idle timeout, and at least so often.
const IDLE_LOOKS: u32 = 10;
const IDLE_LOOK: Duration = Duration::from_secs(10);

/// Bytes that were delivered so far, in both directions.
pub type Traffic<'a> = &'a (dyn Fn() -> u64 + Send + Sync);

/// When traffic was last seen to grow.
struct Idle {
    seen: u64,
    since: Instant,
}

impl Idle {
    /// How long to wait for the next look; nothing where the limit is reached. Never before the limit, and at most
    /// one look after it.
    fn left(&mut self, traffic: u64, limit: Duration, now: Instant) -> Option<Duration> {
        if traffic != self.seen {
            (self.seen, self.since) = (traffic, now);
        }
        let left = limit.checked_sub(now.saturating_duration_since(self.since))?;
        let look = (limit / IDLE_LOOKS).min(IDLE_LOOK);
        (!left.is_zero()).then(|| left.min(look).max(Duration::from_millis(1)))
    }

    /// Pends until nothing has moved for `limit`. May be dropped and called again.
    async fn reached(&mut self, traffic: Traffic<'_>, limit: Duration) {
        while let Some(wait) = self.left(traffic(), limit, Instant::now()) {
            tokio::time::sleep(wait).await;
        }
    }
}

/// A running access.
pub struct Access<'a> {
    /// Whose state decides.
    pub authority: &'a dyn Authority,
    /// Who has it, by the certificate that was shown.
    pub identity: &'a Identity,
    /// Why it would not be granted again by a newer state, as the user may read it.
    pub revoked: &'a (dyn Fn(&ClusterState) -> Option<String> + Send + Sync),
    /// What tells whether it is idle; without it, no idle timeout applies.
    pub traffic: Option<Traffic<'a>>,
}

/// Why an access ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It would not be granted again; why, as the user may read it.
    Revoked(String),
    /// The certificate has run out.
    Expired,
    /// No traffic for too long; the limit by its name.
    Idle(String),
}

impl Ending {
    /// As the user may read it.
    pub fn into_text(self) -> String {
        match self {
            Self::Revoked(text) | Self::Idle(text) => text,
            Self::Expired => "client certificate expired".to_owned(),
        }
    }
}

/// Pends until an access ends, and says why as the user may read it.
pub async fn ended(access: Access<'_>) -> String {
    ending(access).await.into_text()
}

/// Pends until an access ends: a lock, an account or role that is gone, a certificate that has run out where that ends
/// sessions, or no traffic for too long. Says why.
pub async fn ending(access: Access<'_>) -> Ending {
    let Access { authority, identity, revoked, traffic } = access;
    let mut states = authority.watch();
    let mut idle = Idle { seen: traffic.map_or(0, |traffic| traffic()), since: Instant::now() };
    loop {
        let state = states.borrow_and_update().clone();
        if let Some(why) = revoked(&state) {
            return Ending::Revoked(why);
        }
        let expires = ends_with_certificate(&state, identity).then_some(identity.valid_until);
        let left = match expires {
            Some(end) => match (end - Utc::now()).to_std() {
                Ok(left) if !left.is_zero() => left,
                _ => return Ending::Expired,
            },
            None => LOOK,
        };
        let limit = idle_timeout(&state, identity);
        let idled = async {
            match (traffic, limit) {
                (Some(traffic), Some(limit)) => {
                    idle.reached(traffic, limit).await;
                    limit
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = states.changed() => {
                if changed.is_err() {
                    // The service is stopping, and ends sessions itself.
                    std::future::pending::<()>().await;
                }
            }
            () = tokio::time::sleep(left.min(LOOK)) => {}
            limit = idled => return Ending::Idle(idle_text(&state, limit)),
        }
    }
}

/// What the user of an idle connection reads: the limit by its name, behind the cluster's own words.
pub fn idle_text(state: &ClusterState, limit: Duration) -> String {
    let named = format!(
        "client_idle_timeout: nothing was sent or received for {}",
        GoDuration::from(limit)
    );
    let message: String =
        state.networking.spec.idle_timeout_message.chars().filter(|c| !c.is_control()).collect();
    match message.trim() {
        "" => named,
        message => format!("{message} ({named})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_puts_the_end_off() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let limit = Duration::from_secs(60);
        let mut idle = Idle { seen: 0, since: start };
        assert_eq!(idle.left(0, limit, at(0)), Some(Duration::from_secs(6)));
        assert_eq!(idle.left(0, limit, at(57)), Some(Duration::from_secs(3)));
        assert_eq!(idle.left(1, limit, at(59)), Some(Duration::from_secs(6)));
        assert!(idle.left(1, limit, at(118)).is_some());
        assert_eq!(idle.left(1, limit, at(119)), None);
        // A limit that was shortened counts from the same moment.
        assert_eq!(idle.left(1, Duration::from_secs(10), at(100)), None);
        assert_eq!(
            idle.left(2, Duration::from_secs(3600), at(200)),
            Some(IDLE_LOOK),
            "a long limit is looked at as often as others"
        );
    }
}

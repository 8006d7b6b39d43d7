//! What happens in a round, all of it from the round's seed.

use std::fmt;
use std::time::Duration;

use super::random::Random;
use crate::forwarder::Cut;

/// How recordings get to the auth service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// By way of the proxy's disk.
    Proxy,
    /// As they are made.
    ProxySync,
}

impl Mode {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::ProxySync => "proxy-sync",
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and a start.
    AuthKilled,
    /// SIGSTOP, and SIGCONT.
    AuthFrozen,
    /// `kill -9`, and a start.
    ProxyKilled,
    /// Both at once; auth starts first.
    BothKilled,
    /// The store of recordings cannot be reached.
    StoreAway(Cut),
    /// The disk of the proxy's recordings is full.
    DiskFull,
    /// The proxy cannot reach auth.
    NetworkCut(Cut),
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AuthKilled,
        Self::AuthFrozen,
        Self::ProxyKilled,
        Self::BothKilled,
        Self::StoreAway(Cut::Silent),
        Self::StoreAway(Cut::Refused),
        Self::DiskFull,
        Self::NetworkCut(Cut::Silent),
        Self::NetworkCut(Cut::Refused),
    ];

    /// Whether the proxy's sessions end with it.
    pub fn kills_the_proxy(self) -> bool {
        matches!(self, Self::ProxyKilled | Self::BothKilled)
    }

    /// Whether the proxy cannot reach auth meanwhile.
    pub fn parts_proxy_and_auth(self) -> bool {
        matches!(self, Self::AuthKilled | Self::AuthFrozen | Self::NetworkCut(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = |cut: &Cut| if *cut == Cut::Silent { "silently" } else { "with an error" };
        match self {
            Self::AuthKilled => f.write_str("auth killed"),
            Self::AuthFrozen => f.write_str("auth frozen"),
            Self::ProxyKilled => f.write_str("proxy killed"),
            Self::BothKilled => f.write_str("both killed"),
            Self::StoreAway(cut) => write!(f, "store away {}", how(cut)),
            Self::DiskFull => f.write_str("disk full"),
            Self::NetworkCut(cut) => write!(f, "network cut {}", how(cut)),
        }
    }
}

/// A round.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The recording mode.
    pub mode: Mode,
    /// What goes wrong.
    pub fault: Fault,
    /// When, after every session shows something.
    pub after: Duration,
    /// For how long.
    pub hold: Duration,
    /// Whether the sessions end while it lasts.
    pub end_meanwhile: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mode = if random.below(2) == 0 { Mode::Proxy } else { Mode::ProxySync };
        let which = usize::try_from(random.below(Fault::ALL.len() as u64)).unwrap_or_default();
        Self {
            mode,
            fault: Fault::ALL.get(which).copied().unwrap_or(Fault::AuthKilled),
            after: random.between(0, 2500),
            hold: random.between(200, 6000),
            end_meanwhile: random.below(2) == 0,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, fault, after, hold, .. } = self;
        write!(f, "{}, {fault} after {:.1} s", mode.name(), after.as_secs_f64())?;
        write!(f, " for {:.1} s", hold.as_secs_f64())?;
        f.write_str(if self.end_meanwhile { ", sessions end meanwhile" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_and_seeds_in_a_row_are_all_plans() {
        let text = |seed| Plan::new(seed).to_string();
        assert_eq!(text(7), text(7));
        for mode in [Mode::Proxy, Mode::ProxySync] {
            for fault in Fault::ALL {
                let found = (0..300).map(Plan::new).any(|p| p.mode == mode && p.fault == fault);
                assert!(found, "{} {fault}", mode.name());
            }
        }
    }
}

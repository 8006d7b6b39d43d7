//! Strangers at every listener: auditors, those who take their time, those who talk nonsense, and users who ask for what
//! they may not, again and again. Each costs little, for a bounded time, and others are served meanwhile.

mod channels;
mod slow;
mod testssl;

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shared_testkit::{ClusterOptions, Guard, free_port, memory, until};

use crate::support::Stage;

/// What a daemon may hold more than before once all is over, in KiB: caches that were filled, pieces the allocator keeps.
const MORE_KIB: u64 = 48 * 1024;
/// The same after more connections at once than ever before: the allocator keeps their memory for the next ones.
const KEPT_KIB: u64 = 160 * 1024;
/// Connections of others that come and go: uploads of events, the state that is followed.
const MORE_DESCRIPTORS: usize = 12;

/// Whether there is time for more than every change needs.
fn long() -> bool {
    std::env::var_os("GATEHOUSE_LONG").is_some()
}

/// As many descriptors as we may have: each connection of a test is one.
fn allow_descriptors() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

/// A stage whose daemon also answers on its diagnostics port; and that port.
fn diagnosed(name: &str) -> Result<(Stage, u16)> {
    let diag = free_port()?;
    let options = ClusterOptions {
        global_extra: format!("  diag_addr: 127.0.0.1:{diag}\n"),
        ..ClusterOptions::default()
    };
    Ok((Stage::with(name, &options, "")?, diag))
}

/// What a daemon holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    kib: u64,
    descriptors: usize,
}

impl Held {
    fn by(daemon: &Guard) -> Result<Self> {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", daemon.id()))?.count();
        let kib = memory::resident(daemon.id()).unwrap_or_default();
        ensure!(kib > 0, "the daemon's memory cannot be read");
        Ok(Self { kib, descriptors })
    }

    /// Waits until the daemon is back near this; what it holds then.
    fn comes_back(self, daemon: &Guard, more_kib: u64) -> Result<Self> {
        let back = until("descriptors and memory to come back", 20, || {
            let now = Self::by(daemon).ok()?;
            let near = now.descriptors <= self.descriptors + MORE_DESCRIPTORS
                && now.kib <= self.kib + more_kib;
            near.then_some(())
        });
        let now = Self::by(daemon)?;
        ensure!(back.is_ok(), "before: {self:?}, after: {now:?}");
        Ok(now)
    }
}

/// A moment for what was begun to be in full swing.
const SWING: Duration = Duration::from_millis(500);

/// The daemon runs, and nothing in it has given up.
fn sound(stage: &mut Stage) -> Result<()> {
    crate::limits::still_serves(stage)?;
    let log = stage.cluster.auth.log();
    ensure!(!log.contains("panicked"), "a task of the daemon gave up:\n{log}");
    Ok(())
}

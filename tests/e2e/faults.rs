//! Faults during 20 live sessions, by tsh and by ssh, with a terminal and without, some strict, one at full speed:
//! cells of the table in `docs/recordings.md`, and a few random moments. What is checked after each is in
//! `shared_testkit::chaos`: nothing shown is lost beyond what the mode allows, every session has one `session.start`,
//! `session.end` and `session.upload` and a named end, every recording verifies as what it says it is.

use std::time::Duration;

use anyhow::{Result, ensure};
use shared_testkit::chaos::{self, Fault, Ground, Mode, Options, Plan, Tally};
use shared_testkit::forwarder::Cut;

const SESSIONS: usize = 20;
/// Of them, those of a user whose sessions are recorded or do not run.
const STRICT: usize = 4;
/// All of them as if nothing had been.
const WHOLE: Tally = Tally { whole: SESSIONS, gaps: 0, ended: 0, cut: 0 };
/// All of them ended for the sake of their recordings, and told so.
const ENDED: Tally = Tally { whole: 0, gaps: 0, ended: SESSIONS, cut: 0 };
/// All of them cut off with the proxy.
const CUT: Tally = Tally { whole: 0, gaps: 0, ended: 0, cut: SESSIONS };

/// A fault half a second after every session shows something.
fn plan(mode: Mode, fault: Fault, hold_ms: u64, end_meanwhile: bool) -> Plan {
    let hold = Duration::from_millis(hold_ms);
    Plan { mode, fault, after: Duration::from_millis(500), hold, end_meanwhile }
}

/// Runs plans one after the other, and says how the sessions ended; nothing where a fault cannot be had.
fn rounds(mode: Mode, plans: &[(Fault, u64, bool)]) -> Result<Vec<Option<Tally>>> {
    let mut ground = Ground::new(mode)?;
    let tallies = plans.iter().map(|(fault, hold_ms, end_meanwhile)| {
        ground.round(&plan(mode, *fault, *hold_ms, *end_meanwhile), SESSIONS)
    });
    tallies.collect()
}

fn all(tallies: &[Option<Tally>], wanted: &Tally) -> Result<()> {
    ensure!(tallies.iter().flatten().all(|tally| tally == wanted), "{tallies:?}");
    Ok(())
}

#[test]
fn async_network_cut_sessions_go_on() -> Result<()> {
    let _alone = crate::support::alone();
    let plans = [
        (Fault::NetworkCut(Cut::Silent), 5000, false),
        (Fault::NetworkCut(Cut::Refused), 2000, true),
    ];
    all(&rounds(Mode::Proxy, &plans)?, &WHOLE)
}

#[test]
fn sync_network_cut_sessions_stop_and_go_on() -> Result<()> {
    let _alone = crate::support::alone();
    let plans = [
        (Fault::NetworkCut(Cut::Silent), 1000, false),
        (Fault::NetworkCut(Cut::Refused), 1000, false),
    ];
    all(&rounds(Mode::ProxySync, &plans)?, &WHOLE)
}

#[test]
fn sync_network_cut_for_long_ends_sessions_with_the_reason() -> Result<()> {
    let _alone = crate::support::alone();
    let plans = [
        (Fault::NetworkCut(Cut::Silent), 7000, false),
        (Fault::NetworkCut(Cut::Refused), 7000, false),
    ];
    all(&rounds(Mode::ProxySync, &plans)?, &ENDED)
}

#[test]
fn async_store_away_sessions_go_on_and_recordings_arrive() -> Result<()> {
    let _alone = crate::support::alone();
    let plans =
        [(Fault::StoreAway(Cut::Silent), 4000, true), (Fault::StoreAway(Cut::Refused), 4000, true)];
    all(&rounds(Mode::Proxy, &plans)?, &WHOLE)
}

#[test]
fn sync_store_away_sessions_go_on_and_recordings_arrive() -> Result<()> {
    let _alone = crate::support::alone();
    let plans =
        [(Fault::StoreAway(Cut::Silent), 4000, true), (Fault::StoreAway(Cut::Refused), 4000, true)];
    all(&rounds(Mode::ProxySync, &plans)?, &WHOLE)
}

#[test]
fn sync_both_killed_and_nothing_acknowledged_is_lost() -> Result<()> {
    let _alone = crate::support::alone();
    all(&rounds(Mode::ProxySync, &[(Fault::BothKilled, 500, false)])?, &CUT)
}

#[test]
fn sync_proxy_disk_full_does_not_concern_anybody() -> Result<()> {
    let _alone = crate::support::alone();
    all(&rounds(Mode::ProxySync, &[(Fault::DiskFull, 2000, false)])?, &WHOLE)
}

#[test]
fn async_disk_full_for_a_moment_sessions_wait_for_room() -> Result<()> {
    let _alone = crate::support::alone();
    let plans = [(Fault::DiskFull, 1000, false), (Fault::DiskFull, 1500, true)];
    all(&rounds(Mode::Proxy, &plans)?, &WHOLE)
}

#[test]
fn async_disk_full_ends_the_strict_and_leaves_named_gaps_in_others() -> Result<()> {
    let _alone = crate::support::alone();
    let tallies = rounds(Mode::Proxy, &[(Fault::DiskFull, 7000, false)])?;
    for tally in tallies.iter().flatten() {
        let gaps = SESSIONS - STRICT;
        ensure!(*tally == Tally { whole: 0, gaps, ended: STRICT, cut: 0 }, "{tally:?}");
    }
    Ok(())
}

/// Random moments, from a seed that does not change.
fn chaos(mode: Mode) -> Result<()> {
    let limit = Some(Duration::from_secs(30));
    let options = Options { seed: 100, rounds: 3, sessions: SESSIONS, mode: Some(mode), limit };
    let report = chaos::run(&options, &mut |line| eprintln!("{line}"))?;
    ensure!(report.wrong.is_empty(), "{:#?}", report.wrong);
    Ok(())
}

#[test]
fn async_chaos() -> Result<()> {
    let _alone = crate::support::alone();
    chaos(Mode::Proxy)
}

#[test]
fn sync_chaos() -> Result<()> {
    let _alone = crate::support::alone();
    chaos(Mode::ProxySync)
}

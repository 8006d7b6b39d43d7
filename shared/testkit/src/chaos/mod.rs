//! Faults at random moments of live sessions, and what must be true whatever they were.
//!
//! All of a round is in its seed, so a round that went wrong is run again by its seed. Auth and proxy are processes of
//! their own; the store and the way between the two go through networks of the test's own, the proxy's recordings are
//! on a small disk.

mod check;
mod plan;
mod random;
mod script;
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use check::Ended;
pub use check::Tally;
pub use plan::{Fault, Mode, Plan};
pub use script::{Reading, Script};
use world::World;

/// Rounds in one pair of processes.
const ROUNDS_OF_A_GROUND: u64 = 10;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed of the first round; the next round has the next seed.
    pub seed: u64,
    /// How many rounds.
    pub rounds: u64,
    /// Sessions in each.
    pub sessions: usize,
    /// Only rounds in this mode.
    pub mode: Option<Mode>,
    /// No round begins later than this.
    pub limit: Option<Duration>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Rounds that ran.
    pub rounds: u64,
    /// Seeds of rounds in which something did not hold, and what.
    pub wrong: Vec<(u64, String)>,
}

/// Runs the rounds, and tells of each.
pub fn run(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Report> {
    let begun = Instant::now();
    let mut grounds: BTreeMap<Mode, Ground> = BTreeMap::new();
    let mut report = Report::default();
    let in_time = || options.limit.is_none_or(|limit| begun.elapsed() < limit);
    for seed in options.seed.. {
        if report.rounds == options.rounds || !in_time() {
            break;
        }
        let plan = Plan::new(seed);
        if options.mode.is_some_and(|mode| mode != plan.mode) {
            continue;
        }
        let used = grounds.remove(&plan.mode).filter(|used| used.rounds < ROUNDS_OF_A_GROUND);
        let mut ground = used.map_or_else(|| Ground::new(plan.mode), Ok)?;
        let started = Instant::now();
        let result = ground.round(&plan, options.sessions);
        let took = started.elapsed().as_secs_f64();
        report.rounds += 1;
        match result {
            Ok(None) => tell(&format!("seed {seed}: {plan}: skipped, it cannot be had here")),
            Ok(Some(tally)) => {
                tell(&format!("seed {seed}: {plan}: {tally} ({took:.0} s)"));
                grounds.insert(plan.mode, ground);
            }
            Err(error) => {
                tell(&format!("seed {seed}: {plan}: WRONG ({took:.0} s)\n{error:#}"));
                report.wrong.push((seed, format!("{plan}: {error:#}")));
            }
        }
    }
    Ok(report)
}

/// Where rounds happen, one after the other: auth, proxy and store.
pub struct Ground {
    world: World,
    rounds: u64,
}

impl Ground {
    /// Starts it.
    pub fn new(mode: Mode) -> Result<Self> {
        let world = World::new(mode).context("start auth, proxy and store")?;
        Ok(Self { world, rounds: 0 })
    }

    /// Runs a round in the mode of this place, and checks all that must be true. `None` where the fault cannot be had:
    /// no store is installed, or a disk cannot be mounted. Of one that goes wrong the folder is kept.
    pub fn round(&mut self, plan: &Plan, sessions: usize) -> Result<Option<Tally>> {
        if !self.world.has(plan.fault) {
            return Ok(None);
        }
        self.rounds += 1;
        let result = self.play(plan, sessions);
        if result.is_err() {
            self.world.stage.scratch.keep();
        }
        let folder = self.world.stage.scratch.path().display().to_string();
        result.map(Some).with_context(|| format!("{plan}, kept in {folder}"))
    }

    fn play(&mut self, plan: &Plan, sessions: usize) -> Result<Tally> {
        let world = &mut self.world;
        let end = world.end_file(self.rounds);
        let live = world.sessions(self.rounds, sessions)?;
        std::thread::sleep(plan.after);
        let begun = Instant::now();
        world.begin(plan.fault)?;
        let let_end = || std::fs::write(&end, "").context("let the sessions end");
        if plan.end_meanwhile {
            std::thread::sleep(plan.hold / 2);
            let_end()?;
        }
        std::thread::sleep(plan.hold.saturating_sub(begun.elapsed()));
        world.heal(plan.fault)?;
        let_end()?;
        let mut ended = Vec::new();
        for session in live {
            let world::Live { script, terminal, strict, client } = session;
            let (code, capture) = terminal.finish(60).context(client)?;
            ended.push(Ended { script, client, strict, code, capture });
        }
        world.check(plan, &ended)
    }
}

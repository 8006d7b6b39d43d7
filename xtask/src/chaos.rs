//! `cargo xtask chaos`: faults at random moments of live sessions, round after round.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use shared_testkit::chaos::{self, Mode, Options};

use crate::{packages, run};

/// Flags of `cargo xtask chaos`.
#[derive(clap::Args)]
pub(crate) struct ChaosArgs {
    /// Seed of the first round; each round has the next one. From the clock when left out
    #[arg(long)]
    seed: Option<u64>,
    /// How many rounds
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// Live sessions in each
    #[arg(long, default_value_t = 20)]
    sessions: usize,
    /// Only rounds in this recording mode
    #[arg(long, value_parser = ["proxy", "proxy-sync"])]
    mode: Option<String>,
    /// Begin no round after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// Take the programs beside this one as they are
    #[arg(long)]
    no_build: bool,
}

/// Runs the rounds; fails, with the seeds, where something did not hold.
pub(crate) fn run(args: &ChaosArgs) -> Result<()> {
    if !args.no_build {
        packages::install(packages::TEST)?;
        packages::stores()?;
        run::build(&["--bins"], false)?;
    }
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let seed = args.seed.unwrap_or_else(now);
    println!("{} rounds of {} sessions from seed {seed}", args.rounds, args.sessions);
    let options = Options {
        seed,
        rounds: args.rounds,
        sessions: args.sessions,
        mode: args.mode.as_deref().map(|name| match name {
            "proxy" => Mode::Proxy,
            _ => Mode::ProxySync,
        }),
        limit: args.minutes.map(|minutes| Duration::from_secs(minutes * 60)),
    };
    let report = chaos::run(&options, &mut |line| println!("{line}"))?;
    println!("{} rounds, {} wrong", report.rounds, report.wrong.len());
    for (seed, what) in &report.wrong {
        println!(
            "again with: cargo xtask chaos --rounds 1 --sessions {} --seed {seed}",
            args.sessions
        );
        println!("  {}", what.lines().next().unwrap_or_default());
    }
    if !report.wrong.is_empty() {
        bail!("something did not hold in {} rounds", report.wrong.len());
    }
    Ok(())
}

//! `cargo xtask stream`: many gigabytes through the proxy in each recording mode, and the memory of auth and proxy.

use anyhow::{Context, Result, bail};
use shared_testkit::stream::{Load, measure};

use crate::{packages, run};

const LOADS: [(&str, Load); 3] =
    [("command", Load::Command), ("terminal", Load::Terminal), ("noise", Load::Noise)];

/// Flags of `cargo xtask stream`.
#[derive(clap::Args)]
pub(crate) struct StreamArgs {
    /// GiB in each stream
    #[arg(long, default_value_t = 10)]
    gib: u64,
    /// Only this recording mode
    #[arg(long, value_parser = ["off", "proxy", "proxy-sync"])]
    mode: Option<String>,
    /// Only this load
    #[arg(long, value_parser = ["command", "terminal", "noise"])]
    load: Option<String>,
    /// Take the programs beside this one as they are
    #[arg(long)]
    no_build: bool,
}

/// Runs the streams; fails where one costs more than it may.
pub(crate) fn run(args: &StreamArgs) -> Result<()> {
    if !args.no_build {
        packages::install(packages::BENCH)?;
        run::build(&["--bins"], false)?;
    }
    let mut over = 0;
    let wanted =
        |only: &Option<String>, name: &str| only.as_deref().is_none_or(|only| only == name);
    for mode in ["off", "proxy", "proxy-sync"].into_iter().filter(|name| wanted(&args.mode, name)) {
        for (name, load) in LOADS.into_iter().filter(|(name, _)| wanted(&args.load, name)) {
            let cost =
                measure(mode, load, args.gib << 30).with_context(|| format!("{mode}, {name}"))?;
            println!("{cost}");
            over += usize::from(!cost.is_within_limit());
        }
    }
    if over > 0 {
        bail!("{over} streams cost more memory than they may");
    }
    Ok(())
}

//! `cargo xtask bench`: the proxy beside OpenSSH, the recording beside none, the decoder beside zcat; in one run,
//! interleaved, medians. Prints ratios; asserts nothing.

use anyhow::Result;
use clap::Parser;
use e2e::bench::{Bench, Load, agents, db, recording, tunnel};
use shared_testkit::ClusterOptions;

/// Measure the hot paths
#[derive(Parser)]
struct Args {
    /// Rounds of each measurement
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// MiB per bulk transfer
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Idle sessions for the memory measurement
    #[arg(long, default_value_t = 500)]
    sessions: usize,
    /// Agents for their measurement, which only runs when it is named
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// Only these parts: agents, db, size, connect, keystroke, bulk, terminal, full, transfer, memory, decode, sync, tunnel
    parts: Vec<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let wanted = |part: &str| args.parts.is_empty() || args.parts.iter().any(|have| have == part);
    if args.parts.iter().any(|part| part == "agents") {
        agents::run_all(args.agents)?;
        if args.parts.len() == 1 {
            return Ok(());
        }
    }
    if wanted("decode") {
        recording::decode(args.mib, args.rounds)?;
    }
    if wanted("sync") {
        recording::modes(args.mib / RECORDED_SHARE, args.rounds)?;
    }
    if wanted("tunnel") {
        tunnel::connect(args.rounds * 4)?;
    }
    if wanted("db") {
        db::run_all(args.mib, args.rounds)?;
        if args.parts == ["db"] {
            return Ok(());
        }
    }
    let bench = Bench::start(&ClusterOptions::default())?;
    if wanted("size") {
        bench.sizes()?;
    }
    if wanted("connect") {
        bench.connect(args.rounds * 4)?;
    }
    if wanted("keystroke") {
        bench.keystroke(args.rounds)?;
    }
    if wanted("bulk") {
        bench.bulk("command output, default recording", &Load::command(args.mib), args.rounds)?;
    }
    if wanted("terminal") {
        let load = Load::terminal(args.mib / RECORDED_SHARE);
        bench.bulk("terminal output at full speed, recorded in full", &load, args.rounds)?;
    }
    if wanted("full") {
        let proxy_extra = "  exec_recording:\n    full: yes\n".to_owned();
        let full = Bench::start(&ClusterOptions { proxy_extra, ..ClusterOptions::default() })?;
        let load = Load::command(args.mib / RECORDED_SHARE);
        full.bulk("command output, recorded in full", &load, args.rounds)?;
    }
    if wanted("transfer") {
        bench.transfers(args.mib, args.rounds)?;
    }
    if wanted("memory") {
        bench.memory(args.sessions)?;
    }
    Ok(())
}

/// Where every byte is recorded, so much less is sent.
const RECORDED_SHARE: u64 = 4;

//! A gigabyte through the proxy in each recording mode: memory of auth and proxy stays bounded. Ten by hand:
//! `cargo xtask stream`.

use anyhow::{Result, ensure};
use shared_testkit::stream::{Load, measure};

const BYTES: u64 = 1 << 30;

fn streams(mode: &str, loads: &[Load]) -> Result<()> {
    for load in loads {
        let cost = measure(mode, *load, BYTES)?;
        eprintln!("{cost}");
        ensure!(cost.is_within_limit(), "{cost}");
    }
    Ok(())
}

#[test]
fn off_costs_little() -> Result<()> {
    let _alone = crate::support::alone();
    streams("off", &[Load::Command])
}

#[test]
fn async_command_and_terminal_cost_little() -> Result<()> {
    let _alone = crate::support::alone();
    streams("proxy", &[Load::Command, Load::Terminal])
}

#[test]
fn async_noise_recorded_in_full_costs_little() -> Result<()> {
    let _alone = crate::support::alone();
    streams("proxy", &[Load::Noise])
}

#[test]
fn sync_command_and_terminal_cost_little() -> Result<()> {
    let _alone = crate::support::alone();
    streams("proxy-sync", &[Load::Command, Load::Terminal])
}

#[test]
fn sync_noise_recorded_in_full_costs_little() -> Result<()> {
    let _alone = crate::support::alone();
    streams("proxy-sync", &[Load::Noise])
}

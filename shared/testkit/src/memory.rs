//! A process's memory, as the kernel counts it (proc(5), `status` and `clear_refs`).

use anyhow::{Context, Result};

/// Resident now, in KiB.
pub fn resident(id: u32) -> Result<u64> {
    status(id, "VmRSS:")
}

/// The most that was resident since the start or [`reset_peak`], in KiB.
pub fn peak(id: u32) -> Result<u64> {
    status(id, "VmHWM:")
}

/// Counts the peak from now on.
pub fn reset_peak(id: u32) -> Result<()> {
    std::fs::write(format!("/proc/{id}/clear_refs"), "5").context("reset the peak of a process")
}

fn status(id: u32, key: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find(|line| line.starts_with(key)).context("memory of a process")?;
    Ok(line.split_whitespace().nth(1).context("memory of a process")?.parse()?)
}

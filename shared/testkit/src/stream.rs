//! Streams of many gigabytes through the proxy, and what they cost auth and proxy in memory.

use std::fmt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, ClusterOptions};
use crate::memory;
use crate::process::run;
use crate::stage::Stage;
use crate::wait::until;

/// What a stream may cost above what is resident in an idle process.
pub const LIMIT_KIB: u64 = 64 * 1024;
/// The noise that is sent again and again. Larger than what any compressor looks back on.
const NOISE_MIB: u64 = 4;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Output of a command, of which the default recording keeps the beginning.
    Command,
    /// Text through a terminal, all of it recorded.
    Terminal,
    /// Noise from a command, all of it recorded.
    Noise,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command => "command",
            Self::Terminal => "terminal",
            Self::Noise => "noise, recorded in full",
        })
    }
}

/// What a stream cost.
#[derive(Debug, Clone)]
pub struct Cost {
    /// The recording mode.
    pub mode: String,
    /// What was sent.
    pub load: Load,
    /// How much.
    pub bytes: u64,
    /// Until the client had it.
    pub took: Duration,
    /// Peak of the proxy above idle, in KiB, until the recording is stored.
    pub proxy_kib: u64,
    /// The same of auth.
    pub auth_kib: u64,
}

impl Cost {
    /// Whether both kept to the limit.
    pub fn is_within_limit(&self) -> bool {
        self.proxy_kib.max(self.auth_kib) <= LIMIT_KIB
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:<10} {:<24} {mib:>6.0} MiB at {:>4.0} MiB/s: proxy +{:.1} MiB, auth +{:.1} MiB (limit {})",
            self.mode,
            self.load.to_string(),
            mib / self.took.as_secs_f64(),
            self.proxy_kib as f64 / 1024.0,
            self.auth_kib as f64 / 1024.0,
            LIMIT_KIB / 1024,
        )
    }
}

/// Sends `bytes` through a cluster of two processes in this mode.
pub fn measure(mode: &str, load: Load, bytes: u64) -> Result<Cost> {
    let mut proxy_extra = format!("  recording_spool_bytes: {}\n", bytes * 2 + (1 << 30));
    if load == Load::Noise {
        proxy_extra += "  exec_recording:\n    full: yes\n";
    }
    let options = ClusterOptions {
        recording: Some(mode.to_owned()),
        two_processes: true,
        proxy_extra,
        ..ClusterOptions::default()
    };
    let stage = Stage::with("stream", &options, "")?;
    let noise = stage.scratch.path().join("noise");
    let remote = match load {
        Load::Command => format!("head -c {bytes} /dev/zero"),
        Load::Terminal => {
            format!("stty raw -echo; yes 'drwxr-xr-x  2 root root 4096 folder' | head -c {bytes}")
        }
        Load::Noise => {
            let made = format!("head -c {NOISE_MIB}M /dev/urandom > {}", noise.display());
            let _made = run(std::process::Command::new("sh").args(["-c", &made]), "", 60)?.ok();
            format!("while cat {}; do :; done 2>/dev/null | head -c {bytes}", noise.display())
        }
    };
    let terminal: &[&str] = if load == Load::Terminal { &["-t"] } else { &[] };
    // The first session of a process costs what every process has once.
    let _warm = run(&mut stage.tsh_ssh(terminal, &["echo warm"]), "", 60)?.ok();
    uploads(&stage.cluster, mode, 1)?;
    let (auth, proxy) = processes(&stage.cluster)?;
    let idle = (memory::resident(auth)?, memory::resident(proxy)?);
    memory::reset_peak(auth)?;
    memory::reset_peak(proxy)?;
    let begun = Instant::now();
    let mut tsh = stage.tsh_ssh(terminal, &[&remote]);
    let mut child = tsh.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("output of tsh")?;
    let received = std::io::copy(&mut stdout, &mut std::io::sink())?;
    let status = child.wait()?;
    let took = begun.elapsed();
    ensure!(status.success() && received == bytes, "{status}, {received} of {bytes} bytes");
    uploads(&stage.cluster, mode, 2)?;
    Ok(Cost {
        mode: mode.to_owned(),
        load,
        bytes,
        took,
        proxy_kib: memory::peak(proxy)?.saturating_sub(idle.1),
        auth_kib: memory::peak(auth)?.saturating_sub(idle.0),
    })
}

fn processes(cluster: &Cluster) -> Result<(u32, u32)> {
    Ok((cluster.auth.id(), cluster.proxy.as_ref().context("a proxy")?.id()))
}

/// Waits until so many recordings are stored.
fn uploads(cluster: &Cluster, mode: &str, count: usize) -> Result<()> {
    if mode == "off" {
        return Ok(());
    }
    let sql = "select recording_state from session_upload";
    let states = until("the recording to be stored", 600, || {
        std::thread::sleep(Duration::from_millis(200));
        cluster.query(sql).ok().filter(|rows| rows.len() == count)
    })?;
    ensure!(states.iter().all(|state| state == &["complete"]), "{states:?}");
    Ok(())
}

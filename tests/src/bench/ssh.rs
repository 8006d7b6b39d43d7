//! The proxy beside OpenSSH, direct and through a jump host: same cipher, interleaved, medians.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shared_testkit::process::bin;
use shared_testkit::{Guard, Terminal, run};

use super::{Bench, Load, WAYS, Way};
use crate::measure::{Table, median, process_cpu, process_memory};

/// Keystrokes in one session.
const KEYSTROKES: usize = 200;
/// Time for everything to fall asleep between two of them.
const BETWEEN_KEYS: Duration = Duration::from_millis(3);

impl Bench {
    /// Megabytes a second, and the proxy's time for them.
    pub fn bulk(&self, title: &str, load: &Load, rounds: usize) -> Result<()> {
        let mib = load.mib;
        let mut table = Table::new(&format!("{title}, {mib} MiB, MiB/s (proxy CPU s/GiB)"));
        let mut speeds = vec![Vec::new(); WAYS.len()];
        let mut cpu = vec![Vec::new(); WAYS.len()];
        for _ in 0..rounds {
            for (at, (way, _)) in WAYS.iter().enumerate() {
                let before = process_cpu(self.cluster.auth.id());
                speeds[at].push(self.transfer(*way, load)?);
                cpu[at].push((process_cpu(self.cluster.auth.id()) - before) * 1024.0 / mib as f64);
            }
        }
        let base = median(&speeds[1]);
        for (at, (_, name)) in WAYS.iter().enumerate() {
            let speed = median(&speeds[at]);
            table.row(
                name,
                format!("{speed:.0}"),
                speed / base,
                format!("({:.2})", median(&cpu[at])),
            );
        }
        table.print("ssh -J");
        Ok(())
    }

    /// Receives a load; MiB a second.
    pub fn transfer(&self, way: Way, load: &Load) -> Result<f64> {
        let started = Instant::now();
        let mut child = self
            .command(way, load.options, &[&load.remote])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = child.stdout.take().context("stdout")?;
        let bytes = std::io::copy(&mut stdout, &mut std::io::sink())?;
        let status = child.wait()?;
        ensure!(status.success() && bytes == load.mib << 20, "{bytes} bytes, {status}");
        Ok(load.mib as f64 / started.elapsed().as_secs_f64())
    }

    /// From nothing to the end of `true`.
    pub fn connect(&self, rounds: usize) -> Result<()> {
        let mut table = Table::new("connect and run true, ms");
        let mut times = vec![Vec::new(); WAYS.len()];
        for _ in 0..rounds {
            for (at, (way, _)) in WAYS.iter().enumerate() {
                let started = Instant::now();
                let status = self.command(*way, &[], &["true"]).stdin(Stdio::null()).status()?;
                ensure!(status.success(), "true ended with {status}");
                times[at].push(started.elapsed().as_secs_f64() * 1000.0);
            }
        }
        let base = median(&times[1]);
        for (at, (_, name)) in WAYS.iter().enumerate() {
            let time = median(&times[at]);
            table.row(name, format!("{time:.0}"), time / base, String::new());
        }
        table.print("ssh -J");
        Ok(())
    }

    /// A key, and its echo.
    pub fn keystroke(&self, rounds: usize) -> Result<()> {
        let mut table = Table::new("keystroke through a terminal and back, microseconds");
        let mut times = vec![Vec::new(); WAYS.len()];
        for _ in 0..rounds {
            for (at, (way, _)) in WAYS.iter().enumerate() {
                let mut command =
                    self.command(*way, &["-t"], &["stty raw -echo; echo ready; exec cat"]);
                let mut terminal = Terminal::start(&mut command, 80, 24)?;
                let mut place = terminal.expect("ready", 0)?;
                std::thread::sleep(Duration::from_millis(100));
                place = terminal.mark().max(place);
                for _ in 0..KEYSTROKES {
                    std::thread::sleep(BETWEEN_KEYS);
                    let started = Instant::now();
                    terminal.send("x")?;
                    place = terminal.beyond(place)?;
                    times[at].push(started.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
        let base = median(&times[1]);
        for (at, (_, name)) in WAYS.iter().enumerate() {
            let time = median(&times[at]);
            table.row(name, format!("{time:.0}"), time / base, String::new());
        }
        table.print("ssh -J");
        Ok(())
    }

    /// What an idle session takes.
    pub fn memory(&self, sessions: usize) -> Result<()> {
        let before = process_memory(self.cluster.auth.id());
        let mut children = Vec::new();
        for _ in 0..sessions {
            let mut command = self.command(Way::Proxy, &["-tt"], &["echo up; exec sleep 600"]);
            children.push(Guard::start(
                "session",
                command.stdin(Stdio::null()),
                &self.scratch.path().join("sessions.log"),
            )?);
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = self.scratch.path().join("sessions.log");
        shared_testkit::until("all sessions", 300, || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            (text.matches("up").count() >= sessions).then_some(())
        })?;
        std::thread::sleep(Duration::from_secs(3));
        let after = process_memory(self.cluster.auth.id());
        println!(
            "\nmemory per idle recorded session, {sessions} sessions: {:.0} KiB",
            (after - before) / sessions as f64
        );
        Ok(())
    }

    /// The programs, and the time `tsh version` takes.
    pub fn sizes(&self) -> Result<()> {
        println!("\nsize of stripped programs");
        for name in ["tsh", "tctl", "teleport", "teleport-query"] {
            println!("  {name:<16} {:.1} MB", std::fs::metadata(bin(name))?.len() as f64 / 1e6);
        }
        let mut times = Vec::new();
        for _ in 0..50 {
            let started = Instant::now();
            let _version = run(self.joe.tsh().arg("version"), "", 10)?.ok();
            times.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        println!("  tsh version      {:.1} ms", median(&times));
        Ok(())
    }
}

//! Files by scp, sftp and rsync, both ways: through the proxy, which lists and hashes them, beside a jump host.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use shared_testkit::process::command;

use super::{Bench, Way};
use crate::measure::{Table, median, process_cpu};

const WAYS: [(Way, &str); 3] =
    [(Way::Direct, "direct"), (Way::Jump, "ssh -J"), (Way::Proxy, "proxy, ssh")];

/// How a file is copied.
#[derive(Clone, Copy)]
enum Tool {
    Scp,
    Sftp,
    Rsync,
}

impl Bench {
    /// Prints a table for each tool and direction.
    pub fn transfers(&self, mib: u64, rounds: usize) -> Result<()> {
        let from = self.scratch.path().join("from");
        fill(&from, mib)?;
        for (tool, name) in [(Tool::Scp, "scp -O"), (Tool::Sftp, "sftp"), (Tool::Rsync, "rsync")] {
            for upload in [true, false] {
                let direction = if upload { "to the host" } else { "from the host" };
                let title = format!("{name} {direction}, {mib} MiB, MiB/s (proxy CPU s/GiB)");
                self.copies(&title, (tool, upload), &from, (mib, rounds))?;
            }
        }
        std::fs::remove_file(&from)?;
        Ok(())
    }

    fn copies(
        &self,
        title: &str,
        (tool, upload): (Tool, bool),
        from: &Path,
        (mib, rounds): (u64, usize),
    ) -> Result<()> {
        let mut speeds = vec![Vec::new(); WAYS.len()];
        let mut cpu = vec![Vec::new(); WAYS.len()];
        let to = self.scratch.path().join("to");
        for _ in 0..rounds {
            for (at, (way, _)) in WAYS.iter().enumerate() {
                let before = process_cpu(self.cluster.auth.id());
                let started = Instant::now();
                let status = self.copy(tool, *way, upload, (from, &to))?.status()?;
                let seconds = started.elapsed().as_secs_f64();
                let copied = std::fs::metadata(&to)?.len();
                ensure!(status.success() && copied == mib << 20, "{copied} bytes, {status}");
                std::fs::remove_file(&to)?;
                speeds[at].push(mib as f64 / seconds);
                cpu[at].push((process_cpu(self.cluster.auth.id()) - before) * 1024.0 / mib as f64);
            }
        }
        let mut table = Table::new(title);
        let base = median(&speeds[1]);
        for (at, (_, name)) in WAYS.iter().enumerate() {
            let speed = median(&speeds[at]);
            let remark = format!("({:.2})", median(&cpu[at]));
            table.row(name, format!("{speed:.0}"), speed / base, remark);
        }
        table.print("ssh -J");
        Ok(())
    }

    fn copy(
        &self,
        tool: Tool,
        way: Way,
        upload: bool,
        (from, to): (&Path, &Path),
    ) -> Result<Command> {
        let shell = self.remote_shell(way)?;
        let there = |path: &Path| format!("127.0.0.1:{}", path.display());
        let ends = if upload {
            [from.display().to_string(), there(to)]
        } else {
            [there(from), to.display().to_string()]
        };
        let mut copy = match tool {
            Tool::Scp => command("scp", &self.joe.folder),
            Tool::Sftp => command("sftp", &self.joe.folder),
            Tool::Rsync => command("rsync", &self.joe.folder),
        };
        copy.env("SSH_AUTH_SOCK", &self.agent_socket).stdout(Stdio::null()).stdin(Stdio::null());
        match tool {
            Tool::Scp => copy.args(["-q", "-O", "-S"]).arg(&shell).args(ends),
            Tool::Sftp => {
                let verb = if upload { "put" } else { "get" };
                let batch = format!("{verb} {} {}\n", from.display(), to.display());
                let batch = self.scratch.write("batch", batch)?;
                copy.args(["-q", "-S"]).arg(&shell).arg("-b").arg(batch).arg("127.0.0.1")
            }
            Tool::Rsync => copy.args(["--whole-file", "-e"]).arg(&shell).args(ends),
        };
        Ok(copy)
    }

    /// A program in place of ssh that goes this way.
    fn remote_shell(&self, way: Way) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let ssh = self.command(way, &[], &[]);
        let words: Vec<_> =
            ssh.get_args().map(|word| format!("\"{}\"", word.to_string_lossy())).collect();
        // The last word is the host, which the tools name themselves.
        let options = words.split_last().map(|(_, options)| options.join(" ")).unwrap_or_default();
        let name = format!("remote-shell-{way:?}");
        let path = self.scratch.write(&name, format!("#!/bin/sh\nexec ssh {options} \"$@\"\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        Ok(path)
    }
}

/// A file of bytes that no compressor makes smaller.
fn fill(path: &Path, mib: u64) -> Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..(mib << 20) / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    file.flush()?;
    Ok(())
}

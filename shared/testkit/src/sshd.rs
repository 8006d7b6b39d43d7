//! A real, unmodified sshd.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::Guard;
use crate::wait::{free_port, until};

/// What differs between the sshds of tests.
#[derive(Debug, Clone, Default)]
pub struct SshdOptions {
    /// `TrustedUserCAKeys`.
    pub user_ca: Option<PathBuf>,
    /// `HostKey`; one is made when left out.
    pub host_key: Option<PathBuf>,
    /// `HostCertificate`.
    pub host_certificate: Option<PathBuf>,
    /// More lines of configuration.
    pub extra: String,
    /// The port; a free one when left out.
    pub port: Option<u16>,
}

/// A running sshd on loopback.
#[derive(Debug)]
pub struct Sshd {
    /// Its port.
    pub port: u16,
    /// Its process.
    pub process: Guard,
}

impl Sshd {
    /// Starts one in `folder` and waits until it listens.
    pub fn start(folder: &Path, options: &SshdOptions) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        // Debian's sshd wants its privilege separation folder; only root can make it.
        std::fs::create_dir_all("/run/sshd").ok();
        let port = options.port.map_or_else(free_port, Ok)?;
        let host_key = match &options.host_key {
            Some(path) => path.clone(),
            None => make_key(&folder.join("host_key"))?,
        };
        let config = folder.join("sshd_config");
        let mut file = std::fs::File::create(&config)?;
        writeln!(file, "ListenAddress 127.0.0.1:{port}")?;
        writeln!(file, "HostKey {}", host_key.display())?;
        if let Some(path) = &options.host_certificate {
            writeln!(file, "HostCertificate {}", path.display())?;
        }
        if let Some(path) = &options.user_ca {
            writeln!(file, "TrustedUserCAKeys {}", path.display())?;
        }
        writeln!(
            file,
            "AuthorizedKeysFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no"
        )?;
        writeln!(file, "UsePAM no\nStrictModes no\nAcceptEnv LANG LC_* GH_*")?;
        writeln!(file, "PidFile {}\nSubsystem sftp internal-sftp", folder.join("pid").display())?;
        // The first value of a keyword wins, so options that override stand in front.
        drop(file);
        let base = std::fs::read_to_string(&config)?;
        std::fs::write(&config, format!("{}\n{base}", options.extra))?;
        let mut command = Command::new("/usr/sbin/sshd");
        command.arg("-D").arg("-e").arg("-f").arg(&config);
        let mut process = Guard::start("sshd", &mut command, &folder.join("sshd.log"))?;
        until("sshd to listen", 10, || {
            (std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() || !process.running())
                .then_some(())
        })?;
        anyhow::ensure!(process.running(), "sshd ended: {}", process.log());
        Ok(Self { port, process })
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Makes an Ed25519 key pair with ssh-keygen, without a passphrase.
pub fn make_key(path: &Path) -> Result<PathBuf> {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(path)
        .status()
        .context("start ssh-keygen")?;
    anyhow::ensure!(status.success(), "ssh-keygen ended with {status}");
    Ok(path.to_path_buf())
}

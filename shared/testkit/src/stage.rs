//! A cluster, a user and an sshd: what most tests begin with.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::{Cluster, ClusterOptions, Home, PASSWORD};
use crate::disk::SmallDisk;
use crate::process::{Guard, command, run};
use crate::scratch::Scratch;
use crate::sshd::Sshd;
use crate::wait::until;

/// The operating system's user, the only login that an unprivileged sshd accepts.
pub fn login_name() -> String {
    let output = Command::new("id").arg("-un").output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

/// A cluster, joe who may reach 127.0.0.1, and an sshd there.
#[derive(Debug)]
pub struct Stage {
    /// The cluster.
    pub cluster: Cluster,
    /// Joe, who is logged in.
    pub joe: Home,
    /// The target.
    pub sshd: Sshd,
    /// The login on the target.
    pub login: String,
    /// The disk of the proxy's recordings, where it was to be a small one. Behind the programs that use it.
    pub disk: Option<SmallDisk>,
    /// Last, so that it goes after the programs that use it.
    pub scratch: Scratch,
}

impl Stage {
    /// One with the default options.
    pub fn new(name: &str) -> Result<Self> {
        Self::with(name, &ClusterOptions::default(), "")
    }

    /// One with these options, and more lines of sshd's configuration.
    pub fn with(name: &str, options: &ClusterOptions, sshd_extra: &str) -> Result<Self> {
        Self::on(Scratch::new(name)?, None, options, sshd_extra)
    }

    /// One whose proxy, a process of its own, keeps recordings on a disk of this size, where that can be had.
    pub fn with_small_disk(
        name: &str,
        mib: u64,
        options: &ClusterOptions,
        sshd_extra: &str,
    ) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        scratch.folder("c/proxy/log")?;
        let disk = SmallDisk::mount(&scratch.path().join("c/proxy/log/upload"), mib)?;
        Self::on(scratch, disk, options, sshd_extra)
    }

    fn on(
        scratch: Scratch,
        disk: Option<SmallDisk>,
        options: &ClusterOptions,
        sshd_extra: &str,
    ) -> Result<Self> {
        let cluster = Cluster::start(&scratch.folder("c")?, options)?;
        let login = login_name();
        cluster.loopback_role("loopback", &[&login])?;
        let joe = cluster.user("joe", "access,auditor,loopback", &login)?;
        let sshd = cluster.sshd("sshd", "127.0.0.1,localhost", sshd_extra)?;
        Ok(Self { cluster, joe, sshd, login, disk, scratch })
    }

    /// `login@127.0.0.1`.
    pub fn target(&self) -> String {
        format!("{}@127.0.0.1", self.login)
    }

    /// `tsh ssh --port=… options login@127.0.0.1 command`.
    pub fn tsh_ssh(&self, options: &[&str], remote: &[&str]) -> Command {
        self.tsh_ssh_of(&self.joe, options, remote)
    }

    /// The same by somebody else.
    pub fn tsh_ssh_of(&self, home: &Home, options: &[&str], remote: &[&str]) -> Command {
        let mut tsh = home.tsh();
        tsh.arg("ssh").arg(format!("--port={}", self.sshd.port)).args(options);
        tsh.arg(self.target()).args(remote);
        tsh
    }

    /// Adds ann, whose sessions are recorded or do not run.
    pub fn strict_user(&self) -> Result<Home> {
        let _created = self.cluster.create(
            "kind: role\nversion: v7\nmetadata:\n  name: strict\nspec:\n  options:\n    record_session:\n      default: strict\n",
        )?;
        self.cluster.user("ann", "access,auditor,loopback,strict", &self.login)
    }

    /// An ssh-agent, and its socket.
    pub fn agent(&self, name: &str) -> Result<(Guard, PathBuf)> {
        let socket = self.scratch.path().join(name);
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket);
        let guard = Guard::start("ssh-agent", &mut agent, &self.scratch.path().join("agent.log"))?;
        until("ssh-agent", 10, || socket.exists().then_some(()))?;
        Ok((guard, socket))
    }

    /// An ssh-agent with joe's certificate in it.
    pub fn agent_of_joe(&self, name: &str) -> Result<(Guard, PathBuf)> {
        let (guard, socket) = self.agent(name)?;
        let mut login = self.joe.login_command();
        let _done = run(login.env("SSH_AUTH_SOCK", &socket), format!("{PASSWORD}\n"), 60)?.ok();
        Ok((guard, socket))
    }

    /// The plain OpenSSH client through the proxy, with the agent at `socket`.
    pub fn ssh(&self, socket: &Path, options: &[&str], remote: &[&str]) -> Result<Command> {
        let config = self.ssh_config()?;
        let mut ssh = command("ssh", &self.joe.folder);
        ssh.arg("-F").arg(&config).env("SSH_AUTH_SOCK", socket);
        ssh.args(["-o", "ForwardAgent yes"]).arg("-o").arg(format!(
            "ProxyCommand ssh -F {} -o 'ForwardAgent yes' -p {} %r@localhost -s proxy:%h:%p",
            config.display(),
            self.cluster.port("ssh")
        ));
        ssh.args(["-p", &self.sshd.port.to_string()]).args(options).arg(self.target()).args(remote);
        Ok(ssh)
    }

    /// A configuration that trusts the host authority and nothing else.
    pub fn ssh_config(&self) -> Result<PathBuf> {
        let made = self.scratch.path().join("ssh_config");
        // A client that starts now may be reading it.
        if made.exists() {
            return Ok(made);
        }
        let export = self.cluster.tctl_ok(["auth", "export", "--type=host"])?.text();
        let key = export.split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(" ");
        let known = self.scratch.write("known_hosts", format!("@cert-authority * {key}\n"))?;
        self.scratch.write(
            "ssh_config",
            format!(
                "Host *\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  BatchMode yes\n",
                known.display()
            ),
        )
    }

    /// The only recorded session's id.
    pub fn last_session(&self) -> Result<String> {
        let sql = "select sid from session_end order by event_time desc limit 1";
        until("a session to end", 20, || {
            self.cluster.query(sql).ok()?.into_iter().next()?.into_iter().next()
        })
    }

    /// The recording of `sid` as played into a file.
    pub fn played(&self, sid: &str) -> Result<Vec<u8>> {
        let path = self.cluster.data_dir().join(format!("log/records/{sid}.tar"));
        until("the recording to arrive", 20, || path.exists().then_some(()))?;
        Ok(self.joe.run(["play", "--format=text", sid]).context("play")?.ok().stdout)
    }
}

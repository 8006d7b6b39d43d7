//! What the topics share: a cluster with one user and one sshd.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use shared_testkit::{Cluster, ClusterOptions, Guard, Home, Scratch, Sshd, until};

/// A cluster, joe who may reach 127.0.0.1, and an sshd there.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) joe: Home,
    pub(crate) sshd: Sshd,
    pub(crate) login: String,
    // Last, so that it goes after the programs that use it.
    pub(crate) scratch: Scratch,
}

impl Stage {
    pub(crate) fn new(name: &str) -> Result<Self> {
        Self::with(name, &ClusterOptions::default(), "")
    }

    pub(crate) fn with(name: &str, options: &ClusterOptions, sshd_extra: &str) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        let cluster = Cluster::start(&scratch.folder("c")?, options)?;
        let login = e2e::login_name();
        cluster.loopback_role("loopback", &[&login])?;
        let joe = cluster.user("joe", "access,auditor,loopback", &login)?;
        let sshd = cluster.sshd("sshd", "127.0.0.1,localhost", sshd_extra)?;
        Ok(Self { cluster, joe, sshd, login, scratch })
    }

    /// `login@127.0.0.1`.
    pub(crate) fn target(&self) -> String {
        format!("{}@127.0.0.1", self.login)
    }

    /// `tsh ssh --port=… options login@127.0.0.1 command`.
    pub(crate) fn tsh_ssh(&self, options: &[&str], remote: &[&str]) -> Command {
        let mut tsh = self.joe.tsh();
        tsh.arg("ssh").arg(format!("--port={}", self.sshd.port)).args(options);
        tsh.arg(self.target()).args(remote);
        tsh
    }

    /// An ssh-agent with joe's certificate in it, and its socket.
    pub(crate) fn agent(&self, name: &str) -> Result<(Guard, PathBuf)> {
        let socket = self.scratch.path().join(name);
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket);
        let guard = Guard::start("ssh-agent", &mut agent, &self.scratch.path().join("agent.log"))?;
        until("ssh-agent", 10, || socket.exists().then_some(()))?;
        Ok((guard, socket))
    }

    /// The plain OpenSSH client through the proxy, with the agent at `socket`.
    pub(crate) fn ssh(
        &self,
        socket: &std::path::Path,
        options: &[&str],
        remote: &[&str],
    ) -> Result<Command> {
        let config = self.ssh_config()?;
        let mut ssh = shared_testkit::process::command("ssh", &self.joe.folder);
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
    pub(crate) fn ssh_config(&self) -> Result<PathBuf> {
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
    pub(crate) fn last_session(&self) -> Result<String> {
        let sql = "select sid from session_end order by event_time desc limit 1";
        until("a session to end", 20, || {
            self.cluster.query(sql).ok()?.into_iter().next()?.into_iter().next()
        })
    }

    /// The recording of `sid` as played into a file.
    pub(crate) fn played(&self, sid: &str) -> Result<Vec<u8>> {
        let path = self.cluster.data_dir().join(format!("log/records/{sid}.tar"));
        until("the recording to arrive", 20, || path.exists().then_some(()))?;
        Ok(self.joe.run(["play", "--format=text", sid]).context("play")?.ok().stdout)
    }
}

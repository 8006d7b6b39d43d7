//! Benchmarks of `cargo xtask bench`: what they share. Each prints ratios and asserts nothing about them.

pub mod agents;
pub mod db;
pub mod recording;
pub mod ssh;
pub mod transfer;
pub mod tunnel;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use shared_testkit::process::command;
use shared_testkit::{Cluster, ClusterOptions, Guard, Home, Scratch, Sshd, run};

/// Bytes for a client to receive.
pub struct Load {
    /// Options of the client.
    pub options: &'static [&'static str],
    /// The command.
    pub remote: String,
    /// MiB it sends.
    pub mib: u64,
}

impl Load {
    /// Output of a command without a terminal.
    pub fn command(mib: u64) -> Self {
        Self { options: &["-T"], remote: format!("head -c {mib}M /dev/zero"), mib }
    }

    /// Lines of text through a terminal.
    pub fn terminal(mib: u64) -> Self {
        let line = "drwxr-xr-x  2 root root    4096 Nov 21 09:15 some-folder";
        let remote = format!("stty raw -echo; yes '{line}' | head -c {mib}M");
        Self { options: &["-tt"], remote, mib }
    }
}

/// A way to the same sshd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// ssh, straight.
    Direct,
    /// ssh, through a jump host.
    Jump,
    /// ssh, through the proxy.
    Proxy,
    /// tsh.
    Tsh,
}

/// All of them, and what they are called.
pub const WAYS: [(Way, &str); 4] = [
    (Way::Direct, "direct"),
    (Way::Jump, "ssh -J"),
    (Way::Proxy, "proxy, ssh"),
    (Way::Tsh, "proxy, tsh"),
];

/// A cluster and two sshds.
pub struct Bench {
    scratch: Scratch,
    cluster: Cluster,
    joe: Home,
    target: Sshd,
    jump: Sshd,
    login: String,
    _agent: Guard,
    agent_socket: PathBuf,
}

impl Bench {
    /// Starts one.
    pub fn start(options: &ClusterOptions) -> Result<Self> {
        let scratch = Scratch::new("bench")?;
        let cluster = Cluster::start(&scratch.folder("cluster")?, options)?;
        let login = crate::login_name();
        cluster.loopback_role("loopback", &[&login])?;
        let joe = cluster.add_user("joe", "access,loopback", &login)?;
        let agent_socket = scratch.path().join("agent");
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&agent_socket);
        let agent = Guard::start("ssh-agent", &mut agent, &scratch.path().join("agent.log"))?;
        shared_testkit::until("ssh-agent", 10, || agent_socket.exists().then_some(()))?;
        let mut login_command = joe.login_command();
        login_command.env("SSH_AUTH_SOCK", &agent_socket);
        let _done =
            run(&mut login_command, format!("{}\n", shared_testkit::cluster::PASSWORD), 60)?.ok();
        // A home of our own: what the user's shell reads at its start may take longer than everything measured.
        let limits = format!(
            "MaxStartups 1000:30:2000\nMaxSessions 1000\nSetEnv HOME={}",
            scratch.folder("empty")?.display()
        );
        let target = cluster.sshd("target", "127.0.0.1,localhost", &limits)?;
        let jump = cluster.sshd("jump", "127.0.0.1,localhost", &limits)?;
        let config = format!(
            "Host *\n  UserKnownHostsFile {known}\n  IdentityFile {key}\n  CertificateFile {cert}\n  IdentitiesOnly yes\n  \
             StrictHostKeyChecking yes\n  User {login}\n  Ciphers aes256-gcm@openssh.com\n  KexAlgorithms curve25519-sha256\n  LogLevel ERROR\n",
            known = scratch.path().join("known_hosts").display(),
            key = joe.ssh_key().display(),
            cert = joe.ssh_certificate().display(),
        );
        scratch.write("ssh_config", config)?;
        let host_ca = cluster.tctl_ok(["auth", "export", "--type=host"])?.text();
        let key =
            host_ca.split_once(' ').and_then(|(_, rest)| rest.split_once(' ')).map(|(_, key)| key);
        scratch.write(
            "known_hosts",
            format!("@cert-authority * {}", key.context("host authority")?),
        )?;
        Ok(Self { scratch, cluster, joe, target, jump, login, _agent: agent, agent_socket })
    }

    /// A client that goes this way.
    pub fn command(&self, way: Way, options: &[&str], remote: &[&str]) -> Command {
        let port = self.target.port.to_string();
        let config = self.scratch.path().join("ssh_config");
        if way == Way::Tsh {
            let mut tsh = self.joe.tsh();
            tsh.args(["ssh", "--port", &port]).args(options);
            tsh.arg(format!("{}@127.0.0.1", self.login)).args(remote);
            return tsh;
        }
        let mut ssh = command("ssh", &self.joe.folder);
        ssh.arg("-F").arg(&config).env("SSH_AUTH_SOCK", &self.agent_socket);
        match way {
            Way::Jump => {
                ssh.arg("-o").arg(format!(
                    "ProxyCommand ssh -F {} -p {} -W %h:%p 127.0.0.1",
                    config.display(),
                    self.jump.port
                ));
            }
            Way::Proxy => {
                ssh.args(["-o", "ForwardAgent yes"]).arg("-o").arg(format!(
                    "ProxyCommand ssh -F {} -o 'ForwardAgent yes' -p {} %r@127.0.0.1 -s proxy:%h:%p",
                    config.display(),
                    self.cluster.port("ssh")
                ));
            }
            Way::Direct | Way::Tsh => {}
        }
        ssh.args(["-p", &port]).args(options).arg("127.0.0.1").args(remote);
        ssh
    }
}

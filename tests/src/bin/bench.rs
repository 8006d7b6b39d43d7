//! `cargo xtask bench`: the proxy beside OpenSSH, direct and through a jump host, in one run, same
//! cipher, interleaved, medians. Prints ratios; asserts nothing.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::measure::{Table, median, process_cpu, process_memory};
use shared_testkit::process::{bin, command};
use shared_testkit::{Cluster, ClusterOptions, Guard, Home, Scratch, Sshd, Terminal, run};

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
    /// Only these parts: size, connect, keystroke, bulk, terminal, full, memory
    parts: Vec<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let wanted = |part: &str| args.parts.is_empty() || args.parts.iter().any(|have| have == part);
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
    if wanted("memory") {
        bench.memory(args.sessions)?;
    }
    Ok(())
}

/// Where every byte is recorded, so much less is sent.
const RECORDED_SHARE: u64 = 4;

/// Keystrokes in one session.
const KEYSTROKES: usize = 200;
/// Time for everything to fall asleep between two of them.
const BETWEEN_KEYS: Duration = Duration::from_millis(3);

/// Bytes for a client to receive.
struct Load {
    options: &'static [&'static str],
    remote: String,
    mib: u64,
}

impl Load {
    /// Output of a command without a terminal.
    fn command(mib: u64) -> Self {
        Self { options: &["-T"], remote: format!("head -c {mib}M /dev/zero"), mib }
    }

    /// Lines of text through a terminal.
    fn terminal(mib: u64) -> Self {
        let line = "drwxr-xr-x  2 root root    4096 Nov 21 09:15 some-folder";
        let remote = format!("stty raw -echo; yes '{line}' | head -c {mib}M");
        Self { options: &["-tt"], remote, mib }
    }
}

/// A way to the same sshd.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Jump,
    Proxy,
    Tsh,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Direct, "direct"),
    (Way::Jump, "ssh -J"),
    (Way::Proxy, "proxy, ssh"),
    (Way::Tsh, "proxy, tsh"),
];

struct Bench {
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
    fn start(options: &ClusterOptions) -> Result<Self> {
        let scratch = Scratch::new("bench")?;
        let cluster = Cluster::start(&scratch.folder("cluster")?, options)?;
        let login = e2e::login_name();
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

    fn command(&self, way: Way, options: &[&str], remote: &[&str]) -> Command {
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

    fn bulk(&self, title: &str, load: &Load, rounds: usize) -> Result<()> {
        let mib = load.mib;
        let mut table = Table::new(&format!("{title}, {mib} MiB, MiB/s (proxy CPU s/GiB)"));
        let mut speeds = vec![Vec::new(); WAYS.len()];
        let mut cpu = vec![Vec::new(); WAYS.len()];
        for _ in 0..rounds {
            for (at, (way, _)) in WAYS.iter().enumerate() {
                let before = process_cpu(self.cluster.auth.id());
                let started = Instant::now();
                let mut child = self
                    .command(*way, load.options, &[&load.remote])
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .spawn()?;
                let mut stdout = child.stdout.take().context("stdout")?;
                let bytes = std::io::copy(&mut stdout, &mut std::io::sink())?;
                let status = child.wait()?;
                ensure!(status.success() && bytes == mib << 20, "{bytes} bytes, {status}");
                speeds[at].push(mib as f64 / started.elapsed().as_secs_f64());
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

    fn connect(&self, rounds: usize) -> Result<()> {
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

    fn keystroke(&self, rounds: usize) -> Result<()> {
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

    fn memory(&self, sessions: usize) -> Result<()> {
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

    fn sizes(&self) -> Result<()> {
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

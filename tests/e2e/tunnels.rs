//! Agents: behind a firewall that lets nothing in, and with an address; restarts, cut links, one port.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use shared_testkit::agent::{AgentOptions, start_agent};
use shared_testkit::cluster::{ClusterOptions, Home};
use shared_testkit::process::{command, installed};
use shared_testkit::{Guard, bin, run, until};

use crate::support::Stage;

/// What an agent that was away has until it is reached again.
const BACK: Duration = Duration::from_secs(10);

fn options(recording: &str, two_processes: bool) -> ClusterOptions {
    let tokens = if two_processes { "" } else { "  tokens:\n" };
    ClusterOptions {
        recording: Some(recording.to_owned()),
        two_processes,
        auth_extra: format!("{tokens}{}", AgentOptions::TOKENS),
        ..ClusterOptions::default()
    }
}

/// A network of its own, from which only this host is reached. Gone when dropped.
struct Namespace {
    name: String,
    link: String,
    /// This host, as the namespace sees it.
    host: String,
}

impl Namespace {
    /// None, loudly, where this may not be done.
    fn new() -> Result<Option<Self>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !installed("ip")? || !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces need root and iproute2");
            return Ok(None);
        }
        let number = std::process::id().wrapping_mul(4) + COUNT.fetch_add(1, Ordering::Relaxed);
        let (a, b) = (number / 62 % 250, number % 62 * 4);
        let name = format!("gatehouse-{number}");
        let link = format!("gh{}", number % 1_000_000);
        let this = Self { name, link, host: format!("10.231.{a}.{}", b + 1) };
        let inner = format!("10.231.{a}.{}/30", b + 2);
        this.ip(&["netns", "add", &this.name])?;
        let peer = format!("{}p", this.link);
        this.ip(&["link", "add", &this.link, "type", "veth", "peer", "name", &peer])?;
        this.ip(&["link", "set", &peer, "netns", &this.name])?;
        this.ip(&["addr", "add", &format!("{}/30", this.host), "dev", &this.link])?;
        this.ip(&["link", "set", &this.link, "up"])?;
        for words in [
            &["addr", "add", &inner, "dev", &peer][..],
            &["link", "set", &peer, "up"],
            &["link", "set", "lo", "up"],
        ] {
            let mut inside = vec!["-n", &this.name];
            inside.extend(words);
            this.ip(&inside)?;
        }
        Ok(Some(this))
    }

    fn ip(&self, words: &[&str]) -> Result<()> {
        let status = Command::new("ip").args(words).status()?;
        anyhow::ensure!(status.success(), "ip {}", words.join(" "));
        Ok(())
    }

    /// A program inside.
    fn command(&self, program: PathBuf, home: &std::path::Path) -> Command {
        let mut inside = command("ip", home);
        inside.args(["netns", "exec", &self.name]).arg(program);
        inside
    }

    /// Cuts the link, so that packets vanish without a word, or mends it.
    fn cut(&self, cut: bool) -> Result<()> {
        self.ip(&["link", "set", &self.link, if cut { "down" } else { "up" }])
    }

    /// Whether something listens inside.
    fn listens(&self) -> Result<bool> {
        let mut inside = self.command("cat".into(), std::path::Path::new("/"));
        let shown = run(inside.args(["/proc/net/tcp", "/proc/net/tcp6"]), "", 10)?.ok().text();
        // The fourth column is the state; 0A is LISTEN.
        Ok(shown.lines().any(|line| line.split_whitespace().nth(3) == Some("0A")))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.link]).status();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Leads connections on `listen` to `port` here. It ends with the program.
fn lead(listen: &str, port: u16) -> Result<u16> {
    let listener = TcpListener::bind((listen, 0))?;
    let at = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            // A proxy that restarts is a connection that ends.
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { continue };
            std::thread::spawn(move || carry(near, far));
            std::thread::spawn(move || carry(far_too, near_too));
        }
    });
    Ok(at)
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buf = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buf) {
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Runs `echo` on a node until it works, and tells how long that took.
fn reached(joe: &Home, node: &str, seconds: u64) -> Result<Duration> {
    let since = Instant::now();
    let mut last = String::new();
    let done = until("the node", seconds, || {
        let mut tsh = joe.tsh();
        tsh.args(["ssh", &format!("root@{node}"), "echo", "reached"]);
        let outcome = run(&mut tsh, "", 30).ok()?;
        last.clone_from(&outcome.stderr);
        (outcome.code == 0 && outcome.text() == "reached\n").then_some(())
    });
    done.with_context(|| last)?;
    Ok(since.elapsed())
}

/// OpenSSH with `tsh proxy ssh` in front, by joe's certificate.
fn openssh(stage: &Stage, program: &str) -> Result<Command> {
    let config = stage.ssh_config()?;
    let mut ssh = command(program, &stage.joe.folder);
    let tsh = stage.joe.tsh();
    let home = tsh.get_envs().find_map(|(name, value)| {
        (name == "TELEPORT_HOME").then_some(value)?.map(std::ffi::OsStr::to_os_string)
    });
    if let Some(home) = home {
        ssh.env("TELEPORT_HOME", home);
    }
    ssh.arg("-F").arg(&config);
    ssh.arg("-o").arg(format!("IdentityFile={}", stage.joe.ssh_key().display()));
    ssh.arg("-o").arg(format!("CertificateFile={}", stage.joe.ssh_certificate().display()));
    let proxy = format!("ProxyCommand={} proxy ssh '%r@%h:%p'", bin("tsh").display());
    ssh.args(["-o", "ForwardAgent=no", "-o", &proxy, "-o", "Port=3022"]);
    Ok(ssh)
}

/// What users do with a node.
fn serves_everybody(stage: &Stage, node: &str) -> Result<()> {
    let joe = &stage.joe;
    let listed = joe.run(["ls"])?.ok().text();
    assert!(listed.contains(node) && listed.contains("env=dev"), "{listed}");
    let failed = run(joe.tsh().args(["ssh", &format!("root@{node}"), "exit 7"]), "", 60)?;
    assert_eq!(failed.code, 7, "{}", failed.stderr);
    let echoed = run(openssh(stage, "ssh")?.arg(format!("root@{node}")).arg("echo plain"), "", 60)?;
    assert_eq!(echoed.ok().text(), "plain\n");
    let from = stage.scratch.write("from", "a file\n".repeat(100_000))?;
    let to = stage.scratch.path().join("to");
    let (from, to) = (from.display().to_string(), to.display().to_string());
    let batch = format!("put {from} {to}.up\nget {to}.up {to}\n");
    let mut sftp = openssh(stage, "sftp")?;
    let _moved = run(sftp.args(["-b", "-"]).arg(format!("root@{node}")), batch, 120)?.ok();
    assert_eq!(std::fs::read(&from)?, std::fs::read(&to)?);
    Ok(())
}

#[test]
fn an_agent_that_can_only_dial_out_serves_everybody() -> Result<()> {
    let Some(namespace) = Namespace::new()? else { return Ok(()) };
    let stage = Stage::with("tunnel", &options("node", false), "")?;
    let port = lead(&namespace.host, stage.cluster.port("web"))?;
    let way = format!("proxy_server: {}:{port}", namespace.host);
    let config = AgentOptions { name: "inner", way, service: "" }.configure(&stage.cluster)?;
    let teleport = namespace.command(bin("teleport"), &stage.cluster.folder().join("inner"));
    let _agent = start_agent(teleport, &config)?;
    reached(&stage.joe, "inner", 60)?;
    assert!(!namespace.listens()?, "it needs no port");
    serves_everybody(&stage, "inner")?;
    let missing = run(stage.joe.tsh().args(["ssh", "root@other", "true"]), "", 60)?;
    let _refused = missing.fails(255, "target host other is offline or does not exist");
    Ok(())
}

#[test]
fn an_agent_with_an_address_is_dialled_and_takes_stock_clients() -> Result<()> {
    let stage = Stage::with("direct", &options("node", false), "")?;
    let way = format!("auth_server: {}", stage.cluster.address("auth"));
    let service = "  listen_addr: 127.0.0.1:0\n";
    let _agent = AgentOptions { name: "outer", way, service }.start(&stage.cluster)?;
    reached(&stage.joe, "outer", 60)?;
    serves_everybody(&stage, "outer")?;
    // A stock client that knows the address needs no proxy.
    let listen = stage.cluster.folder().join("outer/data/listen.json");
    let listen: serde_json::Value = serde_json::from_slice(&std::fs::read(listen)?)?;
    let port = listen["node"].as_str().and_then(|addr| addr.rsplit(':').next()).context("port")?;
    let mut ssh = command("ssh", &stage.joe.folder);
    ssh.arg("-F").arg(stage.ssh_config()?).args(["-p", port]);
    ssh.arg("-o").arg(format!("IdentityFile={}", stage.joe.ssh_key().display()));
    ssh.arg("-o").arg(format!("CertificateFile={}", stage.joe.ssh_certificate().display()));
    let echoed = run(ssh.args(["root@127.0.0.1", "echo stock"]), "", 60)?.ok();
    assert_eq!(echoed.text(), "stock\n");
    Ok(())
}

#[test]
fn an_agent_comes_back_after_restarts_and_a_cut_link() -> Result<()> {
    let Some(namespace) = Namespace::new()? else { return Ok(()) };
    let mut stage = Stage::with("comeback", &options("node", true), "")?;
    let port = lead(&namespace.host, stage.cluster.port("web"))?;
    let way = format!("proxy_server: {}:{port}", namespace.host);
    let config = AgentOptions { name: "inner", way, service: "" }.configure(&stage.cluster)?;
    let folder = stage.cluster.folder().join("inner");
    let start = || start_agent(namespace.command(bin("teleport"), &folder), &config);
    let mut agent = start()?;
    reached(&stage.joe, "inner", 60)?;

    stage.cluster.proxy.as_mut().context("proxy")?.kill()?;
    stage.cluster.restart_proxy()?;
    let took = reached(&stage.joe, "inner", 60)?;
    assert!(took < BACK, "after the proxy's restart: {took:?}");

    agent.kill()?;
    agent = start()?;
    let took = reached(&stage.joe, "inner", 60)?;
    assert!(took < BACK, "after its own restart: {took:?}");

    namespace.cut(true)?;
    std::thread::sleep(Duration::from_secs(30));
    namespace.cut(false)?;
    let took = reached(&stage.joe, "inner", 60)?;
    assert!(took < BACK, "after a cut of 30 s: {took:?}");
    drop(agent);
    Ok(())
}

#[test]
fn a_recording_proxy_goes_through_the_tunnel_and_everything_through_one_port() -> Result<()> {
    let mut options = options("proxy", false);
    options.auth_extra.push_str("  proxy_listener_mode: multiplex\n");
    let stage = Stage::with("oneport", &options, "")?;
    let way = format!("proxy_server: {}", stage.cluster.address("web"));
    let _agent = AgentOptions { name: "inner", way, service: "" }.start(&stage.cluster)?;
    reached(&stage.joe, "inner", 60)?;
    let profile = std::fs::read_dir(stage.joe.folder.join(".tsh"))?
        .flatten()
        .find_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .unwrap_or_default();
    assert!(profile.contains("tls_routing_enabled: true"), "{profile}");
    let echoed = run(openssh(&stage, "ssh")?.arg("root@inner").arg("echo recorded"), "", 60)?.ok();
    assert_eq!(echoed.text(), "recorded\n");
    let rows = until("the session's end", 20, || {
        let sql = "select server_hostname from session_end";
        stage.cluster.query(sql).ok().filter(|rows| rows.len() >= 2)
    })?;
    assert!(rows.iter().all(|row| row == &["inner"]), "{rows:?}");
    Ok(())
}

#[test]
fn clients_without_certificates_have_a_listener_of_their_own() -> Result<()> {
    let stage = Stage::with("listener", &options("node", false), "")?;
    let way = format!("proxy_server: {}", stage.cluster.address("web"));
    let _agent = AgentOptions { name: "inner", way, service: "" }.start(&stage.cluster)?;
    reached(&stage.joe, "inner", 60)?;

    let log = stage.scratch.path().join("listener.log");
    let mut tsh = stage.joe.tsh();
    tsh.args(["proxy", "ssh", "--port=0", "root@inner"]);
    let _listener = Guard::start("listener", &mut tsh, &log)?;
    let said = |text: &str| {
        until("the listener", 30, || {
            let log = std::fs::read_to_string(&log).ok()?;
            log.lines().find_map(|line| line.strip_prefix(text).map(str::to_owned))
        })
    };
    let password = said("Password, for this run only: ")?;
    let address = said("Started SSH server for root@inner on ")?;
    let port = address.trim_end_matches('.').rsplit(':').next().context("port")?.to_owned();
    let with = |password: &str, remote: &str| -> Result<_> {
        let askpass = stage.scratch.write("askpass", format!("#!/bin/sh\necho {password}\n"))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&askpass, mode)?;
        let mut ssh = command("ssh", &stage.joe.folder);
        ssh.env("SSH_ASKPASS", &askpass).env("SSH_ASKPASS_REQUIRE", "force");
        ssh.args([
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        ssh.args(["-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1", "-p", &port]);
        run(ssh.arg("root@127.0.0.1").arg(remote), "", 60)
    };
    assert_eq!(with(&password, "echo through; exit 3")?.text(), "through\n");
    assert_eq!(with(&password, "exit 3")?.code, 3);
    let _refused = with("guessed", "true")?.fails(255, "Permission denied");
    Ok(())
}

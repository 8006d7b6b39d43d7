//! The SSH service: programs run on the agent's host, reached through the tunnel it holds and directly, by tsh and by
//! stock clients, and recorded there.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use shared_testkit::cluster::{Cluster, ClusterOptions, Home};
use shared_testkit::process::{Guard, bin, command};
use shared_testkit::scratch::Scratch;
use shared_testkit::{run, until};

const TOKEN: &str = "node-join-token-of-the-tests";

/// A cluster, an agent on this host, and joe who may log in there.
struct Host {
    cluster: Cluster,
    joe: Home,
    agent: Guard,
    /// Last, so that it goes after the programs that use it.
    scratch: Scratch,
}

/// How an agent joins and is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Tunnel,
    Direct,
}

impl Host {
    fn new(name: &str, way: Way, mode: &str) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            anyhow::ensure!(std::env::var_os("CI").is_none(), "this is not root");
            eprintln!("SKIPPED: only root can start programs as a login");
            return Ok(None);
        }
        let scratch = Scratch::new(name)?;
        let options = ClusterOptions {
            recording: Some(mode.to_owned()),
            auth_extra: format!("  tokens: [\"node:{TOKEN}\"]\n"),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(&scratch.folder("c")?, &options)?;
        let _role = cluster.create(
            "kind: role\nversion: v7\nmetadata: {name: web}\nspec:\n  options: {forward_agent: true}\n  allow:\n    \
             logins: [root]\n    node_labels: {env: test}\n",
        )?;
        let joe = cluster.user("joe", "auditor,web", "root")?;
        let token = scratch.write("token", TOKEN)?;
        let join = match way {
            Way::Tunnel => format!("proxy_server: localhost:{}", cluster.port("web")),
            Way::Direct => format!("auth_server: {}", cluster.address("auth")),
        };
        let config = format!(
            "version: v3\nteleport:\n  nodename: web-1\n  data_dir: {}\n  {join}\n  auth_token: {}\n  ca_pin: \"{}\"\n\
             auth_service:\n  enabled: no\nproxy_service:\n  enabled: no\nssh_service:\n  enabled: yes\n  \
             listen_addr: 127.0.0.1:0\n  labels: {{env: test}}\n  \
             commands: [{{name: word, command: [echo, hello], period: 1h}}]\n",
            scratch.folder("agent")?.display(),
            token.display(),
            cluster.ca_pin()?,
        );
        let config = scratch.write("agent.yaml", config)?;
        let mut daemon = command(bin("teleport"), scratch.path());
        daemon.args(["start", "--config"]).arg(&config).env("RUST_LOG", "info");
        let agent = Guard::start("agent", &mut daemon, &scratch.path().join("agent.log"))?;
        let host = Self { cluster, joe, agent, scratch };
        until("the agent to be reached", 60, || {
            let reached = run(&mut host.ssh(&["true"]), "", 60).ok()?;
            (reached.code == 0).then_some(())
        })
        .with_context(|| host.agent.log())?;
        Ok(Some(host))
    }

    fn ssh(&self, remote: &[&str]) -> Command {
        let mut tsh = self.joe.tsh();
        tsh.args(["ssh", "root@web-1"]).args(remote);
        tsh
    }

    /// The sessions whose command this was.
    fn sessions(&self, initial: &str) -> Result<Vec<String>> {
        let sql = format!("select sid from exec where command = '{initial}'");
        let rows = self.cluster.query(&sql)?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// The one session whose command this was, once its recording is there.
    fn session(&self, initial: &str) -> Result<String> {
        let sids = until("the session", 20, || {
            self.sessions(initial).ok().filter(|sids| !sids.is_empty())
        })?;
        let [sid] = sids.as_slice() else { anyhow::bail!("{initial}: {sids:?}") };
        let recording = self.cluster.data_dir().join(format!("log/records/{sid}.tar"));
        until("the recording", 60, || recording.exists().then_some(()))?;
        Ok(sid.clone())
    }

    fn played(&self, sid: &str) -> Result<String> {
        Ok(self.joe.run(["play", "--format=text", sid])?.ok().text())
    }

    /// Where a direct agent listens.
    fn port(&self) -> Result<u16> {
        let listen = std::fs::read_to_string(self.scratch.path().join("agent/listen.json"))?;
        let listen: serde_json::Value = serde_json::from_str(&listen)?;
        let at = listen["node"].as_str().with_context(|| listen.to_string())?;
        Ok(at.rsplit(':').next().unwrap_or_default().parse()?)
    }

    /// A stock client, straight to the agent.
    fn stock(&self, program: &str) -> Result<Command> {
        let known: PathBuf = self.scratch.path().join("known_hosts");
        let export = self.cluster.tctl_ok(["auth", "export", "--type=host"])?.text();
        let key = export.split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(" ");
        std::fs::write(&known, format!("@cert-authority * {key}\n"))?;
        let mut client = command(program, &self.joe.folder);
        client.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]);
        client.args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "HostKeyAlias=web-1"]);
        client.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
        client.arg("-o").arg(format!("Port={}", self.port()?));
        client.arg("-o").arg(format!("CertificateFile={}", self.joe.ssh_certificate().display()));
        client.arg("-i").arg(self.joe.ssh_key());
        Ok(client)
    }
}

#[test]
fn through_the_tunnel_a_command_runs_and_is_recorded_there() -> Result<()> {
    let Some(host) = Host::new("ssh-tunnel", Way::Tunnel, "node")? else { return Ok(()) };
    let echoed = run(&mut host.ssh(&["echo on $SSH_TELEPORT_USER; exit 7"]), "", 60)?;
    assert_eq!((echoed.code, echoed.text().as_str()), (7, "on joe\n"), "{}", echoed.stderr);
    let sid = host.session("echo on $SSH_TELEPORT_USER; exit 7")?;
    assert_eq!(host.played(&sid)?, "on joe\n");
    let status =
        run(&mut host.ssh(&[&format!("{} status", bin("teleport").display())]), "", 60)?.ok();
    assert!(
        status.text().contains("User ID     : joe, logged in as root from 127.0.0.1"),
        "{}",
        status.text()
    );
    assert!(status.text().contains("Cluster Name: example.test"), "{}", status.text());
    let listed = host.joe.run(["ls"])?.ok().text();
    assert!(listed.contains("web-1") && listed.contains("env=test"), "{listed}");

    let (sent, back) = (host.scratch.path().join("sent"), host.scratch.path().join("back"));
    let content: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&sent, &content)?;
    let there = host.scratch.path().join("there");
    let remote = format!("root@web-1:{}", there.display());
    let _sent = host.joe.run(["scp", &sent.display().to_string(), &remote])?.ok();
    let _back = host.joe.run(["scp", &remote, &back.display().to_string()])?.ok();
    assert!(std::fs::read(&back)? == content);
    Ok(())
}

#[test]
fn directly_a_stock_client_logs_in_and_is_recorded() -> Result<()> {
    let Some(host) = Host::new("ssh-direct", Way::Direct, "proxy")? else { return Ok(()) };
    // Through the proxy, which records; and straight, where only the node can.
    let echoed = run(&mut host.ssh(&["echo through"]), "", 60)?.ok();
    assert_eq!(echoed.text(), "through\n");
    let sid = host.session("echo through")?;
    assert_eq!(host.played(&sid)?, "through\n");
    let mut ssh = host.stock("ssh")?;
    let echoed = run(ssh.args(["root@127.0.0.1", "echo straight; exit 9"]), "", 60)?;
    assert_eq!((echoed.code, echoed.text().as_str()), (9, "straight\n"), "{}", echoed.stderr);
    let sid = host.session("echo straight; exit 9")?;
    assert_eq!(host.played(&sid)?, "straight\n");
    let sql = format!("select session_recording from session_end where sid = '{sid}'");
    let modes = host.cluster.query(&sql)?;
    assert_eq!(modes, [["node"]]);

    let mut refused = host.stock("ssh")?;
    let refused = run(refused.args(["daemon@127.0.0.1", "true"]), "", 60)?;
    let _refused = refused.fails(255, "Permission denied (publickey)");
    Ok(())
}

//! The main job on a real sshd, each command printed as a user types it, with its real output.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use shared_testkit::cluster::PASSWORD;
use shared_testkit::process::{bin, command};
use shared_testkit::{Cluster, ClusterOptions, Guard, Sshd, SshdOptions, Terminal, run};

fn main() -> Result<()> {
    let started = Instant::now();
    let mut folder = std::env::current_exe()?;
    folder.pop();
    let folder = folder.join("gatehouse-demo");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let demo = Demo::start(&folder)?;
    demo.servers()?;
    println!(
        "\nDone in {:.1} s. Files: {} (teleport.yaml, data, recordings in auth/log/records, home)",
        started.elapsed().as_secs_f32(),
        folder.display()
    );
    Ok(())
}

struct Demo {
    folder: PathBuf,
    cluster: Cluster,
    home: PathBuf,
    agent: Guard,
    login: String,
}

impl Demo {
    fn start(folder: &Path) -> Result<Self> {
        headline("A cluster: auth and proxy in one process, on SQLite and local files");
        shown("teleport start --config auth.yaml");
        let cluster = Cluster::start(folder, &ClusterOptions::default())?;
        let login = e2e::login_name();
        let home = folder.join("home/joe");
        std::fs::create_dir_all(&home)?;
        let socket = folder.join("agent.sock");
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket);
        let agent = Guard::start("ssh-agent", &mut agent, &folder.join("agent.log"))?;
        shared_testkit::until("ssh-agent", 10, || socket.exists().then_some(()))?;
        Ok(Self { folder: folder.to_path_buf(), cluster, home, agent, login })
    }

    /// A shell with our programs first on the path, in the user's home.
    fn shell(&self, line: &str, input: &str) -> Result<String> {
        shown(line);
        let outcome = run(&mut self.sh(line), input, 60)?;
        let text = outcome.text() + &outcome.stderr;
        print!("{text}");
        ensure!(outcome.code == 0, "the command ended with {}", outcome.code);
        Ok(text)
    }

    fn sh(&self, line: &str) -> Command {
        let mut sh = command("bash", &self.home);
        let programs = bin("tsh").parent().map(Path::to_path_buf).unwrap_or_default();
        let path = std::env::var("PATH").unwrap_or_default();
        sh.args(["-c", line])
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("SSL_CERT_FILE", self.folder.join("auth/webproxy_cert.pem"))
            .env("SSH_AUTH_SOCK", self.folder.join("agent.sock"));
        sh
    }

    fn servers(&self) -> Result<()> {
        let web = self.cluster.port("web");
        let ssh = self.cluster.port("ssh");
        let login = &self.login;
        let tctl = format!("tctl --config {}/auth.yaml", self.folder.display());

        headline("An unmodified sshd that trusts the cluster");
        self.shell(
            &format!("curl -sS 'https://localhost:{web}/webapi/auth/export?type=user' | sed s/cert-authority\\ // > teleport_user_ca.pub"),
            "",
        )?;
        self.shell(
            &format!("{tctl} auth sign --host=127.0.0.1,localhost --format=openssh --out=host"),
            "",
        )?;
        let sshd = Sshd::start(
            &self.folder.join("sshd"),
            &SshdOptions {
                user_ca: Some(self.home.join("teleport_user_ca.pub")),
                host_key: Some(self.home.join("host")),
                host_certificate: Some(self.home.join("host-cert.pub")),
                ..SshdOptions::default()
            },
        )?;
        let port = sshd.port;
        println!("(sshd with TrustedUserCAKeys, HostKey and HostCertificate on port {port})");

        headline("A role and a user");
        let role = format!(
            "kind: role\nversion: v7\nmetadata:\n  name: servers\nspec:\n  allow:\n    logins: [{login}]\n    node_labels:\n      'teleport.dev/host': '127.0.0.1'\n"
        );
        std::fs::write(self.home.join("servers.yaml"), role)?;
        self.shell(&format!("{tctl} create -f servers.yaml"), "")?;
        let invited = self.shell(
            &format!("{tctl} users add joe --roles=access,auditor,servers --logins={login}"),
            "",
        )?;
        let url = invited
            .split_whitespace()
            .find(|word| word.contains("/web/invite/"))
            .context("no invitation was printed")?;
        let pin = self.cluster.ca_pin()?;
        self.shell(
            &format!("tsh signup --ca-pin={pin} {url}"),
            &format!("{PASSWORD}\n{PASSWORD}\n"),
        )?;

        headline("The main job");
        self.shell(
            &format!("tsh login --proxy=localhost:{web} --user=joe --ca-pin={pin}"),
            &format!("{PASSWORD}\n"),
        )?;
        self.shell("ssh-add -l", "")?;
        self.shell("tctl status", "")?;
        self.shell(
            &format!("tsh ssh --port={port} {login}@127.0.0.1 'echo hello from $(hostname)'"),
            "",
        )?;
        self.interactive(&format!("tsh ssh --port={port} {login}@127.0.0.1"))?;
        self.shell("tsh config --host=127.0.0.1 > ssh_config && cat ssh_config", "")?;
        self.shell(
            &format!(
                "ssh -F ssh_config -o 'ForwardAgent yes' -o \"ProxyCommand ssh -F ssh_config -o 'ForwardAgent yes' -p {ssh} %r@localhost -s proxy:%h:%p\" -p {port} {login}@127.0.0.1 'echo plain OpenSSH works too'"
            ),
            "",
        )?;
        self.shell("tsh recordings ls", "")?;
        let rows =
            self.cluster.query("select sid from session_end order by event_time desc limit 1")?;
        let sid = rows.first().and_then(|row| row.first()).context("no session has ended")?.clone();
        self.shell(&format!("tsh play --format=text {sid}"), "")?;
        self.shell(
            "tctl audit query exec 'select event_time,identity_user from cert_create order by event_date limit 1;'",
            "",
        )?;
        self.shell("tctl audit query exec --format=text 'select event_time, user, command, exitCode from exec'", "")?;
        let _still_running = self.agent.id();
        Ok(())
    }

    /// An interactive shell on a terminal of its own.
    fn interactive(&self, line: &str) -> Result<()> {
        shown(line);
        let mut terminal = Terminal::start(&mut self.sh(line), 100, 30)?;
        terminal.send("echo $((6*7)) interactive; exit\n")?;
        let (code, bytes) = terminal.finish(60)?;
        ensure!(code == 0, "the shell ended with {code}");
        println!("{}", String::from_utf8_lossy(&bytes).replace('\r', "").trim_end());
        Ok(())
    }
}

fn headline(text: &str) {
    println!("\n== {text}");
}

fn shown(line: &str) {
    println!("$ {line}");
}

//! A real MariaDB with TLS. Its users come in with certificates that the cluster vouches for, and in no other way;
//! `root` comes in by the socket, for what tests do behind the scenes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::process::{Guard, Outcome, command, installed, run};
use crate::scratch::Scratch;
use crate::wait::{free_port, until};

/// Where Debian keeps the server, which is in no ordinary user's path.
const SERVER: &str = "/usr/sbin/mariadbd";
/// The user the package's server runs as.
const OWNER: &str = "mysql";

/// A running server on loopback.
#[derive(Debug)]
pub struct MariaDb {
    /// Its port.
    pub port: u16,
    /// Its process.
    pub process: Guard,
    scratch: Scratch,
}

impl MariaDb {
    /// One that trusts this cluster, with these users, who may do everything. None, loudly, where it is not installed.
    pub fn start(cluster: &Cluster, users: &[&str]) -> Result<Option<Self>> {
        if !installed("mariadb")? || !Path::new(SERVER).exists() {
            return Ok(None);
        }
        // It runs as a user of its own, so its folder lies apart from those that only we may enter.
        let scratch = Scratch::new("mariadb")?;
        let signed = scratch.path().join("server");
        let _signed = cluster.tctl_ok([
            "auth",
            "sign",
            "--format=db",
            "--host=localhost,127.0.0.1",
            "--ttl=24h",
            &format!("--out={}", signed.display()),
        ])?;
        let mut install = command("mariadb-install-db", scratch.path());
        install.args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]);
        install.arg(format!("--datadir={}", scratch.path().join("data").display()));
        if let Some(owner) = owner() {
            install.arg(format!("--user={owner}"));
        }
        let _made = run(&mut install, "", 120)?.ok();
        hand_over(scratch.path())?;
        let port = free_port()?;
        let process = serve(scratch.path(), &signed, port)?;
        let mut this = Self { port, process, scratch };
        until("MariaDB", 60, || {
            let answered = this.run("select 1").is_ok_and(|outcome| outcome.code == 0);
            (answered || !this.process.running()).then_some(())
        })?;
        ensure!(this.process.running(), "MariaDB ended: {}", this.log());
        // Who is not known would be let in as the anonymous user, and no certificate would be asked for.
        this.sql("delete from mysql.global_priv where user = ''; flush privileges")?;
        for user in users {
            this.sql(&format!(
                "create user `{user}`@`%` require subject '/CN={user}'; \
                 grant all on *.* to `{user}`@`%` with grant option"
            ))?;
        }
        this.sql("create database test")?;
        Ok(Some(this))
    }

    /// `localhost:PORT`.
    pub fn uri(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Runs SQL as `root` by the socket; rows with tabs between columns.
    pub fn sql(&self, sql: &str) -> Result<String> {
        Ok(self.run(sql)?.ok().text().trim_end().to_owned())
    }

    fn run(&self, sql: &str) -> Result<Outcome> {
        let mut client = command("mariadb", self.scratch.path());
        client.arg("--no-defaults").arg(self.socket()).args(["--user=root", "-NBe", sql]);
        run(&mut client, "", 60)
    }

    /// A client's option that leads past the cluster.
    pub fn socket(&self) -> String {
        format!("--socket={}", self.scratch.path().join("socket").display())
    }

    /// The folder with its files. What is written there has to be readable by its user.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn serve(folder: &Path, signed: &Path, port: u16) -> Result<Guard> {
    let mut server = as_owner(Path::new(SERVER), folder);
    let signed = signed.display();
    server.arg("--no-defaults");
    for (option, path) in
        [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid"), ("tmpdir", "")]
    {
        server.arg(format!("--{option}={}", folder.join(path).display()));
    }
    server.args([
        format!("--port={port}"),
        format!("--ssl-cert={signed}.crt"),
        format!("--ssl-key={signed}.key"),
        format!("--ssl-ca={signed}.cas"),
    ]);
    server.args([
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",
        "--max-connections=1200",
        "--max-allowed-packet=64M",
        "--local-infile=1",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=32M",
        "--secure-file-priv=",
    ]);
    Guard::start("mariadbd", &mut server, &folder.join("log"))
}

/// The user it runs as, if that is not us.
fn owner() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some(OWNER)
}

/// Root may not run it: the package's user does, and owns the files below `path`.
fn hand_over(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711))?;
    if let Some(owner) = owner() {
        let status = Command::new("chown")
            .args(["-R", &format!("{owner}:")])
            .arg(path)
            .status()
            .context("start chown")?;
        ensure!(status.success(), "chown ended with {status}");
    }
    Ok(())
}

fn as_owner(program: &Path, home: &Path) -> Command {
    let Some(owner) = owner() else { return command(PathBuf::from(program), home) };
    let mut server = command("setpriv", home);
    server
        .args([&format!("--reuid={owner}"), &format!("--regid={owner}"), "--init-groups", "--"])
        .arg(program);
    server
}

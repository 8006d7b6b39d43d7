//! A real PostgreSQL with TLS. Its users come in with certificates that the cluster vouches for; `postgres` comes in
//! without, by TLS or by its socket, for what tests do behind the scenes and for comparison.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::process::{Guard, Outcome, command, installed, run};
use crate::scratch::Scratch;
use crate::wait::{free_port, until};

/// Where Debian keeps the versions' programs.
const VERSIONS: &str = "/usr/lib/postgresql";

/// A running server on loopback.
#[derive(Debug)]
pub struct Postgres {
    /// Its port.
    pub port: u16,
    /// Its process.
    pub process: Guard,
    programs: PathBuf,
    scratch: Scratch,
}

impl Postgres {
    /// One that trusts this cluster, with these superusers besides `postgres`. None, loudly, where it is not installed.
    pub fn start(cluster: &Cluster, users: &[&str]) -> Result<Option<Self>> {
        Self::start_with(cluster, users, "")
    }

    /// The same with more lines of `postgresql.conf`.
    pub fn start_with(cluster: &Cluster, users: &[&str], extra: &str) -> Result<Option<Self>> {
        let Some(programs) = programs()? else { return Ok(None) };
        // It runs as a user of its own, so its folder lies apart from those that only we may enter.
        let scratch = Scratch::new("pg")?;
        let signed = scratch.path().join("server");
        let _signed = cluster.tctl_ok([
            "auth",
            "sign",
            "--format=db",
            "--host=localhost,127.0.0.1",
            "--ttl=24h",
            &format!("--out={}", signed.display()),
        ])?;
        hand_over(scratch.path())?;
        let data = scratch.path().join("data");
        let mut init = as_owner(&programs.join("initdb"), scratch.path());
        init.args(["-A", "trust", "-N", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data);
        let _made = run(&mut init, "", 60)?.ok();
        let port = free_port()?;
        configure(&data, &signed, scratch.path(), port, extra)?;
        hand_over(&data.join("postgresql.conf"))?;
        hand_over(&data.join("pg_hba.conf"))?;
        let mut server = as_owner(&programs.join("postgres"), scratch.path());
        server.arg("-D").arg(&data);
        let process = Guard::start("postgres", &mut server, &scratch.path().join("log"))?;
        let mut this = Self { port, process, programs, scratch };
        until("PostgreSQL", 60, || {
            let answered = this.run("select 1").is_ok_and(|outcome| outcome.code == 0);
            (answered || !this.process.running()).then_some(())
        })?;
        ensure!(this.process.running(), "PostgreSQL ended: {}", this.process.log());
        for user in users {
            let _made = this.sql(&format!("create role \"{user}\" superuser login"))?;
        }
        Ok(Some(this))
    }

    /// `localhost:PORT`.
    pub fn uri(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Runs SQL as `postgres` by its socket; rows with `|` between columns.
    pub fn sql(&self, sql: &str) -> Result<String> {
        Ok(self.run(sql)?.ok().text().trim_end().to_owned())
    }

    fn run(&self, sql: &str) -> Result<Outcome> {
        let mut psql = self.direct("psql");
        psql.env("PGHOST", self.scratch.path()).args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        run(&mut psql, "", 60)
    }

    /// A program that comes in as `postgres` by TLS, past the cluster.
    pub fn direct(&self, program: &str) -> Command {
        let mut client = command(self.program(program), self.scratch.path());
        client.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string());
        client.env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        client.env("PGSSLMODE", "require").env("PGGSSENCMODE", "disable");
        client
    }

    /// A program of this version.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
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

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once, its children first; they would outlive a postmaster that is killed.
        let _ = self.process.signal(Signal::QUIT);
        let _ = until("PostgreSQL's end", 10, || (!self.process.running()).then_some(()));
    }
}

/// The newest version's programs; none where there is none and there need not be one.
fn programs() -> Result<Option<PathBuf>> {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, path)| path.join("postgres").is_file())
        .max();
    if newest.is_none() {
        // Says so, or fails where it must be there.
        installed("postgres")?;
    }
    Ok(newest.map(|(_, path)| path))
}

fn configure(data: &Path, signed: &Path, folder: &Path, port: u16, extra: &str) -> Result<()> {
    let (signed, socket) = (signed.display(), folder.display());
    let text = format!(
        "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{socket}'\nmax_connections = 1200\n\
         shared_buffers = 128MB\nfsync = off\nfull_page_writes = off\nsynchronous_commit = off\n\
         ssl = on\nssl_cert_file = '{signed}.crt'\nssl_key_file = '{signed}.key'\nssl_ca_file = '{signed}.cas'\n\
         log_statement = all\nlog_min_messages = warning\n{extra}"
    );
    std::fs::write(data.join("postgresql.conf"), text)?;
    let rules = "local all postgres trust\nhostssl all postgres 127.0.0.1/32 trust\n\
                 hostssl all all 127.0.0.1/32 cert clientcert=verify-full\n";
    Ok(std::fs::write(data.join("pg_hba.conf"), rules)?)
}

/// Root may not run it: the package's user does, and owns the files below `path`.
fn hand_over(path: &Path) -> Result<()> {
    std::fs::set_permissions(
        path,
        std::fs::Permissions::from_mode(if path.is_dir() { 0o711 } else { 0o600 }),
    )?;
    if rustix::process::geteuid().is_root() {
        let status = Command::new("chown")
            .args(["-R", "postgres:"])
            .arg(path)
            .status()
            .context("start chown")?;
        ensure!(status.success(), "chown ended with {status}");
    }
    Ok(())
}

fn as_owner(program: &Path, home: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return command(program, home);
    }
    let mut server = command("setpriv", home);
    server.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
    server
}

//! PostgreSQL through the whole chain, beside TLS straight to it and beside pgbouncer with TLS on both sides: short
//! statements by one client and by sixteen, and COPY both ways. Audited and recorded, as it is by default.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use shared_testkit::process::{command, installed};
use shared_testkit::{
    DbAgent, DbOptions, DbResource, DbStage, DbTunnel, Guard, Postgres, free_port, run, until,
};

use crate::measure::{Table, median, target};

/// Rows that `pgbench` looks up: 100,000 times this.
const SCALE: &str = "10";
/// Seconds of a run of `pgbench`.
const SECONDS: &str = "5";
/// The line that COPY moves again and again.
const LINE: &[u8] = b"1234567\tthe quick brown fox jumps over the lazy dog\t2026-11-21 09:15:00\n";

/// A PostgreSQL and the ways to it.
struct Databases {
    direct: Command,
    pooled: Option<Command>,
    through: Command,
    /// The programs, in the order they have to go.
    _tunnel: DbTunnel,
    _pgbouncer: Option<Guard>,
    _stage: DbStage,
    postgres: Postgres,
}

/// Measures all of it, where PostgreSQL is there.
pub fn run_all(mib: u64, rounds: usize) -> Result<()> {
    for agent in [DbAgent::SameProcess, DbAgent::Tunnel] {
        let Some(databases) = Databases::start(agent)? else { return Ok(()) };
        println!(
            "\ndatabase service {}",
            if agent == DbAgent::Tunnel { "behind a tunnel" } else { "beside the proxy" }
        );
        databases.short(16, rounds)?;
        databases.short(1, rounds)?;
        if agent == DbAgent::SameProcess {
            databases.copy(mib, rounds)?;
        }
    }
    Ok(())
}

impl Databases {
    fn start(agent: DbAgent) -> Result<Option<Self>> {
        let stage = DbStage::with("bench-db", &DbOptions { agent, ..DbOptions::default() })?;
        let log = "log_statement = none\n";
        let Some(postgres) = Postgres::start_with(&stage.cluster, &["alice"], log)? else {
            return Ok(None);
        };
        stage.serve(&DbResource {
            name: "bench",
            protocol: "postgres",
            uri: postgres.uri(),
            spec: "",
        })?;
        let direct = postgres.direct("psql");
        let mut fill = like(&direct, &postgres.program("pgbench"));
        let _filled = run(fill.args(["-i", "-q", "-s", SCALE]), "", 300)?.ok();
        let tunnel = stage.tunnel("bench", "alice", "postgres")?;
        let through = tunnel.postgres("psql");
        let pgbouncer = if installed("pgbouncer")? { Some(pgbouncer(&postgres)?) } else { None };
        let pooled = pgbouncer.as_ref().map(|(_, port)| {
            let mut client = like(&direct, Path::new("psql"));
            client.env("PGPORT", port.to_string());
            client
        });
        let guard = pgbouncer.map(|(guard, _)| guard);
        Ok(Some(Self {
            direct,
            pooled,
            through,
            _tunnel: tunnel,
            _pgbouncer: guard,
            _stage: stage,
            postgres,
        }))
    }

    fn ways(&self) -> Vec<(&'static str, &Command)> {
        let mut ways = vec![("direct TLS", &self.direct), ("chain", &self.through)];
        ways.extend(self.pooled.as_ref().map(|pooled| ("pgbouncer", pooled)));
        ways
    }

    /// `pgbench -S`: statements a second, and the median of what one takes.
    fn short(&self, clients: u32, rounds: usize) -> Result<()> {
        let ways = self.ways();
        let mut rates = vec![Vec::new(); ways.len()];
        let mut medians = vec![Vec::new(); ways.len()];
        for _ in 0..rounds {
            for (at, (_, client)) in ways.iter().enumerate() {
                let (rate, middle) = self.pgbench(client, clients)?;
                rates[at].push(rate);
                medians[at].push(middle);
            }
        }
        let mut table = Table::new(&format!("pgbench -S -c {clients}, statements a second"));
        let base = median(&rates[0]);
        for ((name, _), (rates, medians)) in ways.iter().zip(rates.iter().zip(&medians)) {
            let rate = median(rates);
            table.row(
                name,
                format!("{rate:.0}"),
                rate / base,
                format!("median {:.0} us", median(medians)),
            );
        }
        table.print("direct TLS");
        let chain = median(&rates[1]);
        if clients == 1 {
            let added = median(&medians[1]) - median(&medians[0]);
            let met = if added <= 150.0 { "met" } else { "MISSED" };
            println!("  added to the median: {added:.0} us, target at most 150 us: {met}");
        } else {
            target("of direct TLS", chain / base, 0.9..=f64::INFINITY);
            if let Some(pooled) = rates.get(2) {
                target("of pgbouncer", chain / median(pooled), 1.0..=f64::INFINITY);
            }
        }
        Ok(())
    }

    /// Statements a second, and the median in microseconds out of its log of each.
    fn pgbench(&self, way: &Command, clients: u32) -> Result<(f64, f64)> {
        let folder = shared_testkit::Scratch::new("pgbench")?;
        let mut bench = like(way, &self.postgres.program("pgbench"));
        bench.args(["-n", "-S", "-T", SECONDS, "-l", "-c", &clients.to_string()]);
        bench.args(["-j", &clients.min(2).to_string()]).current_dir(folder.path());
        let text = run(&mut bench, "", 120)?.ok().text();
        let rate = text
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
            .with_context(|| text.clone())?;
        let mut times = Vec::new();
        for entry in std::fs::read_dir(folder.path())? {
            let log = std::fs::read_to_string(entry?.path())?;
            times
                .extend(log.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()));
        }
        Ok((rate, median(&times)))
    }

    /// COPY of so much text into the server and out of it.
    fn copy(&self, mib: u64, rounds: usize) -> Result<()> {
        let lines = (mib << 20) / LINE.len() as u64;
        let _made =
            self.postgres.sql("create unlogged table lines (a int, b text, c timestamp)")?;
        let ways = &self.ways()[..2];
        let out = format!(
            "copy (select 1234567, 'the quick brown fox jumps over the lazy dog', timestamp '2026-11-21 09:15:00' from generate_series(1, {lines})) to stdout"
        );
        for (title, sql) in [("COPY out", out.as_str()), ("COPY in", "copy lines from stdin")] {
            let mut rates = [Vec::new(), Vec::new()];
            for _ in 0..rounds.min(3) {
                for ((_, client), rates) in ways.iter().zip(&mut rates) {
                    let _empty = self.postgres.sql("truncate lines")?;
                    let mut psql = like(client, Path::new("psql"));
                    psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql]);
                    let begun = Instant::now();
                    moved(&mut psql, if title == "COPY in" { lines } else { 0 })?;
                    rates.push(mib as f64 / begun.elapsed().as_secs_f64());
                }
            }
            let mut table = Table::new(&format!("{title} of {mib} MiB, MiB/s"));
            let base = median(&rates[0]);
            for ((name, _), rates) in ways.iter().zip(&rates) {
                let rate = median(rates);
                table.row(name, format!("{rate:.0}"), rate / base, String::new());
            }
            table.print("direct TLS");
            target("of direct TLS", median(&rates[1]) / base, 0.9..=f64::INFINITY);
        }
        Ok(())
    }
}

/// Runs a client to its end, with so many lines for it; what it prints is thrown away.
fn moved(psql: &mut Command, lines: u64) -> Result<()> {
    use std::io::Write as _;
    let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut stdin = child.stdin.take().context("stdin")?;
    let some = LINE.repeat(1000);
    for _ in 0..lines / 1000 {
        stdin.write_all(&some)?;
    }
    drop(stdin);
    let status = child.wait()?;
    ensure!(status.success(), "psql ended with {status}");
    Ok(())
}

/// Another program with the environment of `client`.
fn like(client: &Command, program: &Path) -> Command {
    let mut other = Command::new(program);
    other.env_clear().envs(client.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = client.get_current_dir() {
        other.current_dir(folder);
    }
    other
}

/// A pgbouncer in session mode, with TLS to its clients and to the server.
fn pgbouncer(postgres: &Postgres) -> Result<(Guard, u16)> {
    let folder = postgres.folder();
    let port = free_port()?;
    let users = folder.join("users.txt");
    std::fs::write(&users, "\"postgres\" \"\"\n")?;
    let signed = folder.join("server");
    let text = format!(
        "[databases]\npostgres = host=127.0.0.1 port={} dbname=postgres user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         auth_type = any\nauth_file = {}\npool_mode = session\nmax_client_conn = 200\ndefault_pool_size = 100\nunix_socket_dir =\n\
         client_tls_sslmode = require\nclient_tls_key_file = {}.key\nclient_tls_cert_file = {}.crt\nserver_tls_sslmode = require\n\
         ignore_startup_parameters = extra_float_digits\n",
        postgres.port,
        users.display(),
        signed.display(),
        signed.display(),
    );
    let config: PathBuf = folder.join("pgbouncer.ini");
    std::fs::write(&config, text)?;
    // Root may not run it either.
    let mut program = command("setpriv", folder);
    if rustix::process::geteuid().is_root() {
        program.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--", "pgbouncer"]);
    } else {
        program = command("pgbouncer", folder);
    }
    let mut guard = Guard::start("pgbouncer", program.arg(&config), &folder.join("pgbouncer.log"))?;
    until("pgbouncer", 20, || {
        (std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() || !guard.running())
            .then_some(())
    })?;
    ensure!(guard.running(), "pgbouncer ended: {}", guard.log());
    Ok((guard, port))
}

//! `tsh db` and `tsh proxy db` as people use them, in front of a real PostgreSQL: logins and the files of other
//! programs, the database's own client, several listeners in one program, and a login that ends meanwhile.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use shared_testkit::cluster::PASSWORD;
use shared_testkit::process::command;
use shared_testkit::{
    DbResource, DbStage, Guard, Home, Outcome, Postgres, Terminal, free_port, run, until,
};

const AS_ALICE: [&str; 2] = ["--db-user=alice", "--db-name=postgres"];

/// Two names for one PostgreSQL.
struct Shops {
    stage: DbStage,
    postgres: Postgres,
}

impl Shops {
    fn new(name: &str) -> Result<Option<Self>> {
        let stage = DbStage::new(name)?;
        let Some(postgres) = Postgres::start(&stage.cluster, &["alice"])? else { return Ok(None) };
        for name in ["shop", "store"] {
            let uri = postgres.uri();
            stage.serve(&DbResource { name, protocol: "postgres", uri, spec: "" })?;
        }
        Ok(Some(Self { stage, postgres }))
    }

    /// `tsh` with the programs of this PostgreSQL on its path.
    fn tsh(&self, home: &Home) -> Command {
        let mut tsh = home.tsh();
        tsh.env("PATH", self.path());
        tsh
    }

    fn path(&self) -> std::ffi::OsString {
        let programs = self.postgres.program("psql");
        let mut path = programs.parent().unwrap_or(Path::new("/")).as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path
    }

    fn joe(&self, args: &[&str]) -> Result<Outcome> {
        run(self.tsh(&self.stage.joe).args(args), "", 60)
    }

    fn psql(&self, home: &Home) -> Command {
        let mut psql = command(self.postgres.program("psql"), &home.folder);
        psql.args(["-XqAt", "-c", "select current_user"]);
        psql
    }

    fn psql_at(&self, home: &Home, port: u16) -> Command {
        let mut psql = self.psql(home);
        psql.env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string());
        psql.env("PGUSER", "alice").env("PGDATABASE", "postgres").env("PGCONNECT_TIMEOUT", "20");
        psql
    }
}

fn mode(path: &Path) -> Result<u32> {
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o777)
}

/// Files that somebody has written already.
fn other_settings(home: &Home) -> Result<[(PathBuf, &'static str); 2]> {
    let files = [
        (home.folder.join(".pg_service.conf"), "# mine\n[prod]\nhost=db\n\n# the end\n"),
        (home.folder.join(".my.cnf"), "[client]\nuser = me\r\n!includedir /nowhere\n"),
    ];
    for (path, text) in &files {
        std::fs::write(path, text)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640))?;
    }
    Ok(files)
}

#[test]
fn a_login_tells_other_programs_and_a_logout_takes_it_back() -> Result<()> {
    let Some(shops) = Shops::new("dblogin")? else { return Ok(()) };
    let home = &shops.stage.joe;
    let files = other_settings(home)?;
    let untouched = || -> Result<()> {
        for (path, text) in &files {
            ensure!(std::fs::read_to_string(path)? == *text, "{} changed", path.display());
            ensure!(mode(path)? == 0o640, "the mode of {} changed", path.display());
        }
        Ok(())
    };
    let _missing =
        shops.joe(&["db", "config", "shop"])?.fails(3, "please login into the database first");
    let _unnamed =
        shops.joe(&["db", "login"])?.fails(2, "please specify a database service by name");
    let _nobody = shops.joe(&["db", "login", "shop"])?.fails(2, "--db-user");
    let _unknown = shops.joe(&["db", "login", "none"])?.fails(5, "not found");
    untouched()?;

    let said = shops.joe(&[&["db", "login", "sho"][..], &AS_ALICE].concat())?.ok().text();
    ensure!(
        said.contains("Connection information for database \"shop\" has been saved."),
        "{said}"
    );
    ensure!(said.contains("\n  tsh db connect shop\n"), "{said}");
    ensure!(said.contains("\n  tsh db config --format=cmd shop\n"), "{said}");
    let text = std::fs::read_to_string(&files[0].0)?;
    ensure!(text.starts_with(files[0].1) && text.contains("\n[example.test-shop]\n"), "{text}");
    ensure!(
        text.contains("\nsslmode=verify-full\n") && text.contains("\ngssencmode=disable\n"),
        "{text}"
    );
    let folder = home.folder.join(".tsh/keys/localhost/joe-db/example.test");
    for file in ["shop.crt", "shop.key"] {
        ensure!(mode(&folder.join(file))? == 0o600, "the mode of {file}");
    }

    // As libpq reads them: by service, and by environment.
    let mut by_service = shops.psql(home);
    by_service.env("PGSERVICE", "example.test-shop");
    assert_eq!(run(&mut by_service, "", 30)?.ok().text(), "alice\n");
    let exports = shops.joe(&["db", "env", "shop"])?.ok().text();
    let mut by_env = shops.psql(home);
    for line in exports.lines() {
        let (name, value) = line
            .strip_prefix("export ")
            .and_then(|line| line.split_once('='))
            .context("an export")?;
        by_env.env(name, value);
    }
    assert_eq!(run(&mut by_env, "", 30)?.ok().text(), "alice\n");
    let cmd = shops.joe(&["db", "config", "--format=cmd"])?.ok().text();
    assert_eq!(cmd, "psql \"service=example.test-shop user=alice dbname=postgres\"\n");
    let status = shops.joe(&["status"])?.ok().text();
    ensure!(status.contains("Databases:          shop\n"), "{status}");
    let listed = shops.joe(&["db", "ls"])?.ok().text();
    ensure!(listed.contains("> shop (user: alice, db: postgres)"), "{listed}");
    ensure!(listed.lines().any(|line| line.starts_with("store ")), "{listed}");

    // A shell completes what the listing showed, without asking the cluster.
    let mut completed = shops.tsh(home);
    completed.env("TSH_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "3").env("_CLAP_IFS", "\n");
    completed.args(["--", "tsh", "db", "connect", "s"]);
    assert_eq!(run(&mut completed, "", 10)?.ok().text(), "shop\nstore");

    let _out = shops.joe(&["db", "logout", "shop"])?.ok();
    untouched()?;
    ensure!(!folder.exists(), "a certificate is left");
    let _again = shops.joe(&["db", "logout", "shop"])?.fails(5, "not logged into database");
    for name in ["shop", "store"] {
        let _in = shops.joe(&[&["db", "login", name][..], &AS_ALICE].concat())?.ok();
    }
    let _out = shops.joe(&["logout"])?.ok();
    untouched()?;
    ensure!(!home.folder.join(".tsh/keys/localhost/joe-db").exists(), "keys are left");
    Ok(())
}

#[test]
fn the_databases_own_client_runs_and_its_status_is_ours() -> Result<()> {
    let Some(shops) = Shops::new("dbconnect")? else { return Ok(()) };
    let connect = |input: &str| {
        let mut tsh = shops.tsh(&shops.stage.joe);
        // What a login has exported must not get into the tunnel's way.
        tsh.args(["db", "connect", "shop"]).args(AS_ALICE).env("PGSSLMODE", "verify-full");
        run(&mut tsh, input, 60)
    };
    let done =
        connect("\\pset tuples_only\nselect 'answer ' || 40 + 2, current_user;\n")?.ok().text();
    ensure!(done.contains("answer 42 | alice"), "{done}");
    let failed = connect("\\set ON_ERROR_STOP on\nselect 1/0;\n")?;
    assert_eq!(failed.code, 3, "{}", failed.stderr);
    ensure!(failed.stderr.contains("division by zero"), "{}", failed.stderr);
    // Nothing is kept of it.
    ensure!(!shops.stage.joe.folder.join(".tsh/keys/localhost/joe-db").exists());
    Ok(())
}

#[test]
fn one_command_runs_in_several_databases() -> Result<()> {
    let Some(shops) = Shops::new("dbexec")? else { return Ok(()) };
    let exec =
        |more: &[&str]| shops.joe(&[&["db", "exec", "--no-confirm"][..], &AS_ALICE, more].concat());
    let said = exec(&["--dbs=shop,store", "--parallel=2", "select 'row ' || 6 * 7"])?.ok().text();
    for name in ["shop", "store"] {
        ensure!(
            said.lines()
                .any(|line| line.starts_with(&format!("[{name}] ")) && line.contains("row 42")),
            "{said}"
        );
    }
    let out = shops.stage.scratch.path().join("out");
    let folder = format!("--output-dir={}", out.display());
    let _failed = exec(&["--labels=env=test", &folder, "select 1/0"])?.fails(1, "failed in 2 of 2");
    let summary: Value = serde_json::from_slice(&std::fs::read(out.join("summary.json"))?)?;
    assert_eq!((&summary["total"], &summary["failure"]), (&2.into(), &2.into()), "{summary}");
    let output = std::fs::read_to_string(out.join("shop.output"))?;
    ensure!(output.contains("division by zero"), "{output}");
    let _none = exec(&["select 1"])?.fails(2, "--dbs");
    Ok(())
}

/// A running `tsh proxy db` that said where it listens.
struct Listening {
    process: Guard,
    told: Value,
}

impl Listening {
    fn start(shops: &Shops, args: &[&str]) -> Result<Self> {
        let mut tsh = shops.tsh(&shops.stage.joe);
        tsh.args(["proxy", "db", "--format=json"]).args(AS_ALICE).args(args);
        let log = shops.stage.scratch.path().join(format!("listening-{}.log", free_port()?));
        let mut process = Guard::start("tsh proxy db", &mut tsh, &log)?;
        let told = until("the listeners", 30, || {
            if !process.running() {
                return Some(Value::Null);
            }
            process.log().lines().find_map(|line| serde_json::from_str(line).ok())
        })?;
        ensure!(!told.is_null(), "tsh proxy db ended: {}", process.log());
        Ok(Self { process, told })
    }

    fn port(&self, nth: usize) -> Result<u16> {
        let address = self.told["databases"][nth]["address"].as_str().context("an address")?;
        Ok(address.parse::<std::net::SocketAddr>()?.port())
    }
}

#[test]
fn several_databases_listen_in_one_program() -> Result<()> {
    let Some(shops) = Shops::new("dbproxy")? else { return Ok(()) };
    let joe = &shops.stage.joe;
    let mut both = Listening::start(&shops, &["--tunnel", "shop", "store"])?;
    assert_eq!(both.told["databases"][1]["database"], "store");
    for nth in 0..2 {
        let port = both.port(nth)?;
        let command = both.told["databases"][nth]["command"].as_str().context("a command")?;
        assert_eq!(command, format!("psql postgres://alice@localhost:{port}/postgres"));
        assert_eq!(run(&mut shops.psql_at(joe, port), "", 30)?.ok().text(), "alice\n");
    }
    // Nobody is served where nobody should listen.
    let _open = shops
        .joe(&[&["proxy", "db", "--tunnel", "--listen=0.0.0.0:0", "shop"][..], &AS_ALICE].concat())?
        .fails(2, "only loopback addresses");

    // A session that runs does not keep the program.
    let mut waiting = shops.psql_at(joe, both.port(0)?);
    waiting.args(["-c", "select pg_sleep(60)"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut waiting = waiting.spawn()?;
    until("the session", 20, || {
        let running = shops.postgres.sql("select 1 from pg_stat_activity where query like '%pg_sleep(60)%' and usename = 'alice'");
        running.ok().filter(|rows| !rows.is_empty())
    })?;
    let port = both.port(1)?;
    ensure!(both.process.stop(10)?.success(), "{}", both.process.log());
    ensure!(!waiting.wait()?.success(), "the session went on");
    ensure!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    shops.stage.audited("select sid from db_session_end", |ended| ended.len() == 3)?;
    Ok(())
}

#[test]
fn without_a_tunnel_the_client_brings_the_certificate() -> Result<()> {
    let Some(shops) = Shops::new("dbbare")? else { return Ok(()) };
    let joe = &shops.stage.joe;
    let bare = Listening::start(&shops, &["shop"])?;
    let file = |key: &str| bare.told["databases"][0][key].as_str().unwrap_or_default().to_owned();
    let mut psql = shops.psql_at(joe, bare.port(0)?);
    let refused = run(psql.env("PGSSLMODE", "require"), "", 30)?;
    ensure!(refused.code != 0, "a client without a certificate came in");
    psql.env("PGSSLMODE", "verify-ca").env("PGSSLROOTCERT", file("ca_file"));
    psql.env("PGSSLCERT", file("cert_file")).env("PGSSLKEY", file("key_file"));
    assert_eq!(run(&mut psql, "", 30)?.ok().text(), "alice\n");
    Ok(())
}

#[test]
fn a_login_that_ends_is_asked_for_in_place() -> Result<()> {
    const LIFE: u64 = 25;
    let Some(shops) = Shops::new("dbreauth")? else { return Ok(()) };
    let _role = shops.stage.cluster.create(&format!(
        "kind: role\nversion: v7\nmetadata:\n  name: brief\nspec:\n  options:\n    max_session_ttl: {LIFE}s\n"
    ))?;
    let ann = shops.stage.cluster.user("ann", "databases,brief", "root")?;
    let port = free_port()?;
    let mut tsh = shops.tsh(&ann);
    tsh.args(["proxy", "db", "--tunnel", &format!("--port={port}"), "shop"]).args(AS_ALICE);
    let mut terminal = Terminal::start(&mut tsh, 200, 40)?;
    let started = terminal.expect("Started authenticated tunnel for the PostgreSQL database \"shop\" in cluster \"example.test\" on 127.0.0.1", 0)?;
    let named = format!("  $ psql postgres://alice@localhost:{port}/postgres");
    let mut at = terminal.expect(&named, started)?;
    assert_eq!(run(&mut shops.psql_at(&ann, port), "", 30)?.ok().text(), "alice\n");

    // The listener stays, and says why nobody comes through it.
    let refused = until("the login's end", LIFE + 30, || {
        let outcome = run(&mut shops.psql_at(&ann, port), "", 30).ok()?;
        if outcome.code == 0 {
            std::thread::sleep(Duration::from_millis(500));
        }
        (outcome.code != 0).then_some(outcome)
    })?;
    ensure!(
        refused.stderr.contains("enter your password in the terminal where tsh runs"),
        "{}",
        refused.stderr
    );
    at = terminal.expect("Enter password for user ann:", at)?;
    terminal.send("wrong\n")?;
    at = terminal.expect("Enter password for user ann:", at)?;
    terminal.send(format!("{PASSWORD}\n"))?;
    at = terminal.expect("Logged in again; clients may connect.", at)?;
    let served = until("the listener", 10, || {
        run(&mut shops.psql_at(&ann, port), "", 30).ok().filter(|outcome| outcome.code == 0)
    })?;
    assert_eq!(served.text(), "alice\n");

    // At the next end a login elsewhere does as well, while the question stands.
    terminal.expect("Enter password for user ann:", at)?;
    ann.login()?;
    until("the listener", 20, || {
        let outcome = run(&mut shops.psql_at(&ann, port), "", 30).ok()?;
        (outcome.code == 0).then_some(())
    })?;
    terminal.send("\x03")?;
    let (code, _) = terminal.finish(10)?;
    assert_eq!(code, 0);
    Ok(())
}

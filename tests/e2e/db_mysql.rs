//! MariaDB through the whole chain, by real clients: what they do works, and what they sent is in the audit log and in
//! the recording, in order, with parameters, and nothing else is.

mod hostile;
mod raw;
mod suite;

use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shared_testkit::process::{command, installed};
use shared_testkit::{DbAgent, DbOptions, DbResource, DbStage, DbTunnel, MariaDb, run, until};

use crate::db_postgres::imports;
use crate::db_told::{ended, logged, recorded, text};

/// The service's name.
const SHOP: &str = "shop";
/// A MariaDB behind a cluster.
struct Shop {
    stage: DbStage,
    mariadb: MariaDb,
}

impl Shop {
    fn new(name: &str) -> Result<Option<Self>> {
        Self::with(name, &DbOptions::default())
    }

    fn with(name: &str, options: &DbOptions) -> Result<Option<Self>> {
        let stage = DbStage::with(name, options)?;
        let Some(mariadb) = MariaDb::start(&stage.cluster, &["alice", "bob"])? else {
            return Ok(None);
        };
        stage.serve(&DbResource { name: SHOP, protocol: "mysql", uri: mariadb.uri(), spec: "" })?;
        Ok(Some(Self { stage, mariadb }))
    }

    fn tunnel(&self) -> Result<DbTunnel> {
        self.stage.tunnel(SHOP, "alice", "")
    }

    /// The only session that ended.
    fn session(&self) -> Result<String> {
        let sids = ended(&self.stage, SHOP, 1)?;
        let [sid] = sids.as_slice() else { anyhow::bail!("sessions: {sids:?}") };
        Ok(sid.clone())
    }

    /// What the recording tells of the client, and of the server: a line each.
    fn recorded(&self, sid: &str) -> Result<(Vec<String>, Vec<String>)> {
        let events = recorded(&self.stage, sid)?;
        let results = events.iter().filter(|event| text(event, "event") == "db.session.result");
        let heard = results.map(|event| match event["success"].as_bool() {
            Some(true) => event["affected_records"].as_u64().unwrap_or_default().to_string(),
            _ => text(event, "error").to_owned(),
        });
        Ok((events.iter().filter_map(line).collect(), heard.collect()))
    }

    fn logged(&self, sid: &str, count: usize) -> Result<Vec<String>> {
        // And its begin and end.
        Ok(logged(&self.stage, sid, "db.session.", count + 2)?.iter().filter_map(line).collect())
    }

    /// Both tell this and nothing else; what the recording tells of the server.
    fn tells(&self, sid: &str, wanted: &[&str]) -> Result<Vec<String>> {
        let (said, heard) = self.recorded(sid)?;
        assert_eq!(said, wanted, "the recording");
        assert_eq!(self.logged(sid, wanted.len())?, wanted, "the audit log");
        Ok(heard)
    }

    /// How many connections alice has.
    fn connected(&self) -> Result<String> {
        self.mariadb.sql("select count(*) from information_schema.processlist where user = 'alice'")
    }

    fn wait_connected(&self, count: &str) -> Result<()> {
        until("alice's connections", 20, || {
            self.connected().is_ok_and(|have| have == count).then_some(())
        })
    }
}

/// One line that tells of a command; none of what is none.
fn line(event: &Value) -> Option<String> {
    let number = |key: &str| event[key].as_u64().unwrap_or_default();
    let parameters = || {
        let values = event["parameters"].as_array().into_iter().flatten();
        values.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
    };
    let kind = text(event, "event");
    let id = number("statement_id");
    Some(
        match kind
            .strip_prefix("db.session.")?
            .trim_start_matches("mysql.")
            .trim_start_matches("statements.")
        {
            "query" => format!("query {}", text(event, "db_query")),
            "prepare" => format!("prepare {}", text(event, "query")),
            "execute" => format!("execute {id}: {}", parameters()),
            "bulk_execute" => format!("bulk {id}: {}", parameters()),
            "send_long_data" => {
                format!("send {id}.{}: {} bytes", number("parameter_id"), number("data_size"))
            }
            "fetch" => format!("fetch {id}: {}", number("rows_count")),
            what @ ("close" | "reset") => format!("{what} {id}"),
            what @ ("init_db" | "create_db" | "drop_db") => {
                format!("{what} {}", text(event, "schema_name"))
            }
            "process_kill" => format!("kill {}", number("process_id")),
            "refresh" => format!("refresh {}", text(event, "subcommand")),
            _ => return None,
        },
    )
}

#[test]
fn the_mariadb_client_is_told_of_in_order() -> Result<()> {
    for agent in [DbAgent::SameProcess, DbAgent::Tunnel] {
        let Some(shop) = Shop::with("my-client", &DbOptions { agent, ..DbOptions::default() })?
        else {
            return Ok(());
        };
        let tunnel = shop.tunnel()?;
        let script = "select current_user(), 'ä' as a;\ncreate table t (a int primary key, b text);\n\
                      insert into t values (1, 'one'), (2, 'two');\nuse mysql\nuse test\nselect * from missing;\n\
                      delimiter //\nselect 1; select a from t; update t set b = 'x'//\ndelimiter ;\n\
                      prepare s from 'select b from t where a = ?';\nset @a = 2;\nexecute s using @a;\n\
                      select count(*)\n  from t;\n";
        let mut client = tunnel.mariadb("mariadb");
        let outcome = run(client.args(["--force", "-NB", "test"]), script, 60)?;
        // The user of the X.509 account, not an anonymous one.
        assert!(
            outcome.text().starts_with("alice@%\tä\n") && outcome.text().ends_with("x\n2\n"),
            "{outcome:?}"
        );
        assert!(
            outcome
                .stderr
                .contains("ERROR 1146 (42S02) at line 6: Table 'test.missing' doesn't exist")
        );
        let sid = shop.session()?;
        let wanted = [
            "query select current_user(), 'ä' as a",
            "query create table t (a int primary key, b text)",
            "query insert into t values (1, 'one'), (2, 'two')",
            // The client's own.
            "query SELECT DATABASE()",
            "init_db mysql",
            "query SELECT DATABASE()",
            "init_db test",
            "query select * from missing",
            "query select 1; select a from t; update t set b = 'x'",
            "query prepare s from 'select b from t where a = ?'",
            "query set @a = 2",
            "query execute s using @a",
            "query select count(*)\n  from t",
        ];
        let heard = shop.tells(&sid, &wanted)?;
        let error = "ERROR 1146 (42S02): Table 'test.missing' doesn't exist";
        assert_eq!(heard, ["1", "0", "2", "1", "0", "1", "0", error, "5", "0", "0", "1", "1"]);
        let sql = format!(
            "select db_user || ' ' || db_name || ' ' || db_service from db_session_start where sid = '{sid}'"
        );
        assert_eq!(shop.stage.audited(&sql, |rows| !rows.is_empty())?, ["alice test shop"]);
    }
    Ok(())
}

#[test]
fn tsh_db_connect_runs_mariadb_without_a_password() -> Result<()> {
    let Some(shop) = Shop::new("my-connect")? else { return Ok(()) };
    let mut tsh = shop.stage.joe.tsh();
    tsh.args(["db", "connect", "--db-user=alice", "--db-name=test", SHOP]);
    let outcome = run(&mut tsh, "select concat('came in as ', current_user());\n", 60)?.ok();
    assert!(outcome.text().contains("came in as alice@%"), "{outcome:?}");
    let sid = shop.session()?;
    assert!(
        shop.recorded(&sid)?
            .0
            .contains(&"query select concat('came in as ', current_user())".to_owned())
    );
    Ok(())
}

impl Shop {
    /// Runs a script of `tests/clients` against a tunnel; the session it made.
    fn python(&self, script: &str) -> Result<String> {
        let tunnel = self.tunnel()?;
        let mut python = command("python3", self.stage.scratch.path());
        python
            .arg("-B")
            .arg(format!("{}/clients/{script}", env!("CARGO_MANIFEST_DIR")))
            .arg(tunnel.port.to_string());
        let outcome = run(&mut python, "", 120)?.ok();
        assert_eq!(outcome.text(), "done\n", "{}", outcome.stderr);
        self.session()
    }
}

#[test]
fn pymysql_is_told_of() -> Result<()> {
    if !imports(command("python3", std::path::Path::new("/")), "pymysql")? {
        return Ok(());
    }
    let Some(shop) = Shop::new("my-pymysql")? else { return Ok(()) };
    let sid = shop.python("mysql_pymysql.py")?;
    let heard = shop.tells(
        &sid,
        &[
            "query SET NAMES utf8mb4",
            "query SET AUTOCOMMIT = 0",
            "query create table t (a int, b text, c blob)",
            r"query insert into t values (7, 'it\'s', X'0001ff')",
            "query insert into t values (8, NULL, X'')",
            "query COMMIT",
            "query select b, c from t where a = 7",
            "query select 1; select 2",
            "query select * from missing",
            "query select seq from seq_1_to_10000",
        ],
    )?;
    let error = "ERROR 1146 (42S02): Table 'test.missing' doesn't exist";
    assert_eq!(heard, ["0", "0", "0", "1", "1", "0", "1", "2", error, "10000"]);
    Ok(())
}

#[test]
fn prepared_statements_of_mysqls_connector_are_told_of() -> Result<()> {
    if !imports(command("python3", std::path::Path::new("/")), "mysql.connector")? {
        return Ok(());
    }
    let Some(shop) = Shop::new("my-connector")? else { return Ok(()) };
    let sid = shop.python("mysql_connector.py")?;
    let (said, _) = shop.recorded(&sid)?;
    let said: Vec<&str> =
        said.iter().map(String::as_str).filter(|line| !line.starts_with("query ")).collect();
    let executed: Vec<&str> = said
        .iter()
        .filter_map(|line| line.strip_prefix("execute ")?.split_once(": "))
        .map(|(_, values)| values)
        .collect();
    assert_eq!(
        executed,
        [
            "1,-5,2.5,grüße,0x00ff,2026-11-21 09:05:03.250000,1.25,NULL",
            "2,1099511627776,-0.25,it's,0x01fe,2026-11-21,-7,NULL",
        ],
        "{said:#?}"
    );
    assert!(said[0].starts_with("prepare select ?, ?, "), "{said:#?}");
    assert_eq!(
        shop.logged(&sid, said.len())?
            .iter()
            .filter(|line| !line.starts_with("query "))
            .collect::<Vec<_>>(),
        said
    );
    Ok(())
}

#[test]
fn jdbc_with_a_bulk_execution_is_told_of() -> Result<()> {
    let driver = shared_testkit::stores::tools().join("mariadb-jdbc.jar");
    if !installed("java")? {
        return Ok(());
    }
    if !driver.is_file() {
        ensure!(
            std::env::var_os("CI").is_none(),
            "no {}; cargo xtask test brings it",
            driver.display()
        );
        eprintln!("skipped: no {}; cargo xtask test brings it", driver.display());
        return Ok(());
    }
    let Some(shop) = Shop::new("my-jdbc")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut java = command("java", shop.stage.scratch.path());
    java.arg("-cp").arg(&driver).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/MariaDb.java"));
    let outcome = run(java.arg(tunnel.port.to_string()), "", 120)?.ok();
    assert_eq!(outcome.text(), "done\n", "{}", outcome.stderr);
    let sid = shop.session()?;
    let (said, _) = shop.recorded(&sid)?;
    let of = |kind: &str| {
        let of = said.iter().filter_map(|line| line.strip_prefix(kind)?.split_once(": "));
        of.map(|(_, values)| values.to_owned()).collect::<Vec<_>>()
    };
    // The driver may execute what it prepares without waiting for the answer.
    assert_eq!(of("bulk "), ["0,row 0,1,NULL,2,row 2"], "{said:#?}");
    assert_eq!(of("execute "), ["0", "1"], "{said:#?}");
    assert_eq!(said, shop.logged(&sid, said.len())?);
    Ok(())
}

#[test]
fn a_file_of_the_client_is_loaded_and_not_taken_for_commands() -> Result<()> {
    let Some(shop) = Shop::new("my-file")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    // Whole packets of it look like a query.
    let rows: String = (0..300_000).map(|row| format!("{row}\t\u{3}drop table t\n")).collect();
    std::fs::write(shop.stage.scratch.path().join("rows"), rows)?;
    let load = format!(
        "load data local infile '{}' into table t",
        shop.stage.scratch.path().join("rows").display()
    );
    let script =
        format!("create table t (a int, b text);\n{load};\nselect count(*), max(a) from t;\n");
    let mut client = tunnel.mariadb("mariadb");
    let outcome = run(client.args(["-NB", "--local-infile=1", "test"]), script, 60)?.ok();
    assert_eq!(outcome.text(), "300000\t299999\n");
    let load = format!("query {load}");
    let wanted =
        ["query create table t (a int, b text)", &load, "query select count(*), max(a) from t"];
    assert_eq!(shop.tells(&shop.session()?, &wanted)?, ["0", "300000", "1"]);
    let mut denied = tunnel.mariadb("mariadb");
    let denied =
        run(denied.args(["--local-infile=0", "test", "-e", &load["query ".len()..]]), "", 60)?;
    assert!(denied.code != 0 && denied.stderr.contains("ERROR "), "{denied:?}");
    Ok(())
}

#[test]
fn a_client_that_is_killed_ends_its_session_on_both_sides() -> Result<()> {
    let Some(shop) = Shop::new("my-killed")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut client =
        tunnel.mariadb("mariadb").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut stdin = client.stdin.take().context("stdin")?;
    stdin.write_all(b"select 'here';\n")?;
    shop.wait_connected("1")?;
    client.kill()?;
    client.wait()?;
    shop.wait_connected("0")?;
    shop.session()?;
    Ok(())
}

#[test]
fn a_lock_ends_the_session_with_a_text() -> Result<()> {
    let Some(shop) = Shop::new("my-lock")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut waits = raw::Client::connect(tunnel.port, "alice", "test")?;
    let mut idle = raw::Client::connect(tunnel.port, "alice", "test")?;
    waits.send(3, b"select sleep(100)")?;
    shop.wait_connected("2")?;
    let _lock = shop.stage.cluster.tctl_ok(["lock", "--user=joe", "--message=left the company"])?;
    for client in [&mut waits, &mut idle] {
        let text = client.refused()?;
        assert!(
            text.starts_with("1927 (70100): session ended: ") && text.contains("left the company"),
            "{text}"
        );
    }
    // The server looks at a connection only between statements.
    shop.wait_connected("1")?;
    assert_eq!(ended(&shop.stage, SHOP, 2)?.len(), 2);
    Ok(())
}

#[test]
fn refusals_have_a_number_and_a_text() -> Result<()> {
    let Some(shop) = Shop::new("my-denied")? else { return Ok(()) };
    let _role = shop.stage.cluster.create(
        "kind: role\nversion: v7\nmetadata:\n  name: only-alice\nspec:\n  allow:\n    db_labels: {'*': '*'}\n    \
         db_users: [alice]\n  deny:\n    db_users: [root]\n",
    )?;
    let ann = shop.stage.cluster.user("ann", "only-alice", "root")?;
    let tunnel = shop.stage.tunnel_of(&ann, SHOP, "alice", "")?;
    let refused = |user: &str, database: &str| -> Result<String> {
        let mut client = tunnel.mariadb("mariadb");
        let outcome =
            run(client.args([&format!("--user={user}"), "-NBe", "select 1", database]), "", 60)?;
        ensure!(outcome.code != 0, "{outcome:?}");
        Ok(outcome.stderr)
    };
    // By a role, before the server hears of it.
    let role = refused("bob", "test")?;
    assert!(
        role.contains("ERROR 1045 (28000): ") && role.to_lowercase().contains("denied"),
        "{role}"
    );
    // By the server, in its own words.
    let unknown = refused("alice", "nowhere")?;
    assert!(unknown.contains("ERROR 1049 (42000): Unknown database 'nowhere'"), "{unknown}");
    shop.mariadb.sql("alter user alice@`%` require subject '/CN=somebody'")?;
    let server = refused("alice", "test")?;
    assert!(server.contains("ERROR 1045 (28000): Access denied for user 'alice'"), "{server}");
    let sql = "select code || ' ' || db_user from db_session_start order by event_time";
    let starts = shop.stage.audited(sql, |rows| rows.len() >= 3)?;
    assert_eq!(starts, ["TDB00W bob", "TDB00I alice", "TDB00I alice"]);
    Ok(())
}

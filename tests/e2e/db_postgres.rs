//! PostgreSQL through the whole chain, by real clients: what they do works, and what they sent is in the audit log and
//! in the recording, in order, with parameters, and nothing else is.

mod hostile;
mod load;
mod suite;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shared_testkit::process::{command, installed};
use shared_testkit::{DbAgent, DbOptions, DbResource, DbStage, DbTunnel, Postgres, run, until};

/// The service's name.
const SHOP: &str = "shop";

/// A PostgreSQL behind a cluster.
struct Shop {
    stage: DbStage,
    postgres: Postgres,
}

impl Shop {
    fn new(name: &str) -> Result<Option<Self>> {
        Self::with(name, &DbOptions::default())
    }

    fn with(name: &str, options: &DbOptions) -> Result<Option<Self>> {
        let stage = DbStage::with(name, options)?;
        let Some(postgres) = Postgres::start(&stage.cluster, &["alice", "bob"])? else {
            return Ok(None);
        };
        stage.serve(&DbResource {
            name: SHOP,
            protocol: "postgres",
            uri: postgres.uri(),
            spec: "",
        })?;
        Ok(Some(Self { stage, postgres }))
    }

    fn tunnel(&self) -> Result<DbTunnel> {
        self.stage.tunnel(SHOP, "alice", "postgres")
    }

    /// The sessions that have ended, oldest first; waits until there are so many.
    fn ended(&self, count: usize) -> Result<Vec<String>> {
        let sql = "select sid from db_session_end order by event_time";
        self.stage.audited(sql, |sids| sids.len() >= count)
    }

    /// The only session that ended.
    fn session(&self) -> Result<String> {
        let sids = self.ended(1)?;
        let [sid] = sids.as_slice() else { anyhow::bail!("sessions: {sids:?}") };
        Ok(sid.clone())
    }

    /// What the recording of a session tells of the client, and of the server: a line each.
    fn recorded(&self, sid: &str) -> Result<(Vec<String>, Vec<String>)> {
        self.stage.recording(sid)?;
        let played = self.stage.joe.run(["play", "--format=json", sid])?.ok().text();
        let events: Vec<Value> = serde_json::Deserializer::from_str(&played)
            .into_iter()
            .collect::<Result<_, _>>()
            .with_context(|| played.clone())?;
        let events = events.into_iter().flat_map(|value| match value {
            Value::Array(list) => list,
            one => vec![one],
        });
        let (mut said, mut heard) = (Vec::new(), Vec::new());
        for event in events {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            match text("event").as_str() {
                "db.session.result" => heard.push(match event["success"].as_bool() {
                    Some(true) => {
                        event["affected_records"].as_u64().unwrap_or_default().to_string()
                    }
                    _ => text("error"),
                }),
                kind => said.extend(line(kind, &event)),
            }
        }
        Ok((said, heard))
    }

    /// The same out of the audit log, which knows no results.
    fn logged(&self, sid: &str) -> Result<Vec<String>> {
        let sql = format!(
            "select event_data from events where event_type like 'db.session.%' and event_data like '%{sid}%'"
        );
        let rows = self.stage.cluster.query(&sql)?.into_iter().flatten();
        let mut events: Vec<Value> =
            rows.map(|row| serde_json::from_str(&row)).collect::<Result<_, _>>()?;
        events.sort_by_key(|event| event["ei"].as_i64());
        let kind = |event: &Value| event["event"].as_str().unwrap_or_default().to_owned();
        Ok(events.iter().filter_map(|event| line(&kind(event), event)).collect())
    }

    /// Both tell the same, and this.
    fn tells(&self, sid: &str, wanted: &[&str]) -> Result<()> {
        let (recorded, _) = self.recorded(sid)?;
        assert_eq!(recorded, wanted, "the recording");
        let mut logged = Vec::new();
        let same = until("the audit log", 30, || {
            logged = self.logged(sid).ok()?;
            (logged.len() >= wanted.len()).then_some(())
        });
        same.with_context(|| format!("{logged:#?}"))?;
        assert_eq!(logged, wanted, "the audit log");
        Ok(())
    }
}

/// One line that tells of a message; none of what is no message.
fn line(kind: &str, event: &Value) -> Option<String> {
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let list = |key: &str| {
        let values = event[key].as_array().into_iter().flatten();
        values.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
    };
    Some(match kind {
        "db.session.query" => format!("query {}", text("db_query")),
        "db.session.postgres.statements.parse" => {
            format!("parse {}: {}", text("statement_name"), text("query"))
        }
        "db.session.postgres.statements.bind" => {
            format!(
                "bind {} to {}: {}",
                text("statement_name"),
                text("portal_name"),
                list("parameters")
            )
        }
        "db.session.postgres.statements.execute" => format!("execute {}", text("portal_name")),
        "db.session.postgres.statements.close" => {
            format!("close {}{}", text("statement_name"), text("portal_name"))
        }
        "db.session.postgres.function" => {
            format!("call {}: {}", event["function_oid"], list("function_args"))
        }
        _ => return None,
    })
}

#[test]
fn what_psql_sends_is_told_of_in_order_in_every_mode() -> Result<()> {
    for (agent, recording) in [(DbAgent::Tunnel, "node"), (DbAgent::SameProcess, "node-sync")] {
        let options = DbOptions { agent, recording: recording.to_owned(), ..DbOptions::default() };
        let Some(shop) = Shop::with("pg-psql", &options)? else { return Ok(()) };
        let tunnel = shop.tunnel()?;
        let script = "select current_user, 'ä' as a;\ncreate table t (a int, b text);\n\
                      copy t from stdin;\n1\tone\n2\ttwo\n\\.\nbegin;\ndeclare c cursor for select * from t;\nfetch 1 from c;\n\
                      commit;\nselect * from missing;\nselect count(*)\n  from t;\n";
        let mut psql = tunnel.postgres("psql");
        let outcome = run(psql.args(["-XqAt", "-f", "-"]), script, 60)?;
        assert!(
            outcome.text().starts_with("alice|ä\n") && outcome.text().ends_with("2\n"),
            "{outcome:?}"
        );
        assert!(
            outcome.stderr.contains("relation \"missing\" does not exist"),
            "{}",
            outcome.stderr
        );
        let sid = shop.session()?;
        let wanted = [
            "query select current_user, 'ä' as a;",
            "query create table t (a int, b text);",
            "query copy t from stdin;",
            "query begin;",
            "query declare c cursor for select * from t;",
            "query fetch 1 from c;",
            "query commit;",
            "query select * from missing;",
            "query select count(*)\n  from t;",
        ];
        shop.tells(&sid, &wanted)?;
        let (_, heard) = shop.recorded(&sid)?;
        let error = "ERROR: relation \"missing\" does not exist (SQLSTATE 42P01)";
        assert_eq!(heard, ["1", "0", "2", "0", "0", "1", "0", error, "1"]);
        let sql = format!(
            "select db_user || ' ' || db_name || ' ' || db_service from db_session_start where sid = '{sid}'"
        );
        assert_eq!(shop.stage.audited(&sql, |rows| !rows.is_empty())?, ["alice postgres shop"]);
    }
    Ok(())
}

#[test]
fn tsh_db_connect_runs_psql_without_a_password() -> Result<()> {
    let Some(shop) = Shop::new("pg-connect")? else { return Ok(()) };
    let mut tsh = shop.stage.joe.tsh();
    tsh.args(["db", "connect", "--db-user=alice", "--db-name=postgres", SHOP]);
    let outcome =
        run(&mut tsh, "\\pset format unaligned\nselect 'came in as ' || current_user;\n", 60)?.ok();
    assert!(outcome.text().contains("came in as alice"), "{outcome:?}");
    let sid = shop.session()?;
    assert!(
        shop.recorded(&sid)?.0.contains(&"query select 'came in as ' || current_user;".to_owned())
    );
    Ok(())
}

/// What psycopg does in `postgres_psycopg.py`, as it goes over the wire.
#[test]
fn psycopg_with_parameters_pipelines_and_cursors_is_told_of() -> Result<()> {
    let python = command("python3", std::path::Path::new("/"));
    if !imports(python, "psycopg")? {
        return Ok(());
    }
    let Some(shop) = Shop::new("pg-psycopg")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut client = tunnel.postgres("python3");
    client.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/postgres_psycopg.py"));
    let outcome = run(&mut client, "", 120)?.ok();
    assert_eq!(outcome.text(), "done\n", "{}", outcome.stderr);
    let sid = shop.session()?;
    shop.tells(
        &sid,
        &[
            "query BEGIN",
            "query create table t (a int, b text, c bytea)",
            "parse : insert into t values ($1, $2, $3)",
            "bind  to : 7,seven,AAH/",
            "execute ",
            "parse : insert into t values ($1, $2, $3)",
            "bind  to : <null>,it's,AQ==",
            "execute ",
            "query COMMIT",
            "parse : select b from t where a = $1",
            "bind  to : 7",
            "execute ",
            "parse : select $1::text",
            "bind  to : first",
            "execute ",
            "parse : select $1::text",
            "bind  to : second",
            "execute ",
            "query BEGIN",
            "parse : DECLARE \"c\" CURSOR FOR select generate_series(1, 10)",
            "bind  to : ",
            "execute ",
            "query FETCH FORWARD 4 FROM \"c\"",
            "query CLOSE \"c\"",
            "query COMMIT",
            "query copy t (a) from stdin",
            "query copy t (a) to stdout",
        ],
    )
}

pub(crate) fn imports(mut python: Command, module: &str) -> Result<bool> {
    if run(python.args(["-c", &format!("import {module}")]), "", 60)?.code == 0 {
        return Ok(true);
    }
    ensure!(
        std::env::var_os("CI").is_none(),
        "{module} is not installed; cargo xtask test brings it"
    );
    eprintln!("skipped: {module} is not installed; cargo xtask test brings it");
    Ok(false)
}

#[test]
fn sqlx_with_prepared_statements_is_told_of() -> Result<()> {
    use sqlx::{Connection as _, Row as _};
    let Some(shop) = Shop::new("pg-sqlx")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let url = format!("postgres://alice@127.0.0.1:{}/postgres?sslmode=disable", tunnel.port);
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut connection = sqlx::PgConnection::connect(&url).await?;
        for number in [20_i64, 22] {
            let query = sqlx::query("select $1 + 1, $2").bind(number).bind("text");
            let row = query.fetch_one(&mut connection).await?;
            ensure!(
                row.try_get::<i64, _>(0)? == number + 1 && row.try_get::<&str, _>(1)? == "text"
            );
        }
        connection.close().await?;
        Ok(())
    })?;
    let sid = shop.session()?;
    let (said, _) = shop.recorded(&sid)?;
    let of =
        |text: &str| said.iter().filter(|line| line.contains(text)).cloned().collect::<Vec<_>>();
    assert_eq!(of("select $1 + 1, $2"), ["parse sqlx_s_1: select $1 + 1, $2"], "{said:?}");
    // Eight bytes of binary number, and the text, which sqlx also sends in binary form.
    assert_eq!(
        of("bind"),
        ["bind sqlx_s_1 to : AAAAAAAAABQ=,dGV4dA==", "bind sqlx_s_1 to : AAAAAAAAABY=,dGV4dA=="]
    );
    assert_eq!(of("execute").len(), 2);
    assert_eq!(said, shop.logged(&sid)?);
    Ok(())
}

#[test]
fn jdbc_with_batches_and_a_cursor_is_told_of() -> Result<()> {
    let driver = shared_testkit::stores::tools().join("postgresql-jdbc.jar");
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
    let Some(shop) = Shop::new("pg-jdbc")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut java = tunnel.postgres("java");
    java.arg("-cp").arg(&driver);
    java.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/Postgres.java"))
        .arg(tunnel.port.to_string());
    let outcome = run(&mut java, "", 120)?.ok();
    assert_eq!(outcome.text(), "done\n", "{}", outcome.stderr);
    let sid = shop.session()?;
    let (said, _) = shop.recorded(&sid)?;
    let inserts =
        said.iter().filter(|line| line.starts_with("bind") && line.contains("row ")).count();
    assert_eq!(inserts, 10, "{said:#?}");
    assert!(said.iter().any(|line| line.contains("select a, b from t where a > $1")), "{said:#?}");
    assert_eq!(said, shop.logged(&sid)?);
    Ok(())
}

/// psql with `sql`, left running.
fn running(tunnel: &DbTunnel, sql: &str) -> Result<Child> {
    Ok(tunnel
        .psql(sql)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?)
}

impl Shop {
    /// Sessions of alice whose statement is this and runs.
    fn active(&self, like: &str) -> Result<String> {
        self.postgres.sql(&format!(
            "select count(*) from pg_stat_activity where usename = 'alice' and state = 'active' and query like '{like}%'"
        ))
    }

    fn wait_active(&self, like: &str, count: &str) -> Result<()> {
        until("the statement", 20, || {
            self.active(like).is_ok_and(|have| have == count).then_some(())
        })
    }
}

#[test]
fn a_cancel_request_reaches_the_right_backend() -> Result<()> {
    for agent in [DbAgent::SameProcess, DbAgent::Tunnel] {
        let Some(shop) = Shop::with("pg-cancel", &DbOptions { agent, ..DbOptions::default() })?
        else {
            return Ok(());
        };
        let tunnel = shop.tunnel()?;
        let mut other = running(&tunnel, "select 'other', pg_sleep(100)")?;
        let this = running(&tunnel, "select 'this', pg_sleep(100)")?;
        shop.wait_active("select ''other''", "1")?;
        shop.wait_active("select ''this''", "1")?;
        let begun = Instant::now();
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&this),
            rustix::process::Signal::INT,
        )?;
        let output = this.wait_with_output()?;
        assert!(begun.elapsed() < Duration::from_secs(20));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("canceling statement due to user request"), "{text}");
        assert_eq!(shop.active("select ''other''")?, "1", "the other one still runs");
        // Like one that is killed behind a direct client, it would run on.
        other.kill()?;
        other.wait()?;
        shop.postgres.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'alice'",
        )?;
        assert_eq!(shop.ended(2)?.len(), 2, "a cancel request is no session");
    }
    Ok(())
}

#[test]
fn copy_moves_everything_both_ways_and_is_one_statement() -> Result<()> {
    let Some(shop) = Shop::new("pg-copy")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let _made = run(&mut tunnel.psql("create table t (a int, b text)"), "", 60)?.ok();
    let rows: String = (0..500_000_u64).map(|row| format!("{row}\t{}\n", row * 7919)).collect();
    let _in = run(&mut tunnel.psql("copy t from stdin"), &rows, 120)?.ok();
    let out = run(&mut tunnel.psql("copy (select * from t order by a) to stdout"), "", 120)?.ok();
    assert!(out.stdout == rows.as_bytes());
    let sids = shop.ended(3)?;
    let (said, heard) = shop.recorded(&sids[1])?;
    assert_eq!(
        (said, heard),
        (vec!["query copy t from stdin".to_owned()], vec!["500000".to_owned()])
    );
    Ok(())
}

#[test]
fn a_client_that_is_killed_ends_its_session_on_both_sides() -> Result<()> {
    let Some(shop) = Shop::new("pg-killed")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut client = tunnel
        .postgres("psql")
        .args(["-Xq"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    use std::io::Write as _;
    let mut stdin = client.stdin.take().context("stdin")?;
    stdin.write_all(b"select 'here';\n")?;
    let here =
        || shop.postgres.sql("select count(*) from pg_stat_activity where usename = 'alice'");
    until("the session", 20, || here().is_ok_and(|count| count == "1").then_some(()))?;
    client.kill()?;
    client.wait()?;
    until("the session's end", 20, || here().is_ok_and(|count| count == "0").then_some(()))?;
    let sid = shop.session()?;
    shop.tells(&sid, &["query select 'here';"])
}

#[test]
fn a_statement_longer_than_a_record_is_named_as_cut() -> Result<()> {
    let Some(shop) = Shop::new("pg-long")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let long = format!("select length('{}');", "x".repeat(3_000_000));
    let outcome =
        run(tunnel.postgres("psql").args(["-XqAt", "-f", "-"]), format!("{long}\n"), 60)?.ok();
    assert_eq!(outcome.text(), "3000000\n");
    let sid = shop.session()?;
    let (said, _) = shop.recorded(&sid)?;
    let [said] = said.as_slice() else { anyhow::bail!("{}", said.len()) };
    let sum = run(&mut Command::new("sha256sum"), &long, 60)?.ok().text();
    let mark = format!("… [cut: {} bytes, sha256 {}]", long.len(), &sum[..64]);
    assert!(
        said.starts_with("query select length('xxx") && said.ends_with(&mark),
        "{}",
        &said[said.len() - 120..]
    );
    Ok(())
}

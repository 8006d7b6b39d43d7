//! Recordings of database sessions: listed, verified, played, searched, exported, downloaded and removed like those of
//! terminals.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shared_testkit::{DbResource, DbStage, MariaDb, Postgres, Terminal, run};

use crate::db_told::ended;

/// The lines of a session that have no time in them.
fn timeless(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines
        .filter(|line| !line.starts_with("-- 20") && !line.starts_with("Session "))
        .map(str::to_owned)
        .collect()
}

fn played(stage: &DbStage, args: &[&str]) -> Result<String> {
    Ok(stage.joe.run([&["play"], args].concat())?.ok().text())
}

/// A session of psql: statements, an error, a prepared one; its id.
fn postgres_session(stage: &DbStage) -> Result<String> {
    let tunnel = stage.tunnel("shop", "alice", "postgres")?;
    let script = "create table t (a int);\ninsert into t\n  values (1), (2), (3);\nselect * from missing;\n\
                  select a from t where a > $1 \\bind 1 \\g\n";
    // \bind came with psql 16.
    let script = match psql_version()? {
        16.. => script.to_owned(),
        _ => script.replace("$1 \\bind 1 \\g", "1;"),
    };
    let _said = run(tunnel.postgres("psql").args(["-XqAt", "-f", "-"]), script, 60)?;
    let sids = ended(stage, "shop", 1)?;
    let sid = sids.last().context("a session")?.clone();
    stage.recording(&sid)?;
    Ok(sid)
}

fn psql_version() -> Result<u32> {
    let mut psql = std::process::Command::new("psql");
    let said = run(psql.arg("--version"), "", 10)?.ok().text();
    let number = said.split_whitespace().nth(2).unwrap_or_default();
    number.split('.').next().unwrap_or_default().parse().with_context(|| said.clone())
}

fn shop(name: &str) -> Result<Option<(DbStage, Postgres)>> {
    let stage = DbStage::new(name)?;
    let Some(postgres) = Postgres::start(&stage.cluster, &["alice"])? else { return Ok(None) };
    stage.serve(&DbResource {
        name: "shop",
        protocol: "postgres",
        uri: postgres.uri(),
        spec: "",
    })?;
    Ok(Some((stage, postgres)))
}

#[test]
fn a_postgres_session_plays_as_text_json_yaml_and_on_a_terminal() -> Result<()> {
    let Some((stage, _postgres)) = shop("db-play-pg")? else { return Ok(()) };
    let sid = postgres_session(&stage)?;
    let text = played(&stage, &["--format=text", &sid])?;
    ensure!(text.starts_with("Session started to database \"shop\" at "), "{text}");
    ensure!(
        text.trim_end().lines().last().is_some_and(|line| line.starts_with("Session ended at ")),
        "{text}"
    );
    let times =
        text.lines().filter(|line| line.starts_with("-- 20") && line.ends_with(" UTC")).count();
    let lines = timeless(&text);
    ensure!(
        lines[..7]
            == [
                "postgres=> create table t (a int);",
                "SUCCESS",
                "(0 rows affected)",
                "postgres=> insert into t",
                "           values (1), (2), (3);",
                "SUCCESS",
                "(3 rows affected)",
            ],
        "{text}"
    );
    ensure!(lines[7] == "postgres=> select * from missing;", "{text}");
    ensure!(
        lines[8].contains("relation \"missing\" does not exist") && lines[8].contains("42P01"),
        "{text}"
    );
    ensure!(lines[9].contains("select a from t where a > "), "{text}");
    ensure!(lines[10..] == ["SUCCESS", "(2 rows affected)"], "{text}");
    ensure!(times == 4, "{times} times in {text}");
    // Where there is no terminal, the default is the same.
    ensure!(played(&stage, &[&sid])? == text);

    let json: Value = serde_json::from_str(&played(&stage, &["--format=json", &sid])?)?;
    let kinds: Vec<&str> =
        json.as_array().into_iter().flatten().filter_map(|event| event["event"].as_str()).collect();
    ensure!(
        kinds.first() == Some(&"db.session.start") && kinds.last() == Some(&"db.session.end"),
        "{kinds:?}"
    );
    ensure!(kinds.iter().filter(|kind| **kind == "db.session.result").count() == 4, "{kinds:?}");
    ensure!(!kinds.contains(&"print"), "{kinds:?}");
    let yaml = played(&stage, &["--format=yaml", &sid])?;
    ensure!(
        yaml.contains("event: db.session.query") && yaml.split("\n---\n").count() == kinds.len(),
        "{yaml}"
    );

    let mut play = stage.joe.tsh();
    let terminal =
        Terminal::start(play.args(["play", "--skip-idle-time", "--speed=8x", &sid]), 100, 30)?;
    let at = terminal.expect("insert into t", 0)?;
    terminal.expect("(3 rows affected)", at)?;
    let (code, _) = terminal.finish(30)?;
    ensure!(code == 0);

    let found = played(&stage, &["--grep=missing", &sid])?;
    ensure!(found.contains("postgres=> select * from missing;"), "{found}");
    let none = stage.joe.run(["play", "--grep=nowhere", &sid])?;
    ensure!(none.code == 5, "{}", none.stderr);
    Ok(())
}

#[test]
fn database_recordings_are_listed_verified_exported_and_removed() -> Result<()> {
    let Some((stage, _postgres)) = shop("db-recordings")? else { return Ok(()) };
    let sid = postgres_session(&stage)?;
    for ls in [
        &["recordings", "ls"][..],
        &["recordings", "ls", "--login=alice", "--host=shop", "--user=joe"],
    ] {
        for listed in [stage.joe.run(ls)?.ok().text(), stage.cluster.tctl_ok(ls)?.text()] {
            let row = listed
                .lines()
                .find(|line| line.starts_with(&sid))
                .with_context(|| listed.clone())?;
            let words: Vec<&str> = row.split_whitespace().collect();
            ensure!(words[1..4] == ["postgres", "joe", "postgres"], "{row}");
        }
    }
    ensure!(!stage.joe.run(["recordings", "ls", "--host=other"])?.ok().text().contains(&sid));
    let json: Value =
        serde_json::from_str(&stage.joe.run(["recordings", "ls", "--format=json"])?.ok().text())?;
    let end = &json[0];
    ensure!(
        end["event"] == "db.session.end"
            && end["recording_state"] == "complete"
            && end["db_service"] == "shop",
        "{end}"
    );

    let verified = stage.cluster.tctl_ok(["recordings", "verify", &sid])?.text();
    ensure!(verified.contains(&sid) && verified.contains("intact"), "{verified}");
    let folder = &stage.joe.folder;
    let _saved = stage.joe.run(["recordings", "download", &sid])?.ok();
    let file = folder.join(format!("{sid}.tar"));
    let from_file =
        stage.joe.run(["play".as_ref(), "--format=text".as_ref(), file.as_os_str()])?.ok().text();
    ensure!(from_file == played(&stage, &["--format=text", &sid])?);
    for (format, ending) in
        [("html", "html"), ("asciicast", "cast"), ("text", "txt"), ("json", "json")]
    {
        let _exported = stage.joe.run(["recordings", "export", "--format", format, &sid])?.ok();
        let path = folder.join(format!("{sid}.{ending}"));
        let content = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        ensure!(content.contains("insert into t"), "{format}");
        ensure!(format == "json" || content.contains("3 rows affected"), "{format}");
    }
    let _removed = stage.cluster.tctl_ok(["recordings", "rm", &sid])?;
    ensure!(stage.joe.run(["play", &sid])?.code == 5);
    Ok(())
}

#[test]
fn a_mysql_session_plays() -> Result<()> {
    let stage = DbStage::new("db-play-mysql")?;
    let Some(mariadb) = MariaDb::start(&stage.cluster, &["alice"])? else { return Ok(()) };
    stage.serve(&DbResource { name: "books", protocol: "mysql", uri: mariadb.uri(), spec: "" })?;
    let tunnel = stage.tunnel("books", "alice", "")?;
    let script = "create database library;\nuse library;\ncreate table t (a int);\ninsert into t values (1), (2);\n\
                  select * from missing;\nprepare s from 'select a from t where a > ?';\nset @a = 1;\n\
                  execute s using @a;\n";
    let said = run(tunnel.mariadb("mariadb").args(["--force", "--batch"]), script, 60)?;
    ensure!(said.stderr.contains("1146") && said.text().ends_with("a\n2\n"), "{said:?}");
    let sids = ended(&stage, "books", 1)?;
    let sid = sids.last().context("a session")?;
    stage.recording(sid)?;
    let text = played(&stage, &["--format=text", sid])?;
    let lines = timeless(&text);
    let place = |wanted: &str| {
        lines
            .iter()
            .position(|line| line == wanted)
            .with_context(|| format!("{wanted:?} in {text}"))
    };
    let at = place("books> insert into t values (1), (2)")?;
    ensure!(lines[at + 1..at + 3] == ["SUCCESS", "(2 rows affected)"], "{text}");
    let at = place("books> select * from missing")?;
    ensure!(lines[at + 1].contains("1146") && lines[at + 1].contains("missing"), "{text}");
    ensure!(place("books> create database library")? < at, "{text}");
    ensure!(place("books> execute s using @a")? > at, "{text}");
    let json: Value = serde_json::from_str(&played(&stage, &["--format=json", sid])?)?;
    ensure!(json[0]["event"] == "db.session.start" && json[0]["db_protocol"] == "mysql", "{json}");
    let listed = stage.joe.run(["recordings", "ls"])?.ok().text();
    let row = listed
        .lines()
        .find(|line| line.starts_with(sid.as_str()))
        .with_context(|| listed.clone())?;
    ensure!(row.split_whitespace().skip(1).take(3).eq(["mysql", "joe", "books"]), "{row}");
    Ok(())
}

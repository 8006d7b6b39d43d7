//! Redis through the whole chain, by real clients: what they do works, and every command they sent is in the audit log
//! and in the recording, in order, without its secrets, and nothing else is.

mod hostile;
mod raw;

use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;
use shared_testkit::process::command;
use shared_testkit::{DbOptions, DbResource, DbStage, DbTunnel, Redis, run};

use crate::db_told::{ended, logged, recorded, text};

/// The service's name.
const CACHE: &str = "cache";
/// An ACL user with a password that nothing may hold but the server.
const ALICE: &str = "user alice on >alice-secret-71 ~* &* +@all";

/// A Redis behind a cluster.
struct Cache {
    stage: DbStage,
    redis: Redis,
}

impl Cache {
    fn new(name: &str) -> Result<Option<Self>> {
        let stage = DbStage::with(name, &DbOptions::default())?;
        let Some(redis) = Redis::start(&stage.cluster, ALICE)? else { return Ok(None) };
        stage.serve(&DbResource { name: CACHE, protocol: "redis", uri: redis.uri(), spec: "" })?;
        Ok(Some(Self { stage, redis }))
    }

    fn tunnel(&self, user: &str) -> Result<DbTunnel> {
        self.stage.tunnel(CACHE, user, "")
    }

    fn cli(&self, tunnel: &DbTunnel) -> Command {
        let mut client = command("redis-cli", self.stage.scratch.path());
        client.args(["-h", "127.0.0.1", "-p", &tunnel.port.to_string()]);
        client
    }

    /// The only session that ended.
    fn session(&self) -> Result<String> {
        let sids = ended(&self.stage, CACHE, 1)?;
        let [sid] = sids.as_slice() else { anyhow::bail!("sessions: {sids:?}") };
        Ok(sid.clone())
    }

    /// Recording and audit log tell of these commands and no others; what the recording tells of the answers: nothing
    /// for a good one.
    fn tells(&self, sid: &str, wanted: &[&str]) -> Result<Vec<String>> {
        let events = recorded(&self.stage, sid)?;
        let said: Vec<String> = events.iter().filter_map(line).collect();
        assert_eq!(said, wanted, "the recording");
        let logged = logged(&self.stage, sid, "db.session.query", wanted.len())?;
        let logged: Vec<String> = logged.iter().filter_map(line).collect();
        assert_eq!(logged, wanted, "the audit log");
        let results = events.iter().filter(|event| text(event, "event") == "db.session.result");
        Ok(results.map(|event| text(event, "error").to_owned()).collect())
    }

    /// Everything that was written down of a session, as one text.
    fn everything(&self, sid: &str) -> Result<String> {
        let mut all = serde_json::to_string(&recorded(&self.stage, sid)?)?;
        for file in walk(&self.stage.cluster.data_dir().join("log"))? {
            all += &String::from_utf8_lossy(&std::fs::read(file)?);
        }
        Ok(all + &self.stage.cluster.auth.log())
    }
}

fn walk(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(walk(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

/// One line that tells of a command; none of what is no command.
fn line(event: &Value) -> Option<String> {
    match text(event, "event") {
        "db.session.query" => Some(text(event, "db_query").to_owned()),
        "db.session.query.failed" => Some(format!("refused: {}", text(event, "db_query"))),
        _ => None,
    }
}

#[test]
fn redis_cli_without_a_password_is_told_of() -> Result<()> {
    let Some(cache) = Cache::new("redis-cli")? else { return Ok(()) };
    let tunnel = cache.tunnel("default")?;
    let script = "SET k \"a b\\x00\\xff\"\nGET k\nINCR k\nNOSUCH 1 2\nMULTI\nSET m 1\nINCR k\nEXEC\n\
                  EVAL \"return redis.call('GET', KEYS[1])\" 1 m\nACL WHOAMI\n";
    let outcome = run(&mut cache.cli(&tunnel), script, 60)?.ok();
    let direct = run(&mut cache.redis.direct(), script, 60)?.ok();
    assert_eq!(outcome.text(), direct.text());
    let sid = cache.session()?;
    let results = cache.tells(
        &sid,
        &[
            // Of its own accord, for its hints.
            "COMMAND DOCS",
            r#"SET k "a b\x00\xff""#,
            "GET k",
            "INCR k",
            "NOSUCH 1 2",
            "MULTI",
            "SET m 1",
            "INCR k",
            "EXEC",
            r#"EVAL "return redis.call('GET', KEYS[1])" 1 m"#,
            "ACL WHOAMI",
        ],
    )?;
    let wrong = "ERR value is not an integer or out of range";
    ensure!(results.len() == 11, "{results:?}");
    assert_eq!((results[1].as_str(), results[3].as_str(), results[8].as_str()), ("", wrong, wrong));
    assert!(results[4].starts_with("ERR unknown command 'NOSUCH'"), "{results:?}");
    let shown = cache.stage.joe.run(["play", "--format=text", &sid])?.ok().text();
    assert!(shown.contains("cache> INCR k\r\nERR value is not an integer"), "{shown}");
    Ok(())
}

#[test]
fn version_3_and_long_values_pass() -> Result<()> {
    let Some(cache) = Cache::new("redis-3")? else { return Ok(()) };
    let tunnel = cache.tunnel("default")?;
    let value = "v".repeat(5_000_000);
    let mut set = cache.cli(&tunnel);
    let outcome = run(set.args(["-x", "SET", "long"]), &value, 60)?.ok();
    assert_eq!(outcome.text(), "OK\n");
    let mut get = cache.cli(&tunnel);
    let outcome = run(get.args(["-3", "GET", "long"]), "", 60)?.ok();
    assert_eq!(outcome.text().trim_end().len(), value.len());
    let sids = ended(&cache.stage, CACHE, 2)?;
    cache.tells(&sids[1], &["HELLO 3", "GET long"])?;
    let events = recorded(&cache.stage, &sids[0])?;
    let said: Vec<String> = events.iter().filter_map(line).collect();
    let [set] = said.as_slice() else { anyhow::bail!("{said:?}") };
    assert!(
        set.starts_with("SET long \"vvvv") && set.contains("… [cut: 5000000 bytes, sha256 "),
        "{}",
        set.len()
    );
    Ok(())
}

#[test]
fn an_acl_user_logs_in_with_a_password_that_nobody_keeps() -> Result<()> {
    let Some(cache) = Cache::new("redis-acl")? else { return Ok(()) };
    let tunnel = cache.tunnel("alice")?;
    // The server would take all of it, as `default`.
    let script = "GET k\nACL WHOAMI\nAUTH default x\nAUTH alice wrong-secret-72\nGET k\nAUTH alice-secret-71\nACL WHOAMI\n\
                  CONFIG SET masterauth other-secret-73\nACL SETUSER carol on >carol-secret-74 +wrong-secret-75\n\
                  RESET\nACL WHOAMI\nHELLO 3 AUTH alice alice-secret-71\nACL WHOAMI\nAUTH carol carol-secret-74\n";
    let outcome = run(&mut cache.cli(&tunnel), script, 60)?;
    let answers = outcome.text();
    let wanted = [
        "NOAUTH Authentication required: this session is for the database user \"alice\"",
        "NOAUTH",
        "NOPERM this session is for the database user \"alice\", not \"default\"",
        "WRONGPASS",
        "NOAUTH",
        "OK",
        "alice",
        "OK",
        "ERR Error in ACL SETUSER",
        "RESET",
        "NOAUTH",
    ];
    let lines: Vec<&str> = answers.lines().filter(|line| !line.is_empty()).collect();
    for (line, wanted) in lines.iter().zip(wanted) {
        assert!(line.trim_matches('"').starts_with(wanted), "{wanted}: {line}\n{answers}");
    }
    assert!(
        answers.contains("NOPERM this session is for the database user \"alice\", not \"carol\""),
        "{answers}"
    );
    let sid = cache.session()?;
    cache.tells(
        &sid,
        &[
            // Of its own accord, for its hints.
            "refused: COMMAND DOCS",
            "refused: COMMAND",
            "refused: GET k",
            "refused: ACL WHOAMI",
            "refused: AUTH default <redacted>",
            "AUTH alice <redacted>",
            "refused: GET k",
            "AUTH <redacted>",
            "ACL WHOAMI",
            "CONFIG SET masterauth <redacted>",
            "ACL SETUSER carol on ><redacted> +wrong-secret-75",
            "RESET",
            "refused: ACL WHOAMI",
            "HELLO 3 AUTH alice <redacted>",
            "ACL WHOAMI",
            "refused: AUTH carol <redacted>",
        ],
    )?;
    let everything = cache.everything(&sid)?;
    for secret in ["alice-secret-71", "wrong-secret-72", "other-secret-73", "carol-secret-74"] {
        assert!(!everything.contains(secret), "{secret} was written down");
    }
    Ok(())
}

/// What redis-py does in `redis_py.py`.
#[test]
fn redis_py_with_pipelines_and_subscriptions_works() -> Result<()> {
    let python = command("python3", std::path::Path::new("/"));
    if !crate::db_postgres::imports(python, "redis")? {
        return Ok(());
    }
    let Some(cache) = Cache::new("redis-py")? else { return Ok(()) };
    let (default, alice) = (cache.tunnel("default")?, cache.tunnel("alice")?);
    let mut client = command("python3", cache.stage.scratch.path());
    client.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/redis_py.py"));
    client.args([default.port.to_string(), alice.port.to_string()]);
    let outcome = run(&mut client, "", 180)?.ok();
    assert_eq!(outcome.text(), "done\n", "{}", outcome.stderr);
    // It takes several connections under one name, one after the other.
    let own = |line: &String| !line.starts_with("CLIENT ");
    let told = |name: &str| -> Result<Vec<String>> {
        let named = format!(
            "select sid from db_session_query where db_query = 'CLIENT SETNAME {name}' order by event_time"
        );
        let mut told = Vec::new();
        for sid in cache.stage.audited(&named, |sids| !sids.is_empty())? {
            let ended = format!("select sid from db_session_end where sid = '{sid}'");
            cache.stage.audited(&ended, |ended| !ended.is_empty())?;
            told.extend(recorded(&cache.stage, &sid)?.iter().filter_map(line).filter(own));
        }
        Ok(told)
    };
    let mut pipeline: Vec<String> =
        (0..10_000).map(|number| format!("SET p:{number} {number}")).collect();
    pipeline.extend(["WATCH w", "MULTI", "INCRBY w 1", "INCRBY w 1", "EXEC"].map(str::to_owned));
    assert_eq!(told("pipeline")?, pipeline);
    assert_eq!(told("blocking")?, ["BLPOP list 10", "BLPOP list 1"]);
    assert_eq!(told("third")?[..2], ["HELLO 3 AUTH alice <redacted>", "ACL WHOAMI"]);
    Ok(())
}

//! Somebody dies, or is away: sessions with databases end on both sides, with an event, and what was said until then is
//! told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use shared_testkit::{
    ClusterOptions, DbAgent, DbOptions, DbResource, DbStage, DbTunnel, Postgres, run, until,
};

/// The service's name.
const SHOP: &str = "shop";
/// What anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A PostgreSQL behind a cluster.
struct Shop {
    stage: DbStage,
    postgres: Postgres,
}

impl Shop {
    fn with(name: &str, options: &DbOptions) -> Result<Option<Self>> {
        let stage = DbStage::with(name, options)?;
        let Some(postgres) = Postgres::start(&stage.cluster, &["alice"])? else { return Ok(None) };
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

    /// Waits until nobody is connected as alice.
    fn left(&self) -> Result<()> {
        let sql = "select count(*) from pg_stat_activity where usename = 'alice'";
        until("the database to be left", 30, || {
            self.postgres.sql(sql).is_ok_and(|count| count == "0").then_some(())
        })
    }

    /// The one session that has ended.
    fn ended(&self) -> Result<String> {
        let sql = "select sid from db_session_end";
        let sids = self.stage.audited(sql, |sids| !sids.is_empty())?;
        let [sid] = sids.as_slice() else { anyhow::bail!("sessions: {sids:?}") };
        Ok(sid.clone())
    }

    /// The statements of a session in the audit log, once there are so many.
    fn said(&self, sid: &str, count: usize) -> Result<Vec<String>> {
        let sql = format!("select db_query from db_session_query where sid = '{sid}' order by ei");
        self.stage.audited(&sql, |said| said.len() >= count)
    }

    /// The same out of its recording.
    fn recorded(&self, sid: &str) -> Result<Vec<String>> {
        self.stage.recording(sid)?;
        let played = self.stage.joe.run(["play", "--format=json", sid])?.ok().text();
        let values = serde_json::Deserializer::from_str(&played).into_iter::<Value>();
        let events = values.flat_map(|value| match value {
            Ok(Value::Array(list)) => list,
            Ok(one) => vec![one],
            Err(_) => Vec::new(),
        });
        let query = |event: &Value| event["db_query"].as_str().map(str::to_owned);
        Ok(events.filter_map(|event| query(&event)).collect())
    }
}

/// A psql that stays.
struct Psql {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
}

impl Psql {
    fn start(tunnel: &DbTunnel) -> Result<Self> {
        let mut psql = tunnel.postgres("psql");
        psql.args(["-XqAt"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = psql.spawn()?;
        let input = child.stdin.take();
        let (send, output) = channel();
        for pipe in [
            Box::new(child.stdout.take().context("stdout")?) as Box<dyn std::io::Read + Send>,
            Box::new(child.stderr.take().context("stderr")?),
        ] {
            let send = send.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let _ = send.send(line);
                }
            });
        }
        Ok(Self { child, input, output })
    }

    /// One statement whose answer is one line.
    fn ask(&mut self, text: &str) -> Result<()> {
        writeln!(self.input.as_mut().context("no stdin")?, "select '{text}';")?;
        let answer = self.output.recv_timeout(PATIENCE).context("no answer")?;
        ensure!(answer == text, "{answer}");
        Ok(())
    }

    /// It ends by itself once it says something more; answers what it prints.
    fn ends(mut self) -> Result<String> {
        if let Some(mut input) = self.input.take() {
            let _ = writeln!(input, "select 'more';");
        }
        until("psql to end", 60, || matches!(self.child.try_wait(), Ok(Some(_))).then_some(()))?;
        Ok(self.output.iter().collect::<Vec<_>>().join("\n"))
    }

    /// As a crash would end it.
    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn asked(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("select 'q{n}';")).collect()
}

fn ask(psql: &mut Psql, from: usize, to: usize) -> Result<()> {
    (from..to).try_for_each(|n| psql.ask(&format!("q{n}")))
}

#[test]
fn a_killed_client_ends_its_session() -> Result<()> {
    for agent in [DbAgent::SameProcess, DbAgent::Tunnel] {
        let options = DbOptions { agent, ..DbOptions::default() };
        let Some(shop) = Shop::with("dbf-client", &options)? else { return Ok(()) };
        let tunnel = shop.tunnel()?;
        let mut psql = Psql::start(&tunnel)?;
        ask(&mut psql, 0, 5)?;
        psql.kill()?;
        shop.left()?;
        let sid = shop.ended()?;
        assert_eq!(shop.said(&sid, 5)?, asked(5));
        assert_eq!(shop.recorded(&sid)?, asked(5));
    }
    Ok(())
}

#[test]
fn a_killed_agent_ends_its_sessions_and_its_recording_arrives() -> Result<()> {
    let options = DbOptions { agent: DbAgent::Tunnel, ..DbOptions::default() };
    let Some(mut shop) = Shop::with("dbf-agent", &options)? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut psql = Psql::start(&tunnel)?;
    ask(&mut psql, 0, 5)?;
    // What was flushed survives.
    std::thread::sleep(Duration::from_secs(1));
    if let Some(agent) = &mut shop.stage.agent {
        agent.kill()?;
    }
    psql.ends()?;
    shop.left()?;
    shop.stage.agent = Some(shop.stage.start_agent("agent")?);
    let sid = shop.ended()?;
    assert_eq!(shop.recorded(&sid)?, asked(5));
    assert_eq!(shop.said(&sid, 5)?, asked(5));
    Ok(())
}

#[test]
fn a_stopped_agent_lets_its_sessions_end_and_loses_nothing() -> Result<()> {
    let options = DbOptions { agent: DbAgent::Tunnel, ..DbOptions::default() };
    let Some(mut shop) = Shop::with("dbf-stop", &options)? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut psql = Psql::start(&tunnel)?;
    ask(&mut psql, 0, 20)?;
    if let Some(agent) = &shop.stage.agent {
        agent.signal(Signal::TERM)?;
    }
    // A session that runs has the drain's time.
    ask(&mut psql, 20, 30)?;
    drop(psql);
    if let Some(agent) = &mut shop.stage.agent {
        until("the agent's end", 45, || (!agent.running()).then_some(()))?;
    }
    let sid = shop.ended()?;
    assert_eq!(shop.said(&sid, 30)?, asked(30));
    assert_eq!(shop.recorded(&sid)?, asked(30));
    Ok(())
}

#[test]
fn a_killed_proxy_ends_its_sessions() -> Result<()> {
    let options = DbOptions { agent: DbAgent::Tunnel, two_processes: true, ..DbOptions::default() };
    let Some(mut shop) = Shop::with("dbf-proxy", &options)? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut psql = Psql::start(&tunnel)?;
    ask(&mut psql, 0, 5)?;
    if let Some(proxy) = &mut shop.stage.cluster.proxy {
        proxy.kill()?;
    }
    psql.ends()?;
    shop.left()?;
    // The agent's way to the auth service leads through the proxy: what it has to tell waits on its disk.
    shop.stage.cluster.restart_proxy()?;
    let sid = shop.ended()?;
    assert_eq!(shop.said(&sid, 5)?, asked(5));
    assert_eq!(shop.recorded(&sid)?, asked(5));
    Ok(())
}

#[test]
fn a_killed_database_ends_its_sessions_and_says_so() -> Result<()> {
    let Some(mut shop) = Shop::with("dbf-database", &DbOptions::default())? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut psql = Psql::start(&tunnel)?;
    ask(&mut psql, 0, 5)?;
    shop.postgres.process.signal(Signal::QUIT)?;
    until("PostgreSQL's end", 20, || (!shop.postgres.process.running()).then_some(()))?;
    let said = psql.ends()?;
    assert!(said.contains("connection") || said.contains("terminat"), "{said}");
    let sid = shop.ended()?;
    assert_eq!(shop.said(&sid, 5)?, asked(5));
    // Nobody is there any more: the client reads why in its own protocol.
    let away = run(&mut tunnel.psql("select 1"), "", 60)?;
    assert_ne!(away.code, 0);
    assert!(away.stderr.contains("could not connect to the database"), "{}", away.stderr);
    let ends = "select sid from db_session_end";
    assert_eq!(shop.stage.audited(ends, |sids| sids.len() >= 2)?.len(), 2);
    Ok(())
}

#[test]
fn sessions_go_on_while_the_auth_service_is_away() -> Result<()> {
    let options = DbOptions { agent: DbAgent::Tunnel, two_processes: true, ..DbOptions::default() };
    let Some(mut shop) = Shop::with("dbf-away", &options)? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut psql = Psql::start(&tunnel)?;
    ask(&mut psql, 0, 5)?;
    shop.stage.cluster.auth.kill()?;
    ask(&mut psql, 5, 10)?;
    // Its certificate for the database is kept, and the decision needs nobody.
    let mut other = Psql::start(&tunnel)?;
    other.ask("other")?;
    drop((psql, other));
    shop.left()?;
    shop.stage.cluster.restart_auth()?;
    let ends = "select sid from db_session_end";
    let sids = shop.stage.audited(ends, |sids| sids.len() >= 2)?;
    assert_eq!(sids.len(), 2);
    let mut said = Vec::new();
    for sid in &sids {
        let log = shop.said(sid, 1)?;
        let log = if log.len() > 1 { shop.said(sid, 10)? } else { log };
        assert_eq!(shop.recorded(sid)?, log);
        said.push(log);
    }
    said.sort_by_key(Vec::len);
    assert_eq!(said, [vec!["select 'other';".to_owned()], asked(10)]);
    Ok(())
}

#[test]
fn each_mode_records_as_it_says() -> Result<()> {
    for mode in ["node", "proxy", "node-sync", "proxy-sync", "off"] {
        let options = DbOptions { recording: mode.to_owned(), ..DbOptions::default() };
        let Some(shop) = Shop::with("dbf-mode", &options)? else { return Ok(()) };
        let tunnel = shop.tunnel()?;
        let mut psql = Psql::start(&tunnel)?;
        ask(&mut psql, 0, 300)?;
        if mode == "off" {
            drop(psql);
            let sid = shop.ended()?;
            assert_eq!(shop.said(&sid, 300)?, asked(300));
            let listed = shop.stage.joe.run(["recordings", "ls"])?.ok().text();
            assert!(!listed.contains(&sid), "{listed}");
            continue;
        }
        if mode.ends_with("-sync") {
            // Parts of it are at the auth service while it runs.
            let uploads = shop.stage.cluster.data_dir().join("log");
            until("a part at the auth service", 20, || any_part(&uploads).then_some(()))?;
        }
        drop(psql);
        let sid = shop.ended()?;
        assert_eq!(shop.said(&sid, 300)?, asked(300), "{mode}");
        assert_eq!(shop.recorded(&sid)?, asked(300), "{mode}");
        let sql = format!("select session_recording from db_session_end where sid = '{sid}'");
        assert_eq!(shop.stage.audited(&sql, |rows| !rows.is_empty())?, [mode]);
    }
    Ok(())
}

/// Whether a part of an upload lies somewhere below.
fn any_part(folder: &std::path::Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| match path.is_dir() {
        true => any_part(&path),
        false => path.extension().is_some_and(|kind| kind == "part"),
    })
}

#[test]
fn a_streamed_session_ends_when_nobody_takes_its_recording() -> Result<()> {
    let cluster = ClusterOptions::default();
    let options = DbOptions {
        agent: DbAgent::Tunnel,
        two_processes: true,
        recording: "node-sync".to_owned(),
        cluster,
    };
    let Some(mut shop) = Shop::with("dbf-sync", &options)? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut psql = Psql::start(&tunnel)?;
    ask(&mut psql, 0, 5)?;
    shop.stage.cluster.auth.kill()?;
    // Two seconds ahead, and then 30 s of patience.
    for n in 0..10_000 {
        if psql.ask(&format!("x{n}")).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    psql.ends()?;
    shop.left()?;
    let refused = run(&mut tunnel.psql("select 1"), "", 90)?;
    assert_ne!(refused.code, 0, "a session that cannot be streamed begins");
    assert!(refused.stderr.contains("audit log cannot be written"), "{}", refused.stderr);
    shop.stage.cluster.restart_auth()?;
    shop.ended()?;
    Ok(())
}

#[test]
fn a_lock_and_a_removed_database_end_sessions_with_words() -> Result<()> {
    for (command, words) in [
        (&["lock", "--user=joe", "--message=out of hours"][..], "out of hours"),
        (&["rm", "db/shop"], "the database was removed or changed"),
    ] {
        let Some(shop) = Shop::with("dbf-lock", &DbOptions::default())? else { return Ok(()) };
        let tunnel = shop.tunnel()?;
        let mut psql = Psql::start(&tunnel)?;
        ask(&mut psql, 0, 3)?;
        let _ended = shop.stage.cluster.tctl_ok(command)?;
        shop.left()?;
        let said = psql.ends()?;
        assert!(said.contains(words), "{said}");
        let sid = shop.ended()?;
        assert_eq!(shop.said(&sid, 3)?, asked(3));
    }
    Ok(())
}

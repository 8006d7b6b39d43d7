//! Auth and proxy as two processes, each of them and both killed in the middle of sessions: what was acknowledged
//! stays, sessions outlive auth, recordings play up to the kill.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shared_testkit::{ClusterOptions, Terminal, run, until};

use crate::support::Stage;

/// A line each 50 ms, so this many are a second, with something for a machine that is busy.
const LINES_A_SECOND: usize = 25;

fn count() -> usize {
    if std::env::var_os("GATEHOUSE_LONG").is_some() { 50 } else { 20 }
}

/// How many counted lines are in there.
fn lines(output: &[u8]) -> usize {
    String::from_utf8_lossy(output).matches("-line-").count()
}

/// A cluster of two processes and sessions that run in it.
struct Scene {
    stage: Stage,
    /// The last one writes much.
    terminals: Vec<Terminal>,
    /// Events that were acknowledged before anything happened: `session.start` by id and session.
    started: Vec<Vec<String>>,
}

/// What the sessions were when they ended.
struct Ended {
    stage: Stage,
    captures: Vec<(i32, Vec<u8>)>,
    started: Vec<Vec<String>>,
}

impl Scene {
    fn new(name: &str) -> Result<Self> {
        let options = ClusterOptions { two_processes: true, ..ClusterOptions::default() };
        let stage = Stage::with(name, &options, "MaxStartups 200:30:400")?;
        // They end by themselves once the file is there.
        let end = stage.scratch.path().join("end");
        let mut terminals = Vec::new();
        for number in 0..=count() {
            let more = if number == count() { "head -c 15000 /dev/urandom | base64; " } else { "" };
            let line = format!(
                "stty -echo; i=0; while [ ! -e {} ]; do i=$((i+1)); echo s{number}-line-$i; {more}sleep 0.05; done; echo s{number}-over; exit 9",
                end.display()
            );
            terminals.push(Terminal::start(&mut stage.tsh_ssh(&["-t"], &[&line]), 80, 24)?);
        }
        for (number, terminal) in terminals.iter().enumerate() {
            terminal.expect(&format!("s{number}-line-30\r\n"), 0)?;
        }
        let started = stage.cluster.query("select uid, sid from session_start order by uid")?;
        ensure!(started.len() == count() + 1, "{started:?}");
        Ok(Self { stage, terminals, started })
    }

    /// Waits until every session shows more than it does now.
    fn go_on(&self) -> Result<()> {
        for (number, terminal) in self.terminals.iter().enumerate() {
            let mark = terminal.mark();
            until(&format!("session {number} to go on"), 60, || {
                (terminal.mark() > mark + 64).then_some(())
            })?;
        }
        Ok(())
    }

    fn let_end(&self) -> Result<()> {
        let _path = self.stage.scratch.write("end", "")?;
        Ok(())
    }

    fn finish(self) -> Result<Ended> {
        let captures = self
            .terminals
            .into_iter()
            .map(|terminal| terminal.finish(180))
            .collect::<Result<_>>()?;
        Ok(Ended { stage: self.stage, captures, started: self.started })
    }
}

impl Ended {
    /// Every event that was there is there, and every recording arrives. Returns what each session's recording
    /// plays, in the order of the sessions.
    fn played(&self) -> Result<Vec<Vec<u8>>> {
        let cluster = &self.stage.cluster;
        let now = cluster.query("select uid, sid from session_start order by uid")?;
        for event in &self.started {
            assert!(now.contains(event), "an acknowledged event is missing: {event:?}");
        }
        assert_eq!(now.len(), self.started.len(), "an event came twice");
        let mut plays: Vec<Vec<u8>> = Vec::new();
        for row in &self.started {
            let sid = &row[1];
            let path = cluster.data_dir().join(format!("log/records/{sid}.tar"));
            until("recordings after the restart", 180, || path.exists().then_some(()))?;
            let outcome = self.stage.joe.run(["play", "--format=text", sid])?;
            ensure!(outcome.code == 0, "{}", outcome.stderr);
            plays.push(outcome.stdout);
        }
        until("every upload's event", 120, || {
            let rows = cluster.query("select count(distinct sid) from session_upload").ok()?;
            (rows == [[self.started.len().to_string()]]).then_some(())
        })?;
        let of = |number: usize| {
            let begin = format!("s{number}-line-1\r\n");
            // The far shell's own start may say something before.
            let found = plays.iter().find(|play| String::from_utf8_lossy(play).contains(&begin));
            let heads = || {
                plays
                    .iter()
                    .map(|play| String::from_utf8_lossy(&play[..play.len().min(40)]).into_owned())
                    .collect::<Vec<_>>()
            };
            found
                .cloned()
                .with_context(|| format!("session {number} has no recording: {:?}", heads()))
        };
        (0..=count()).map(of).collect()
    }

    /// Each recording is what the client saw, up to a second or 128 KiB before the kill.
    fn compare(&self) -> Result<()> {
        for (number, (play, (_, capture))) in self.played()?.iter().zip(&self.captures).enumerate()
        {
            // What tsh itself says behind the session's end is not the session's.
            let common = play.iter().zip(capture).take_while(|(a, b)| a == b).count();
            let tail = capture.get(common..).unwrap_or_default();
            let kept = lines(play);
            let seen = lines(capture);
            assert!(
                kept + LINES_A_SECOND >= seen || tail.len() <= 128 * 1024,
                "session {number}: {kept} of {seen} lines are in the recording"
            );
            assert!(
                common == play.len() || common + 200 >= capture.len(),
                "session {number}: the recording is something else than the client saw: {:?} and {:?}",
                String::from_utf8_lossy(&play[common..]),
                String::from_utf8_lossy(tail),
            );
        }
        Ok(())
    }
}

#[test]
fn sessions_outlive_the_auth_service() -> Result<()> {
    let _alone = crate::support::alone();
    let mut scene = Scene::new("authkill")?;
    let (_guard, socket) = scene.stage.agent_of_joe("a")?;
    let mut ssh = scene.stage.ssh(&socket, &[], &["echo while-away"])?;
    scene.stage.cluster.auth.kill()?;
    scene.go_on()?;
    std::thread::sleep(Duration::from_secs(1));
    scene.go_on()?;
    // A client that needs nothing of auth gets a new session, by what the proxy knows; tsh asks auth, and says so.
    let echoed = run(&mut ssh, "", 60)?.ok();
    assert_eq!(echoed.text(), "while-away\n");
    let refused = run(&mut scene.stage.tsh_ssh(&[], &["true"]), "", 60)?.fails(255, "auth");
    assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
    // Sessions that end now leave their ends in the proxy's hands.
    scene.let_end()?;
    let mut ended = scene.finish()?;
    for (number, (code, capture)) in ended.captures.iter().enumerate() {
        let text = String::from_utf8_lossy(capture);
        assert!(
            *code == 9 && text.ends_with(&format!("s{number}-over\r\n")),
            "session {number}: {code}"
        );
    }
    ended.stage.cluster.restart_auth()?;
    let away = until("the session of the meantime", 120, || {
        let sql = "select s.uid, s.sid from session_start s join exec e on s.sid = e.sid where e.command = 'echo while-away'";
        ended.stage.cluster.query(sql).ok()?.into_iter().next()
    })?;
    until("every session's end", 120, || {
        let rows = ended.stage.cluster.query("select count(distinct sid) from session_end").ok()?;
        (rows == [[(count() + 2).to_string()]]).then_some(())
    })?;
    assert_eq!(ended.stage.played(&away[1])?, b"while-away\n");
    ended.started.push(away);
    // Nothing crashed where they were recorded: every byte is there.
    let records = ended.stage.cluster.data_dir().join("log/records");
    for row in &ended.started {
        let path = records.join(format!("{}.tar", row[1]));
        until("recordings", 180, || path.exists().then_some(()))?;
    }
    let plays = ended.played()?;
    for (number, (play, (_, capture))) in plays.iter().zip(&ended.captures).enumerate() {
        assert!(
            play == capture,
            "session {number}: {} of {} bytes are recorded",
            play.len(),
            capture.len()
        );
    }
    Ok(())
}

#[test]
fn a_killed_proxy_finds_its_recordings_again() -> Result<()> {
    let _alone = crate::support::alone();
    let mut scene = Scene::new("proxykill")?;
    scene.stage.cluster.proxy.as_mut().context("a proxy")?.kill()?;
    let mut ended = scene.finish()?;
    assert!(ended.captures.iter().all(|(code, _)| *code == 255), "tsh ends with 255");
    ended.stage.cluster.restart_proxy()?;
    ended.compare()?;
    let echoed = run(&mut ended.stage.tsh_ssh(&[], &["echo", "again"]), "", 60)?.ok();
    assert_eq!(echoed.text(), "again\n");
    Ok(())
}

#[test]
fn both_killed_at_once_lose_nothing_that_was_acknowledged() -> Result<()> {
    let _alone = crate::support::alone();
    let mut scene = Scene::new("bothkill")?;
    let cluster = &mut scene.stage.cluster;
    cluster.auth.signal(rustix::process::Signal::KILL)?;
    cluster.proxy.as_mut().context("a proxy")?.kill()?;
    cluster.auth.kill()?;
    let mut ended = scene.finish()?;
    ended.stage.cluster.restart_auth()?;
    ended.stage.cluster.restart_proxy()?;
    ended.compare()?;
    let echoed = run(&mut ended.stage.tsh_ssh(&[], &["echo", "again"]), "", 60)?.ok();
    assert_eq!(echoed.text(), "again\n");
    Ok(())
}

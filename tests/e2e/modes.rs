//! Recording modes against faults, with auth and proxy as two processes: the cells of the table in
//! `docs/recordings.md`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use shared_testkit::{ClusterOptions, Home, Outcome, Terminal, run, until};

use crate::support::Stage;

/// What may be ahead of auth's acknowledgement.
const WINDOW: usize = 256 * 1024;
/// Part of what a client reads when a streamed session ends for the sake of its recording.
const NOT_ACKNOWLEDGED: &str = "has not acknowledged the recording of this session";

/// Sessions beside the one that writes much.
const QUIET: usize = 19;
/// All of them.
const SESSIONS: usize = QUIET + 1;

fn options(mode: &str, proxy_extra: &str) -> ClusterOptions {
    ClusterOptions {
        recording: Some(mode.to_owned()),
        two_processes: true,
        proxy_extra: proxy_extra.to_owned(),
        auth_extra: "  upload_completer_period: 1s\n  session_tracker_ttl: 4s\n".to_owned(),
        ..ClusterOptions::default()
    }
}

/// The exit code of a client, and all it showed.
type Ended = (i32, Vec<u8>);

/// Sessions that write all the time until the file `end` is there. The last one writes much.
struct Scene {
    stage: Stage,
    terminals: Vec<Terminal>,
}

impl Scene {
    fn new(name: &str, options: &ClusterOptions) -> Result<Self> {
        let stage = Stage::with(name, options, "MaxStartups 200:30:400")?;
        let end = stage.scratch.path().join("end");
        let mut terminals = Vec::new();
        for number in 0..SESSIONS {
            let more = if number == QUIET { "head -c 30000 /dev/urandom | base64; " } else { "" };
            let line = format!(
                "stty -echo; i=0; while [ ! -e {} ]; do i=$((i+1)); echo s{number}-line-$i; {more}sleep 0.05; done; echo s{number}-over; exit 9",
                end.display()
            );
            terminals.push(Terminal::start(&mut stage.tsh_ssh(&["-t"], &[&line]), 80, 24)?);
        }
        for (number, terminal) in terminals.iter().enumerate() {
            terminal.expect(&format!("s{number}-line-20\r\n"), 0)?;
        }
        Ok(Self { stage, terminals })
    }

    /// Waits until no session shows anything for a second.
    fn stopped(&self) -> Result<()> {
        let mut last = Vec::new();
        let mut since = Instant::now();
        until("the sessions to stop", 30, || {
            let now: Vec<usize> = self.terminals.iter().map(Terminal::mark).collect();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            (since.elapsed() > Duration::from_secs(1)).then_some(())
        })
    }

    fn let_end(&self) -> Result<()> {
        let _path = self.stage.scratch.write("end", "")?;
        Ok(())
    }

    fn finish(self) -> Result<(Stage, Vec<Ended>)> {
        let ended = self.terminals.into_iter().map(|terminal| terminal.finish(60));
        Ok((self.stage, ended.collect::<Result<_>>()?))
    }
}

/// What each session's recording plays, in the order of the sessions. `others` are recorded too.
fn plays(stage: &Stage, others: usize) -> Result<Vec<Vec<u8>>> {
    let rows = until("every recording", 60, || {
        let rows = stage.cluster.query("select distinct sid from session_upload").ok()?;
        (rows.len() == SESSIONS + others).then_some(rows)
    })?;
    let mut found = Vec::new();
    for row in &rows {
        found.push(stage.joe.run(["play", "--format=text", &row[0]])?.ok().stdout);
    }
    let of = |number: usize| {
        let begin = format!("s{number}-line-1\r\n");
        found.iter().find(|play| String::from_utf8_lossy(play).contains(&begin)).cloned()
    };
    (0..SESSIONS).map(|number| of(number).context(format!("no recording of {number}"))).collect()
}

/// Ids of the sessions that `tctl recordings ls` lists in a state.
fn listed(stage: &Stage, state: &str) -> Result<Vec<serde_json::Value>> {
    let flag = format!("--state={state}");
    let text = stage.cluster.tctl_ok(["recordings", "ls", &flag, "--format=json"])?.text();
    Ok(serde_json::from_str(&text)?)
}

fn wait_listed(stage: &Stage, state: &str, number: usize) -> Result<Vec<serde_json::Value>> {
    until(&format!("{number} recordings that are {state}"), 60, || {
        listed(stage, state).ok().filter(|found| found.len() == number)
    })
}

#[test]
fn sync_auth_killed_sessions_end_with_the_reason_and_nothing_is_lost() -> Result<()> {
    let _alone = crate::support::alone();
    let mut scene = Scene::new("synckill", &options("proxy-sync", "  recording_wait: 3s\n"))?;
    let uploads = scene.stage.cluster.data_dir().join("log/records/multi");
    ensure!(std::fs::read_dir(&uploads)?.count() == SESSIONS, "parts come as they are made");
    let proxy_spool = scene.stage.cluster.folder().join("proxy/log/upload/streaming/default/multi");
    ensure!(std::fs::read_dir(&proxy_spool)?.count() == 0, "nothing is on the proxy's disk");
    scene.stage.cluster.auth.kill()?;
    let (mut stage, ended) = scene.finish()?;
    for (number, (code, capture)) in ended.iter().enumerate() {
        let text = String::from_utf8_lossy(capture);
        ensure!(*code != 9 && text.contains(NOT_ACKNOWLEDGED), "session {number}: {code} {text}");
    }
    // What was shown and not acknowledged is at most the window, and is brought when auth is back.
    stage.cluster.restart_auth()?;
    for (number, (play, (_, capture))) in plays(&stage, 0)?.iter().zip(&ended).enumerate() {
        let shown = String::from_utf8_lossy(capture);
        let session = shown.split("\r\nERROR: ").next().unwrap_or_default();
        let played = String::from_utf8_lossy(play);
        // The client may miss what was on its way when the session was ended.
        ensure!(
            played.starts_with(session),
            "session {number}: {} of {}",
            play.len(),
            session.len()
        );
    }
    wait_listed(&stage, "complete", SESSIONS)?;
    let told = until("the events of it", 30, || {
        let sql =
            "select count(*) from client_disconnect where reason like '%has not acknowledged%'";
        stage.cluster.query(sql).ok().filter(|rows| rows[0][0] == SESSIONS.to_string())
    });
    told.map(drop)
}

#[test]
fn sync_auth_frozen_stops_both_directions_and_goes_on_when_it_is_back() -> Result<()> {
    let _alone = crate::support::alone();
    let scene = Scene::new("syncfreeze", &options("proxy-sync", "  recording_wait: 25s\n"))?;
    let taken = scene.stage.scratch.path().join("taken");
    let line = format!(
        "stty -echo; echo ready; while read word; do echo $word >> {}; echo got-$word; done",
        taken.display()
    );
    let mut typed = Terminal::start(&mut scene.stage.tsh_ssh(&["-t"], &[&line]), 80, 24)?;
    typed.expect("ready\r\n", 0)?;
    let read = || std::fs::read_to_string(&taken).unwrap_or_default();
    typed.send("before\n")?;
    typed.expect("got-before\r\n", 0)?;
    scene.stage.cluster.auth.signal(Signal::STOP)?;
    let shown: Vec<usize> = scene.terminals.iter().map(Terminal::mark).collect();
    typed.send("within\n")?;
    typed.expect("got-within\r\n", 0)?;
    scene.stopped()?;
    for (number, (terminal, before)) in scene.terminals.iter().zip(shown).enumerate() {
        let more = terminal.mark() - before;
        // What came in the moment of the freeze is in the count too.
        ensure!(more <= WINDOW + 64 * 1024, "session {number} went on for {more} bytes");
    }
    typed.send("after\n")?;
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(read(), "before\nwithin\n", "input passes a closed window");
    scene.stage.cluster.auth.signal(Signal::CONT)?;
    typed.expect("got-after\r\n", 0)?;
    assert_eq!(read(), "before\nwithin\nafter\n");
    typed.send("\u{4}")?;
    typed.finish(30)?;
    let marks: Vec<usize> = scene.terminals.iter().map(Terminal::mark).collect();
    for (terminal, mark) in scene.terminals.iter().zip(marks) {
        until("the sessions to go on", 30, || (terminal.mark() > mark).then_some(()))?;
    }
    scene.let_end()?;
    let (stage, ended) = scene.finish()?;
    wait_listed(&stage, "complete", SESSIONS + 1)?;
    for (number, (play, (code, capture))) in plays(&stage, 1)?.iter().zip(&ended).enumerate() {
        ensure!(*code == 9, "session {number}: {code}");
        ensure!(play == capture, "session {number}: {} of {} bytes", play.len(), capture.len());
    }
    Ok(())
}

#[test]
fn sync_no_session_starts_without_auth_and_no_target_hears_of_it() -> Result<()> {
    let _alone = crate::support::alone();
    let stage = Stage::with(
        "syncstart",
        &options("proxy-sync", "  recording_wait: 2s\n"),
        "LogLevel VERBOSE",
    )?;
    let (_guard, socket) = stage.agent_of_joe("a")?;
    let mut ssh = stage.ssh(&socket, &[], &["echo in"])?;
    assert_eq!(run(&mut ssh, "", 60)?.ok().text(), "in\n");
    let start = until("the start", 20, || {
        let sql = "select session_recording, record_session from session_start";
        stage.cluster.query(sql).ok()?.into_iter().next()
    })?;
    assert_eq!(start, ["proxy-sync", "strict"]);
    let heard = || stage.sshd.log().matches("Connection from").count();
    let before = heard();
    ensure!(before > 0, "the log of the target tells nothing");
    stage.cluster.auth.signal(Signal::STOP)?;
    let refused = run(&mut ssh, "", 60);
    stage.cluster.auth.signal(Signal::CONT)?;
    let _refused = refused?.fails(255, "the auth service does not answer");
    assert_eq!(heard(), before, "the target was dialled");
    assert_eq!(run(&mut ssh, "", 60)?.ok().text(), "in\n");
    Ok(())
}

#[test]
fn sync_proxy_killed_leaves_a_truncated_recording() -> Result<()> {
    let _alone = crate::support::alone();
    let mut scene = Scene::new("syncproxy", &options("proxy-sync", ""))?;
    scene.stage.cluster.proxy.as_mut().context("a proxy")?.kill()?;
    let (mut stage, ended) = scene.finish()?;
    let truncated = wait_listed(&stage, "truncated", SESSIONS)?;
    for end in &truncated {
        ensure!(end["recovered"].as_str().is_some_and(|by| by.contains("auth")), "{end}");
        ensure!(end["recording_until"].is_string(), "{end}");
    }
    stage.cluster.restart_proxy()?;
    let states = stage.cluster.query("select distinct recording_state from session_upload")?;
    assert_eq!(states, [["truncated"]]);
    for (number, (play, (_, capture))) in plays(&stage, 0)?.iter().zip(&ended).enumerate() {
        let common = play.iter().zip(capture).take_while(|(a, b)| a == b).count();
        // Behind the end of the session tsh says what it thinks of that.
        let lost = capture.len() - common;
        ensure!(lost <= WINDOW + 1024, "session {number}: {lost} bytes are lost");
        ensure!(play.len() <= common + WINDOW, "session {number} is something else than was shown");
    }
    Ok(())
}

/// A session of `user` that writes 4 MB of noise in 8 seconds.
fn noisy(stage: &Stage, user: &Home) -> Result<Outcome> {
    let line = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); head -c 100000 /dev/urandom; sleep 0.2; done; echo over";
    run(&mut stage.tsh_ssh_of(user, &[], &[line]), "", 120)
}

#[test]
fn async_disk_full_ends_strict_sessions_and_leaves_a_gap_in_others() -> Result<()> {
    let _alone = crate::support::alone();
    let extra = "  recording_spool_bytes: 600000\n  recording_wait: 1s\n";
    let stage = Stage::with("diskfull", &options("proxy", extra), "")?;
    let ann = stage.strict_user()?;
    let strict = noisy(&stage, &ann)?;
    ensure!(strict.code == 255, "{}", strict.code);
    ensure!(strict.stderr.contains("its recording is mandatory"), "{}", strict.stderr);
    ensure!(!strict.stdout.ends_with(b"over\n"), "it went on");
    let rejected = until("the event", 20, || {
        let sql = "select reason from session_rejected where reason like '%the session ends%'";
        stage.cluster.query(sql).ok()?.into_iter().next()
    })?;
    ensure!(rejected[0].contains("spool is full"), "{rejected:?}");
    // What was recorded until then arrives, and makes room.
    wait_listed(&stage, "truncated", 1)?;
    let ends = stage.cluster.query("select count(*) from session_end")?;
    assert_eq!(ends, [["1"]], "the end was told twice");
    let best = noisy(&stage, &stage.joe)?;
    ensure!(best.code == 0 && best.stdout.ends_with(b"over\n"), "{}", best.stderr);
    let told = until("the event of the gap", 20, || {
        let sql = "select reason from session_rejected where reason like '%has a gap%'";
        stage.cluster.query(sql).ok()?.into_iter().next()
    })?;
    ensure!(told[0].contains("spool is full"), "{told:?}");
    Ok(())
}

#[test]
fn async_auth_frozen_sessions_go_on_and_the_disk_that_fills_leaves_a_named_gap() -> Result<()> {
    let _alone = crate::support::alone();
    let extra = "  recording_spool_bytes: 500000\n  recording_wait: 1s\n";
    let mut options = options("proxy", extra);
    options.global_extra = "  diag_addr: 127.0.0.1:0\n".to_owned();
    let stage = Stage::with("gap", &options, "")?;
    // The recording of this one waits while auth is away, and takes the room.
    let line = "head -c 400000 /dev/urandom; until [ -e go ]; do sleep 0.1; done"
        .replace("-e go", &format!("-e {}", stage.scratch.path().join("go").display()));
    let filler = Terminal::start(&mut stage.tsh_ssh(&[], &[&line]), 80, 24)?;
    until("the filler", 30, || (filler.mark() >= 400_000).then_some(()))?;
    let (go, end) = (stage.scratch.path().join("go2"), stage.scratch.path().join("end"));
    let line = format!(
        "echo first; until [ -e {} ]; do sleep 0.1; done; i=0; while [ $i -lt 15 ]; do i=$((i+1)); head -c 100000 /dev/urandom; sleep 0.3; done; echo; until [ -e {} ]; do sleep 0.1; done; echo last",
        go.display(),
        end.display()
    );
    let watched = Terminal::start(&mut stage.tsh_ssh(&[], &[&line]), 80, 24)?;
    watched.expect("first", 0)?;
    stage.cluster.auth.signal(Signal::STOP)?;
    let _go = stage.scratch.write("go", "")?;
    filler.finish(60)?;
    let metrics = || -> Result<String> {
        let listen = std::fs::read_to_string(stage.cluster.folder().join("proxy/listen.json"))?;
        let listen: serde_json::Value = serde_json::from_str(&listen)?;
        let address = listen["diag"].as_str().context("no diag address")?;
        http_get(address, "/metrics")
    };
    until("the waiting recording", 30, || {
        metrics().ok().filter(|text| text.contains("gatehouse_recordings_waiting 1\n"))
    })?;
    let _go = stage.scratch.write("go2", "")?;
    until("the session to go on without auth and disk", 40, || {
        (watched.mark() > 1_500_000).then_some(())
    })?;
    until("a gap", 20, || stage.cluster.proxy.as_ref()?.log().contains("has a gap").then_some(()))?;
    stage.cluster.auth.signal(Signal::CONT)?;
    until("room again", 60, || {
        stage.cluster.proxy.as_ref()?.log().contains("is recorded again").then_some(())
    })?;
    let _end = stage.scratch.write("end", "")?;
    let (code, _) = watched.finish(60)?;
    ensure!(code == 0, "{code}");
    wait_listed(&stage, "complete", 2)?;
    let sid =
        stage.cluster.query("select sid from session_end order by event_time desc limit 1")?;
    let play = stage.joe.run(["play", "--format=text", &sid[0][0]])?.ok().stdout;
    let text = String::from_utf8_lossy(&play);
    ensure!(text.starts_with("first") && text.trim_end().ends_with("last"), "{} bytes", play.len());
    ensure!(play.len() < 1_300_000, "the gap is not there: {} bytes", play.len());
    let json = stage.joe.run(["play", "--format=json", &sid[0][0]])?.ok().text();
    ensure!(json.contains("session.output.gap"), "the gap has no name");
    ensure!(metrics()?.contains("gatehouse_recordings_waiting 0\n"));
    Ok(())
}

fn http_get(address: &str, path: &str) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_running_session_keeps_its_mode() -> Result<()> {
    let _alone = crate::support::alone();
    let stage = Stage::with("modechange", &options("proxy", ""), "")?;
    let end = stage.scratch.path().join("end");
    let line = format!("echo on; until [ -e {} ]; do sleep 0.1; done; echo off", end.display());
    let terminal = Terminal::start(&mut stage.tsh_ssh(&["-t"], &[&line]), 80, 24)?;
    terminal.expect("on\r\n", 0)?;
    let config = "kind: session_recording_config\nversion: v2\nmetadata:\n  name: session-recording-config\nspec:\n  mode: proxy-sync\n";
    let refused = run(stage.cluster.tctl().args(["create"]), config, 60)?;
    ensure!(refused.code != 0, "what the file says is not overwritten without a word");
    let _changed = run(stage.cluster.tctl().args(["create", "-f", "--confirm"]), config, 60)?;
    until("the mode to change", 20, || {
        let text = stage.cluster.tctl_ok(["get", "session_recording_config"]).ok()?.text();
        text.contains("proxy-sync").then_some(())
    })?;
    let mut second = stage.tsh_ssh(&[], &["echo second"]);
    until("a session in the new mode", 30, || {
        let _ended = run(&mut second, "", 60).ok()?;
        let sql = "select count(*) from session_start where session_recording = 'proxy-sync'";
        stage.cluster.query(sql).ok().filter(|rows| rows[0][0] != "0")
    })?;
    let _end = stage.scratch.write("end", "")?;
    terminal.finish(30)?;
    let modes = until("both ends", 30, || {
        let sql = "select session_recording from session_end where interactive order by event_time";
        stage.cluster.query(sql).ok().filter(|rows| !rows.is_empty())
    })?;
    assert_eq!(modes, [["proxy"]], "the session that ran kept its mode");
    Ok(())
}

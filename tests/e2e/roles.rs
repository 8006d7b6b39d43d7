//! Who may do what, end to end.

use std::time::{Duration, Instant};

use anyhow::Result;
use shared_testkit::cluster::PASSWORD;
use shared_testkit::process::command;
use shared_testkit::{Terminal, run, until};

use crate::support::Stage;

#[test]
fn sql_needs_list_read_and_use() -> Result<()> {
    let stage = Stage::new("sql")?;
    let _created = stage.cluster.create(
        "kind: role\nversion: v7\nmetadata:\n  name: half\nspec:\n  allow:\n    rules:\n    - resources: [audit_query]\n      verbs: [list, read]\n",
    )?;
    let ann = stage.cluster.user("ann", "half", &stage.login)?;
    let sql = "select 1";
    let query = |home: &shared_testkit::Home| {
        run(
            command(shared_testkit::bin("tctl"), &home.folder)
                .args(["audit", "query", "exec", sql]),
            "",
            60,
        )
    };
    let _denied = query(&ann)?.fails(4, "access denied");
    let _allowed = query(&stage.joe)?.ok();
    Ok(())
}

#[test]
fn another_users_recording_cannot_be_played() -> Result<()> {
    let stage = Stage::new("play")?;
    let _echoed = run(&mut stage.tsh_ssh(&[], &["echo private"]), "", 60)?.ok();
    let sid = stage.last_session()?;
    assert_eq!(stage.played(&sid)?, b"private\n");
    let ann = stage.cluster.user("ann", "access", &stage.login)?;
    // What one may not see is not told apart from what does not exist.
    let denied = ann.run(["play", "--format=text", &sid])?;
    let unknown = ann.run(["play", "--format=text", "00000000-0000-4000-8000-000000000000"])?;
    assert_ne!(denied.code, 0);
    assert_eq!(denied.code, unknown.code);
    assert_eq!(
        shared_testkit::redact::redact(&denied.stderr),
        shared_testkit::redact::redact(&unknown.stderr)
    );
    Ok(())
}

#[test]
fn the_recording_mode_switches_live() -> Result<()> {
    let stage = Stage::with(
        "mode",
        &shared_testkit::ClusterOptions { recording: None, ..Default::default() },
        "",
    )?;
    let refused = run(&mut stage.tsh_ssh(&[], &["true"]), "", 60)?;
    assert_eq!(refused.code, 255, "{}", refused.stderr);
    assert!(refused.stderr.contains("session_recording"), "no remedy in {}", refused.stderr);
    let mode = |mode: &str| {
        stage.cluster.create(&format!(
            "kind: session_recording_config\nversion: v2\nmetadata:\n  name: session-recording-config\nspec:\n  mode: {mode}\n"
        ))
    };
    let _switched = mode("proxy")?;
    let echoed = run(&mut stage.tsh_ssh(&[], &["echo", "on"]), "", 60)?.ok();
    assert_eq!(echoed.text(), "on\n");
    let _switched = mode("off")?;
    let echoed = run(&mut stage.tsh_ssh(&[], &["echo", "off"]), "", 60)?.ok();
    assert_eq!(echoed.text(), "off\n");
    Ok(())
}

/// Gives joe a role with these options, and nothing else that is wider.
fn options(stage: &Stage, options: &str) -> Result<()> {
    let _created = stage.cluster.create(&format!(
        "kind: role\nversion: v7\nmetadata:\n  name: limited\nspec:\n  options: {{{options}}}\n"
    ))?;
    let roles = "--set-roles=access,auditor,loopback,limited";
    let _updated = stage.cluster.tctl_ok(["users", "update", "joe", roles])?;
    stage.joe.login()
}

/// Waits for a row of this one-column query that is `wanted`.
fn row(stage: &Stage, sql: &str, wanted: &str) -> Result<()> {
    until(&format!("{wanted:?} in {sql}"), 30, || {
        let rows = stage.cluster.query(sql).ok()?;
        rows.iter().flatten().any(|cell| cell == wanted).then_some(())
    })
}

#[test]
fn connections_and_sessions_have_the_limits_of_the_roles() -> Result<()> {
    let stage = Stage::new("limits")?;
    options(&stage, "max_connections: 1, max_sessions: 1")?;
    let (_guard, socket) = stage.agent("a")?;
    let mut login = stage.joe.login_command();
    let _done = run(login.env("SSH_AUTH_SOCK", &socket), format!("{PASSWORD}\n"), 60)?.ok();
    let control = stage.scratch.path().join("mux");
    let path = format!("ControlPath={}", control.display());
    let line = "echo is-up; sleep 300";
    let master = Terminal::start(
        &mut stage.ssh(&socket, &["-tt", "-o", "ControlMaster=yes", "-o", &path], &[line])?,
        200,
        24,
    )?;
    master.expect("is-up", 0)?;

    // A second session on the same connection; ssh then tries a connection of its own, which is one too many as well.
    let mut second = stage.ssh(&socket, &["-o", "ControlMaster=no", "-o", &path], &["true"])?;
    let refused = run(&mut second, "", 60)?;
    assert_ne!(refused.code, 0, "{}", refused.stderr);
    row(&stage, "select reason from session_rejected", "max_sessions limit reached")?;
    let text = "max_connections limit reached: the roles of user \"joe\" allow 1 connections";
    let _refused = run(&mut stage.tsh_ssh(&[], &["true"]), "", 60)?.fails(255, text);
    row(&stage, "select reason from session_rejected", "max_connections limit reached")?;
    row(&stage, "select max from session_rejected", "1")?;

    drop(master);
    until("the place to be free again", 30, || {
        (run(&mut stage.tsh_ssh(&[], &["true"]), "", 60).ok()?.code == 0).then_some(())
    })
}

#[test]
fn an_idle_session_ends_and_a_busy_one_does_not() -> Result<()> {
    let stage = Stage::new("idle")?;
    options(&stage, "client_idle_timeout: 3s")?;
    let begun = Instant::now();
    let line = "stty -echo; echo is-up; sleep 300";
    let idle = Terminal::start(&mut stage.tsh_ssh(&["-t"], &[line]), 200, 24)?;
    // Output alone keeps a session, and so does input alone.
    let chatty = "for i in 1 2 3 4 5 6 7; do echo $i; sleep 1; done; echo over";
    let busy = Terminal::start(&mut stage.tsh_ssh(&["-t"], &[chatty]), 200, 24)?;
    let reads = "stty -echo; echo is-up; head -n 6 >/dev/null; echo over";
    let mut typed = Terminal::start(&mut stage.tsh_ssh(&["-t"], &[reads]), 200, 24)?;
    typed.expect("is-up", 0)?;
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(1200));
        typed.send("x\r")?;
    }
    let text = "client_idle_timeout: nothing was sent or received for 3s";
    let (code, seen) = idle.finish(30)?;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(code != 0 && seen.contains("is-up") && seen.contains(text), "{code}: {seen}");
    assert!(begun.elapsed() >= Duration::from_secs(3));
    for (name, terminal) in [("output", busy), ("input", typed)] {
        let (code, seen) = terminal.finish(30)?;
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(code == 0 && seen.contains("over"), "{name}: {code}: {seen}");
    }
    row(&stage, "select reason from client_disconnect", text)
}

#[test]
fn the_clusters_idle_timeout_has_its_own_words() -> Result<()> {
    let stage = Stage::new("idle2")?;
    let line = "stty -echo; echo is-up; sleep 300";
    let terminal = Terminal::start(&mut stage.tsh_ssh(&["-t"], &[line]), 200, 24)?;
    terminal.expect("is-up", 0)?;
    // It holds for what runs already.
    let _set = stage.cluster.create(
        "kind: cluster_networking_config\nversion: v2\nmetadata:\n  name: cluster-networking-config\nspec:\n  \
         client_idle_timeout: 2s\n  idle_timeout_message: nobody there?\n",
    )?;
    let text = "nobody there? (client_idle_timeout: nothing was sent or received for 2s)";
    let (code, seen) = terminal.finish(30)?;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(code != 0 && seen.contains(text), "{code}: {seen}");
    row(&stage, "select reason from client_disconnect", text)
}

/// Without a recording the proxy does not open what passes, so there is no text; the end and its event are the same.
#[test]
fn an_idle_connection_that_is_not_recorded_ends_as_well() -> Result<()> {
    let options =
        shared_testkit::ClusterOptions { recording: Some("off".into()), ..Default::default() };
    let stage = Stage::with("idle3", &options, "")?;
    let line = "stty -echo; echo is-up; sleep 300";
    let _set = stage.cluster.create(
        "kind: cluster_networking_config\nversion: v2\nmetadata:\n  name: cluster-networking-config\n\
         spec:\n  client_idle_timeout: 2s\n",
    )?;
    let terminal = Terminal::start(&mut stage.tsh_ssh(&["-t"], &[line]), 200, 24)?;
    terminal.expect("is-up", 0)?;
    let (code, _seen) = terminal.finish(30)?;
    assert_ne!(code, 0);
    let text = "client_idle_timeout: nothing was sent or received for 2s";
    row(&stage, "select reason from client_disconnect", text)?;
    // A lock ends it too.
    let terminal = Terminal::start(
        &mut stage.tsh_ssh(&["-t"], &["while echo is-up; do sleep 0.2; done"]),
        200,
        24,
    )?;
    terminal.expect("is-up", 0)?;
    let _locked = stage.cluster.tctl_ok(["lock", "--user=joe"])?;
    let (code, _seen) = terminal.finish(30)?;
    assert_ne!(code, 0);
    let text = "lock targeting User:\"joe\" is in force";
    row(&stage, "select reason from client_disconnect", text)
}

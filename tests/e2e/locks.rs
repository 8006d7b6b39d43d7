//! Who is locked, deleted or put out is out at once, wherever they are; and what a proxy knows outlives auth.

use std::path::PathBuf;

use anyhow::{Context, Result};
use shared_testkit::cluster::PASSWORD;
use shared_testkit::{ClusterOptions, Guard, Terminal, run, until};

use crate::support::Stage;

/// An ssh-agent with joe's certificate.
fn agent(stage: &Stage) -> Result<(Guard, PathBuf)> {
    let (guard, socket) = stage.agent("a")?;
    let mut login = stage.joe.login_command();
    let _done = run(login.env("SSH_AUTH_SOCK", &socket), format!("{PASSWORD}\n"), 60)?.ok();
    Ok((guard, socket))
}

/// A session that runs until somebody ends it.
fn running(stage: &Stage) -> Result<Terminal> {
    let line = "stty -echo; echo is-up; sleep 300";
    let terminal = Terminal::start(&mut stage.tsh_ssh(&["-t"], &[line]), 200, 24)?;
    terminal.expect("is-up", 0)?;
    Ok(terminal)
}

fn ends_with(terminal: Terminal, text: &str) -> Result<()> {
    let (code, seen) = terminal.finish(30)?;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(code != 0 && seen.contains(text), "{code}: {seen}");
    Ok(())
}

/// Waits for an event of this view that says `text` in `column`.
fn event(stage: &Stage, view: &str, column: &str, text: &str) -> Result<()> {
    let sql = format!("select {column} from {view}");
    let what = format!("an event of {view} with {text}");
    until(&what, 30, || {
        let rows = stage.cluster.query(&sql).ok()?;
        rows.iter().flatten().any(|cell| cell.contains(text)).then_some(())
    })
}

#[test]
fn a_lock_ends_what_runs_and_refuses_what_comes() -> Result<()> {
    let stage = Stage::new("lock")?;
    let (_guard, socket) = agent(&stage)?;
    let terminal = running(&stage)?;
    let lock = ["lock", "--user=joe", "--message=left the company"];
    let made = stage.cluster.tctl_ok(lock)?.text();
    let name = made
        .strip_prefix("Created a lock with name \"")
        .and_then(|rest| rest.strip_suffix("\".\n"))
        .with_context(|| made.clone())?;
    let text = "lock targeting User:\"joe\" is in force: left the company";
    ends_with(terminal, text)?;
    event(&stage, "client_disconnect", "reason", text)?;

    // By every way in, with the certificate that is still valid, and in clear words.
    let _ssh = run(&mut stage.ssh(&socket, &[], &["true"])?, "", 60)?.fails(255, text);
    let _tsh = run(&mut stage.tsh_ssh(&[], &["true"]), "", 60)?.fails(4, text);
    let _api = stage.joe.run(["recordings", "ls"])?.fails(4, text);
    let mut login = stage.joe.login_command();
    let _login = run(&mut login, format!("{PASSWORD}\n"), 60)?.fails(4, text);
    event(&stage, "auth", "error", text)?;
    event(&stage, "user_login", "error", text)?;
    event(&stage, "lock_created", "name", name)?;

    let listed = stage.cluster.tctl_ok(["get", "locks", "--format=text"])?.text();
    assert_eq!(listed, format!("{name}\n"));
    let _gone = stage.cluster.tctl_ok(["rm", &format!("lock/{name}")])?;
    event(&stage, "lock_deleted", "name", name)?;
    let echoed = run(&mut stage.ssh(&socket, &[], &["echo", "back"])?, "", 60)?.ok();
    assert_eq!(echoed.text(), "back\n");
    Ok(())
}

#[test]
fn locks_on_roles_and_logins_and_their_end() -> Result<()> {
    let stage = Stage::new("locks")?;
    let (_guard, socket) = agent(&stage)?;
    let login = stage.login.clone();
    let ssh = || run(&mut stage.ssh(&socket, &[], &["echo", "in"])?, "", 60);
    let terminal = running(&stage)?;
    let _made = stage.cluster.create(&format!(
        "kind: lock\nversion: v2\nmetadata:\n  name: by-hand\nspec:\n  target:\n    \
         login: {login}\n    role: loopback\n"
    ))?;
    let text = format!("lock targeting Role:\"loopback\" Login:\"{login}\" is in force");
    ends_with(terminal, &text)?;
    let _refused = ssh()?.fails(255, &text);
    let _gone = stage.cluster.tctl_ok(["rm", "lock/by-hand"])?;
    // Another login is not meant.
    let _other = stage.cluster.tctl_ok(["lock", "--login=somebody-else"])?;
    assert_eq!(ssh()?.ok().text(), "in\n");
    let _short = stage.cluster.tctl_ok(["lock", "--role=loopback", "--ttl=3s"])?;
    let _refused = ssh()?.fails(255, "lock targeting Role:\"loopback\" is in force");
    until("the lock to end", 30, || (ssh().ok()?.text() == "in\n").then_some(()))?;
    Ok(())
}

#[test]
fn a_deleted_user_and_a_locked_account_are_out_at_once() -> Result<()> {
    let stage = Stage::new("deleted")?;
    let (_guard, socket) = agent(&stage)?;
    let text = "the account is locked or does not exist any more";
    let account = |locked: bool| {
        stage.cluster.create(&format!(
            "kind: user\nversion: v2\nmetadata:\n  name: joe\nspec:\n  \
             roles: [access, loopback]\n  traits:\n    logins: [{}]\n  status:\n    is_locked: {locked}\n",
            stage.login
        ))
    };
    let terminal = running(&stage)?;
    let _locked = account(true)?;
    ends_with(terminal, text)?;
    let _refused = run(&mut stage.ssh(&socket, &[], &["true"])?, "", 60)?.fails(255, text);
    let _open = account(false)?;
    let terminal = running(&stage)?;
    let _gone = stage.cluster.tctl_ok(["users", "rm", "joe"])?;
    ends_with(terminal, text)?;
    let _refused = run(&mut stage.ssh(&socket, &[], &["true"])?, "", 60)?.fails(255, text);
    event(&stage, "auth", "error", text)
}

#[test]
fn a_role_that_was_taken_away_does_not_open_anything() -> Result<()> {
    let stage = Stage::new("demoted")?;
    let (_guard, socket) = agent(&stage)?;
    let terminal = running(&stage)?;
    let _demoted = stage.cluster.tctl_ok(["users", "update", "joe", "--set-roles=auditor"])?;
    ends_with(terminal, "access was revoked")?;
    let _refused =
        run(&mut stage.ssh(&socket, &[], &["true"])?, "", 60)?.fails(255, "access denied");
    Ok(())
}

#[test]
fn a_proxy_that_was_removed_serves_nobody_and_stays_out() -> Result<()> {
    let options = ClusterOptions { two_processes: true, ..ClusterOptions::default() };
    let mut stage = Stage::with("evict", &options, "")?;
    let (_guard, socket) = agent(&stage)?;
    let terminal = running(&stage)?;
    let listed = stage.cluster.tctl_ok(["get", "proxies", "--format=json"])?.text();
    let proxies: serde_json::Value = serde_json::from_str(&listed)?;
    assert_eq!(proxies[0]["spec"]["hostname"], "door", "{listed}");
    let id = proxies[0]["metadata"]["name"].as_str().context("a name")?.to_owned();
    let removed = stage.cluster.tctl_ok(["rm", &format!("proxy/{id}")])?.text();
    assert_eq!(removed, format!("proxy {id:?} has been deleted\n"));

    let text = format!("lock targeting ServerID:{id:?} is in force");
    ends_with(terminal, &text)?;
    let _refused = run(&mut stage.ssh(&socket, &[], &["true"])?, "", 60)?.fails(255, &text);
    until("auth to refuse the proxy", 30, || {
        stage.cluster.auth.log().contains("request refused").then_some(())
    })?;
    let left = stage.cluster.tctl_ok(["get", "proxies", "--format=json"])?.text();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&left)?, serde_json::json!([]));
    event(&stage, "lock_created", "lock_target_server_id", &id)?;

    // It does not come back with what it has in hand.
    stage.cluster.proxy.as_mut().context("a proxy")?.kill()?;
    assert!(stage.cluster.restart_proxy().is_err(), "the proxy is back");
    let log = std::fs::read_to_string(stage.cluster.folder().join("proxy.log"))?;
    assert!(log.contains("the proxy was removed from the cluster"), "{log}");
    Ok(())
}

#[test]
fn a_proxy_starts_while_auth_is_away() -> Result<()> {
    let options = ClusterOptions { two_processes: true, ..ClusterOptions::default() };
    let mut stage = Stage::with("apart", &options, "")?;
    let (_guard, socket) = agent(&stage)?;
    let mut ssh = stage.ssh(&socket, &[], &["echo", "first"])?;
    assert_eq!(run(&mut ssh, "", 60)?.ok().text(), "first\n");
    let _locked = stage.cluster.tctl_ok(["lock", "--login=somebody-else"])?;
    let kept = stage.cluster.folder().join("proxy/cluster-state.json");
    until("the state with the lock", 30, || {
        std::fs::read_to_string(&kept).ok()?.contains("somebody-else").then_some(())
    })?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept)?.permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut ssh = stage.ssh(&socket, &[], &["echo", "while-away"])?;
    let mut other = stage.ssh(&socket, &["-o", "User=somebody-else"], &["true"])?;

    stage.cluster.auth.kill()?;
    stage.cluster.proxy.as_mut().context("a proxy")?.kill()?;
    stage.cluster.restart_proxy()?;
    let log = stage.cluster.proxy.as_ref().context("a proxy")?.log();
    assert!(log.contains("starting from the cluster state that was kept"), "{log}");
    assert!(log.contains("used_for_hours=24"), "{log}");
    assert_eq!(run(&mut ssh, "", 60)?.ok().text(), "while-away\n");
    // What the kept state refuses is refused.
    assert_ne!(run(&mut other, "", 60)?.code, 0);

    stage.cluster.restart_auth()?;
    let session = until("the session of the meantime", 60, || {
        let sql = "select sid from exec where command = 'echo while-away'";
        stage.cluster.query(sql).ok()?.into_iter().next()?.into_iter().next()
    })?;
    assert_eq!(stage.played(&session)?, b"while-away\n");
    let _lock = stage.cluster.tctl_ok(["lock", "--user=joe"])?;
    until("the proxy to follow auth again", 60, || {
        let refused = run(&mut stage.ssh(&socket, &[], &["true"]).ok()?, "", 60).ok()?;
        refused.stderr.contains("lock targeting User:\"joe\" is in force").then_some(())
    })
}

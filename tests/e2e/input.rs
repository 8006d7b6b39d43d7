//! Wrong input of every kind: the thing, the place, the remedy, and the documented exit code (docs/exit-codes.md).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use shared_testkit::cluster::PASSWORD;
use shared_testkit::process::{bin, command};
use shared_testkit::{Guard, Home, Outcome, Scratch, run, until};

use crate::support::Stage;

fn teleport(scratch: &Scratch, args: &[&str]) -> Result<Outcome> {
    run(command(bin("teleport"), scratch.path()).args(args), "", 30)
}

/// Demands a code and every one of these texts on standard error, and nothing that looks like a crash.
fn says(outcome: &Outcome, code: i32, texts: &[&str]) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    for text in texts {
        assert!(outcome.stderr.contains(text), "no {text:?} in\n{}\n{outcome:?}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
}

#[test]
fn configurations_that_are_wrong() -> Result<()> {
    let scratch = Scratch::new("badyaml")?;
    let data = format!("--data-dir={}", scratch.path().join("data").display());
    let cases: &[(&str, &[&str])] = &[
        (
            "teleport:\n  data_dri: /tmp/x\n",
            &[":2:3:", "data_dri", "unknown key", "did you mean \"data_dir\"", "expected one of"],
        ),
        (
            "auth_servize:\n  enabled: yes\n",
            &[":1:1:", "auth_servize", "did you mean \"auth_service\""],
        ),
        (
            "auth_service:\n  session_recording: sometimes\n",
            &[":2:22:", "auth_service.session_recording", "node,proxy,off", "sometimes"],
        ),
        (
            "auth_service:\n  audit_sessions_uri: s3://bucket/x?colour=red\n",
            &[":2:23:", "auth_service.audit_sessions_uri", "colour", "complete_initiators"],
        ),
        (
            "proxy_service:\n  enabled: perhaps\n",
            &[":2:12:", "proxy_service.enabled", "expected a boolean"],
        ),
        (
            "proxy_service:\n  web_listen_addr: nowhere\n",
            &[":2:20:", "web_listen_addr", "expected ADDRESS:PORT"],
        ),
        (
            "auth_service:\n  proxy_checks_host_keys: [no]\n",
            &[":2:", "proxy_checks_host_keys", "boolean"],
        ),
        (
            "auth_service:\n  cluster_name: 'a b'\n",
            &[":2:17:", "cluster_name", "may not contain ' '"],
        ),
        ("proxy_service:\n  public_addr: 'a;b'\n", &[":2:16:", "public_addr", "expected HOST"]),
        (
            "auth_service:\n  authentication:\n    default_session_ttl: long\n",
            &[":3:26:", "default_session_ttl", "duration such as"],
        ),
        ("auth_service:\n enabled: [\n", &[":2:"]),
        ("auth_service:\n  enabled: yes\n  enabled: no\n", &[":3:3:", "the key stands here twice"]),
        ("a: &a [*a, *a]\n", &[":1:"]),
    ];
    for (text, wanted) in cases {
        let path = scratch.write("bad.yaml", text)?;
        let shown = path.display().to_string();
        let tested = teleport(&scratch, &["configure", "--test", &shown])?;
        says(&tested, 2, &[&format!("FAIL {shown}"), &shown]);
        says(&tested, 2, wanted);
        let started = teleport(&scratch, &["start", "--config", &shown, &data])?;
        says(&started, 2, wanted);
        let asked =
            run(command(bin("tctl"), scratch.path()).args(["--config", &shown, "status"]), "", 30)?;
        says(&asked, 2, wanted);
        assert!(!scratch.path().join("data").exists(), "something was begun all the same");
    }
    // Aliases that multiply are no way to fill the memory.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let former = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [former.as_str(); 10].join(", "));
    }
    let path = scratch.write("bomb.yaml", bomb)?;
    says(&teleport(&scratch, &["configure", "--test", &path.display().to_string()])?, 2, &["FAIL"]);
    says(
        &teleport(&scratch, &["start", "--config", "/nowhere/teleport.yaml"])?,
        2,
        &["/nowhere/teleport.yaml", "No such file"],
    );
    Ok(())
}

#[test]
fn what_configure_writes_is_accepted_and_starts() -> Result<()> {
    let scratch = Scratch::new("configure")?;
    let data = scratch.path().join("data");
    let path = scratch.path().join("teleport.yaml");
    let file = format!("file://{}", path.display());
    let written = run(
        command(bin("teleport"), scratch.path())
            .args([
                "configure",
                "--cluster-name=example.test",
                "--public-addr=localhost:3080",
                "--data-dir",
            ])
            .arg(&data)
            .args(["-o", &file]),
        "",
        30,
    )?
    .ok();
    says(&written, 0, &["teleport start"]);
    let shown = path.display().to_string();
    says(&teleport(&scratch, &["configure", "--test", &shown])?, 0, &["OK"]);
    says(&teleport(&scratch, &["configure", "-o", &file])?, 1, &["File exists", "hint: "]);
    // The same on standard output, and it starts, here on ports that are free.
    let text = teleport(
        &scratch,
        &["configure", "--cluster-name=example.test", &format!("--data-dir={}", data.display())],
    )?
    .ok()
    .text();
    let text = ["3025", "3080", "3023"]
        .iter()
        .fold(text, |text, port| text.replace(&format!("0.0.0.0:{port}"), "127.0.0.1:0"));
    let ready = scratch.write("ready.yaml", &text)?;
    let mut start = command(bin("teleport"), scratch.path());
    let mut guard = Guard::start(
        "teleport",
        start.args(["start", "--config"]).arg(&ready),
        &scratch.path().join("log"),
    )?;
    until("the daemon", 30, || {
        (data.join("listen.json").exists() || !guard.running()).then_some(())
    })?;
    ensure!(guard.running(), "{}", guard.log());

    // A second start on the same data refuses, and the first goes on.
    let again = teleport(&scratch, &["start", "--config", &ready.display().to_string()])?;
    says(
        &again,
        1,
        &["is in use by another process", &guard.id().to_string(), "choose another data directory"],
    );
    assert!(guard.running());
    assert_eq!(guard.stop(30)?.code(), Some(0));
    for bad in ["--cluster-name=a b", "--public-addr=a b", "--output=elsewhere", "--bogus"] {
        says(&teleport(&scratch, &["configure", bad])?, 2, &[]);
    }
    Ok(())
}

#[test]
fn flags_that_are_wrong() -> Result<()> {
    let scratch = Scratch::new("flags")?;
    let cases: &[(&str, &[&str], &str)] = &[
        ("tsh", &["--bogus"], "--bogus"),
        ("tsh", &["bogus"], "unrecognized subcommand"),
        ("tsh", &["ssh", "--port=99999", "h"], "99999"),
        ("tsh", &["ssh", "--port=x", "h"], "--port"),
        ("tsh", &["play"], "SESSION"),
        ("tsh", &["play", "x.tar", "--speed=fast"], "examples: 0.5x, 1x"),
        ("tsh", &["play", "x.tar", "--format=bogus"], "possible values"),
        ("tsh", &["login", "--ttl=soon"], "--ttl"),
        ("tsh", &["signup", "nonsense"], "no invitation URL"),
        ("tctl", &["users", "add", "x y", "--roles=access"], "may not contain ' '"),
        ("tctl", &["users", "add", "joe"], "--roles"),
        ("tctl", &["tokens", "add", "--type=bogus"], "known: node, db, proxy"),
        ("tctl", &["auth", "sign"], "--out"),
        ("teleport", &["start", "--roles=bogus"], "possible values"),
        ("teleport", &["start", "--bogus"], "--bogus"),
    ];
    for (program, args, text) in cases {
        let outcome = run(command(bin(program), scratch.path()).args(*args), "", 30)?;
        says(&outcome, 2, &[text]);
        assert!(outcome.text().is_empty(), "{}", outcome.text());
    }
    for program in ["tsh", "tctl", "teleport"] {
        let help = run(command(bin(program), scratch.path()).arg("--help"), "", 30)?.ok();
        assert!(help.text().contains("Usage:") && help.stderr.is_empty());
        let none = run(&mut command(bin(program), scratch.path()), "", 30)?;
        assert_eq!(none.code, 2);
    }
    Ok(())
}

#[test]
fn documented_exit_codes() -> Result<()> {
    let stage = Stage::new("codes")?;
    let port = format!("--port={}", stage.sshd.port);
    let target = stage.target();
    let nobody = stage.scratch.folder("nobody")?;
    let unknown = "00000000-0000-4000-8000-000000000000";
    let joe = |args: &[&str]| stage.joe.run(args);
    let stranger =
        |program: &str, args: &[&str]| run(command(bin(program), &nobody).args(args), "", 60);
    says(&joe(&["ssh", &port, &target, "true"])?, 0, &[]);
    says(&joe(&["ssh", &port, &target, "exit 17"])?, 17, &[]);
    says(&joe(&["ssh", "--port=1", &target, "true"])?, 255, &["ERROR: "]);
    for args in [
        &["status"][..],
        &["ssh", "a@b", "true"],
        &["play", unknown],
        &["ls"],
        &["recordings", "ls"],
    ] {
        says(&stranger("tsh", args)?, 3, &["ERROR: Not logged in.", "hint: tsh login"]);
    }
    says(&stranger("tctl", &["status"])?, 3, &["Not logged in"]);
    let ann = stage.cluster.user("ann", "access", &stage.login)?;
    let denied = run(command(bin("tctl"), &ann.folder).args(["users", "ls"]), "", 60)?;
    says(&denied, 4, &["ERROR: access denied"]);
    says(
        &joe(&["play", unknown])?,
        5,
        &[&format!("Recording for session {unknown} not found."), "hint: "],
    );
    says(&joe(&["play", "nope.tar"])?, 5, &["nope.tar"]);
    says(&joe(&["play", "nope"])?, 2, &["'nope' is not a valid session ID"]);
    let tctl = |args: &[&str]| run(stage.cluster.tctl().args(args), "", 60);
    for args in [
        &["get", "role/nosuch"][..],
        &["rm", "role/nosuch"],
        &["edit", "role/nosuch"],
        &["users", "rm", "nosuch"],
        &["users", "reset", "nosuch"],
        &["users", "update", "nosuch", "--set-roles=access"],
        &["tokens", "rm", "nosuch"],
    ] {
        says(&tctl(args)?, 5, &["ERROR: ", "is not found"]);
    }
    says(
        &tctl(&["users", "add", "joe", "--roles=access"])?,
        1,
        &["user \"joe\" already exists", "hint: "],
    );
    says(
        &tctl(&["users", "add", "bob", "--roles=nosuch"])?,
        1,
        &["role \"nosuch\" does not exist"],
    );
    says(&tctl(&["get", "bogus"])?, 2, &["unsupported resource: \"bogus\""]);
    says(&tctl(&["rm", "role/loopback"])?, 1, &["in use by user \"joe\""]);
    Ok(())
}

#[test]
fn sql_faults_name_their_place() -> Result<()> {
    let stage = Stage::new("sqlplace")?;
    let cases: &[(&str, &[&str])] = &[
        ("select nosuch from auth", &["line 1:8: ", "Column 'nosuch' cannot be resolved"]),
        ("select\n user,\n  nosuch from user_login", &["line 3:3: ", "nosuch"]),
        ("select 1 from nosuch", &["line 1:15: ", "Table 'nosuch' does not exist", "hint: "]),
        ("select from where", &["line 1:"]),
        ("select 'abc", &["line 1:8: "]),
        ("select count(* from exec", &["line 1:"]),
        ("", &["ERROR: "]),
        ("select 1; select 2", &["line 1:11: only one statement"]),
        ("drop table exec", &["line 1:1: ", "never changed", "hint: "]),
        ("select 1/0", &["ERROR: "]),
    ];
    for (sql, wanted) in cases {
        let outcome = run(stage.cluster.tctl().args(["audit", "query", "exec", sql]), "", 60)?;
        assert!(matches!(outcome.code, 1 | 2), "{sql:?}: {}", outcome.code);
        says(&outcome, outcome.code, wanted);
        assert!(outcome.text().is_empty());
    }
    Ok(())
}

/// A proxy of its own that joins with this token, and the file that is there once it has.
fn joining(stage: &Stage, name: &str, token: &str, pin: &str) -> Result<(Command, PathBuf)> {
    let folder = stage.scratch.folder(name)?;
    let file = stage.scratch.write(&format!("{name}/token"), token)?;
    let config = stage.scratch.write(
        &format!("{name}/proxy.yaml"),
        format!(
            "version: v3\nteleport:\n  nodename: {name}\n  data_dir: {}\n  auth_server: {}\n  auth_token: {}\n  ca_pin: \"{pin}\"\nauth_service:\n  enabled: no\nproxy_service:\n  enabled: yes\n  web_listen_addr: 127.0.0.1:0\n  listen_addr: 127.0.0.1:0\n  public_addr: localhost\nssh_service:\n  enabled: no\n",
            folder.join("data").display(),
            stage.cluster.address("auth"),
            file.display(),
        ),
    )?;
    let mut start = command(bin("teleport"), &folder);
    start.args(["start", "--config"]).arg(&config);
    Ok((start, folder.join("data/listen.json")))
}

#[test]
fn tokens_that_are_wrong() -> Result<()> {
    let stage = Stage::new("tokens")?;
    let pin = stage.cluster.ca_pin()?;
    let token = |role: &str, ttl: &str| -> Result<String> {
        let text = stage
            .cluster
            .tctl_ok([
                "tokens",
                "add",
                &format!("--type={role}"),
                &format!("--ttl={ttl}"),
                "--format=json",
            ])?
            .text();
        let value: serde_json::Value = serde_json::from_str(&text)?;
        Ok(value["token"].as_str().context("a token")?.to_owned())
    };
    let (good, node, brief) =
        (token("proxy", "10m")?, token("node", "10m")?, token("proxy", "1s")?);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let wrong_pin = format!("sha256:{}", "0".repeat(64));
    for (name, token, pin, text) in [
        ("unknown", "nosuchtoken", pin.as_str(), "token"),
        ("wrongrole", &node, &pin, "token"),
        ("expired", &brief, &pin, "token"),
        ("wrongpin", &good, &wrong_pin, "pin"),
    ] {
        let outcome = run(&mut joining(&stage, name, token, pin)?.0, "", 30)?;
        says(&outcome, 1, &["ERROR: ", text]);
        assert!(!outcome.stderr.contains(token), "{name}: the token is in the log");
    }
    let refused = stage.cluster.query("select node_name, token_name, error from instance_join where not success order by event_time")?;
    let names: Vec<&str> = refused.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, ["unknown", "wrongrole", "expired"], "{refused:?}");
    assert!(refused.iter().all(|row| row[1].starts_with('*') && !row[2].is_empty()), "{refused:?}");
    let (mut start, listen) = joining(&stage, "fine", &good, &pin)?;
    let mut guard = Guard::start("fine", &mut start, &stage.scratch.path().join("fine.log"))?;
    until("the proxy to join", 30, || (listen.exists() || !guard.running()).then_some(()))?;
    ensure!(guard.running(), "{}", guard.log());
    let _status = guard.stop(30)?;
    let joined = stage.cluster.query("select node_name, role from instance_join where success")?;
    assert_eq!(joined, [["fine", "Proxy"]]);
    // Nobody's token is shown whole in a list, nor in the log.
    let listed = stage.cluster.tctl_ok(["tokens", "ls"])?.text();
    assert!(!listed.contains(&good) && !stage.cluster.auth.log().contains(&good), "{listed}");
    let _removed = stage.cluster.tctl_ok(["tokens", "rm", &good])?;
    says(
        &run(&mut joining(&stage, "removed", &good, &pin)?.0, "", 30)?,
        1,
        &["token not recognized"],
    );
    Ok(())
}

/// The invitation's URL out of what `tctl` printed.
fn link(outcome: &Outcome) -> Result<String> {
    let text = outcome.text();
    let word =
        text.split_whitespace().find(|word| word.starts_with("https://")).context("a link")?;
    Ok(word.to_owned())
}

fn signup(home: &Home, pin: &str, url: &str, password: &str) -> Result<Outcome> {
    let mut signup = home.tsh();
    run(
        signup.args(["signup", url, "--insecure", "--ca-pin", pin]),
        format!("{password}\n{password}\n"),
        60,
    )
}

#[test]
fn invitations_and_lock_out() -> Result<()> {
    let stage = Stage::new("lockout")?;
    let pin = stage.cluster.ca_pin()?;
    let tess = stage.cluster.home("tess")?;
    let url = link(&stage.cluster.tctl_ok(["users", "add", "tess", "--roles=access"])?)?;
    says(&signup(&tess, &pin, &url, "short")?, 2, &["12 to 128 characters"]);
    // Neither a link that was never given, nor one with a letter changed.
    let other = format!("{}{}", &url[..url.len() - 1], if url.ends_with('0') { "1" } else { "0" });
    says(
        &signup(&tess, &pin, &other, PASSWORD)?,
        5,
        &["not known, was used already, or has expired"],
    );
    let _done = signup(&tess, &pin, &url, PASSWORD)?.ok();
    says(
        &signup(&tess, &pin, &url, PASSWORD)?,
        5,
        &["not known, was used already, or has expired"],
    );
    tess.login()?;

    // Five failures; then not even the right password opens, for this name alone.
    for round in 0..6 {
        let outcome = run(&mut tess.login_command(), format!("wrong {round}\n"), 60)?;
        let (code, text) = if round < 5 {
            (3, "invalid username or password")
        } else {
            (4, "locked for 30 minutes")
        };
        says(&outcome, code, &[text]);
    }
    says(
        &run(&mut tess.login_command(), format!("{PASSWORD}\n"), 60)?,
        4,
        &["locked for 30 minutes", "tctl users reset"],
    );
    stage.joe.login()?;
    // A name that does not exist is treated alike.
    let ghost = stage.cluster.home("ghost")?;
    for round in 0..6 {
        let outcome = run(&mut ghost.login_command(), "whatever it is\n", 60)?;
        assert_eq!(outcome.code, if round < 5 { 3 } else { 4 }, "{}", outcome.stderr);
    }
    let rows = stage
        .cluster
        .query("select count(*) from user_login where user = 'tess' and not success")?;
    assert_eq!(rows, [["7"]]);
    // The remedy.
    let url = link(&stage.cluster.tctl_ok(["users", "reset", "tess"])?)?;
    says(
        &run(&mut tess.login_command(), format!("{PASSWORD}\n"), 60)?,
        3,
        &["invalid username or password"],
    );
    let _done = signup(&tess, &pin, &url, "another long password")?.ok();
    let _done = run(&mut tess.login_command(), "another long password\n", 60)?.ok();
    Ok(())
}

#[test]
fn users_come_change_and_go() -> Result<()> {
    let stage = Stage::new("users")?;
    let tctl = |args: &[&str]| stage.cluster.tctl_ok(args);
    let url = link(&tctl(&[
        "users",
        "add",
        "ann",
        "--roles=access,loopback",
        "--logins",
        &stage.login,
    ])?)?;
    let listed = tctl(&["users", "ls"])?.text();
    assert!(
        listed.lines().any(|line| line.split_whitespace().eq(["ann", "access,loopback"])),
        "{listed}"
    );
    let ann = stage.cluster.home("ann")?;
    let _done = signup(&ann, &stage.cluster.ca_pin()?, &url, PASSWORD)?.ok();
    ann.login()?;
    let port = format!("--port={}", stage.sshd.port);
    let _ran = ann.run(["ssh", &port, &stage.target(), "true"])?.ok();
    // A role that is taken away is gone at once, whatever the certificate says.
    let _updated = tctl(&["users", "update", "ann", "--set-roles=access", "--set-logins=one,two"])?;
    let json: serde_json::Value =
        serde_json::from_str(&tctl(&["users", "ls", "--format=json"])?.text())?;
    let spec = json
        .as_array()
        .into_iter()
        .flatten()
        .find(|user| user["metadata"]["name"] == "ann")
        .context("ann")?["spec"]
        .clone();
    assert_eq!(
        (&spec["roles"], &spec["traits"]["logins"]),
        (&serde_json::json!(["access"]), &serde_json::json!(["one", "two"]))
    );
    ann.login()?;
    let status = ann.run(["status"])?.ok().text();
    assert!(status.contains("one") && status.contains("two"), "{status}");
    let _refused = ann.run(["ssh", &port, &stage.target(), "true"])?.fails(255, "");
    let _removed = tctl(&["users", "rm", "ann"])?;
    says(
        &run(&mut ann.login_command(), format!("{PASSWORD}\n"), 60)?,
        3,
        &["invalid username or password"],
    );
    // A certificate in hand no longer asks anything.
    let asked = run(command(bin("tctl"), &ann.folder).arg("status"), "", 60)?;
    assert!(matches!(asked.code, 3 | 4), "{}", asked.stderr);
    let events = stage.cluster.query("select event_type from events where event_type like 'user.%' and event_data like '%\"ann\"%' and event_type <> 'user.login' order by event_time")?;
    assert_eq!(
        events.concat(),
        ["user.create", "user.password_change", "user.update", "user.delete"]
    );
    Ok(())
}

const ROLE: &str = "kind: role\nversion: v7\nmetadata:\n  name: ops\nspec:\n  options:\n    max_session_ttl: 8h\n  allow:\n    logins: [deploy]\n    node_labels:\n      env: [prod, test]\n";

/// An editor that runs this line of `sed`.
fn editor(stage: &Stage, name: &str, line: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = stage.scratch.write(name, format!("#!/bin/sh\nexec sed -i '{line}' \"$1\"\n"))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
    Ok(path)
}

#[test]
fn resources_go_round_and_are_edited() -> Result<()> {
    let stage = Stage::new("resources")?;
    let file = stage.scratch.write("ops.yaml", ROLE)?.display().to_string();
    let tctl = |args: &[&str]| run(stage.cluster.tctl().args(args), "", 60);
    assert!(tctl(&["create", &file])?.ok().text().contains("role \"ops\" has been created"));
    says(&tctl(&["create", &file])?, 1, &["role \"ops\" already exists", "--force"]);
    assert!(tctl(&["create", "-f", &file])?.ok().text().contains("updated"));
    let got = tctl(&["get", "role/ops"])?.ok().text();
    for line in ["max_session_ttl: 8h0m0s", "- deploy", "- prod", "- test"] {
        assert!(got.contains(line), "{got}");
    }
    // What was printed is taken again, and prints the same but for its revision and origin.
    let again = stage.scratch.write("again.yaml", &got)?.display().to_string();
    let _updated = tctl(&["create", "--force", &again])?.ok();
    let own = |line: &&str| !line.contains("revision:") && !line.contains("teleport.dev/origin:");
    let plain = |text: &str| text.lines().filter(own).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(plain(&tctl(&["get", "role/ops"])?.ok().text()), plain(&got));
    // Everything there is, as one stream of documents, too.
    for kind in [
        "roles",
        "users",
        "session_recording_config",
        "cluster_auth_preference",
        "cluster_networking_config",
    ] {
        let all = tctl(&["get", kind])?.ok().text();
        let path = stage.scratch.write("all.yaml", &all)?.display().to_string();
        let _taken = tctl(&["create", "-f", &path])?.ok();
        assert_eq!(plain(&tctl(&["get", kind])?.ok().text()), plain(&all), "{kind}");
    }

    let edit = |editor: &Path, what: &str| -> Result<Outcome> {
        let mut edit: Command = stage.cluster.tctl();
        run(edit.args(["edit", what]).env("EDITOR", editor), "", 60)
    };
    let change = editor(&stage, "change", "s/deploy/release/")?;
    assert!(edit(&change, "role/ops")?.ok().text().contains("updated"));
    assert!(tctl(&["get", "role/ops"])?.ok().text().contains("- release"));
    says(&edit(&editor(&stage, "nothing", "")?, "role/ops")?, 0, &["no changes made"]);
    // Errors keep what was typed.
    let rejected = edit(&editor(&stage, "wrong", "s/logins:/loginz:/")?, "role/ops")?;
    says(&rejected, 2, &["loginz", "did you mean \"logins\"", "your text is kept in "]);
    let kept = rejected.stderr.split("kept in ").nth(1).context("a path")?.trim();
    assert!(std::fs::read_to_string(kept)?.contains("loginz"));
    std::fs::remove_file(kept)?;
    let renamed = edit(&editor(&stage, "rename", "s/name: ops/name: oops/")?, "role/ops")?;
    says(&renamed, 2, &["name cannot be changed"]);
    if let Some(kept) = renamed.stderr.split("kept in ").nth(1) {
        std::fs::remove_file(kept.trim())?;
    }
    says(&edit(Path::new("/nowhere/editor"), "role/ops")?, 1, &["/nowhere/editor"]);
    // Somebody else was faster: their change is not written over.
    let slow = stage.scratch.path().join("slow");
    let tctl_program = bin("tctl");
    std::fs::write(
        &slow,
        format!(
            "#!/bin/sh\nsed 's/release/theirs/; /revision/d' \"$1\" > {0}.theirs\n{1} --config {2} create -f {0}.theirs >/dev/null || exit 9\nsed -i 's/release/mine/' \"$1\"\n",
            slow.display(),
            tctl_program.display(),
            stage.cluster.folder().join("auth.yaml").display()
        ),
    )?;
    std::fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let lost = edit(&slow, "role/ops")?;
    assert_ne!(lost.code, 0, "an edit wrote over somebody else's: {}", lost.text());
    assert!(tctl(&["get", "role/ops"])?.ok().text().contains("- theirs"), "{}", lost.stderr);
    if let Some(kept) = lost.stderr.split("kept in ").nth(1) {
        std::fs::remove_file(kept.trim())?;
    }

    assert!(tctl(&["rm", "role/ops"])?.ok().text().contains("deleted"));
    says(&tctl(&["get", "role/ops"])?, 5, &["is not found"]);
    let stdin = |text: &str| run(stage.cluster.tctl().arg("create"), text, 60);
    says(
        &stdin(&ROLE.replace("logins", "loginz"))?,
        2,
        &["standard input:9:5", "loginz", "did you mean \"logins\""],
    );
    says(&stdin("kind: rol\nmetadata: {name: x}\n")?, 2, &["standard input:1:7", "\"rol\""]);
    says(&stdin("a: [\n")?, 2, &["standard input:1:4"]);
    says(&stdin("")?, 2, &["no resource found"]);
    says(
        &stdin(&ROLE.replace("max_session_ttl: 8h", "max_session_ttl: soon"))?,
        2,
        &["standard input:7:", "max_session_ttl"],
    );
    says(&stdin(&ROLE.replace("name: ops", "name: '../x'"))?, 2, &["name"]);
    Ok(())
}

#[test]
fn damaged_recordings_play_up_to_the_damage() -> Result<()> {
    let stage = Stage::new("damaged")?;
    // Several slices, so that there is a prefix: output now, and more a while later.
    let line = "echo first; sleep 1; echo second; sleep 1; echo third";
    let _ran = run(&mut stage.tsh_ssh(&[], &[line]), "", 60)?.ok();
    let sid = stage.last_session()?;
    let whole = stage.played(&sid)?;
    assert_eq!(whole, b"first\nsecond\nthird\n");
    let bytes = std::fs::read(stage.cluster.data_dir().join(format!("log/records/{sid}.tar")))?;
    // No cluster is needed for a file.
    let nobody = stage.scratch.folder("nobody")?;
    let play = |name: &str, content: &[u8]| -> Result<Outcome> {
        let path = stage.scratch.write(&format!("{name}.tar"), content)?;
        run(command(bin("tsh"), &nobody).args(["play", "--format=text"]).arg(&path), "", 30)
    };
    let good = play("good", &bytes)?.ok();
    assert_eq!(good.stdout, whole);
    assert!(!good.stderr.contains("WARNING"), "{}", good.stderr);
    // Every step of a length would take minutes here; the decoder's own tests try each.
    let mut silent = Vec::new();
    let mut longest = 0;
    for cut in (0..bytes.len()).step_by(bytes.len() / 60 + 1) {
        let outcome = play("cut", &bytes[..cut])?;
        assert!(whole.starts_with(&outcome.stdout), "cut at {cut}: {:?}", outcome.text());
        assert!(matches!(outcome.code, 0 | 1), "cut at {cut}: {}", outcome.code);
        longest = longest.max(outcome.stdout.len());
        if outcome.code == 0 && !outcome.stderr.contains("WARNING") {
            silent.push(format!("cut at {cut}: {}", outcome.stderr));
        }
        if outcome.code == 1 {
            says(&outcome, 1, &["ERROR: the recording is "]);
        }
    }
    assert!(longest > 0, "no prefix was ever played");
    let authority = stage.cluster.tctl_ok(["auth", "export", "--type=recording"])?;
    let authority = stage.scratch.write("recording.pub", authority.stdout)?;
    for flip in (0..bytes.len()).step_by(bytes.len() / 60 + 1) {
        let mut changed = bytes.clone();
        changed[flip] ^= 0x10;
        let outcome = play("flip", &changed)?;
        assert!(whole.starts_with(&outcome.stdout), "byte {flip}: {:?}", outcome.text());
        if outcome.code == 0 && !outcome.stderr.contains("WARNING") {
            // In a signature, which changes nothing of what was recorded: only who has the authority can tell.
            assert_eq!(outcome.stdout, whole, "byte {flip}");
            let mut verify = command(bin("tctl"), &nobody);
            verify.args(["recordings", "verify"]).arg(stage.scratch.path().join("flip.tar"));
            let verified = run(verify.arg("--ca").arg(&authority), "", 30)?;
            if verified.code == 0 {
                silent.push(format!("byte {flip}: {}", verified.text()));
            }
        }
    }
    assert!(silent.is_empty(), "not noticed:\n{}", silent.join("\n"));
    says(&play("empty", b"")?, 1, &["ERROR: the recording is empty"]);
    says(&play("noise", &[0x41; 5000])?, 1, &["ERROR: the recording is damaged"]);
    let standard =
        run(command(bin("tsh"), &nobody).args(["play", "--format=text", "-"]), &bytes, 30)?.ok();
    assert_eq!(standard.stdout, whole);
    // And a recording under another session's name is not that session.
    let other = "11111111-1111-4111-8111-111111111111";
    let outcome = play(other, &bytes)?;
    assert!(outcome.code != 0 || outcome.stderr.contains("WARNING"), "{}", outcome.stderr);
    Ok(())
}

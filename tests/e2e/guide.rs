//! The commands as typed in the guides.

use anyhow::{Context, Result};
use shared_testkit::cluster::PASSWORD;
use shared_testkit::process::command;
use shared_testkit::{Sshd, SshdOptions, run};

use crate::support::Stage;

#[test]
fn export_sign_login_ssh_play_query() -> Result<()> {
    let stage = Stage::new("guide")?;
    let folder = stage.scratch.folder("admin")?;
    let web = stage.cluster.port("web");

    let export = run(
        command("bash", &folder).args([
            "-c",
            &format!("curl -sk 'https://localhost:{web}/webapi/auth/export?type=user' | sed s/cert-authority\\ // > teleport_user_ca.pub"),
        ]),
        "",
        30,
    )?
    .ok();
    assert_eq!(export.text(), "");

    let mut sign = stage.cluster.tctl();
    sign.current_dir(&folder).args([
        "auth",
        "sign",
        "--host=a.example.com,b.example.com,1.2.3.4,1.2.3.5",
        "--format=openssh",
        "--out=a",
    ]);
    let signed = run(&mut sign, "", 30)?.ok();
    let said = signed.text() + &signed.stderr;
    assert!(said.contains("credentials have been written to a, a-cert.pub"), "{said}");
    let shown =
        run(command("ssh-keygen", &folder).args(["-L", "-f", "a-cert.pub"]), "", 10)?.ok().text();
    for line in [
        "host certificate",
        "Key ID: \"\"",
        "Serial: 0",
        "Critical Options: (none)",
        "x-teleport-authority",
        "x-teleport-role",
        "Valid: after",
    ] {
        assert!(shown.contains(line), "{line} is missing in\n{shown}");
    }
    for host in ["a.example.com", "b.example.com", "1.2.3.4", "1.2.3.5"] {
        assert!(shown.lines().any(|line| line.trim() == host), "{host} is missing in\n{shown}");
    }
    // A second time it asks, and without anyone to ask it refuses.
    let again = run(&mut sign, "", 30)?;
    assert_ne!(again.code, 0);
    assert!(again.stderr.contains("a, a-cert.pub"), "{}", again.stderr);

    let mut sign = stage.cluster.tctl();
    sign.current_dir(&folder).args([
        "auth",
        "sign",
        "--host=127.0.0.1",
        "--format=openssh",
        "--out=host",
    ]);
    let _signed = run(&mut sign, "", 30)?.ok();
    let sshd = Sshd::start(
        &stage.scratch.folder("guide-sshd")?,
        &SshdOptions {
            user_ca: Some(folder.join("teleport_user_ca.pub")),
            host_key: Some(folder.join("host")),
            host_certificate: Some(folder.join("host-cert.pub")),
            ..SshdOptions::default()
        },
    )?;

    let status = run(stage.joe.tsh().arg("status"), "", 10)?.ok().text();
    assert!(status.contains("Logged in as:") && status.contains("joe"), "{status}");
    let mut tctl = command(shared_testkit::bin("tctl"), &stage.joe.folder);
    let status = run(tctl.arg("status"), "", 30)?.ok().text();
    assert!(
        status.contains("example.test") && status.contains("sha256:") && status.contains("Version"),
        "{status}"
    );

    let port = format!("--port={}", sshd.port);
    let echoed = stage.joe.run(["ssh", &port, &stage.target(), "echo", "from-the-guide"])?.ok();
    assert_eq!(echoed.text(), "from-the-guide\n");

    let sid = stage.last_session()?;
    assert_eq!(stage.played(&sid)?, b"from-the-guide\n");

    let sql = "select event_time,identity_user from cert_create order by event_date limit 1;";
    let text = run(
        command(shared_testkit::bin("tctl"), &stage.joe.folder)
            .args(["audit", "query", "exec", sql]),
        "",
        60,
    )?
    .ok()
    .text();
    let value: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    assert_eq!(value[0]["data"], serde_json::json!(["event_time", "identity_user"]));
    let row = value[1]["data"].as_array().context("a row")?;
    let time = row[0].as_str().unwrap_or_default();
    assert!(
        regex::Regex::new(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$")?.is_match(time),
        "{time}"
    );
    Ok(())
}

#[test]
fn certificate_goes_into_a_running_agent_unless_told_not_to() -> Result<()> {
    let stage = Stage::new("agent")?;
    let (_guard, socket) = stage.agent("a")?;
    let listed = || -> Result<String> {
        let mut list = command("ssh-add", &stage.joe.folder);
        Ok(run(list.arg("-L").env("SSH_AUTH_SOCK", &socket), "", 10)?.text())
    };
    let login = |args: &[&str], env: Option<(&str, &str)>| -> Result<()> {
        let mut login = stage.joe.login_command();
        login.args(args).env("SSH_AUTH_SOCK", &socket);
        if let Some((key, value)) = env {
            login.env(key, value);
        }
        let _done = run(&mut login, format!("{PASSWORD}\n"), 60)?.ok();
        Ok(())
    };
    login(&["--no-use-local-ssh-agent"], None)?;
    assert!(!listed()?.contains("teleport:joe"));
    login(&[], Some(("TELEPORT_USE_LOCAL_SSH_AGENT", "false")))?;
    assert!(!listed()?.contains("teleport:joe"));
    login(&[], None)?;
    assert!(listed()?.contains("teleport:joe"), "{}", listed()?);
    assert!(listed()?.contains("ssh-ed25519-cert-v01@openssh.com"));
    let mut logout = stage.joe.tsh();
    let _done = run(logout.arg("logout").env("SSH_AUTH_SOCK", &socket), "", 30)?.ok();
    assert!(!listed()?.contains("teleport:joe"));
    let _refused = stage.joe.run(["status"])?.fails(3, "Not logged in");
    Ok(())
}

#[test]
fn two_processes_do_the_same() -> Result<()> {
    let options = shared_testkit::ClusterOptions { two_processes: true, ..Default::default() };
    let stage = Stage::with("two", &options, "")?;
    let echoed = run(&mut stage.tsh_ssh(&[], &["echo", "apart"]), "", 60)?.ok();
    assert_eq!(echoed.text(), "apart\n");
    let sid = stage.last_session()?;
    assert_eq!(stage.played(&sid)?, b"apart\n");
    Ok(())
}

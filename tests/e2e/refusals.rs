//! Refusals: each with its text and its audit event.

use std::path::Path;

use anyhow::{Context, Result};
use shared_testkit::process::command;
use shared_testkit::{Sshd, SshdOptions, run};

use crate::support::Stage;

#[test]
fn a_target_without_a_host_certificate() -> Result<()> {
    let stage = Stage::new("plainkey")?;
    let folder = stage.scratch.folder("plain")?;
    let sshd = Sshd::start(
        &folder,
        &SshdOptions { user_ca: Some(stage.cluster.user_ca(&folder)?), ..SshdOptions::default() },
    )?;
    let _refused = stage.joe.run(["ssh", &format!("--port={}", sshd.port), &stage.target(), "true"])?.fails(
        255,
        "ssh: handshake failed: remote host presented a public key, expected a host certificate",
    );
    Ok(())
}

#[test]
fn a_login_the_role_does_not_give() -> Result<()> {
    let stage = Stage::new("login")?;
    let refused = stage.joe.run([
        "ssh",
        &format!("--port={}", stage.sshd.port),
        "nobody-else@127.0.0.1",
        "true",
    ])?;
    assert_eq!(refused.code, 255, "{}", refused.stderr);
    let rows = stage
        .cluster
        .query("select error from auth where success = false and login = 'nobody-else'")?;
    assert!(rows.iter().any(|row| row[0].contains("nobody-else")), "{rows:?}");
    Ok(())
}

#[test]
fn targets_that_need_the_literal_address() -> Result<()> {
    let stage = Stage::new("targets")?;
    let ann = stage.cluster.user("ann", "access", &stage.login)?;
    let port = stage.sshd.port;
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "127.1",
        "0.0.0.0",
        "::1",
        "::ffff:127.0.0.1",
        "169.254.169.254",
    ] {
        let refused =
            ann.run(["ssh", &format!("--port={port}"), "-l", &stage.login, host, "true"])?;
        assert_eq!(refused.code, 255, "{host}: {}", refused.stderr);
        assert!(refused.text().is_empty());
    }
    let sshd = stage.sshd.log();
    assert!(!sshd.contains("Accepted"), "{sshd}");
    Ok(())
}

/// A user certificate made by hand.
struct Forged<'a> {
    name: &'a str,
    ca: &'a Path,
    args: &'a [&'a str],
}

#[test]
fn certificates_that_are_not_right() -> Result<()> {
    let stage = Stage::new("certs")?;
    let folder = stage.scratch.folder("forged")?;
    let config = stage.ssh_config()?;
    let other_ca = shared_testkit::sshd::make_key(&folder.join("other_ca"))?;
    let login = stage.login.clone();
    let good_key = stage.joe.ssh_key();
    let cases = [
        Forged { name: "other authority", ca: &other_ca, args: &["-n", &login] },
        Forged { name: "signed by a certificate's key", ca: &good_key, args: &["-n", &login] },
    ];
    for case in cases {
        let key = folder.join(case.name.replace([' ', '\''], "-"));
        shared_testkit::sshd::make_key(&key)?;
        let mut sign = command("ssh-keygen", &folder);
        sign.args(["-q", "-s"])
            .arg(case.ca)
            .args(["-I", "joe"])
            .args(case.args)
            .arg(key.with_extension("pub"));
        let _signed = run(&mut sign, "", 10)?.ok();
        let mut ssh = command("ssh", &folder);
        ssh.arg("-F").arg(&config).arg("-i").arg(&key).args(["-o", "IdentitiesOnly=yes", "-p"]);
        ssh.arg(stage.cluster.port("ssh").to_string()).arg(format!("{login}@localhost"));
        ssh.args(["-s", &format!("proxy:127.0.0.1:{}", stage.sshd.port)]);
        let refused = run(&mut ssh, "", 30)?.fails(255, "Permission denied");
        assert!(refused.text().is_empty(), "{}: {}", case.name, refused.text());
    }
    let rows = stage.cluster.query("select error from auth where success = false")?;
    assert!(rows.len() >= 2, "{rows:?}");
    Ok(())
}

#[test]
fn hostile_names_harm_nothing() -> Result<()> {
    let stage = Stage::new("names")?;
    let marker = stage.scratch.path().join("owned");
    let touch = marker.display().to_string();
    for host in [
        "-oProxyCommand=touch",
        "$(touch x)",
        "a;touch x",
        "a\nb",
        "%h",
        "\x1b]0;x\x07",
        "a b",
        "'",
        "`id`",
    ] {
        let host = host.replace("touch x", &format!("touch {touch}"));
        let refused = stage.joe.run(["ssh", "-l", &stage.login, "--", &host, "true"])?;
        assert_ne!(refused.code, 0, "{host:?}");
        assert!(!refused.stderr.contains('\x1b'), "{:?}", refused.stderr);
    }
    for user in ["joe; drop table x", "joe\n", "--", "$(id)", "joe\x1b[31m"] {
        let refused =
            run(stage.cluster.tctl().args(["users", "add", "--roles=access", "--", user]), "", 30)?;
        assert_ne!(refused.code, 0, "{user:?}");
        assert!(!refused.stderr.contains('\x1b'));
    }
    assert!(!marker.exists());
    Ok(())
}

#[test]
fn bad_sql_and_statements_that_write() -> Result<()> {
    let stage = Stage::new("badsql")?;
    let query = |sql: &str| run(stage.cluster.tctl().args(["audit", "query", "exec", sql]), "", 60);
    let bad = query("select from where")?;
    assert_ne!(bad.code, 0);
    assert!(regex::Regex::new(r"line 1:\d+: ")?.is_match(&bad.stderr), "{}", bad.stderr);
    for sql in [
        "drop table exec",
        "create table x as select 1",
        "insert into exec values (1)",
        "copy exec to '/tmp/x'",
        "set a = 1",
    ] {
        let refused = query(sql)?;
        assert_ne!(refused.code, 0, "{sql}");
    }
    let _fine = query("select 1").context("a plain query")?.ok();
    Ok(())
}

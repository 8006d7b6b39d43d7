//! `ssh-audit` on the proxy's SSH port: what an auditor of ciphers sees.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use shared_testkit::process::command;
use shared_testkit::{Scratch, run};

use crate::support::Stage;

/// The only thing that may be missing: key exchange against tomorrow's computers, for clients that lack it.
const EXPECTED: &str = "does not provide protection against post-quantum attacks";

fn installed() -> bool {
    let found = Command::new("ssh-audit")
        .arg("--help")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

/// The reports under `key` about every algorithm, as `kind/algorithm: text`.
fn notes(audit: &Value, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    for kind in ["kex", "key", "enc", "mac"] {
        for algorithm in audit[kind].as_array().into_iter().flatten() {
            let name = algorithm["algorithm"].as_str().unwrap_or_default();
            for text in algorithm["notes"][key].as_array().into_iter().flatten() {
                found.push(format!("{kind}/{name}: {}", text.as_str().unwrap_or_default()));
            }
        }
    }
    found
}

/// A port that leads to `to`, where every client calls itself `name`: what is offered depends on it.
fn renamed(to: u16, name: &'static str) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut far = TcpStream::connect(("127.0.0.1", to))?;
                let (mut back, mut answers) = (near.try_clone()?, far.try_clone()?);
                std::thread::spawn(move || {
                    // Either side may be gone first.
                    std::io::copy(&mut answers, &mut back).ok();
                    back.shutdown(Shutdown::Both).ok();
                });
                let mut near = BufReader::new(near);
                near.read_until(b'\n', &mut Vec::new())?;
                far.write_all(format!("{name}\r\n").as_bytes())?;
                std::io::copy(&mut near, &mut far)?;
                far.shutdown(Shutdown::Write)
            });
        }
    });
    Ok(port)
}

/// The audit of whoever listens there.
fn audit(port: u16, folder: &Scratch) -> Result<Value> {
    let mut audit = command("ssh-audit", folder.path());
    audit.args(["-j", "--skip-rate-test", "-p", &port.to_string(), "127.0.0.1"]);
    let outcome = run(&mut audit, "", 60)?;
    serde_json::from_slice(&outcome.stdout).with_context(|| format!("{outcome:?}"))
}

#[test]
fn nothing_weak_is_offered() -> Result<()> {
    if !installed() {
        if std::env::var_os("CI").is_some() {
            bail!("ssh-audit is not installed; cargo xtask test brings it");
        }
        eprintln!("skipped: ssh-audit is not installed");
        return Ok(());
    }
    let stage = Stage::new("audit")?;
    let ssh = stage.cluster.port("ssh");
    let plain = clean(&audit(ssh, &stage.scratch)?);
    // What comes as OpenSSH is offered GCM alone; others get a longer list, which is as clean.
    let other = clean(&audit(renamed(ssh, "SSH-2.0-PuTTY_Release_0.78")?, &stage.scratch)?);
    assert!(plain.iter().all(|cipher| cipher.contains("-gcm@")), "{plain:?}");
    assert!(
        other.len() > plain.len() && other.iter().any(|cipher| cipher.contains("-ctr")),
        "{other:?}"
    );
    Ok(())
}

/// Demands that a report complains of nothing; returns the ciphers it saw.
fn clean(report: &Value) -> Vec<String> {
    for kind in ["kex", "key", "enc", "mac"] {
        let offered = report[kind].as_array().map_or(0, Vec::len);
        assert!(offered > 0, "nothing of {kind} was seen: {report}");
    }
    assert_eq!(notes(report, "fail"), [""; 0]);
    let warnings: Vec<_> =
        notes(report, "warn").into_iter().filter(|text| !text.contains(EXPECTED)).collect();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(report["cves"].as_array().map_or(0, Vec::len), 0, "{}", report["cves"]);
    let critical = &report["recommendations"]["critical"];
    assert!(
        critical.is_null() || critical.as_object().is_some_and(serde_json::Map::is_empty),
        "{critical}"
    );
    let ciphers = report["enc"].as_array().into_iter().flatten();
    ciphers.filter_map(|cipher| cipher["algorithm"].as_str().map(str::to_owned)).collect()
}

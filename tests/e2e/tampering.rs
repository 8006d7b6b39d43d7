//! Recordings that were tampered with: what `tctl recordings verify` says, with a server and without.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use shared_testkit::process::{Outcome, bin, command};
use shared_testkit::{Terminal, run, until};

use crate::support::Stage;

/// A home in which nothing knows of any cluster.
struct Elsewhere {
    folder: PathBuf,
    ca: PathBuf,
}

impl Elsewhere {
    fn new(stage: &Stage) -> Result<Self> {
        let folder = stage.scratch.folder("elsewhere")?;
        let exported = stage.cluster.tctl_ok(["auth", "export", "--type=recording"])?.text();
        assert!(exported.starts_with("cert-authority ssh-ed25519 "), "{exported}");
        let ca = folder.join("recording-ca");
        fs::write(&ca, exported)?;
        Ok(Self { folder, ca })
    }

    fn verify(&self, files: &[&Path]) -> Result<Outcome> {
        let mut tctl = command(bin("tctl"), &self.folder);
        tctl.args(["recordings", "verify", "--format=json", "--ca"]).arg(&self.ca).args(files);
        run(&mut tctl, "", 30)
    }

    /// The verdict on these bytes, and the exit code.
    fn verdict(&self, name: &str, bytes: &[u8]) -> Result<(String, Option<u64>)> {
        let file = self.folder.join(name);
        fs::write(&file, bytes)?;
        let outcome = self.verify(&[&file])?;
        let items: Value = serde_json::from_slice(&outcome.stdout).context("verify")?;
        let word = items[0]["verdict"].as_str().unwrap_or_default().to_owned();
        assert_eq!(outcome.code, i32::from(word != "intact"), "{items}");
        Ok((word, items[0]["slice"].as_u64()))
    }
}

fn stored(stage: &Stage, sid: &str) -> Result<Vec<u8>> {
    let path = stage.cluster.data_dir().join(format!("log/records/{sid}.tar"));
    until("the recording to arrive", 30, || path.exists().then_some(()))?;
    Ok(fs::read(path)?)
}

/// Where each part of the container begins, and where the last ends.
fn parts(bytes: &[u8]) -> Vec<usize> {
    let mut starts = vec![0];
    while let Some(size) = bytes.get(starts[starts.len() - 1] + 8..).and_then(|rest| rest.get(..8))
    {
        let size = size.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        starts.push(starts[starts.len() - 1] + 24 + size);
    }
    starts
}

#[test]
fn a_real_recording_verifies_everywhere_and_an_altered_one_nowhere() -> Result<()> {
    let stage = Stage::new("tamper")?;
    let talk = "echo one; sleep 0.6; echo two; sleep 0.6; echo three";
    let _ran = run(&mut stage.tsh_ssh(&["-t"], &[talk]), "", 60)?.ok();
    let sid = stage.last_session()?;
    let whole = stored(&stage, &sid)?;

    // With the cluster: fetched, its CA, and what the audit log says.
    let told = until("session.upload", 20, || {
        let sql = "select recording_state, recording_head from session_upload";
        stage.cluster.query(sql).ok()?.into_iter().next()
    })?;
    let online = stage.cluster.tctl_ok(["recordings", "verify", &sid])?.text();
    assert!(online.starts_with(&format!("{sid}: intact (")), "{online}");
    assert!(online.contains("received complete 2"), "{online}");
    let online = stage.cluster.tctl_ok(["recordings", "verify", "--format=json", &sid])?.text();
    let online: Value = serde_json::from_str(&online)?;
    assert_eq!(
        (told[0].as_str(), Some(told[1].as_str())),
        ("complete", online[0]["head"].as_str())
    );
    assert_eq!(online[0]["slices"], online[0]["signed"]);
    assert!(online[0]["slices"].as_u64().unwrap_or_default() > 2, "{online}");

    // Without: the stored file and the exported CA are enough.
    let elsewhere = Elsewhere::new(&stage)?;
    let name = format!("{sid}.tar");
    assert_eq!(elsewhere.verdict(&name, &whole)?, ("intact".to_owned(), None));
    // It is called as another session.
    let other = "5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11.tar";
    assert_eq!(elsewhere.verdict(other, &whole)?.0, "foreign");
    let starts = parts(&whole);
    let mut flipped = whole.clone();
    flipped[starts[2] - 300] ^= 1;
    assert_eq!(elsewhere.verdict("flipped", &flipped)?, ("edited".to_owned(), Some(1)));
    let cut = &whole[..starts[2]];
    assert_eq!(elsewhere.verdict("cut", cut)?, ("truncated".to_owned(), Some(2)));
    let without = [&whole[..starts[1]], &whole[starts[2]..]].concat();
    assert_eq!(elsewhere.verdict("without", &without)?, ("removed".to_owned(), Some(1)));

    // All at once, in words; one bad file does not hide the others.
    let (good, bad) = (elsewhere.folder.join(&name), elsewhere.folder.join("flipped"));
    let mut tctl = command(bin("tctl"), &elsewhere.folder);
    tctl.args(["recordings", "verify", "--ca"]).arg(&elsewhere.ca).args([&bad, &good]);
    let text = run(&mut tctl, "", 30)?.fails(1, "").text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("/flipped: edited: slice 1 at byte "), "{text}");
    assert!(lines[1].contains(": intact ("), "{text}");
    let missing = elsewhere.verify(&[&good, Path::new("none.tar")])?;
    assert_eq!(missing.code, 5);
    fs::write(&elsewhere.ca, "nonsense")?;
    assert_eq!(elsewhere.verify(&[&good])?.code, 2);

    // What is altered in the store is named online as well, and whoever plays it is warned.
    let path = stage.cluster.data_dir().join(format!("log/records/{name}"));
    fs::write(&path, cut)?;
    let mut verify = stage.cluster.tctl();
    let text = run(verify.args(["recordings", "verify", &sid]), "", 30)?.fails(1, "").text();
    assert!(text.contains("removed slice") && text.contains(": slice 2 at byte "), "{text}");
    let played = stage.joe.run([OsStr::new("play"), "--format=text".as_ref(), path.as_os_str()])?;
    assert!(played.stderr.contains("WARNING: the recording's end is missing"), "{played:?}");
    Ok(())
}

#[test]
fn a_recording_of_a_killed_proxy_is_truncated() -> Result<()> {
    let mut stage = Stage::new("tamperkill")?;
    let mut ssh =
        stage.tsh_ssh(&["-t"], &["i=0; while :; do i=$((i+1)); echo line-$i; sleep 0.05; done"]);
    let terminal = Terminal::start(&mut ssh, 80, 24)?;
    terminal.expect("line-40", 0)?;
    stage.cluster.auth.kill()?;
    let _ended = terminal.finish(60)?;
    stage.cluster.restart_auth()?;
    let sid = stage.cluster.query("select sid from session_start")?.remove(0).remove(0);
    let whole = stored(&stage, &sid)?;
    let elsewhere = Elsewhere::new(&stage)?;
    let (word, slices) = elsewhere.verdict(&format!("{sid}.tar"), &whole)?;
    assert_eq!(word, "truncated");
    assert!(slices > Some(2), "{slices:?}");
    let told = until("session.upload", 20, || {
        stage.cluster.query("select recording_state from session_upload").ok()?.into_iter().next()
    })?;
    assert_eq!(told[0], "truncated");
    let mut verify = stage.cluster.tctl();
    let text = run(verify.args(["recordings", "verify", &sid]), "", 30)?.fails(1, "").text();
    assert!(
        text.contains("truncated: the end is missing") && text.contains("last signed 2"),
        "{text}"
    );
    assert!(text.contains("received truncated 2"), "{text}");
    Ok(())
}

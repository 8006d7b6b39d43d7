//! Recordings between programs: those that a generator writes from the published layout play, and a reader written
//! from it reads ours. Generator and reader are `tests/interchange/*.py` and know nothing of our code.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shared_testkit::process::{bin, command, installed};
use shared_testkit::{ClusterOptions, Outcome, Scratch, Terminal, run, until};

use crate::support::Stage;

/// Keys that our events have and the published ones have not.
const OURS: [&str; 5] =
    ["record_session", "recording_state", "recording_until", "recording_reason", "recovered"];

fn python(script: &str, args: &[&Path]) -> Result<Outcome> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("interchange");
    let mut python = Command::new("python3");
    // Nothing is left in the source folder.
    python.arg("-B").arg(folder.join(script)).args(args);
    Ok(run(&mut python, "", 60)?.ok())
}

/// `tsh` in a home that knows of no cluster.
fn tsh(home: &Path, args: &[&str], file: &Path) -> Result<Outcome> {
    run(command(bin("tsh"), home).args(args).arg(file), "", 60)
}

fn export(home: &Path, file: &Path) -> Result<Vec<Value>> {
    let args = ["recordings", "export", "--format=json", "--output=-"];
    let outcome = tsh(home, &args, file)?;
    ensure!(outcome.code == 0, "{}: {}", file.display(), outcome.stderr);
    Ok(serde_json::from_slice(&outcome.stdout)?)
}

#[test]
fn recordings_written_from_the_published_layout_play() -> Result<()> {
    if !installed("python3")? {
        return Ok(());
    }
    let scratch = Scratch::new("foreign")?;
    let folder = scratch.folder("made")?;
    let _made = python("generate.py", &[&folder])?;
    let (mut played, mut refused) = (0, 0);
    for entry in std::fs::read_dir(&folder)? {
        let file = entry?.path();
        let name = file.file_stem().and_then(|name| name.to_str()).context("name")?.to_owned();
        if file.extension().is_none_or(|kind| kind != "tar") {
            continue;
        }
        if name.starts_with("refused-") {
            let why = std::fs::read_to_string(file.with_extension("why"))?;
            let _why = tsh(scratch.path(), &["play", "--format=text"], &file)?.fails(1, &why);
            refused += 1;
            continue;
        }
        let wanted: Vec<Value> =
            serde_json::from_slice(&std::fs::read(file.with_extension("json"))?)?;
        let events = export(scratch.path(), &file)?;
        ensure!(events.len() == wanted.len(), "{name}: {} of {}", events.len(), wanted.len());
        for (event, wanted) in events.iter().zip(&wanted) {
            ensure!(event == wanted, "{name}: {event} is not {wanted}");
        }
        let output = std::fs::read(file.with_extension("out"))?;
        let play = tsh(scratch.path(), &["play", "--format=text"], &file)?.ok();
        ensure!(play.stdout == output, "{name}: {} of {} bytes", play.stdout.len(), output.len());
        transcript(&scratch, &file, &name, &output)?;
        played += 1;
    }
    ensure!(played >= 19 && refused >= 10, "{played} played, {refused} refused");
    Ok(())
}

/// Where the output is lines of text, they are the transcript.
fn transcript(scratch: &Scratch, file: &Path, name: &str, output: &[u8]) -> Result<()> {
    let args = ["recordings", "export", "--format=text", "--output=-"];
    let text = tsh(scratch.path(), &args, file)?.ok().text();
    let output = String::from_utf8_lossy(output).replace('\r', "");
    if output.starts_with("line 0\n") {
        ensure!(text == output, "{name}: {text:?}");
    }
    Ok(())
}

#[test]
fn a_reader_written_from_the_published_layout_reads_ours() -> Result<()> {
    if !installed("python3")? {
        return Ok(());
    }
    for mode in ["proxy", "proxy-sync"] {
        let options =
            ClusterOptions { recording: Some(mode.to_owned()), ..ClusterOptions::default() };
        let stage = Stage::with("interchange", &options, "")?;
        // Slices by time, by size, an end in the middle of a character, another size of the window.
        let line = "echo begin; head -c 700000 /dev/urandom | base64; sleep 0.6; read x; stty size; printf '\\346\\274'; exit 4";
        let mut terminal = Terminal::start(&mut stage.tsh_ssh(&["-t"], &[line]), 80, 24)?;
        terminal.expect("begin\r\n", 0)?;
        terminal.resize(133, 41)?;
        terminal.send("\n")?;
        let (code, shown) = terminal.finish(60)?;
        ensure!(code == 4, "{code}");
        let _ran =
            run(&mut stage.tsh_ssh(&[], &["cat; echo error >&2"]), "from the client\n", 60)?.ok();
        for (number, output) in [shown, Vec::new()].into_iter().enumerate() {
            let interactive = number == 0;
            let sql = format!("select sid from session_end where interactive = {interactive}");
            let sid = until("the session's end", 30, || {
                stage.cluster.query(&sql).ok()?.into_iter().next()?.into_iter().next()
            })?;
            let stored = stage.cluster.data_dir().join(format!("log/records/{sid}.tar"));
            until("the recording", 30, || stored.exists().then_some(()))?;
            let fetched = stage.scratch.path().join(format!("{sid}.tar"));
            let target = format!("--output={}", fetched.display());
            let _fetched = stage.joe.run(["recordings", "download", &sid, &target])?.ok();
            for file in [&stored, &fetched] {
                let events =
                    same(&stage, file).with_context(|| format!("{mode}, {}", file.display()))?;
                ensure!(
                    !interactive || output_of(&events)? == output.len() as u64,
                    "{mode}: output"
                );
            }
        }
    }
    Ok(())
}

/// Sum of the bytes that prints say they have.
fn output_of(events: &[Value]) -> Result<u64> {
    let prints = events.iter().filter(|event| event["event"] == "print");
    prints.map(|event| event["bytes"].as_u64().context("bytes")).sum()
}

/// Both readers see the same in `file`.
fn same(stage: &Stage, file: &Path) -> Result<Vec<Value>> {
    let read = python("read.py", &[file])?;
    let theirs: Value = serde_json::from_slice(&read.stdout)?;
    let ours = export(stage.scratch.path(), file)?;
    let events = theirs["events"].as_array().context("events")?;
    ensure!(events.len() == ours.len(), "{} of {} events", events.len(), ours.len());
    for (ours, theirs) in ours.iter().zip(events) {
        let mut published = ours.as_object().context("an object")?.clone();
        published.retain(|key, _| !OURS.contains(&key.as_str()));
        ensure!(Value::Object(published) == *theirs, "{ours} is read as {theirs}");
    }
    ensure!(theirs["skipped"] == 0, "an event is there twice");
    let several = output_of(&ours)? > 512 * 1024;
    ensure!(theirs["parts"].as_u64() > Some(u64::from(several)), "parts: {}", theirs["parts"]);
    let output = stage.scratch.path().join("output");
    let _played = tsh(stage.scratch.path(), &["play", "--format=text"], file)?.ok();
    let played = _played.stdout;
    std::fs::write(&output, theirs["output"].as_str().unwrap_or_default())?;
    let decoded = run(Command::new("base64").arg("-d").arg(&output), "", 30)?.ok().stdout;
    ensure!(decoded == played, "{} and {} bytes of output", decoded.len(), played.len());
    Ok(ours)
}

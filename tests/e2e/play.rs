//! `tsh play` on a terminal: in time, with keys, and no recorded byte that drives the viewer's terminal.

use anyhow::Result;
use shared_testkit::{Terminal, run};

use crate::support::Stage;

/// A command whose output tries to set title and clipboard, asks questions, and moves in time.
const HOSTILE: &str = r"printf 'begin\033]0;owned\007\033]52;c;b3duZWQ=\007\033[6n\033[c\033P+q544e\033\\'; sleep 0.3; printf '\033[31mred\033[0m end\n'";

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_terminal_sees_the_text_and_nothing_that_drives_it() -> Result<()> {
    let stage = Stage::new("playpty")?;
    let _ran = run(&mut stage.tsh_ssh(&[], &[HOSTILE]), "", 60)?.ok();
    let sid = stage.last_session()?;
    let raw = stage.played(&sid)?;
    assert!(
        contains(&raw, b"\x1b]52;") && contains(&raw, b"\x1b[6n"),
        "the recording is not exact"
    );
    for format in ["pty", "text"] {
        let mut play = stage.joe.tsh();
        play.args(["play", "--speed=4x", "--format", format, &sid]);
        let (code, seen) = Terminal::start(&mut play, 80, 24)?.finish(30)?;
        assert_eq!(code, 0);
        for text in ["begin", "red", " end"] {
            assert!(
                contains(&seen, text.as_bytes()),
                "{text} is missing in {:?}",
                String::from_utf8_lossy(&seen)
            );
        }
        for part in [&b"\x1b]"[..], b"\x1bP", b"\x1b[6n", b"\x1b[c", b"owned"] {
            assert!(
                !contains(&seen, part),
                "{part:?} reached the terminal: {:?}",
                String::from_utf8_lossy(&seen)
            );
        }
    }
    let mut play = stage.joe.tsh();
    let (_, seen) =
        Terminal::start(play.args(["play", "--raw", "--format=text", &sid]), 80, 24)?.finish(30)?;
    assert!(contains(&seen, b"\x1b]52;"), "--raw is not raw");
    Ok(())
}

#[test]
fn keys_pause_jump_and_quit() -> Result<()> {
    let stage = Stage::new("playkeys")?;
    let slow = "echo one; sleep 2; echo two; sleep 2; echo three";
    let _ran = run(&mut stage.tsh_ssh(&["-t"], &[slow]), "", 60)?.ok();
    let sid = stage.last_session()?;
    let _whole = stage.played(&sid)?;
    let mut play = stage.joe.tsh();
    let mut terminal = Terminal::start(play.args(["play", &sid]), 80, 24)?;
    terminal.expect("one", 0)?;
    terminal.send(" ")?;
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(!contains(&terminal.seen(), b"two"), "a pause does not stop the clock");
    terminal.send(" \x1b[C")?;
    terminal.expect("three", 0)?;
    let (code, _) = terminal.finish(20)?;
    assert_eq!(code, 0);
    let mut play = stage.joe.tsh();
    let mut terminal = Terminal::start(play.args(["play", &sid]), 80, 24)?;
    terminal.expect("one", 0)?;
    terminal.send("\x03")?;
    let (code, seen) = terminal.finish(10)?;
    assert_eq!(code, 0);
    assert!(!contains(&seen, b"three"));
    Ok(())
}

#[test]
fn playback_begins_where_it_is_asked_to() -> Result<()> {
    let stage = Stage::new("playat")?;
    let slow = "echo one; sleep 1.5; echo two; sleep 1.5; echo three";
    let _ran = run(&mut stage.tsh_ssh(&["-t"], &[slow]), "", 60)?.ok();
    let sid = stage.last_session()?;
    let _whole = stage.played(&sid)?;
    // From a match, on a terminal; the progress line tells the speed that keys changed.
    let mut play = stage.joe.tsh();
    let terminal = Terminal::start(play.args(["play", "--grep=thr..", &sid]), 80, 24)?;
    terminal.expect("three", 0)?;
    let (code, seen) = terminal.finish(20)?;
    assert_eq!(code, 0);
    let first = String::from_utf8_lossy(&seen);
    let (before, _) = first.split_once("three").unwrap_or_default();
    assert!(before.contains("two"), "the screen before it is there at once: {first:?}");
    let mut play = stage.joe.tsh();
    let mut terminal = Terminal::start(play.args(["play", "--at=1.2s", &sid]), 80, 24)?;
    terminal.expect("playing", 0)?;
    terminal.send("+")?;
    terminal.expect("2x", 0)?;
    terminal.send("\x1b[B\x1b[B ")?;
    terminal.expect("paused", 0)?;
    terminal.send("q")?;
    let (code, seen) = terminal.finish(10)?;
    assert_eq!(code, 0);
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("0.5x") && !seen.contains("three"), "{seen:?}");
    Ok(())
}

/// The recording on standard input, the keys from the terminal itself.
#[test]
fn standard_input_brings_the_recording_and_the_terminal_the_keys() -> Result<()> {
    let stage = Stage::new("playstdin")?;
    let _ran = run(&mut stage.tsh_ssh(&["-t"], &["echo one; sleep 3; echo two"]), "", 60)?.ok();
    let sid = stage.last_session()?;
    let _whole = stage.played(&sid)?;
    let file = stage.cluster.data_dir().join(format!("log/records/{sid}.tar"));
    let mut play = shared_testkit::process::command("sh", &stage.joe.folder);
    play.args(["-c", "exec \"$0\" play - < \"$1\""]).arg(shared_testkit::bin("tsh")).arg(&file);
    let mut terminal = Terminal::start(&mut play, 80, 24)?;
    terminal.expect("one", 0)?;
    terminal.send("q")?;
    let (code, seen) = terminal.finish(10)?;
    assert_eq!(code, 0);
    assert!(!contains(&seen, b"two"));
    Ok(())
}

#[test]
fn events_as_json_and_yaml_and_files_without_a_server() -> Result<()> {
    let stage = Stage::new("playjson")?;
    let _ran = run(&mut stage.tsh_ssh(&[], &["echo hello"]), "", 60)?.ok();
    let sid = stage.last_session()?;
    let _whole = stage.played(&sid)?;
    let json = stage.joe.run(["play", "--format=json", &sid])?.ok().text();
    let events: serde_json::Value = serde_json::from_str(&json)?;
    let kinds: Vec<&str> = events
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|event| event["event"].as_str())
        .collect();
    assert_eq!(kinds.first(), Some(&"session.start"));
    assert!(kinds.contains(&"print") && kinds.contains(&"session.end"), "{kinds:?}");
    let yaml = stage.joe.run(["play", "--format=yaml", &sid])?.ok().text();
    assert!(yaml.contains("event: session.start"), "{yaml}");
    // The same from a file, in a home that was never logged in.
    let file = stage.cluster.data_dir().join(format!("log/records/{sid}.tar"));
    let ann = stage.cluster.home("ann")?;
    let played =
        ann.run([std::ffi::OsStr::new("play"), "--format=text".as_ref(), file.as_os_str()])?.ok();
    assert_eq!(played.text(), "hello\n");
    let _unknown =
        stage.joe.run(["play", "00000000-0000-4000-8000-000000000000"])?.fails(5, "not found");
    let _bad =
        stage.joe.run(["play", "nonsense"])?.fails(2, "is not a valid session ID (must be GUID)");
    Ok(())
}

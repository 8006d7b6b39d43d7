//! Interactive sessions: what the test's own terminal received is what the recording plays.

use anyhow::Result;
use shared_testkit::{Terminal, run};

use crate::support::Stage;

/// Bash, a resize, wide characters, vim, and an exit status.
fn drive(terminal: &mut Terminal) -> Result<()> {
    // What is typed before the far shell reads is echoed by the near terminal, which nobody records.
    let prompt = terminal.expect("\x1b[?2004h", 0)?;
    terminal.send("PS1='$ '; stty -echo; echo re''ady\n")?;
    let mut at = terminal.expect("ready", prompt)?;
    terminal.send("echo '北京 に é 👍🏽'\n")?;
    at = terminal.expect("👍🏽", at)?;
    terminal.resize(132, 43)?;
    terminal.send(
        "until [ \"$(stty size)\" = '43 132' ]; do sleep 0.05; done; stty size; echo si''zed\n",
    )?;
    at = terminal.expect("sized", at)?;
    terminal.send("vim.tiny -u NONE -N /tmp/none-such-$$\n")?;
    at = terminal.expect("~", at)?;
    terminal.send("ihello from vim\x1b")?;
    at = terminal.expect("vim", at)?;
    terminal.send(":q!\r")?;
    at = terminal.expect("$ ", at)?;
    terminal.send("echo le''ft; exit 3\n")?;
    terminal.expect("left", at)?;
    Ok(())
}

#[test]
fn tsh_terminal_plays_back_byte_for_byte() -> Result<()> {
    let stage = Stage::new("pty")?;
    let mut terminal = Terminal::start(&mut stage.tsh_ssh(&[], &[]), 100, 30)?;
    drive(&mut terminal)?;
    let (code, seen) = terminal.finish(30)?;
    assert_eq!(code, 3, "{}", String::from_utf8_lossy(&seen));
    let played = stage.played(&stage.last_session()?)?;
    assert_eq!(String::from_utf8_lossy(&played), String::from_utf8_lossy(&seen));
    assert_eq!(played, seen);
    Ok(())
}

#[test]
fn openssh_terminal_plays_back_byte_for_byte() -> Result<()> {
    let stage = Stage::new("ptyplain")?;
    let (_guard, socket) = stage.agent_of_joe("a")?;
    let mut terminal =
        Terminal::start(&mut stage.ssh(&socket, &["-o", "LogLevel=QUIET"], &[])?, 100, 30)?;
    drive(&mut terminal)?;
    let (code, seen) = terminal.finish(30)?;
    assert_eq!(code, 3, "{}", String::from_utf8_lossy(&seen));
    let played = stage.played(&stage.last_session()?)?;
    assert_eq!(String::from_utf8_lossy(&played), String::from_utf8_lossy(&seen));
    assert_eq!(played, seen);
    Ok(())
}

#[test]
fn exit_status_and_signals_come_back() -> Result<()> {
    let stage = Stage::new("exit")?;
    for code in [0, 1, 42, 254] {
        let outcome = run(&mut stage.tsh_ssh(&[], &[&format!("exit {code}")]), "", 60)?;
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
    }
    let outcome = run(&mut stage.tsh_ssh(&[], &["echo out; echo err >&2; exit 9"]), "", 60)?;
    assert_eq!((outcome.code, outcome.text().as_str()), (9, "out\n"));
    assert!(outcome.stderr.contains("err\n"));
    let rows = stage.cluster.query("select command, exitCode from exec where exitCode = '42'")?;
    assert_eq!(rows, [["exit 42", "42"]]);
    // Nobody listens there: the connection itself fails.
    let port = shared_testkit::free_port()?;
    let _failed =
        stage.joe.run(["ssh", &format!("--port={port}"), &stage.target(), "true"])?.fails(255, "");
    Ok(())
}

/// The near terminal passes bytes as they are from the first one on: a line does not end with one return too many.
#[test]
fn the_first_line_is_not_altered_by_the_near_terminal() -> Result<()> {
    let stage = Stage::with("ptyfirst", &Default::default(), "SetEnv HOME=/nonexistent")?;
    for _ in 0..10 {
        let mut tsh = stage.tsh_ssh(&["-t"], &["echo first; echo second"]);
        let (code, seen) = Terminal::start(&mut tsh, 80, 24)?.finish(30)?;
        assert_eq!(code, 0);
        assert_eq!(String::from_utf8_lossy(&seen), "first\r\nsecond\r\n");
    }
    Ok(())
}

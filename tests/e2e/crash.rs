//! `kill -9` in the middle: no acknowledged event is missing, recordings play up to the kill.

use anyhow::Result;
use shared_testkit::{Terminal, until};

use crate::support::Stage;

/// Sessions that count; returns their terminals once all of them run.
fn live(stage: &Stage, count: usize) -> Result<Vec<Terminal>> {
    let mut terminals = Vec::new();
    for _ in 0..count {
        let mut command = stage
            .tsh_ssh(&["-t"], &["i=0; while :; do i=$((i+1)); echo line-$i; sleep 0.05; done"]);
        terminals.push(Terminal::start(&mut command, 80, 24)?);
    }
    for terminal in &terminals {
        terminal.expect("line-40", 0)?;
    }
    Ok(terminals)
}

#[test]
fn killed_and_restarted_keeps_events_and_recordings() -> Result<()> {
    let mut stage = Stage::with("kill", &Default::default(), "MaxStartups 200:30:400")?;
    let terminals = live(&stage, 10)?;
    let before = stage.cluster.query("select sid from session_start")?;
    assert_eq!(before.len(), 10);
    stage.cluster.auth.kill()?;
    let mut captures: Vec<Vec<u8>> = Vec::new();
    for terminal in terminals {
        let (_, seen) = terminal.finish(60)?;
        captures.push(seen);
    }
    stage.cluster.restart_auth()?;
    let after = stage.cluster.query("select sid from session_start")?;
    assert_eq!(after.len(), 10, "an acknowledged event is missing");
    let records = stage.cluster.data_dir().join("log/records");
    let mut played = Vec::new();
    for row in &after {
        let path = records.join(format!("{}.tar", row[0]));
        until("recovered recordings", 60, || path.exists().then_some(()))?;
        let outcome = stage.joe.run(["play", "--format=text", &row[0]])?;
        played.push(outcome.stdout);
    }
    // Every capture begins with one of the recordings, or the other way round but for what tsh says at
    // the end, and little is missing: 50 ms a line, so one second is twenty lines.
    let same = |play: &[u8], capture: &[u8]| {
        let common = play.iter().zip(capture).take_while(|(a, b)| a == b).count();
        common == play.len() || common + 200 >= capture.len()
    };
    for capture in &captures {
        let text = String::from_utf8_lossy(capture);
        let lines = text.matches("line-").count();
        let best = played
            .iter()
            .filter(|play| same(play, capture))
            .map(|play| String::from_utf8_lossy(play).matches("line-").count())
            .max()
            .unwrap_or_default();
        assert!(best + 25 >= lines, "{best} of {lines} lines were recorded");
    }
    Ok(())
}

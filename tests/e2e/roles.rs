//! Who may do what, end to end.

use anyhow::Result;
use shared_testkit::process::command;
use shared_testkit::run;

use crate::support::Stage;

#[test]
fn sql_needs_list_read_and_use() -> Result<()> {
    let stage = Stage::new("sql")?;
    let _created = stage.cluster.create(
        "kind: role\nversion: v7\nmetadata:\n  name: half\nspec:\n  allow:\n    rules:\n    - resources: [audit_query]\n      verbs: [list, read]\n",
    )?;
    let ann = stage.cluster.user("ann", "half", &stage.login)?;
    let sql = "select 1";
    let query = |home: &shared_testkit::Home| {
        run(
            command(shared_testkit::bin("tctl"), &home.folder)
                .args(["audit", "query", "exec", sql]),
            "",
            60,
        )
    };
    let _denied = query(&ann)?.fails(4, "access denied");
    let _allowed = query(&stage.joe)?.ok();
    Ok(())
}

#[test]
fn another_users_recording_cannot_be_played() -> Result<()> {
    let stage = Stage::new("play")?;
    let _echoed = run(&mut stage.tsh_ssh(&[], &["echo private"]), "", 60)?.ok();
    let sid = stage.last_session()?;
    assert_eq!(stage.played(&sid)?, b"private\n");
    let ann = stage.cluster.user("ann", "access", &stage.login)?;
    // What one may not see is not told apart from what does not exist.
    let denied = ann.run(["play", "--format=text", &sid])?;
    let unknown = ann.run(["play", "--format=text", "00000000-0000-4000-8000-000000000000"])?;
    assert_ne!(denied.code, 0);
    assert_eq!(denied.code, unknown.code);
    assert_eq!(
        shared_testkit::redact::redact(&denied.stderr),
        shared_testkit::redact::redact(&unknown.stderr)
    );
    Ok(())
}

#[test]
fn the_recording_mode_switches_live() -> Result<()> {
    let stage = Stage::with(
        "mode",
        &shared_testkit::ClusterOptions { recording: None, ..Default::default() },
        "",
    )?;
    let refused = run(&mut stage.tsh_ssh(&[], &["true"]), "", 60)?;
    assert_eq!(refused.code, 255, "{}", refused.stderr);
    assert!(refused.stderr.contains("session_recording"), "no remedy in {}", refused.stderr);
    let mode = |mode: &str| {
        stage.cluster.create(&format!(
            "kind: session_recording_config\nversion: v2\nmetadata:\n  name: session-recording-config\nspec:\n  mode: {mode}\n"
        ))
    };
    let _switched = mode("proxy")?;
    let echoed = run(&mut stage.tsh_ssh(&[], &["echo", "on"]), "", 60)?.ok();
    assert_eq!(echoed.text(), "on\n");
    let _switched = mode("off")?;
    let echoed = run(&mut stage.tsh_ssh(&[], &["echo", "off"]), "", 60)?.ok();
    assert_eq!(echoed.text(), "off\n");
    Ok(())
}

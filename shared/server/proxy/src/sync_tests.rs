//! Sessions that are streamed, between an unmodified OpenSSH client and an unmodified sshd.

use std::time::Duration;

use shared_events::AuditEvent;
use shared_recording::Decoder;
use shared_types::RecordingMode;

use crate::test_support::{World, have_ssh};

const DEADLINE: Duration = Duration::from_secs(60);

async fn run(command: &mut tokio::process::Command) -> std::process::Output {
    tokio::time::timeout(DEADLINE, command.output()).await.expect("the command hangs").unwrap()
}

async fn synced() -> World {
    let world = World::start("", true).await;
    world.cluster.change(|state| state.recording.spec.mode = RecordingMode::ProxySync);
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_session_is_told_of_before_the_dial_and_leaves_nothing_on_the_disk() {
    if !have_ssh() {
        return;
    }
    let world = synced().await;
    let output = run(world.ssh(true).args(["-tt", "stty size; echo out; sleep 2; exit 3"])).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let end = &world.cluster.wait_for("session.end", 1).await[0];
    let sid = end["sid"].as_str().unwrap().to_owned();
    let kinds: Vec<&str> =
        world.cluster.events.lock().unwrap().iter().map(AuditEvent::kind).collect();
    let place = |kind: &str| kinds.iter().position(|found| *found == kind).unwrap();
    assert!(place("session.start") < place("session.connect"), "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "session.start").count(), 1, "{kinds:?}");
    assert_eq!(end["session_recording"], "proxy-sync");
    assert!(world.cluster.renewed.lock().unwrap().iter().any(|told| told.to_string() == sid));
    let multi = world.path("data/log/upload/streaming/default/multi");
    assert_eq!(std::fs::read_dir(multi).unwrap().count(), 0);

    let whole = world.cluster.recordings.lock().unwrap().get(&sid).cloned().unwrap();
    let mut decoder = Decoder::new(whole.as_slice());
    let (mut printed, mut start) = (Vec::new(), None);
    while let Some(event) = decoder.next_event().unwrap() {
        match event {
            AuditEvent::SessionPrint(print) => printed.extend_from_slice(&print.data),
            AuditEvent::SessionStart(found) => start = Some(found),
            _ => {}
        }
    }
    assert_eq!(printed, output.stdout);
    // The recording knows what was not known when the session was told of.
    let (start, told) = (start.unwrap(), &world.cluster.seen("session.start")[0]);
    assert_eq!(start.metadata.uid, told["uid"].as_str().unwrap());
    assert!(start.initial_command[0].starts_with("stty") && !start.size.is_empty());
    assert_eq!(
        (start.record_session.as_str(), &told["record_session"]),
        ("strict", &"strict".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_never_reaches_its_target_ends_all_the_same() {
    if !have_ssh() {
        return;
    }
    let world = synced().await;
    let output = run(world.ssh(false).arg("true")).await;
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let (start, end) = (
        &world.cluster.wait_for("session.start", 1).await[0],
        &world.cluster.wait_for("session.end", 1).await[0],
    );
    assert_eq!(start["sid"], end["sid"]);
    assert!(world.cluster.seen("session.connect").is_empty());
    let why = &world.cluster.wait_for("client.disconnect", 1).await[0]["reason"];
    assert!(why.as_str().unwrap().contains("agent forwarding"), "{why}");
}

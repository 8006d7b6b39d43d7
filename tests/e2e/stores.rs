//! Recordings in object stores: a real S3-compatible server and one of Google's API, behind the built programs.

use anyhow::{Context, Result, ensure};
use shared_testkit::stores::S3_SECRET;
use shared_testkit::{ClusterOptions, ObjectServer, Scratch, Terminal, run, until};

use crate::support::Stage;

const BUCKET: &str = "audit-bucket";

fn s3(scratch: &Scratch) -> Result<Option<(ObjectServer, ClusterOptions)>> {
    let Some(server) = ObjectServer::start_s3(&scratch.folder("s3")?)? else { return Ok(None) };
    server.make_bucket(BUCKET, true)?;
    let mut options = ClusterOptions::default();
    ObjectServer::keeps_recordings(BUCKET, &server.address(), &mut options);
    Ok(Some((server, options)))
}

/// Waits until the bucket has the recording and auth's disk has not.
fn arrived(stage: &Stage, server: &ObjectServer, sid: &str) -> Result<()> {
    let waiting = stage.cluster.data_dir().join(format!("log/records/outbox/{sid}.tar"));
    let listing = format!("{BUCKET}?list-type=2&prefix=records/{sid}");
    until("the recording to arrive in the bucket", 60, || {
        let there =
            server.s3_text(&listing).ok()?.contains(&format!("<Key>records/{sid}.tar</Key>"));
        (there && !waiting.exists()).then_some(())
    })
}

fn play(stage: &Stage, sid: &str) -> Result<String> {
    Ok(stage.joe.run(["play", "--format=text", sid])?.ok().text())
}

#[test]
fn a_session_is_recorded_into_s3_and_played_from_there() -> Result<()> {
    let scratch = Scratch::new("s3")?;
    let Some((server, options)) = s3(&scratch)? else { return Ok(()) };
    let stage = Stage::with("s3c", &options, "")?;
    let _said = run(&mut stage.tsh_ssh(&[], &["echo kept-in-a-bucket"]), "", 60)?.ok();
    let sid = stage.last_session()?;
    arrived(&stage, &server, &sid)?;
    assert_eq!(play(&stage, &sid)?, "kept-in-a-bucket\n");
    let urls = stage.cluster.query("select url from session_upload")?;
    assert_eq!(urls, [[format!("s3://{BUCKET}/records/{sid}")]]);
    // Whatever somebody puts in its place, the first one is what is played.
    server.put(BUCKET, &format!("records/{sid}.tar"), "forged")?;
    assert_eq!(play(&stage, &sid)?, "kept-in-a-bucket\n");
    let log = stage.cluster.auth.log();
    ensure!(log.contains("recordings go to the store"), "{log}");
    ensure!(!log.contains(S3_SECRET), "the secret key is in the log");
    Ok(())
}

#[test]
fn sessions_go_on_without_the_store_and_arrive_once_it_is_back() -> Result<()> {
    let scratch = Scratch::new("s3away")?;
    let Some((mut server, options)) = s3(&scratch)? else { return Ok(()) };
    let mut stage = Stage::with("s3awayc", &options, "")?;
    let end = stage.scratch.path().join("end");
    let line = format!(
        "stty -echo; i=0; while [ ! -e {} ]; do i=$((i+1)); echo line-$i; sleep 0.05; done; echo over",
        end.display()
    );
    let terminal = Terminal::start(&mut stage.tsh_ssh(&["-t"], &[&line]), 80, 24)?;
    terminal.expect("line-3\r\n", 0)?;
    server.kill()?;
    let mark = terminal.mark();
    until("the session to go on", 20, || (terminal.mark() > mark + 64).then_some(()))?;
    let _path = stage.scratch.write("end", "")?;
    let (code, capture) = terminal.finish(60)?;
    ensure!(code == 0, "the session ended with {code}");
    let sid = stage.last_session()?;
    let seen = String::from_utf8_lossy(&capture).into_owned();
    // It is played from auth's disk, and again after a start without the store.
    let waiting = stage.cluster.data_dir().join(format!("log/records/outbox/{sid}.tar"));
    until("the recording on auth's disk", 20, || waiting.exists().then_some(()))?;
    assert_eq!(play(&stage, &sid)?, seen);
    stage.cluster.auth.stop(30)?;
    stage.cluster.restart_auth()?;
    until("auth to say that the store is away", 20, || {
        let log = stage.cluster.auth.log();
        let told = log.lines().find(|line| line.contains("recording store cannot be used"))?;
        told.contains("check endpoint in audit_sessions_uri").then_some(())
    })?;
    assert_eq!(play(&stage, &sid)?, seen);
    server.restart()?;
    arrived(&stage, &server, &sid)?;
    assert_eq!(play(&stage, &sid)?, seen);
    Ok(())
}

#[test]
fn a_session_is_recorded_into_gcs_and_played_from_there() -> Result<()> {
    let scratch = Scratch::new("gcs")?;
    let Some(server) = ObjectServer::start_gcs(&scratch.folder("gcs")?)? else { return Ok(()) };
    server.make_bucket(BUCKET, false)?;
    let account =
        r#"{"private_key":"","private_key_id":"","client_email":"","disable_oauth":true}"#;
    let key = scratch.write("key.json", account)?;
    let uri = format!(
        "gs://{BUCKET}/records?endpoint={}&credentialsPath={}",
        server.endpoint(),
        key.display()
    );
    let auth_extra = format!("  audit_sessions_uri: \"{uri}\"\n");
    let stage =
        Stage::with("gcsc", &ClusterOptions { auth_extra, ..ClusterOptions::default() }, "")?;
    let _said = run(&mut stage.tsh_ssh(&[], &["echo kept-at-google"]), "", 60)?.ok();
    let sid = stage.last_session()?;
    let object = scratch.path().join(format!("gcs/data/{BUCKET}/records/{sid}.tar"));
    let waiting = stage.cluster.data_dir().join(format!("log/records/outbox/{sid}.tar"));
    until("the recording to arrive in the bucket", 60, || {
        (object.exists() && !waiting.exists()).then_some(())
    })
    .with_context(|| stage.cluster.auth.log())?;
    assert_eq!(play(&stage, &sid)?, "kept-at-google\n");
    Ok(())
}

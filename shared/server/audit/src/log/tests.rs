use std::{fs, io::Write, sync::Mutex as StdMutex};

use shared_events::{Exec, UserLogin};

use super::*;

fn login(user: &str) -> AuditEvent {
    let mut event = UserLogin::default();
    event.user.user = user.into();
    event.into()
}

fn file(dir: &Path) -> PathBuf {
    Segment::list(dir).unwrap().pop().unwrap().path
}

async fn users(log: &AuditLog) -> String {
    let found =
        log.search(DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC, &[], 1000).await.unwrap();
    let name = |event: &AuditEvent| match event {
        AuditEvent::UserLogin(login) => login.user.user.clone(),
        other => panic!("{other:?}"),
    };
    let mut names: Vec<_> = found.iter().map(name).collect();
    names.sort();
    names.join(" ")
}

#[tokio::test]
async fn what_is_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("log/host");
    let log = AuditLog::open(&place, "one").await.unwrap();
    log.append(vec![login("a"), login("b")]).await.unwrap();
    assert_eq!(users(&log).await, "a b", "without closing");
    log.close().await;
    assert!(matches!(log.append(vec![login("c")]).await, Err(AuditError::Closed)));
    let log = AuditLog::open(&place, "one").await.unwrap();
    log.append(vec![login("c")]).await.unwrap();
    assert_eq!(users(&log).await, "a b c");
    let text = fs::read_to_string(dir.path().join("log/events.log")).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(text.lines().all(|line| line.starts_with(r#"{"ei":0,"event":"user.login","uid":""#)
        && line.contains(r#""cluster_name":"one""#)));
}

#[tokio::test]
async fn a_torn_end_does_not_hurt_the_next_event() {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path(), "one").await.unwrap();
    log.append(vec![login("a")]).await.unwrap();
    log.close().await;
    let mut end = fs::OpenOptions::new().append(true).open(file(dir.path())).unwrap();
    end.write_all(br#"{"ei":0,"event":"user.lo"#).unwrap();
    let log = AuditLog::open(dir.path(), "one").await.unwrap();
    assert!(log.damage().len() == 1 && log.damage()[0].unfinished);
    log.append(vec![login("b")]).await.unwrap();
    assert_eq!(users(&log).await, "a b");
}

#[tokio::test]
async fn an_event_sent_again_is_written_once_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut event = login("a");
    event.prepare(Utc::now(), "one");
    let log = AuditLog::open(dir.path(), "one").await.unwrap();
    log.append(vec![event.clone(), event.clone()]).await.unwrap();
    log.append(vec![event.clone()]).await.unwrap();
    log.close().await;
    let log = AuditLog::open(dir.path(), "one").await.unwrap();
    log.append(vec![event, login("b")]).await.unwrap();
    assert_eq!(fs::read_to_string(file(dir.path())).unwrap().lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_all_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path(), "one").await.unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let log = log.clone();
            tokio::spawn(async move { log.append(vec![login(&format!("{n:03}"))]).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let expected: Vec<_> = (0..200).map(|n| format!("{n:03}")).collect();
    assert_eq!(users(&log).await, expected.join(" "));
}

#[tokio::test]
async fn a_huge_event_is_cut_and_stays_an_event() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_line: 4096, ..LogOptions::default() };
    let log = AuditLog::open_with(dir.path(), "one", options).await.unwrap();
    let mut event = Exec::default();
    event.command.command = "x\n\u{1b}]0;".repeat(100_000);
    log.append(vec![event.into()]).await.unwrap();
    let text = fs::read_to_string(file(dir.path())).unwrap();
    assert!(text.len() <= 4097 && text.lines().count() == 1 && !text.contains('\u{1b}'));
    let found =
        log.search(DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC, &["exec"], 1).await.unwrap();
    assert!(
        matches!(&found[..], [AuditEvent::Exec(exec)] if exec.command.command.ends_with("…[cut]"))
    );
}

#[tokio::test]
async fn a_day_ends_at_midnight_utc() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(StdMutex::new("2025-03-04T23:59:59.9Z".parse::<DateTime<Utc>>().unwrap()));
    let clock = now.clone();
    let options =
        LogOptions { clock: Arc::new(move || *clock.lock().unwrap()), ..LogOptions::default() };
    let log = AuditLog::open_with(dir.path(), "one", options).await.unwrap();
    log.append(vec![login("a")]).await.unwrap();
    *now.lock().unwrap() += chrono::TimeDelta::milliseconds(200);
    log.append(vec![login("b")]).await.unwrap();
    let names: Vec<_> = Segment::list(dir.path())
        .unwrap()
        .iter()
        .map(|segment| segment.day().to_string())
        .collect();
    assert_eq!(names, ["2025-03-04", "2025-03-05"]);
}

/// Not a test by itself: the process that [`killed_at_any_moment`] kills.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os("AUDIT_CRASH_DIR") else { return };
    let log = AuditLog::open(PathBuf::from(dir), "one").await.unwrap();
    for n in 0u64.. {
        let events: Vec<_> = (0..n % 7 + 1)
            .map(|_| login("x"))
            .map(|mut event| {
                event.prepare(Utc::now(), "one");
                event
            })
            .collect();
        let uids: String =
            events.iter().map(|event| format!("ack {}\n", event.metadata().uid)).collect();
        log.append(events).await.unwrap();
        std::io::stdout().write_all(uids.as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn killed_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = std::collections::HashSet::new();
    for round in 0..8 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::tests::writes_until_it_is_killed", "--nocapture"])
            .env("AUDIT_CRASH_DIR", dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        // A different number of acknowledgements each time, then the end in the middle of the next.
        let uid = |line: String| line.rsplit_once("ack ").map(|(_, uid)| uid.to_owned());
        let mut seen = 0;
        while seen < 5 + round * 13 {
            let fresh = uid(lines.next().unwrap().unwrap());
            seen += usize::from(fresh.is_some());
            acknowledged.extend(fresh);
        }
        child.kill().unwrap();
        acknowledged
            .extend(lines.map_while(Result::ok).filter_map(uid).filter(|uid| uid.len() == 36));
        child.wait().unwrap();
        let log = AuditLog::open(dir.path(), "one").await.unwrap();
        assert!(log.damage().iter().all(|damage| damage.unfinished), "{:?}", log.damage());
        let found = log
            .search(DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC, &[], 1_000_000)
            .await
            .unwrap();
        let found: std::collections::HashSet<_> =
            found.iter().map(|event| event.metadata().uid.clone()).collect();
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "{lost:?}");
        log.close().await;
    }
}

use std::path::Path;

use super::*;
use crate::testing::{FakeAuthority, event};

const LONG: Duration = Duration::from_secs(20);

fn settings() -> EventSpoolSettings {
    EventSpoolSettings {
        direct_wait: Duration::from_secs(2),
        retry_first: Duration::from_millis(5),
        retry_max: Duration::from_millis(20),
        ..EventSpoolSettings::default()
    }
}

async fn open(
    folder: &Path,
    authority: &Arc<FakeAuthority>,
    settings: EventSpoolSettings,
) -> Arc<EventSpool> {
    let authority: Arc<dyn Authority> = Arc::<FakeAuthority>::clone(authority);
    EventSpool::open(folder.to_owned(), authority, settings, &CancellationToken::new())
        .await
        .unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn straight_to_auth_while_it_is_there() {
    let (folder, auth) = (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()));
    let spool = open(folder.path(), &auth, settings()).await;
    spool.emit(vec![event("a"), event("b")]).await.unwrap();
    assert_eq!(auth.uids(), ["a", "b"], "acknowledged means that auth has it");
    assert_eq!(files(folder.path()), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn nothing_is_lost_while_auth_is_away_and_order_is_kept() {
    let (folder, auth) = (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()));
    let spool = open(folder.path(), &auth, settings()).await;
    auth.set_away(true);
    let uids: Vec<String> = (0..1500).map(|n| format!("{n:04}")).collect();
    for some in uids.chunks(50) {
        spool.emit(some.iter().map(|uid| event(uid)).collect()).await.unwrap();
    }
    assert_eq!(spool.pending(), 1500);
    auth.set_away(false);
    assert!(spool.drain(LONG).await);
    assert_eq!(auth.uids(), uids);
    assert_eq!((spool.pending(), spool.level.bytes.load(Ordering::Relaxed)), (0, 0));
    assert_eq!(files(folder.path()), [] as [PathBuf; 0]);
    // And it goes on.
    spool.emit(vec![event("later")]).await.unwrap();
    assert_eq!(auth.uids().last().map(String::as_str), Some("later"));
}

#[tokio::test]
async fn emitted_by_many_at_once() {
    let (folder, auth) = (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()));
    let spool = open(folder.path(), &auth, settings()).await;
    auth.set_away(true);
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let spool = Arc::clone(&spool);
            tokio::spawn(async move { spool.emit(vec![event(&format!("{n:03}"))]).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    auth.set_away(false);
    assert!(spool.drain(LONG).await);
    let mut got = auth.uids();
    got.sort();
    assert_eq!(got, (0..100).map(|n| format!("{n:03}")).collect::<Vec<_>>());
}

/// What a kill leaves behind, cut at every byte: a prefix arrives, and all of it when nothing is cut.
#[tokio::test]
async fn a_crash_at_any_byte_leaves_a_prefix() {
    let (folder, auth) = (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()));
    auth.set_away(true);
    let spool = open(folder.path(), &auth, settings()).await;
    let uids = ["first", "second", "third"];
    for uid in uids {
        spool.emit(vec![event(uid)]).await.unwrap();
    }
    drop(spool);
    let segments = files(folder.path());
    let bytes: Vec<u8> = segments.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    for end in 0..=bytes.len() {
        let (folder, auth) = (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()));
        std::fs::write(folder.path().join("00000000000000000007.events"), &bytes[..end]).unwrap();
        let spool = open(folder.path(), &auth, settings()).await;
        assert!(spool.drain(LONG).await, "{end}");
        let got = auth.uids();
        assert_eq!(got, uids[..got.len()], "{end}");
        assert_eq!(got.len() == 3, end == bytes.len(), "{end}");
        // What comes after it is not hidden behind the torn end.
        auth.set_away(true);
        spool.emit(vec![event("after")]).await.unwrap();
        auth.set_away(false);
        assert!(spool.drain(LONG).await, "{end}");
        assert_eq!(auth.uids().last().map(String::as_str), Some("after"), "{end}");
    }
}

#[tokio::test]
async fn one_event_that_auth_refuses_does_not_hold_up_the_others() {
    let (folder, auth) = (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()));
    auth.poison.lock().unwrap().push("bad".to_owned());
    auth.set_away(true);
    let spool = open(folder.path(), &auth, settings()).await;
    spool.emit(vec![event("a"), event("bad"), event("b")]).await.unwrap();
    auth.set_away(false);
    assert!(spool.drain(LONG).await);
    assert_eq!(auth.uids(), ["a", "b"]);
    let kept = std::fs::read_to_string(folder.path().join("refused.jsonl")).unwrap();
    assert!(kept.contains(r#""uid":"bad""#) && kept.lines().count() == 1, "{kept}");
    // Straight to auth, the caller hears of it.
    assert!(matches!(spool.emit(vec![event("bad")]).await, Err(EmitError::Refused(_))));
}

#[tokio::test]
async fn a_full_spool_says_so() {
    let (folder, auth) = (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()));
    auth.set_away(true);
    let spool =
        open(folder.path(), &auth, EventSpoolSettings { max_bytes: 1000, ..settings() }).await;
    let mut accepted = Vec::new();
    let err = loop {
        let uid = accepted.len().to_string();
        match spool.emit(vec![event(&uid)]).await {
            Ok(()) => accepted.push(uid),
            Err(err) => break err,
        }
    };
    assert!(matches!(err, EmitError::Full { limit: 1000 }), "{err}");
    assert!(!accepted.is_empty());
    auth.set_away(false);
    assert!(spool.drain(LONG).await);
    assert_eq!(auth.uids(), accepted, "what was accepted arrives, and nothing else");
    spool.emit(vec![event("room again")]).await.unwrap();
}

/// An answer that is lost makes an event go twice; nothing makes it go under two ids.
#[tokio::test]
async fn a_lost_answer_repeats_the_same_ids_and_keeps_the_order() {
    let (folder, auth) = (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()));
    auth.set_away(true);
    let spool = open(folder.path(), &auth, settings()).await;
    let mut named = event("");
    named.metadata_mut().uid.clear();
    spool.emit(vec![named, event("b")]).await.unwrap();
    drop(spool);
    // The process dies after auth took them and before the segment is gone: the file is still there.
    let segment = files(folder.path()).remove(0);
    let bytes = std::fs::read(&segment).unwrap();
    auth.set_away(false);
    for _ in 0..2 {
        std::fs::write(&segment, &bytes).unwrap();
        let spool = open(folder.path(), &auth, settings()).await;
        assert!(spool.drain(LONG).await);
    }
    let sent = auth.all_uids();
    assert_eq!(sent.len(), 4, "both were sent twice");
    assert_eq!(sent[..2], sent[2..]);
    assert!(!sent[0].is_empty() && sent[1] == "b");
}

/// Disk budget and count are those of what really waits, also over a restart.
#[tokio::test]
async fn the_budget_counts_what_an_earlier_run_left() {
    let (folder, auth) = (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()));
    auth.set_away(true);
    let spool = open(folder.path(), &auth, settings()).await;
    for uid in ["a", "b"] {
        spool.emit(vec![event(uid)]).await.unwrap();
    }
    let used = spool.level.bytes.load(Ordering::Relaxed);
    assert!(used > 0);
    drop(spool);
    let full = EventSpoolSettings { max_bytes: used, ..settings() };
    let spool = open(folder.path(), &auth, full).await;
    assert_eq!((spool.pending(), spool.level.bytes.load(Ordering::Relaxed)), (2, used));
    assert!(matches!(spool.emit(vec![event("c")]).await, Err(EmitError::Full { .. })));
    auth.set_away(false);
    assert!(spool.drain(LONG).await);
    assert_eq!((spool.pending(), spool.level.bytes.load(Ordering::Relaxed)), (0, 0));
    spool.emit(vec![event("c")]).await.unwrap();
    assert_eq!(auth.uids(), ["a", "b", "c"]);
}

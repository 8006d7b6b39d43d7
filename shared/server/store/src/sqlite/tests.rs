use super::*;
use crate::conformance::{self, Hand};

fn key(name: &str) -> Key {
    Key::new(["k", name]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_conformance_suite() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::default();
    let backend = SqliteBackend::open_with_clock(dir.path().join("state.sqlite"), hand.clock())
        .await
        .unwrap();
    conformance::suite(Arc::new(backend), hand).await;
}

#[tokio::test]
async fn a_sweep_tells_the_watchers() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::default();
    let backend = SqliteBackend::open_with_clock(dir.path().join("s"), hand.clock()).await.unwrap();
    backend
        .put(&key("x"), Bytes::new(), Some(hand.now() + chrono::TimeDelta::seconds(1)))
        .await
        .unwrap();
    let mut watch = backend.watch(&Key::root());
    assert_eq!(backend.remove_expired().await.unwrap(), 0);
    hand.advance(1);
    assert_eq!(backend.remove_expired().await.unwrap(), 1);
    assert!(matches!(watch.next().await.unwrap(), Change::Deleted { expired: true, .. }));
}

#[tokio::test]
async fn a_second_opening_is_refused_until_the_first_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/state.sqlite");
    let first = SqliteBackend::open(&path).await.unwrap();
    let Err(refused) = SqliteBackend::open(&path).await else { panic!("opened twice") };
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    first.close().await;
    assert!(matches!(first.put(&key("x"), Bytes::new(), None).await, Err(BackendError::Closed)));
    SqliteBackend::open(&path).await.unwrap();
}

#[tokio::test]
async fn files_are_private_and_revisions_go_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/state.sqlite");
    let backend = SqliteBackend::open(&path).await.unwrap();
    let made = backend.put(&key("x"), Bytes::from_static(b"1"), None).await.unwrap();
    #[cfg(unix)]
    for entry in std::fs::read_dir(dir.path().join("data")).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
    backend.close().await;
    drop(backend);
    let backend = SqliteBackend::open(&path).await.unwrap();
    assert_eq!(backend.get(&key("x")).await.unwrap().unwrap().revision, made);
    assert!(backend.put(&key("y"), Bytes::new(), None).await.unwrap() > made);
}

#[tokio::test]
async fn a_store_of_a_later_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let backend = SqliteBackend::open(&path).await.unwrap();
    backend.close().await;
    drop(backend);
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path)).await.unwrap();
    sqlx::query("PRAGMA user_version = 7").execute(&pool).await.unwrap();
    pool.close().await;
    let Err(error) = SqliteBackend::open(&path).await else { panic!("opened") };
    assert!(error.to_string().contains("later version"), "{error}");
}

#[tokio::test]
async fn what_a_caller_abandons_is_whole_or_absent() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Arc::new(SqliteBackend::open(dir.path().join("s")).await.unwrap());
    for n in 0..50 {
        let writer = backend.clone();
        let task = tokio::spawn(async move {
            let put = |name: &str| Op::Put {
                key: key(name),
                value: Bytes::from(n.to_string()),
                expires: None,
                condition: crate::Condition::Any,
            };
            writer.transact(vec![put("left"), put("right")]).await
        });
        tokio::task::yield_now().await;
        task.abort();
    }
    backend.put(&key("end"), Bytes::new(), None).await.unwrap();
    let left = backend.get(&key("left")).await.unwrap().map(|item| (item.value, item.revision));
    let right = backend.get(&key("right")).await.unwrap().map(|item| (item.value, item.revision));
    assert_eq!(left, right);
}

/// Not a test by itself: the process that [`killed_at_any_moment`] kills.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Some(path) = std::env::var_os("STORE_CRASH_FILE") else { return };
    let backend = SqliteBackend::open(path).await.unwrap();
    let start = backend.get(&key("n")).await.unwrap().map_or(0, |item| number(&item.value));
    for n in start + 1.. {
        let put = |name: &str| Op::Put {
            key: key(name),
            value: Bytes::from(n.to_string()),
            expires: None,
            condition: crate::Condition::Any,
        };
        backend.transact(vec![put("n"), put("same")]).await.unwrap();
        println!("ack {n}");
    }
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

#[tokio::test]
async fn killed_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    for round in 0..6 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sqlite::tests::writes_until_it_is_killed", "--nocapture"])
            .env("STORE_CRASH_FILE", &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        let mut last = 0;
        let mut seen = 0;
        for line in lines.map_while(Result::ok) {
            let Some((_, n)) = line.rsplit_once("ack ") else { continue };
            last = n.parse().unwrap_or(last);
            seen += 1;
            if seen == 3 + round * 11 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let backend = SqliteBackend::open(&path).await.unwrap();
        let found = number(&backend.get(&key("n")).await.unwrap().unwrap().value);
        let same = number(&backend.get(&key("same")).await.unwrap().unwrap().value);
        assert!(found >= last && found == same, "{found} {same} {last}");
        backend.close().await;
    }
}

//! What every backend must do, stated against the trait. A backend passes by running [`suite`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    Backend, BackendError, Change, Clock, Condition, Key, Lease, LeaseError, Op, Revision,
};

/// A clock that stands still until it is moved.
#[derive(Clone, Default)]
pub(crate) struct Hand(Arc<AtomicI64>);

impl Hand {
    pub(crate) fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + self.0.load(Ordering::SeqCst), 0).unwrap()
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    pub(crate) fn clock(&self) -> Clock {
        let hand = self.clone();
        Arc::new(move || hand.now())
    }
}

fn key(text: &str) -> Key {
    Key::new(text.split('/')).unwrap()
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn text(backend: &dyn Backend, at: &str) -> Option<String> {
    backend.get(&key(at)).await.unwrap().map(|item| String::from_utf8(item.value.to_vec()).unwrap())
}

/// Everything, on an empty backend whose time is `hand`.
pub(crate) async fn suite(backend: Arc<dyn Backend>, hand: Hand) {
    put_create_update_delete(&*backend).await;
    compare_and_swap(&*backend).await;
    one_winner(backend.clone()).await;
    transactions(&*backend).await;
    ranges(&*backend).await;
    watches(&*backend).await;
    expiry(&*backend, &hand).await;
    leases(backend.clone(), &hand).await;
}

async fn put_create_update_delete(b: &dyn Backend) {
    assert_eq!(b.get(&key("a/x")).await.unwrap(), None);
    let first = b.create(&key("a/x"), value("1"), None).await.unwrap();
    assert!(
        matches!(b.create(&key("a/x"), value("2"), None).await, Err(BackendError::AlreadyExists { key: k }) if k == key("a/x"))
    );
    assert_eq!(text(b, "a/x").await.as_deref(), Some("1"));
    let second = b.put(&key("a/x"), value("3"), None).await.unwrap();
    assert!(second > first);
    assert_eq!(b.revision().await.unwrap(), second);
    assert_eq!(b.get(&key("a/x")).await.unwrap().unwrap().revision, second);
    b.update(&key("a/x"), value("4"), None).await.unwrap();
    assert!(matches!(
        b.update(&key("a/y"), value("4"), None).await,
        Err(BackendError::NotFound { .. })
    ));
    b.delete(&key("a/x")).await.unwrap();
    assert!(matches!(b.delete(&key("a/x")).await, Err(BackendError::NotFound { .. })));
    assert_eq!(text(b, "a/x").await, None);
    // Names are bytes, not patterns, and case matters.
    b.put(&key("a/%_'\"; DROP TABLE items--"), value("odd"), None).await.unwrap();
    assert_eq!(text(b, "a/%_'\"; DROP TABLE items--").await.as_deref(), Some("odd"));
    assert_eq!(text(b, "A/%_'\"; DROP TABLE items--").await, None);
    let all_bytes = Bytes::from((0..=255u8).collect::<Vec<_>>());
    b.put(&key("a/bytes"), all_bytes.clone(), None).await.unwrap();
    assert_eq!(b.get(&key("a/bytes")).await.unwrap().unwrap().value, all_bytes);
}

async fn compare_and_swap(b: &dyn Backend) {
    let first = b.create(&key("cas/x"), value("1"), None).await.unwrap();
    let second = b.compare_and_swap(&key("cas/x"), first, value("2"), None).await.unwrap();
    assert!(matches!(
        b.compare_and_swap(&key("cas/x"), first, value("3"), None).await,
        Err(BackendError::Conflict { .. })
    ));
    assert!(matches!(
        b.compare_and_delete(&key("cas/x"), first).await,
        Err(BackendError::Conflict { .. })
    ));
    assert!(matches!(
        b.compare_and_swap(&key("cas/y"), first, value("3"), None).await,
        Err(BackendError::NotFound { .. })
    ));
    assert_eq!(text(b, "cas/x").await.as_deref(), Some("2"));
    b.compare_and_delete(&key("cas/x"), second).await.unwrap();
    // A made again item has a new revision: the old one does not fit.
    b.create(&key("cas/x"), value("4"), None).await.unwrap();
    assert!(matches!(
        b.compare_and_swap(&key("cas/x"), second, value("5"), None).await,
        Err(BackendError::Conflict { .. })
    ));
}

async fn one_winner(b: Arc<dyn Backend>) {
    let start = b.create(&key("race/n"), value("0"), None).await.unwrap();
    let tasks = (0..32).map(|n| {
        let b = b.clone();
        tokio::spawn(async move {
            b.compare_and_swap(&key("race/n"), start, value(&n.to_string()), None).await.is_ok()
        })
    });
    let mut won = 0;
    for task in tasks.collect::<Vec<_>>() {
        won += usize::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
}

async fn transactions(b: &dyn Backend) {
    let put =
        |at: &str, condition| Op::Put { key: key(at), value: value("t"), expires: None, condition };
    let before = b.revision().await.unwrap();
    let refused = b
        .transact(vec![
            put("t/a", Condition::Any),
            put("t/b", Condition::Any),
            Op::Check { key: key("t/c"), condition: Condition::Present },
        ])
        .await;
    assert!(matches!(refused, Err(BackendError::NotFound { key: k }) if k == key("t/c")));
    assert_eq!((text(b, "t/a").await, b.revision().await.unwrap()), (None, before));
    let made = b
        .transact(vec![put("t/a", Condition::Absent), put("t/b", Condition::Absent)])
        .await
        .unwrap();
    assert_eq!(b.get(&key("t/a")).await.unwrap().unwrap().revision, made);
    assert_eq!(b.get(&key("t/b")).await.unwrap().unwrap().revision, made);
    let twice = b.transact(vec![put("t/d", Condition::Any), put("t/d", Condition::Any)]).await;
    assert!(matches!(twice, Err(BackendError::Repeated { .. })));
    // Nothing to do is no change.
    let idle = b
        .transact(vec![Op::Delete { key: key("t/none"), condition: Condition::Any }])
        .await
        .unwrap();
    assert_eq!(idle, b.revision().await.unwrap());
}

async fn ranges(b: &dyn Backend) {
    for name in ["r/a", "r/b/1", "r/b/2", "r/c", "r2/x", "r-/x", "r/ü"] {
        b.put(&key(name), value(name), None).await.unwrap();
    }
    let names =
        |items: Vec<crate::Item>| items.into_iter().map(|i| i.key.to_string()).collect::<Vec<_>>();
    assert_eq!(
        names(b.all(&key("r")).await.unwrap()),
        ["/r/a", "/r/b/1", "/r/b/2", "/r/c", "/r/ü"]
    );
    assert_eq!(names(b.all(&key("r/b")).await.unwrap()), ["/r/b/1", "/r/b/2"]);
    assert!(b.all(&Key::root()).await.unwrap().len() > 7);
    let mut seen = Vec::new();
    let mut from = None;
    loop {
        let page = b.range(&key("r"), from.as_ref(), 2).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(names(page.items));
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ["/r/a", "/r/b/1", "/r/b/2", "/r/c", "/r/ü"]);
    let outside = b.range(&key("r"), Some(&key("a")), 10).await.unwrap();
    assert_eq!(outside.items.len(), 5, "a start outside the folder does not leave it");
}

async fn watches(b: &dyn Backend) {
    let mut watch = b.watch(&key("w"));
    b.put(&key("other/x"), value("0"), None).await.unwrap();
    let put = b.put(&key("w/x"), value("1"), None).await.unwrap();
    let gone = b.delete(&key("w/x")).await.unwrap();
    assert!(matches!(
        b.create(&key("a/bytes"), value("1"), None).await,
        Err(BackendError::AlreadyExists { .. })
    ));
    let deadline = Duration::from_secs(10);
    let first = tokio::time::timeout(deadline, watch.next()).await.unwrap().unwrap();
    assert!(
        matches!(first, Change::Put(item) if item.key == key("w/x") && item.revision == put && item.value == "1")
    );
    let second = tokio::time::timeout(deadline, watch.next()).await.unwrap().unwrap();
    assert_eq!(second, Change::Deleted { key: key("w/x"), revision: gone, expired: false });
}

async fn expiry(b: &dyn Backend, hand: &Hand) {
    let soon = hand.now() + TimeDelta::seconds(10);
    let made = b.put(&key("e/x"), value("1"), Some(soon)).await.unwrap();
    assert_eq!(b.get(&key("e/x")).await.unwrap().unwrap().expires, Some(soon));
    hand.advance(10);
    assert_eq!(text(b, "e/x").await, None);
    assert!(b.all(&key("e")).await.unwrap().is_empty());
    assert!(matches!(
        b.compare_and_swap(&key("e/x"), made, value("2"), None).await,
        Err(BackendError::NotFound { .. })
    ));
    b.create(&key("e/x"), value("3"), None).await.unwrap();
    assert_eq!(text(b, "e/x").await.as_deref(), Some("3"));
}

async fn leases(b: Arc<dyn Backend>, hand: &Hand) {
    let ttl = Duration::from_secs(30);
    let acquire = |who: &str| Lease::acquire(b.clone(), hand.clock(), key("l/x"), value(who), ttl);
    let mut first = acquire("one").await.unwrap();
    assert!(matches!(acquire("two").await, Err(LeaseError::Held { .. })));
    hand.advance(20);
    first.renew().await.unwrap();
    hand.advance(20);
    assert!(matches!(acquire("two").await, Err(LeaseError::Held { .. })));
    hand.advance(20);
    let second = acquire("two").await.unwrap();
    assert!(matches!(first.renew().await, Err(LeaseError::Lost { .. })));
    assert!(matches!(first.release().await, Err(LeaseError::Lost { .. })));
    second.release().await.unwrap();
    acquire("three").await.unwrap().release().await.unwrap();
    assert_ne!(b.revision().await.unwrap(), Revision::default());
}

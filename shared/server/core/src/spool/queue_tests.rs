use super::*;
use crate::testing::{FakeAuthority, event};

fn numbered(from: usize, to: usize) -> Vec<AuditEvent> {
    (from..to).map(|n| event(&n.to_string())).collect()
}

fn uids(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn all_arrive_in_order_and_few_requests_carry_them() {
    let auth = Arc::new(FakeAuthority::new());
    let queue = EventQueue::start(Arc::<FakeAuthority>::clone(&auth));
    for n in 0..2000 {
        let mut one = numbered(n, n + 1);
        queue.put(&mut one).await.unwrap();
        assert!(one.is_empty());
    }
    queue.flushed().await;
    assert_eq!(auth.all_uids(), uids(0, 2000));
}

#[tokio::test]
async fn a_full_queue_is_waited_for_and_nothing_is_lost_while_nobody_takes_events() {
    let auth = Arc::new(FakeAuthority::new());
    auth.set_away(true);
    let queue = EventQueue::start(Arc::<FakeAuthority>::clone(&auth));
    queue.put(&mut numbered(0, 10)).await.unwrap();
    tokio::time::sleep(FLUSH * 2).await;
    queue.put(&mut numbered(10, 10 + MOST)).await.unwrap();
    let mut last = numbered(10 + MOST, 11 + MOST);
    let refused = tokio::time::timeout(Duration::from_millis(300), queue.put(&mut last)).await;
    assert!(refused.is_err() && last.len() == 1, "it takes more than it may");
    auth.set_away(false);
    queue.put(&mut last).await.unwrap();
    queue.flushed().await;
    assert_eq!(auth.uids(), uids(0, 11 + MOST));
}

#[tokio::test]
async fn a_refused_event_takes_no_other_with_it() {
    let auth = Arc::new(FakeAuthority::new());
    auth.poison.lock().unwrap().push("3".to_owned());
    let queue = EventQueue::start(Arc::<FakeAuthority>::clone(&auth));
    queue.put(&mut numbered(0, 6)).await.unwrap();
    queue.flushed().await;
    assert_eq!(auth.uids(), ["0", "1", "2", "4", "5"]);
}

#[tokio::test]
async fn what_waits_at_the_end_is_still_sent() {
    let auth = Arc::new(FakeAuthority::new());
    let queue = EventQueue::start(Arc::<FakeAuthority>::clone(&auth));
    queue.put(&mut numbered(0, 3)).await.unwrap();
    drop(queue);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while auth.uids() != uids(0, 3) {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

//! A made-up protocol of lines: `ask` is a statement, `bad` is malformed, `deny` is answered here, `stop` ends.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use shared_events::DatabaseSessionQuery;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{Notify, Semaphore};

use super::*;
use crate::session::EndKind;

/// A session that remembers what it was told, and takes so many events as it has room for.
struct Host {
    traffic: AtomicU64,
    told: Mutex<Vec<String>>,
    room: Semaphore,
    end: Notify,
}

impl Host {
    fn new() -> Self {
        Self {
            traffic: AtomicU64::new(0),
            told: Mutex::default(),
            room: Semaphore::new(1000),
            end: Notify::new(),
        }
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

impl Watched for Host {
    fn moved(&self, bytes: usize) {
        self.traffic.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn traffic(&self) -> u64 {
        self.traffic.load(Ordering::Relaxed)
    }

    async fn happened(&self, events: &mut Vec<AuditEvent>) -> Result<(), AuditError> {
        for event in events.drain(..) {
            self.room.acquire().await.unwrap().forget();
            let AuditEvent::DatabaseSessionQuery(query) = event else { panic!("{event:?}") };
            self.told.lock().unwrap().push(query.query);
        }
        Ok(())
    }

    async fn malformed(&self, payload: &[u8]) -> Result<(), AuditError> {
        self.told.lock().unwrap().push(format!("malformed {}", String::from_utf8_lossy(payload)));
        Ok(())
    }

    async fn ended(&self) -> EndReason {
        self.end.notified().await;
        EndReason { kind: EndKind::Revoked, text: "locked".to_owned() }
    }
}

/// Looks at lines, however they are cut.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Tap for Lines {
    fn see(&mut self, chunk: &[u8], events: &mut Vec<AuditEvent>) -> Result<Step, Malformed> {
        let before = self.0.len();
        for (at, byte) in chunk.iter().enumerate() {
            if *byte != b'\n' {
                self.0.push(*byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.0)).unwrap();
            let begin = (at + 1).saturating_sub(line.len() + 1);
            match line.as_str() {
                "bad" => {
                    return Err(Malformed { what: "line".into(), payload: line.into_bytes() });
                }
                "deny" if before == 0 || begin > 0 => {
                    let reply = b"denied\n".to_vec();
                    return Ok(Step::Instead { pass: begin, skip: at + 1 - begin, reply });
                }
                "stop" => return Ok(Step::End { pass: begin, why: "stopped".into() }),
                _ if line.starts_with("ask") => {
                    let query = DatabaseSessionQuery { query: line, ..Default::default() };
                    events.push(query.into());
                }
                _ => {}
            }
        }
        Ok(Step::Pass)
    }

    fn is_settled(&self) -> bool {
        self.0.is_empty()
    }
}

struct Stage {
    host: std::sync::Arc<Host>,
    client: DuplexStream,
    database: DuplexStream,
    relayed: tokio::task::JoinHandle<Relayed>,
}

fn stage(buffer: usize) -> Stage {
    let host = std::sync::Arc::new(Host::new());
    let (client, mut inner_client) = duplex(buffer);
    let (database, mut inner_database) = duplex(buffer);
    let of_task = std::sync::Arc::clone(&host);
    let relayed = tokio::spawn(async move {
        let (mut up, mut down) = (Lines::default(), Lines::default());
        relay(&*of_task, &mut inner_client, &mut inner_database, &mut up, &mut down).await
    });
    Stage { host, client, database, relayed }
}

async fn read(stream: &mut DuplexStream, expected: &str) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), expected);
}

#[tokio::test]
async fn bytes_pass_as_they_came_and_statements_are_told_first() {
    let mut stage = stage(64 * 1024);
    stage.host.room.forget_permits(1000);
    stage.client.write_all(b"hello\nas").await.unwrap();
    read(&mut stage.database, "hello\nas").await;
    stage.client.write_all(b"k 1\n").await.unwrap();
    let mut early = [0; 4];
    let soon = tokio::time::timeout(Duration::from_millis(50), stage.database.read(&mut early));
    assert!(soon.await.is_err(), "the database reads a statement nobody was told of");
    stage.host.room.add_permits(10);
    read(&mut stage.database, "k 1\n").await;
    assert_eq!(stage.host.told(), ["ask 1"]);
    stage.database.write_all(b"answer\n").await.unwrap();
    read(&mut stage.client, "answer\n").await;
    drop(stage.database);
    let relayed = stage.relayed.await.unwrap();
    assert!(matches!(relayed.cause, Cause::Closed(Side::Database)) && relayed.settled);
}

#[tokio::test]
async fn large_amounts_pass_whole_and_a_slow_reader_stops_the_other_side() {
    let mut stage = stage(16 * 1024);
    let (mut database, mut client) = (stage.database, stage.client);
    let sending = tokio::spawn(async move {
        for n in 0..20_000_u32 {
            let row = format!("row {n} {}\n", "x".repeat(100));
            client.write_all(row.as_bytes()).await.unwrap();
        }
        client
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Three buffers of 16 KiB, and one of the relay's.
    assert!(stage.host.traffic() < 200_000, "{} bytes were read ahead", stage.host.traffic());
    let mut count = 0;
    let mut all = Vec::new();
    let mut some = [0; 8192];
    while count < 20_000 {
        let read = database.read(&mut some).await.unwrap();
        count += some[..read].iter().filter(|byte| **byte == b'\n').count();
        all.extend_from_slice(&some[..read]);
    }
    let expected: String = (0..20_000).map(|n| format!("row {n} {}\n", "x".repeat(100))).collect();
    assert!(all == expected.as_bytes());
    stage.client = sending.await.unwrap();
    drop((stage.client, database));
    assert!(matches!(stage.relayed.await.unwrap().cause, Cause::Closed(_)));
}

#[tokio::test]
async fn what_is_not_passed_on_is_answered_between_messages() {
    let mut stage = stage(64 * 1024);
    stage.database.write_all(b"half an ").await.unwrap();
    read(&mut stage.client, "half an ").await;
    stage.client.write_all(b"ask 1\ndeny\nask 2\n").await.unwrap();
    read(&mut stage.database, "ask 1\nask 2\n").await;
    assert_eq!(stage.host.told(), ["ask 1", "ask 2"]);
    stage.database.write_all(b"answer\n").await.unwrap();
    read(&mut stage.client, "answer\ndenied\n").await;
}

#[tokio::test]
async fn malformed_bytes_go_nowhere_and_are_told() {
    let mut stage = stage(64 * 1024);
    stage.client.write_all(b"bad\n").await.unwrap();
    let relayed = stage.relayed.await.unwrap();
    assert!(matches!(relayed.cause, Cause::Malformed(Side::Client, _)) && relayed.settled);
    assert_eq!(stage.host.told(), ["malformed bad"]);
    let mut rest = Vec::new();
    stage.database.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    let mut other = self::stage(64 * 1024);
    other.client.write_all(b"hello\nstop\n").await.unwrap();
    read(&mut other.database, "hello\n").await;
    assert!(matches!(other.relayed.await.unwrap().cause, Cause::Tap(why) if why == "stopped"));
}

#[tokio::test]
async fn an_end_between_messages_may_be_told_and_one_within_may_not() {
    for (said, settled) in [("answer\n", true), ("half an answer", false)] {
        let mut stage = stage(64 * 1024);
        stage.database.write_all(said.as_bytes()).await.unwrap();
        read(&mut stage.client, said).await;
        stage.host.end.notify_one();
        let relayed = stage.relayed.await.unwrap();
        assert!(matches!(&relayed.cause, Cause::Ended(reason) if reason.text == "locked"));
        assert_eq!(relayed.settled, settled);
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_not_waited_for_long() {
    let mut stage = stage(64 * 1024);
    stage.client.write_all(b"ask 1\n").await.unwrap();
    read(&mut stage.database, "ask 1\n").await;
    stage.client.shutdown().await.unwrap();
    let mut end = Vec::new();
    stage.database.read_to_end(&mut end).await.unwrap();
    // What still comes is passed on.
    tokio::time::sleep(LAST_ANSWERS / 2).await;
    stage.database.write_all(b"answer\n").await.unwrap();
    read(&mut stage.client, "answer\n").await;
    let began = Instant::now();
    let relayed = stage.relayed.await.unwrap();
    assert!(matches!(relayed.cause, Cause::Closed(Side::Client)));
    assert!(began.elapsed() < LAST_ANSWERS * 3, "{:?}", began.elapsed());
}

#[test]
fn buffers_grow_under_load_and_shrink_again() {
    let mut buffer = Buffer::new();
    buffer.adapt(SMALL - 1);
    assert_eq!(buffer.room().len(), SMALL);
    buffer.adapt(SMALL);
    assert_eq!(buffer.room().len(), LARGE);
    (0..QUIET - 1).for_each(|_| buffer.adapt(10));
    assert_eq!(buffer.room().len(), LARGE);
    buffer.adapt(10);
    assert_eq!(buffer.room().len(), SMALL);
}

//! Moves one direction of a channel without letting its reader stall the channels beside it (design §7, Flow).
//!
//! russh fills a bounded queue per channel from one loop per connection, so a queue that nobody empties stops the
//! connection: other channels, new channels, and the window updates for this very channel's other direction. A pump
//! therefore keeps reading where others depend on it, into a queue counted in bytes. Past [`SMALL_BUFFER`]
//! * a channel with siblings goes on up to [`CHANNEL_CAP`] and is then closed alone;
//! * one that is alone waits for its reader (TCP holds the sender), unless its other direction waits for a window
//!   update that may stand behind the data, or its reader does not move at all; then it goes on up to the cap, and
//!   beyond it slowly, up to a few times the cap, only for the sake of that update.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use russh::{ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::{Notify, mpsc};

/// What a channel holds without a second thought.
pub const SMALL_BUFFER: usize = 1024 * 1024;
/// What a channel holds for the sake of its siblings.
pub const CHANNEL_CAP: usize = 64 * 1024 * 1024;
/// A reader that took nothing for so long is stuck rather than slow.
const STUCK: Duration = Duration::from_millis(200);

/// How often one more message is read at the cap, for the window update behind it.
const PROBE: Duration = Duration::from_millis(20);
/// So many times the cap is the end of that.
const PROBE_FACTOR: usize = 4;
/// What a queued message costs beside its bytes, so that tiny messages count.
const MESSAGE_COST: usize = 128;

/// How a pump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PumpEnd {
    /// The sender closed the channel, or its connection is gone. What it sent before was delivered.
    Closed,
    /// The receiver's side is gone.
    Broken,
    /// The reader does not read, and the cap is reached.
    Overflow,
}

enum Item {
    Data(Bytes),
    Eof,
}

/// Limits of a pump; smaller in tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) small: usize,
    pub(crate) cap: usize,
    pub(crate) stuck: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { small: SMALL_BUFFER, cap: CHANNEL_CAP, stuck: STUCK }
    }
}

/// Says that one direction of a channel waits for the other side to read.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    now: AtomicBool,
    begun: Notify,
}

impl Waiting {
    /// Marks the time that `what` takes.
    pub(crate) async fn during<T>(&self, what: impl Future<Output = T>) -> T {
        self.now.store(true, Ordering::Relaxed);
        self.begun.notify_one();
        let done = what.await;
        self.now.store(false, Ordering::Relaxed);
        done
    }

    fn is_now(&self) -> bool {
        self.now.load(Ordering::Relaxed)
    }
}

/// Bytes of one channel that were delivered.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    pub(crate) to_target: AtomicU64,
    pub(crate) to_client: AtomicU64,
}

impl Moved {
    /// In both directions.
    pub(crate) fn total(&self) -> u64 {
        self.to_target.load(Ordering::Relaxed).wrapping_add(self.to_client.load(Ordering::Relaxed))
    }
}

/// What a pump shares with others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow<'a> {
    /// Counts the channels on the source's connection, this one included.
    pub(crate) siblings: &'a AtomicUsize,
    /// Counts the bytes delivered.
    pub(crate) moved: &'a AtomicU64,
    /// This direction's wait.
    pub(crate) mine: &'a Waiting,
    /// The other direction's wait.
    pub(crate) opposite: &'a Waiting,
}

/// Where a pump writes to.
pub(crate) trait Sink: Sync {
    fn data(&self, data: Bytes) -> impl Future<Output = bool> + Send;
    fn eof(&self) -> impl Future<Output = bool> + Send;
}

impl<S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static> Sink for ChannelWriteHalf<S> {
    async fn data(&self, data: Bytes) -> bool {
        self.data_bytes(data).await.is_ok()
    }

    async fn eof(&self) -> bool {
        ChannelWriteHalf::eof(self).await.is_ok()
    }
}

/// Where a pump reads from.
pub(crate) trait Source: Send {
    fn next(&mut self) -> impl Future<Output = Option<ChannelMsg>> + Send;
}

impl Source for ChannelReadHalf {
    async fn next(&mut self) -> Option<ChannelMsg> {
        self.wait().await
    }
}

/// Sees the messages that are neither data nor the end.
pub(crate) trait Other: Send {
    fn message(&mut self, message: ChannelMsg) -> impl Future<Output = ()> + Send;
}

/// Drops them.
pub(crate) struct Ignore;

impl Other for Ignore {
    async fn message(&mut self, _message: ChannelMsg) {}
}

/// Moves data and end-of-file from `source` to `sink`; `other` sees every other message.
pub(crate) async fn pump(
    source: &mut impl Source,
    sink: &impl Sink,
    flow: Flow<'_>,
    limits: Limits,
    mut other: impl Other,
) -> PumpEnd {
    let queue = Queue { held: AtomicUsize::new(0), taken: Notify::new(), flow, limits };
    let (items, mut queued) = mpsc::unbounded_channel();

    let reading = async {
        let items = items;
        let mut stuck_at = None;
        loop {
            match source.next().await {
                Some(ChannelMsg::Data { data }) => {
                    queue.held.fetch_add(data.len() + MESSAGE_COST, Ordering::Relaxed);
                    if items.send(Item::Data(data)).is_err() {
                        return PumpEnd::Broken;
                    }
                    if !queue.room(&mut stuck_at).await {
                        return PumpEnd::Overflow;
                    }
                }
                Some(ChannelMsg::Eof) => {
                    if items.send(Item::Eof).is_err() {
                        return PumpEnd::Broken;
                    }
                }
                Some(ChannelMsg::Close) | None => return PumpEnd::Closed,
                Some(message) => other.message(message).await,
            }
        }
    };
    let writing = async {
        while let Some(item) = queued.recv().await {
            let done = match item {
                Item::Data(data) => {
                    let len = data.len();
                    let done = flow.mine.during(sink.data(data)).await;
                    queue.held.fetch_sub(len + MESSAGE_COST, Ordering::Relaxed);
                    flow.moved.fetch_add(len as u64, Ordering::Relaxed);
                    queue.taken.notify_one();
                    done
                }
                Item::Eof => sink.eof().await,
            };
            if !done {
                return false;
            }
        }
        true
    };
    tokio::pin!(reading, writing);
    tokio::select! {
        end = &mut reading => match end {
            PumpEnd::Closed => if writing.await { PumpEnd::Closed } else { PumpEnd::Broken },
            end => end,
        },
        _ = &mut writing => PumpEnd::Broken,
    }
}

struct Queue<'a> {
    held: AtomicUsize,
    taken: Notify,
    flow: Flow<'a>,
    limits: Limits,
}

impl Queue<'_> {
    /// Waits until the next message may be read. `false` where there will be no room.
    async fn room(&self, stuck_at: &mut Option<u64>) -> bool {
        let Limits { small, cap, stuck } = self.limits;
        loop {
            let held = self.held.load(Ordering::Relaxed);
            if held < small {
                return true;
            }
            if self.flow.siblings.load(Ordering::Relaxed) > 1 {
                return held < cap;
            }
            if self.flow.opposite.is_now() {
                if held >= cap {
                    let _ = tokio::time::timeout(PROBE, self.taken.notified()).await;
                }
                return held < cap.saturating_mul(PROBE_FACTOR);
            }
            let moved = self.flow.moved.load(Ordering::Relaxed);
            if *stuck_at == Some(moved) && held < cap {
                return true;
            }
            tokio::select! {
                () = self.taken.notified() => {}
                () = self.flow.opposite.begun.notified() => {}
                () = tokio::time::sleep(stuck) => *stuck_at = Some(moved),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    struct Script(mpsc::UnboundedReceiver<ChannelMsg>, Arc<AtomicUsize>);

    impl Source for Script {
        async fn next(&mut self) -> Option<ChannelMsg> {
            let message = self.0.recv().await;
            self.1.fetch_add(1, Ordering::Relaxed);
            message
        }
    }

    struct Slow(mpsc::Sender<Option<Bytes>>);

    impl Sink for Slow {
        async fn data(&self, data: Bytes) -> bool {
            self.0.send(Some(data)).await.is_ok()
        }

        async fn eof(&self) -> bool {
            self.0.send(None).await.is_ok()
        }
    }

    fn data(len: usize) -> ChannelMsg {
        ChannelMsg::Data { data: Bytes::from(vec![7; len]) }
    }

    const LIMITS: Limits = Limits { small: 1000, cap: 10_000, stuck: Duration::from_millis(2) };

    struct Running {
        feed: mpsc::UnboundedSender<ChannelMsg>,
        reads: Arc<AtomicUsize>,
        out: mpsc::Receiver<Option<Bytes>>,
        end: tokio::task::JoinHandle<PumpEnd>,
        moved: Arc<AtomicU64>,
    }

    fn run(siblings: usize) -> Running {
        run_with(siblings, false)
    }

    fn run_with(siblings: usize, waits: bool) -> Running {
        let (feed, script) = mpsc::unbounded_channel();
        let reads = Arc::new(AtomicUsize::new(0));
        let (sink, out) = mpsc::channel(1);
        let moved = Arc::new(AtomicU64::new(0));
        let (counted, total) = (Arc::clone(&reads), Arc::clone(&moved));
        let end = tokio::spawn(async move {
            let siblings = AtomicUsize::new(siblings);
            let (mine, opposite) = (Waiting::default(), Waiting::default());
            let flow =
                Flow { siblings: &siblings, moved: &total, mine: &mine, opposite: &opposite };
            let (mut source, sink) = (Script(script, counted), Slow(sink));
            let pumping = pump(&mut source, &sink, flow, LIMITS, Ignore);
            if waits { opposite.during(pumping).await } else { pumping.await }
        });
        Running { feed, reads, out, end, moved }
    }

    #[tokio::test]
    async fn everything_arrives_before_the_close_however_slow_the_reader() {
        let mut running = run(1);
        for _ in 0..50 {
            running.feed.send(data(100)).unwrap();
        }
        running.feed.send(ChannelMsg::Eof).unwrap();
        running.feed.send(ChannelMsg::Close).unwrap();
        let mut bytes = 0;
        while let Some(item) = running.out.recv().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
            match item {
                Some(data) => bytes += data.len(),
                None => assert_eq!(bytes, 5000, "eof came early"),
            }
        }
        assert_eq!(running.end.await.unwrap(), PumpEnd::Closed);
        assert_eq!((bytes, running.moved.load(Ordering::Relaxed)), (5000, 5000));
    }

    #[tokio::test]
    async fn a_lonely_channel_is_never_cut_and_never_read_beyond_the_cap() {
        let mut running = run(1);
        for _ in 0..1000 {
            running.feed.send(data(100)).unwrap();
        }
        running.feed.send(ChannelMsg::Close).unwrap();
        tokio::time::timeout(Duration::from_secs(20), async {
            while running.reads.load(Ordering::Relaxed) * (100 + MESSAGE_COST) < LIMITS.cap {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        tokio::time::sleep(LIMITS.stuck * 5).await;
        assert!(!running.end.is_finished());
        let read = running.reads.load(Ordering::Relaxed) * (100 + MESSAGE_COST);
        assert!((LIMITS.cap..LIMITS.cap + 1000).contains(&read), "{read}");
        let mut bytes = 0;
        while let Some(Some(data)) = running.out.recv().await {
            bytes += data.len();
        }
        assert_eq!(bytes, 100_000);
        assert_eq!(running.end.await.unwrap(), PumpEnd::Closed);
    }

    #[tokio::test]
    async fn a_stuck_channel_with_siblings_is_drained_and_then_closed_alone() {
        let running = run(2);
        for _ in 0..40 {
            running.feed.send(data(100)).unwrap();
        }
        tokio::time::timeout(Duration::from_secs(20), async {
            while running.reads.load(Ordering::Relaxed) < 40 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
        assert!(!running.end.is_finished());
        for _ in 0..10 {
            running.feed.send(data(100)).unwrap();
        }
        assert_eq!(running.end.await.unwrap(), PumpEnd::Overflow);
    }

    #[tokio::test]
    async fn what_the_other_direction_waits_for_is_reached_behind_the_cap() {
        let running = run_with(1, true);
        for _ in 0..100 {
            running.feed.send(data(100)).unwrap();
        }
        tokio::time::timeout(Duration::from_secs(20), async {
            while running.reads.load(Ordering::Relaxed) < 100 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        assert!(!running.end.is_finished());
        for _ in 0..200 {
            running.feed.send(data(100)).unwrap();
        }
        assert_eq!(running.end.await.unwrap(), PumpEnd::Overflow);
    }

    #[tokio::test]
    async fn a_receiver_that_is_gone_ends_the_pump() {
        let running = run(1);
        drop(running.out);
        running.feed.send(data(1)).unwrap();
        assert_eq!(running.end.await.unwrap(), PumpEnd::Broken);
    }
}

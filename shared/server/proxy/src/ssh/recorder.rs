//! The recorder behind a tap: takes output on the relay's task, and encodes and writes it on another.
//!
//! What must stay true: output waits in a queue counted in bytes, and a full queue stops the session; what was taken is
//! on disk within [`FLUSH`] and some; compression never runs on the relay's task. An idle session costs its queue, which is
//! empty, and the records of half a second.
//!
//! The relay's path is short: output that the bucket leaves out is counted and not kept, and the recorder's task is woken
//! once for all that comes within [`FLUSH`], not for each packet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use server_core::{RecordingWriter, SpoolError};
use shared_events::AuditEvent;
use shared_recording::encoder::EncodeError;
use shared_recording::{Limits, SessionRecorder, Slice, TokenBucket};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Output that may wait to be encoded.
const QUEUE_BYTES: usize = 1024 * 1024;
/// Messages that may wait; small ones are cheap.
const QUEUE_ITEMS: usize = 512;
/// Encoded together, without waiting for more.
const BATCH_BYTES: usize = 256 * 1024;
/// The same, of small messages.
const BATCH_ITEMS: usize = QUEUE_ITEMS / 2;
/// What was taken is on its way to the disk after this.
const FLUSH: Duration = Duration::from_millis(400);
/// Records gathered before a slice is cut: at full speed the disk waits for fewer, larger slices.
const SLICE: usize = 512 * 1024;
/// So little is copied into records where it is, where no slice is cut by it.
const SMALL: usize = 32 * 1024;

/// Why a recording ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("encode recording")]
    Encode(#[from] EncodeError),
    #[error("write recording")]
    Write(#[from] SpoolError),
    #[error("recorder is gone")]
    Gone,
}

enum Item {
    Output {
        data: Bytes,
        at: DateTime<Utc>,
    },
    /// So many bytes that the bucket did not admit.
    LeftOut(u64),
    /// Numbered, recorded, and given back to be emitted.
    Event {
        event: Box<AuditEvent>,
        at: DateTime<Utc>,
        done: oneshot::Sender<AuditEvent>,
    },
}

/// What waits to be encoded.
struct Queue {
    items: Vec<Item>,
    bytes: usize,
    bucket: Option<TokenBucket>,
    /// The task knows that something waits.
    armed: bool,
    /// It should not wait for more.
    urgent: bool,
    closed: bool,
    failed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
    taken: Notify,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `put` add to the queue, where there is room. Whether the task has to be woken is seen here.
    fn try_put(&self, put: impl FnOnce(&mut Queue)) -> Result<bool, RecordError> {
        let mut queue = self.queue();
        if queue.failed {
            return Err(RecordError::Gone);
        }
        if queue.bytes >= QUEUE_BYTES || queue.items.len() >= QUEUE_ITEMS {
            return Ok(false);
        }
        let (was_armed, was_urgent) = (queue.armed, queue.urgent);
        put(&mut queue);
        queue.urgent |= queue.bytes >= BATCH_BYTES || queue.items.len() >= BATCH_ITEMS;
        let wake = (queue.armed, queue.urgent) != (was_armed, was_urgent);
        drop(queue);
        if wake {
            self.filled.notify_one();
        }
        Ok(true)
    }

    /// Waits until there may be room.
    async fn room(&self) {
        let taken = self.taken.notified();
        {
            let queue = self.queue();
            if queue.failed || (queue.bytes < QUEUE_BYTES && queue.items.len() < QUEUE_ITEMS) {
                return;
            }
        }
        taken.await;
    }
}

impl Queue {
    fn output(&mut self, data: &Bytes, at: DateTime<Utc>) {
        let admitted = self
            .bucket
            .as_mut()
            .map_or(data.len(), |bucket| bucket.take(data.len(), at))
            .min(data.len());
        if admitted > 0 {
            self.items.push(Item::Output { data: data.slice(..admitted), at });
            self.bytes += admitted;
            self.armed = true;
        }
        let left_out = (data.len() - admitted) as u64;
        match self.items.last_mut() {
            _ if left_out == 0 => {}
            Some(Item::LeftOut(bytes)) => *bytes += left_out,
            // Nobody has to know of a gap before something follows it.
            _ => self.items.push(Item::LeftOut(left_out)),
        }
    }
}

/// A session's recorder.
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    end: Option<oneshot::Receiver<Result<(), RecordError>>>,
}

/// Limits of a slice for recordings of the proxy.
pub(crate) fn limits() -> Limits {
    Limits { raw: SLICE }
}

impl Recorder {
    /// Records with `recorder` into `writer` what `bucket` admits.
    pub(crate) fn spawn(
        recorder: SessionRecorder,
        bucket: Option<TokenBucket>,
        writer: RecordingWriter,
    ) -> Self {
        let queue = Queue {
            items: Vec::new(),
            bytes: 0,
            bucket,
            armed: false,
            urgent: false,
            closed: false,
            failed: false,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            filled: Notify::new(),
            taken: Notify::new(),
        });
        let (ended, end) = oneshot::channel();
        let task =
            Task { recorder: Some(recorder), writer, shared: Arc::clone(&shared), unflushed: None };
        let of_task = Arc::clone(&shared);
        tokio::spawn(async move {
            let result = task.run().await;
            {
                let mut queue = of_task.queue();
                queue.failed = true;
                queue.items = Vec::new();
            }
            of_task.taken.notify_waiters();
            let _ = ended.send(result);
        });
        Self { shared, end: Some(end) }
    }

    /// Takes output; waits where too much waits already.
    pub(crate) async fn output(&self, data: &Bytes) -> Result<(), RecordError> {
        while !self.shared.try_put(|queue| queue.output(data, Utc::now()))? {
            self.shared.room().await;
        }
        Ok(())
    }

    /// Records an event behind the output so far, and gives it back numbered.
    pub(crate) async fn event(&self, event: AuditEvent) -> Result<AuditEvent, RecordError> {
        let (done, numbered) = oneshot::channel();
        let mut item = Some(Item::Event { event: Box::new(event), at: Utc::now(), done });
        let mut put = |queue: &mut Queue| {
            queue.items.extend(item.take());
            (queue.armed, queue.urgent) = (true, true);
        };
        while !self.shared.try_put(&mut put)? {
            self.shared.room().await;
        }
        numbered.await.map_err(|_| RecordError::Gone)
    }

    /// Ends the recording; done when it is complete on disk.
    pub(crate) async fn finish(mut self) -> Result<(), RecordError> {
        let end = self.end.take();
        drop(self);
        match end {
            Some(end) => end.await.unwrap_or(Err(RecordError::Gone)),
            None => Err(RecordError::Gone),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.filled.notify_one();
    }
}

struct Task {
    recorder: Option<SessionRecorder>,
    writer: RecordingWriter,
    shared: Arc<Shared>,
    /// When the oldest byte that is in no slice was taken.
    unflushed: Option<Instant>,
}

/// What is to be encoded in one go.
enum Work {
    Items(Vec<Item>),
    Flush,
    Finish,
}

impl Task {
    async fn run(mut self) -> Result<(), RecordError> {
        while let Some(items) = self.next().await? {
            self.work(Work::Items(items)).await?;
            if self.unflushed.is_some_and(|since| since.elapsed() >= FLUSH) {
                self.work(Work::Flush).await?;
            }
        }
        self.work(Work::Finish).await?;
        self.writer.close().await?;
        Ok(())
    }

    /// Gathers items; `None` at the end. What is in no slice is flushed meanwhile.
    async fn next(&mut self) -> Result<Option<Vec<Item>>, RecordError> {
        let mut overdue = None;
        loop {
            let armed = {
                let mut queue = self.shared.queue();
                let due = overdue.is_some_and(|at| at <= Instant::now());
                if queue.urgent || queue.closed || (queue.armed && due) {
                    (queue.armed, queue.urgent, queue.bytes) = (false, false, 0);
                    let items = std::mem::take(&mut queue.items);
                    let ended = queue.closed && items.is_empty();
                    drop(queue);
                    if let (true, Some(at)) = (due, overdue) {
                        // They have waited that long already, and are flushed with this.
                        self.unflushed.get_or_insert(at - FLUSH);
                    }
                    self.shared.taken.notify_waiters();
                    return Ok((!ended).then_some(items));
                }
                queue.armed
            };
            // More is coming soon, or nothing for long: either way one piece of work in FLUSH is enough.
            let until = match (self.unflushed, armed) {
                (Some(since), _) => since + FLUSH,
                (None, true) => *overdue.get_or_insert_with(|| Instant::now() + FLUSH),
                (None, false) => {
                    self.shared.filled.notified().await;
                    continue;
                }
            };
            overdue = Some(until);
            if tokio::time::timeout_at(until, self.shared.filled.notified()).await.is_err()
                && !armed
            {
                self.work(Work::Flush).await?;
                overdue = None;
            }
        }
    }

    async fn work(&mut self, work: Work) -> Result<(), RecordError> {
        let mut recorder = self.recorder.take().ok_or(RecordError::Gone)?;
        let flushed = !matches!(work, Work::Items(_));
        let small = match &work {
            Work::Items(items) => {
                let bytes = items.iter().map(size).sum::<usize>() + items.len() * MESSAGE_COST;
                bytes <= SMALL && recorder.pending() + bytes < SLICE
            }
            Work::Flush | Work::Finish => false,
        };
        let encode = move || {
            let mut slices = Vec::new();
            let result = match work {
                Work::Items(items) => {
                    items.into_iter().try_for_each(|item| record(&mut recorder, item, &mut slices))
                }
                Work::Flush => {
                    slices.extend(recorder.flush());
                    Ok(())
                }
                Work::Finish => recorder.finish(Utc::now(), &mut slices),
            };
            (recorder, slices, result)
        };
        let (recorder, slices, result) = if small {
            encode()
        } else {
            tokio::task::spawn_blocking(encode).await.map_err(|_| RecordError::Gone)?
        };
        let pending = recorder.pending() > 0;
        self.recorder = Some(recorder);
        let cut = !slices.is_empty();
        for slice in slices {
            self.writer.write(&slice).await?;
        }
        self.unflushed = match self.unflushed {
            _ if !pending => None,
            Some(since) if !flushed && !cut => Some(since),
            _ => Some(Instant::now()),
        };
        Ok(result?)
    }
}

fn record(
    recorder: &mut SessionRecorder,
    item: Item,
    slices: &mut Vec<Slice>,
) -> Result<(), EncodeError> {
    match item {
        Item::Output { data, at } => recorder.output(data, at, slices),
        Item::LeftOut(bytes) => {
            recorder.leave_out(bytes);
            Ok(())
        }
        Item::Event { mut event, at, done } => {
            recorder.event(&mut event, at, slices)?;
            let _ = done.send(*event);
            Ok(())
        }
    }
}

/// What a record of one item may take beside its output.
const MESSAGE_COST: usize = 256;

fn size(item: &Item) -> usize {
    match item {
        Item::Output { data, .. } => data.len(),
        Item::LeftOut(_) => 0,
        // A command line may be long.
        Item::Event { .. } => 8 * 1024,
    }
}

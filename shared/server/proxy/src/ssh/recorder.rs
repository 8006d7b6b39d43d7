//! The recorder behind a tap: takes output on the relay's task, and encodes and writes it on another.
//!
//! What must stay true: output waits in a queue counted in bytes, and a full queue stops the session; what was taken is
//! on disk within [`FLUSH`] and some; compression never runs on the relay's task. An idle session costs its queue, which is
//! empty, and the records of half a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use server_core::{RecordingWriter, SpoolError};
use shared_events::AuditEvent;
use shared_recording::encoder::EncodeError;
use shared_recording::{Limits, SessionRecorder, Slice};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// Output that may wait to be encoded.
const QUEUE_BYTES: usize = 1024 * 1024;
/// Messages that may wait; small ones are cheap.
const QUEUE_ITEMS: usize = 512;
/// Encoded together at most.
const BATCH_BYTES: usize = 256 * 1024;
/// What was taken is on its way to the disk after this.
const FLUSH: Duration = Duration::from_millis(400);
/// Records gathered before a slice is cut: at full speed the disk waits for fewer, larger slices.
const SLICE: usize = 512 * 1024;

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
    Output { data: Bytes, at: DateTime<Utc>, _room: OwnedSemaphorePermit },
    /// Numbered, recorded, and given back to be emitted.
    Event { event: Box<AuditEvent>, at: DateTime<Utc>, done: oneshot::Sender<AuditEvent> },
}

/// A session's recorder.
#[derive(Debug)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    failed: Arc<AtomicBool>,
    end: oneshot::Receiver<Result<(), RecordError>>,
}

/// Limits of a slice for recordings of the proxy.
pub(crate) fn limits() -> Limits {
    Limits { raw: SLICE }
}

impl Recorder {
    /// Records with `recorder` into `writer`.
    pub(crate) fn spawn(recorder: SessionRecorder, writer: RecordingWriter) -> Self {
        let (queue, items) = mpsc::channel(QUEUE_ITEMS);
        let failed = Arc::new(AtomicBool::new(false));
        let (ended, end) = oneshot::channel();
        let task = Task { recorder: Some(recorder), writer, items, slices: Vec::new(), unflushed: None };
        let has_failed = Arc::clone(&failed);
        tokio::spawn(async move {
            let result = task.run().await;
            has_failed.store(result.is_err(), Ordering::Release);
            let _ = ended.send(result);
        });
        Self { queue, room: Arc::new(Semaphore::new(QUEUE_BYTES)), failed, end }
    }

    /// Takes output; waits where too much waits already.
    pub(crate) async fn output(&self, data: &Bytes) -> Result<(), RecordError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(RecordError::Gone);
        }
        let size = u32::try_from(data.len().min(QUEUE_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(size).await.map_err(|_| RecordError::Gone)?;
        let item = Item::Output { data: data.clone(), at: Utc::now(), _room: room };
        self.queue.send(item).await.map_err(|_| RecordError::Gone)
    }

    /// Records an event behind the output so far, and gives it back numbered.
    pub(crate) async fn event(&self, event: AuditEvent) -> Result<AuditEvent, RecordError> {
        let (done, numbered) = oneshot::channel();
        let item = Item::Event { event: Box::new(event), at: Utc::now(), done };
        self.queue.send(item).await.map_err(|_| RecordError::Gone)?;
        numbered.await.map_err(|_| RecordError::Gone)
    }

    /// Ends the recording; done when it is complete on disk.
    pub(crate) async fn finish(self) -> Result<(), RecordError> {
        drop(self.queue);
        self.end.await.unwrap_or(Err(RecordError::Gone))
    }
}

struct Task {
    recorder: Option<SessionRecorder>,
    writer: RecordingWriter,
    items: mpsc::Receiver<Item>,
    slices: Vec<Slice>,
    /// When the oldest byte that is in no slice was taken.
    unflushed: Option<Instant>,
}

/// What is done off the runtime's threads in one go.
enum Work {
    Items(Vec<Item>),
    Flush,
    Finish,
}

impl Task {
    async fn run(mut self) -> Result<(), RecordError> {
        let mut batch = Vec::new();
        loop {
            let next = match self.unflushed {
                None => self.items.recv().await,
                Some(since) => match tokio::time::timeout_at(since + FLUSH, self.items.recv()).await {
                    Ok(next) => next,
                    Err(_) => {
                        self.work(Work::Flush).await?;
                        continue;
                    }
                },
            };
            let Some(first) = next else { break };
            let mut bytes = size(&first);
            let mut urgent = is_event(&first);
            batch.push(first);
            while bytes < BATCH_BYTES {
                let Ok(item) = self.items.try_recv() else { break };
                bytes += size(&item);
                urgent |= is_event(&item);
                batch.push(item);
            }
            if bytes < BATCH_BYTES && !urgent {
                // More is coming soon, or nothing for long: either way one piece of work in FLUSH is enough.
                let until = self.unflushed.unwrap_or_else(Instant::now) + FLUSH;
                while bytes < BATCH_BYTES && !urgent {
                    match tokio::time::timeout_at(until, self.items.recv()).await {
                        Ok(Some(item)) => {
                            bytes += size(&item);
                            urgent |= is_event(&item);
                            batch.push(item);
                        }
                        Ok(None) | Err(_) => break,
                    }
                }
            }
            self.work(Work::Items(std::mem::take(&mut batch))).await?;
            if self.unflushed.is_some_and(|since| since.elapsed() >= FLUSH) {
                self.work(Work::Flush).await?;
            }
        }
        self.work(Work::Finish).await?;
        self.writer.close().await?;
        Ok(())
    }

    async fn work(&mut self, work: Work) -> Result<(), RecordError> {
        let mut recorder = self.recorder.take().ok_or(RecordError::Gone)?;
        let flushed = !matches!(work, Work::Items(_));
        let encode = move || {
            let mut slices = Vec::new();
            let result = match work {
                Work::Items(items) => items.into_iter().try_for_each(|item| record(&mut recorder, item, &mut slices)),
                Work::Flush => {
                    slices.extend(recorder.flush());
                    Ok(())
                }
                Work::Finish => recorder.finish(Utc::now(), &mut slices),
            };
            (recorder, slices, result)
        };
        let (recorder, slices, result) = tokio::task::spawn_blocking(encode).await.map_err(|_| RecordError::Gone)?;
        let pending = recorder.pending() > 0;
        self.recorder = Some(recorder);
        self.slices.extend(slices);
        let cut = !self.slices.is_empty();
        for slice in std::mem::take(&mut self.slices) {
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

fn record(recorder: &mut SessionRecorder, item: Item, slices: &mut Vec<Slice>) -> Result<(), EncodeError> {
    match item {
        Item::Output { data, at, _room } => recorder.output(data, at, slices),
        Item::Event { mut event, at, done } => {
            recorder.event(&mut event, at, slices)?;
            let _ = done.send(*event);
            Ok(())
        }
    }
}

fn size(item: &Item) -> usize {
    match item {
        Item::Output { data, .. } => data.len(),
        Item::Event { .. } => 0,
    }
}

fn is_event(item: &Item) -> bool {
    matches!(item, Item::Event { .. })
}

//! Recording a session: one engine, which writes to the spool or streams to the auth service.
//!
//! What must stay true: output waits in a queue counted in bytes, and a full queue stops the session; what was taken is
//! on its way within [`Pace::flush`]; compression never runs on the relay's task. An idle session costs its queue, which
//! is empty, and the records of half a second.
//!
//! The relay's path is short: output that the bucket leaves out is counted and not kept, and the recorder's task is woken
//! once for all that comes within a flush, not for each packet. Only a streamed recording has a [`Window`].

mod begin;
mod outlet;
mod queue;
mod stream;
mod task;
mod window;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use shared_events::AuditEvent;
use shared_recording::encoder::EncodeError;
use shared_recording::{Limits, SessionRecorder, TokenBucket};
use tokio::sync::oneshot;

use crate::chain;
use crate::spool::SpoolError;
pub use begin::NewRecording;
pub use outlet::EventOutlet;
use queue::{Item, Queue, Shared};
pub use stream::StreamWriter;
use task::Task;
pub use window::{Window, WindowLimits};
pub use writer::SliceWriter;

/// Records gathered before a slice is cut: at full speed the disk waits for fewer, larger slices.
const SLICE: usize = 512 * 1024;
/// What an event counts in a window beside output.
const EVENT_COST: u64 = 1024;
/// What an outlet may add to an event.
const SHARED_PARTS: usize = 512;

/// Why a recording ended early.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// An event cannot be recorded.
    #[error("encode recording")]
    Encode(#[from] EncodeError),
    /// A slice cannot be written.
    #[error("write recording")]
    Write(#[from] SpoolError),
    /// It ended before, for this reason.
    #[error("recording has ended: {0}")]
    Ended(String),
    /// The recorder has ended.
    #[error("recorder is gone")]
    Gone,
}

/// What happens to a session whose recording cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTrouble {
    /// It ends.
    End,
    /// It goes on, and what was not recorded is a named gap once there is room again.
    LeaveGap,
}

/// What a recorder tells of itself while the session goes on.
#[derive(Debug)]
pub enum Notice {
    /// From here on output is left out, for this reason.
    GapBegins(SpoolError),
    /// Output is recorded again.
    GapEnds,
}

/// Hears notices. Must not block.
pub type OnNotice = Arc<dyn Fn(Notice) + Send + Sync>;

/// How often the recorder works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// What was taken is on its way after this.
    pub(crate) flush: Duration,
    /// Encoded together, without waiting for more.
    pub(crate) batch: usize,
}

/// To the disk: few large slices.
const SPOOLED: Pace = Pace { flush: Duration::from_millis(400), batch: 256 * 1024 };
/// To the auth service: a quarter of the window at a time, so that the next is made while one is on its way.
const STREAMED: Pace = Pace { flush: Duration::from_millis(250), batch: 64 * 1024 };

/// How a session is recorded.
pub struct RecorderSettings {
    /// What does not fit the bucket is left out.
    pub bucket: Option<TokenBucket>,
    /// What to do when a slice cannot be written.
    pub on_trouble: OnTrouble,
    /// Who hears of it.
    pub on_notice: OnNotice,
    /// The window of a streamed recording.
    pub window: Option<Arc<Window>>,
    /// Where events of [`Recorder::events`] go on to.
    pub outlet: Option<Arc<dyn EventOutlet>>,
}

/// A session's recorder.
pub struct Recorder {
    shared: Arc<Shared>,
    window: Option<Arc<Window>>,
    end: Mutex<Option<oneshot::Receiver<Result<(), RecordError>>>>,
}

/// Limits of a slice.
pub fn limits() -> Limits {
    Limits { raw: SLICE }
}

impl Recorder {
    /// Records with `recorder` into `writer`.
    pub fn spawn(
        recorder: SessionRecorder,
        writer: Box<dyn SliceWriter>,
        settings: RecorderSettings,
    ) -> Self {
        let RecorderSettings { bucket, on_trouble, on_notice, window, outlet } = settings;
        let pace = if window.is_some() { STREAMED } else { SPOOLED };
        let shared = Arc::new(Shared::new(Queue::new(bucket, pace.batch)));
        let (ended, end) = oneshot::channel();
        let task = Task::new(recorder, writer, Arc::clone(&shared), pace, window.clone())
            .with_trouble(on_trouble, on_notice)
            .with_outlet(outlet.clone());
        let (of_task, of_window) = (Arc::clone(&shared), window.clone());
        tokio::spawn(async move {
            let result = task.run().await;
            let left = of_task.fail(result.as_ref().err().map(|error| chain(error)));
            task::save(left, outlet.as_deref()).await;
            if let (Err(error), Some(window)) = (&result, of_window) {
                window.fail(format!("this session cannot be recorded any more: {error}"));
            }
            let _ = ended.send(result);
        });
        Self { shared, window, end: Mutex::new(Some(end)) }
    }

    /// Takes output; waits where too much waits already, or is unacknowledged.
    pub async fn output(&self, data: &Bytes) -> Result<(), RecordError> {
        let Some(window) = &self.window else {
            while self.shared.try_put(|queue| queue.output(data, Utc::now()))?.is_none() {
                self.shared.room().await;
            }
            return Ok(());
        };
        window.admit(data.len() as u64).await;
        loop {
            if let Some(admitted) = self.shared.try_put(|queue| queue.output(data, Utc::now()))? {
                window.give_back((data.len() - admitted) as u64);
                return Ok(());
            }
            self.shared.room().await;
        }
    }

    /// Records an event behind the output so far, and gives it back numbered.
    pub async fn event(&self, event: AuditEvent) -> Result<AuditEvent, RecordError> {
        if let Some(window) = &self.window {
            window.admit(EVENT_COST).await;
        }
        self.put_event(event).await
    }

    /// The same for events of the session's end, which wait for nobody's acknowledgement.
    pub async fn last_event(&self, event: AuditEvent) -> Result<AuditEvent, RecordError> {
        if let Some(window) = &self.window {
            window.force(EVENT_COST);
        }
        self.put_event(event).await
    }

    /// Records events that nobody waits for, behind what came so far, and hands them to the outlet. Returns when they
    /// are in the queue, and leaves `events` empty; waits where too much waits already, or is unacknowledged.
    pub async fn events(&self, events: &mut Vec<AuditEvent>) -> Result<(), RecordError> {
        let size = events.iter().map(AuditEvent::inner_len).sum::<usize>();
        let size = size + events.len() * SHARED_PARTS;
        if let Some(window) = &self.window {
            window.admit(size as u64).await;
        }
        let at = Utc::now();
        let mut put = |queue: &mut Queue| {
            queue.events(events, at, size);
            0
        };
        while self.shared.try_put(&mut put)?.is_none() {
            self.shared.room().await;
        }
        Ok(())
    }

    async fn put_event(&self, event: AuditEvent) -> Result<AuditEvent, RecordError> {
        let (done, numbered) = oneshot::channel();
        let mut item = Some(Item::Event { event: Box::new(event), at: Utc::now(), done });
        let mut put = |queue: &mut Queue| queue.event(item.take());
        while self.shared.try_put(&mut put)?.is_none() {
            self.shared.room().await;
        }
        numbered.await.map_err(|_| RecordError::Gone)
    }

    /// Ends the recording, which takes nothing more; done when it is complete: on disk, or at the auth service.
    /// Whoever asks second hears that it is gone.
    pub async fn finish(&self) -> Result<(), RecordError> {
        self.shared.close();
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        match end {
            Some(end) => end.await.unwrap_or(Err(RecordError::Gone)),
            None => Err(RecordError::Gone),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[cfg(test)]
mod tests;

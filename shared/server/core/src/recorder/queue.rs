//! What waits to be encoded.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use shared_events::AuditEvent;
use shared_recording::TokenBucket;
use tokio::sync::{Notify, oneshot};

use super::{EVENT_COST, RecordError};

/// Output that may wait to be encoded.
const QUEUE_BYTES: usize = 1024 * 1024;
/// Messages that may wait; small ones are cheap.
const QUEUE_ITEMS: usize = 512;
/// Messages that are encoded together, without waiting for more.
const BATCH_ITEMS: usize = QUEUE_ITEMS / 2;

pub(super) enum Item {
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
    /// Completed, numbered, recorded, and handed to the outlet. Nobody waits for them.
    Events {
        events: Vec<AuditEvent>,
        at: DateTime<Utc>,
        /// About what their records take.
        size: usize,
    },
}

impl Item {
    /// What a record of it may take.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Output { data, .. } => data.len(),
            Self::LeftOut(_) => 0,
            // A command line may be long.
            Self::Event { .. } => 8 * 1024,
            Self::Events { size, .. } => *size,
        }
    }

    /// What a window counted for it.
    pub(super) fn counted(&self) -> u64 {
        match self {
            Self::Output { data, .. } => data.len() as u64,
            Self::LeftOut(_) => 0,
            Self::Event { .. } => EVENT_COST,
            Self::Events { size, .. } => *size as u64,
        }
    }
}

pub(super) struct Queue {
    pub(super) items: Vec<Item>,
    pub(super) bytes: usize,
    bucket: Option<TokenBucket>,
    /// So much is not waited with.
    batch: usize,
    /// The task knows that something waits.
    pub(super) armed: bool,
    /// It should not wait for more.
    pub(super) urgent: bool,
    pub(super) closed: bool,
    /// Nothing is taken for now.
    held: bool,
    /// Nothing more is taken, and why.
    failed: Option<Option<String>>,
}

impl Queue {
    pub(super) fn new(bucket: Option<TokenBucket>, batch: usize) -> Self {
        Self {
            items: Vec::new(),
            bytes: 0,
            bucket,
            batch,
            armed: false,
            urgent: false,
            closed: false,
            held: false,
            failed: None,
        }
    }

    /// Takes what the bucket admits, and answers how much that is.
    pub(super) fn output(&mut self, data: &Bytes, at: DateTime<Utc>) -> usize {
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
        admitted
    }

    /// Takes an event, which is not kept waiting.
    pub(super) fn event(&mut self, item: Option<Item>) -> usize {
        self.items.extend(item);
        (self.armed, self.urgent) = (true, true);
        0
    }

    /// Takes events that may wait for the next flush.
    pub(super) fn events(&mut self, events: &mut Vec<AuditEvent>, at: DateTime<Utc>, size: usize) {
        let events = std::mem::take(events);
        self.items.push(Item::Events { events, at, size });
        self.bytes += size;
        self.armed = true;
    }

    fn is_full(&self) -> bool {
        self.held || self.bytes >= QUEUE_BYTES || self.items.len() >= QUEUE_ITEMS
    }
}

pub(super) struct Shared {
    queue: Mutex<Queue>,
    pub(super) filled: Notify,
    pub(super) taken: Notify,
}

impl Shared {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue: Mutex::new(queue), filled: Notify::new(), taken: Notify::new() }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `put` add to the queue, where there is room. Whether the task has to be woken is seen here.
    pub(super) fn try_put(
        &self,
        put: impl FnOnce(&mut Queue) -> usize,
    ) -> Result<Option<usize>, RecordError> {
        let mut queue = self.queue();
        if let Some(why) = &queue.failed {
            return Err(why.clone().map_or(RecordError::Gone, RecordError::Ended));
        }
        if queue.closed {
            return Err(RecordError::Gone);
        }
        if queue.is_full() {
            return Ok(None);
        }
        let (was_armed, was_urgent) = (queue.armed, queue.urgent);
        let taken = put(&mut queue);
        queue.urgent |= queue.bytes >= queue.batch || queue.items.len() >= BATCH_ITEMS;
        let wake = (queue.armed, queue.urgent) != (was_armed, was_urgent);
        drop(queue);
        if wake {
            self.filled.notify_one();
        }
        Ok(Some(taken))
    }

    /// Waits until there may be room.
    pub(super) async fn room(&self) {
        let taken = self.taken.notified();
        {
            let queue = self.queue();
            if queue.failed.is_some() || !queue.is_full() {
                return;
            }
        }
        taken.await;
    }

    /// Takes nothing until it is let go; sessions wait.
    pub(super) fn hold(&self, held: bool) {
        self.queue().held = held;
        self.taken.notify_waiters();
    }

    /// Nothing more is taken, for this reason where it is no orderly end. Gives back what waited.
    pub(super) fn fail(&self, why: Option<String>) -> Vec<Item> {
        let items = {
            let mut queue = self.queue();
            queue.failed = Some(why);
            std::mem::take(&mut queue.items)
        };
        self.taken.notify_waiters();
        items
    }

    /// What waits is the last.
    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.filled.notify_one();
    }
}

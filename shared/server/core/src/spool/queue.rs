//! Events that nobody waits for one by one: gathered from all sessions of a service and made durable together.
//!
//! What must stay true: what was taken is emitted, in the order in which it was taken, unless this process dies first,
//! and then no more is lost than one flush, or what a slow auth service has not taken yet; the queue is bounded, and
//! whoever finds it full waits; while the disk and the auth service take nothing, it is tried on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared_events::AuditEvent;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::authority::{EmitError, EventSink};
use crate::backoff::Backoff;

/// What was taken is on its way after this.
const FLUSH: Duration = Duration::from_millis(100);
/// So many do not wait for more.
const BATCH: usize = 512;
/// So many may wait, and so many bytes of them.
const MOST: usize = 8192;
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// Waits while nobody takes events: the first and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Why a queue does not take events.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// The service has ended.
    #[error("the queue of audit events is closed")]
    Closed,
}

#[derive(Default)]
struct State {
    events: Vec<AuditEvent>,
    bytes: usize,
    /// How many were ever taken, and made durable.
    taken: u64,
    durable: u64,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to do, or to stop waiting for more.
    filled: Notify,
    /// There is room, or something became durable.
    moved: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue in front of a sink. Dropping it ends its task after what waits.
pub struct EventQueue {
    shared: Arc<Shared>,
    _open: DropGuard,
}

impl std::fmt::Debug for EventQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventQueue").finish_non_exhaustive()
    }
}

impl EventQueue {
    /// A queue whose events `sink` makes durable. Needs a runtime.
    pub fn start(sink: Arc<dyn EventSink>) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Notify::new(),
            moved: Notify::new(),
        });
        let closed = CancellationToken::new();
        tokio::spawn(run(Arc::clone(&shared), sink, closed.clone()));
        Self { shared, _open: closed.drop_guard() }
    }

    /// Takes events and leaves `events` empty; waits where too many wait already.
    pub async fn put(&self, events: &mut Vec<AuditEvent>) -> Result<(), QueueError> {
        if events.is_empty() {
            return Ok(());
        }
        let bytes = events.iter().map(AuditEvent::inner_len).sum();
        loop {
            let moved = self.shared.moved.notified();
            if self.try_put(events, bytes)? {
                return Ok(());
            }
            moved.await;
        }
    }

    fn try_put(&self, events: &mut Vec<AuditEvent>, bytes: usize) -> Result<bool, QueueError> {
        let mut state = self.shared.state();
        if state.closed {
            return Err(QueueError::Closed);
        }
        if state.events.len() >= MOST || state.bytes >= MOST_BYTES {
            return Ok(false);
        }
        let before = state.events.len();
        state.taken += events.len() as u64;
        state.bytes += bytes;
        state.events.append(events);
        // Once for the first, and once when there is no point in waiting for more.
        let wake = before == 0 || (before < BATCH && state.events.len() >= BATCH);
        drop(state);
        if wake {
            self.shared.filled.notify_one();
        }
        Ok(true)
    }

    /// Waits until everything that was taken so far is durable.
    pub async fn flushed(&self) {
        let until = self.shared.state().taken;
        loop {
            let moved = self.shared.moved.notified();
            if self.shared.state().durable >= until {
                return;
            }
            moved.await;
        }
    }
}

async fn run(shared: Arc<Shared>, sink: Arc<dyn EventSink>, closed: CancellationToken) {
    let _ending = Ending(Arc::clone(&shared));
    loop {
        let waiting = shared.state().events.len();
        if waiting == 0 {
            tokio::select! {
                () = shared.filled.notified() => continue,
                () = closed.cancelled() => return,
            }
        }
        if waiting < BATCH {
            tokio::select! {
                () = tokio::time::sleep(FLUSH) => {}
                () = full(&shared) => {}
                () = closed.cancelled() => {}
            }
        }
        let events = {
            let mut state = shared.state();
            state.bytes = 0;
            std::mem::take(&mut state.events)
        };
        shared.moved.notify_waiters();
        let count = events.len() as u64;
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            emit(sink.as_ref(), events.by_ref().take(BATCH).collect()).await;
        }
        shared.state().durable += count;
        shared.moved.notify_waiters();
    }
}

async fn full(shared: &Shared) {
    while shared.state().events.len() < BATCH {
        shared.filled.notified().await;
    }
}

/// Makes events durable, however long that takes. Those that the auth service will never take are told in the log.
async fn emit(sink: &dyn EventSink, events: Vec<AuditEvent>) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        match sink.emit(events.clone()).await {
            Ok(()) => return,
            Err(EmitError::Refused(_)) if events.len() > 1 => {
                // One that is refused does not take others with it.
                for event in events {
                    Box::pin(emit(sink, vec![event])).await;
                }
                return;
            }
            Err(error @ (EmitError::Refused(_) | EmitError::Closed)) => {
                let kinds: Vec<_> = events.iter().map(AuditEvent::kind).collect();
                tracing::error!(?kinds, %error, "audit events are lost");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, events = events.len(), "audit events wait");
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

/// Whoever waits hears that the task has ended.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        {
            let mut state = self.0.state();
            state.closed = true;
            state.durable = state.taken;
        }
        self.0.moved.notify_waiters();
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;

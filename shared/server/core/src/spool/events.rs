//! Events that must not be lost: acknowledged by the auth service, or on this disk until they are.
//!
//! While nothing waits here, an event goes straight to the auth service, so it can be queried as soon as it is
//! acknowledged. When that does not work in time, it is written here, and so is everything after it, until the
//! forwarder has emptied the spool. An event may reach the auth service twice, which tells repeats by their `uid`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use shared_api::pack_event;
use shared_events::AuditEvent;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::forward::{self, Forwarder};
use super::segment::{Sealed, Segments};
use super::{SpoolError, blocking, frame};
use crate::authority::{Authority, EmitError, EventSink, prepare};
use crate::chain;

/// What an event spool may use.
#[derive(Debug, Clone)]
pub struct EventSpoolSettings {
    /// Bytes on disk; when they are used up, events are refused and what depends on them is too.
    pub max_bytes: u64,
    /// How long the auth service may take before an event goes to the disk instead.
    pub direct_wait: Duration,
    /// Wait after the first failure to forward; doubles with each.
    pub retry_first: Duration,
    /// The longest such wait.
    pub retry_max: Duration,
}

impl Default for EventSpoolSettings {
    fn default() -> Self {
        Self {
            max_bytes: 256 * 1024 * 1024,
            direct_wait: Duration::from_secs(3),
            retry_first: Duration::from_millis(200),
            retry_max: Duration::from_secs(15),
        }
    }
}

/// The spool of one service. Dropping it ends its thread; what is on disk is found again.
pub struct EventSpool {
    authority: Arc<dyn Authority>,
    settings: EventSpoolSettings,
    writer: mpsc::Sender<Order>,
    level: Arc<Level>,
    stop: CancellationToken,
}

/// How full it is.
#[derive(Default)]
pub(super) struct Level {
    pub(super) events: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) changed: Notify,
    pub(super) emptied: Notify,
}

/// What the writer thread is asked for.
pub(super) enum Order {
    Write { bytes: Vec<u8>, count: u64, done: oneshot::Sender<Result<(), EmitError>> },
    Seal { done: oneshot::Sender<Option<Sealed>> },
}

impl EventSpool {
    /// Opens `folder` and begins to forward what an earlier run left there.
    pub async fn open(
        folder: PathBuf,
        authority: Arc<dyn Authority>,
        settings: EventSpoolSettings,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Self>, SpoolError> {
        let (segments, left) = blocking(move || Segments::open(&folder)).await?;
        let level = Arc::new(Level::default());
        level.events.store(left.iter().map(|sealed| sealed.count).sum(), Ordering::Relaxed);
        level.bytes.store(left.iter().map(|sealed| sealed.len).sum(), Ordering::Relaxed);
        let (writer, orders) = mpsc::channel(256);
        let (thread_level, max) = (Arc::clone(&level), settings.max_bytes);
        std::thread::Builder::new()
            .name("event-spool".to_owned())
            .spawn(move || write_loop(segments, orders, &thread_level, max))
            .map_err(|source| SpoolError::Disk {
                step: "start thread for",
                path: PathBuf::from("event spool"),
                source,
            })?;
        let stop = shutdown.child_token();
        let forwarder = Forwarder {
            authority: Arc::clone(&authority),
            writer: writer.clone(),
            level: Arc::clone(&level),
            settings: settings.clone(),
            sealed: left.into(),
        };
        tokio::spawn(forward::run(forwarder, stop.clone()));
        Ok(Arc::new(Self { authority, settings, writer, level, stop }))
    }

    /// How many events wait on disk.
    pub fn pending(&self) -> u64 {
        self.level.events.load(Ordering::Acquire)
    }

    /// Waits until nothing is left to forward, at most `limit`; answers whether that came about.
    pub async fn drain(&self, limit: Duration) -> bool {
        let empty = async {
            loop {
                let emptied = self.level.emptied.notified();
                if self.pending() == 0 {
                    return;
                }
                emptied.await;
            }
        };
        tokio::time::timeout(limit, empty).await.is_ok()
    }

    /// Gives events to the auth service and nobody else: durable there, within `limit`, or not at all. Fills what every
    /// event carries, as [`EventSink::emit`] does.
    pub async fn acknowledged(
        &self,
        events: &mut [AuditEvent],
        limit: Duration,
    ) -> Result<(), EmitError> {
        prepare(events, self.authority.state().cluster.as_ref());
        tokio::time::timeout(limit, self.authority.emit(events.to_vec()))
            .await
            .unwrap_or_else(|_| Err(EmitError::Unavailable("no answer in time".to_owned())))
    }

    async fn write(&self, events: &[AuditEvent]) -> Result<(), EmitError> {
        let mut bytes = Vec::new();
        for event in events {
            if !frame::write(&mut bytes, &pack_event(event)) {
                return Err(EmitError::Refused("an event is too long for the spool".to_owned()));
            }
        }
        let (done, answer) = oneshot::channel();
        let order = Order::Write { bytes, count: events.len() as u64, done };
        self.writer.send(order).await.map_err(|_| EmitError::Closed)?;
        answer.await.map_err(|_| EmitError::Closed)?
    }
}

impl Drop for EventSpool {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl EventSink for EventSpool {
    async fn emit(&self, mut events: Vec<AuditEvent>) -> Result<(), EmitError> {
        if events.is_empty() {
            return Ok(());
        }
        prepare(&mut events, self.authority.state().cluster.as_ref());
        if self.pending() == 0 {
            match tokio::time::timeout(
                self.settings.direct_wait,
                self.authority.emit(events.clone()),
            )
            .await
            {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(EmitError::Refused(why))) => return Err(EmitError::Refused(why)),
                Ok(Err(err)) => tracing::debug!(error = %err, "event goes to the spool"),
                Err(_) => tracing::debug!("auth service is slow, event goes to the spool"),
            }
        }
        self.write(&events).await
    }
}

/// The writer's thread: one write and one sync for everything that came meanwhile.
fn write_loop(mut segments: Segments, mut orders: mpsc::Receiver<Order>, level: &Level, max: u64) {
    let (mut bytes, mut waiting) = (Vec::new(), Vec::new());
    while let Some(first) = orders.blocking_recv() {
        let mut count = 0;
        let mut seal = None;
        let mut next = Some(first);
        while let Some(order) = next.take() {
            match order {
                Order::Write { bytes: more, count: n, done } => {
                    let used = level.bytes.load(Ordering::Acquire)
                        + bytes.len() as u64
                        + more.len() as u64;
                    if used > max {
                        let _ = done.send(Err(EmitError::Full { limit: max }));
                    } else {
                        bytes.extend_from_slice(&more);
                        count += n;
                        waiting.push(done);
                    }
                }
                Order::Seal { done } => {
                    seal = Some(done);
                    break;
                }
            }
            if bytes.len() < 1024 * 1024 {
                next = orders.try_recv().ok();
            }
        }
        if !waiting.is_empty() {
            let outcome =
                segments.append(&bytes, count).map_err(|err| EmitError::Disk(chain(&err)));
            if outcome.is_ok() {
                level.bytes.fetch_add(bytes.len() as u64, Ordering::AcqRel);
                level.events.fetch_add(count, Ordering::AcqRel);
                level.changed.notify_one();
            }
            for done in waiting.drain(..) {
                let _ = done.send(outcome.clone());
            }
            bytes.clear();
            bytes.shrink_to(64 * 1024);
        }
        if let Some(done) = seal {
            let _ = done.send(segments.seal());
        }
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;

//! Where events go that are recorded in batches: on to the audit log.

use async_trait::async_trait;
use shared_events::AuditEvent;

/// Takes the events of one session once they are recorded.
#[async_trait]
pub trait EventOutlet: Send + Sync + 'static {
    /// Puts in what all events of the session share. Called before an event is recorded, off the session's task.
    fn complete(&self, event: &mut AuditEvent);

    /// Whether an event goes on; others are in the recording alone.
    fn logs(&self, event: &AuditEvent) -> bool;

    /// Takes events, in order, completed and numbered; never empty. While it waits nothing more is recorded, so that
    /// the session stands still once its queue is full.
    async fn take(&self, events: Vec<AuditEvent>);
}

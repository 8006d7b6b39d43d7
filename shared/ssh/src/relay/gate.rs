//! What stops a session's input while its recording is behind.

use std::sync::Arc;

use async_trait::async_trait;

/// Says whether a session may go on. Output asks its tap; input asks here.
#[async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Whether input has to wait. Asked for every message: an atomic, and no lock.
    fn is_closed(&self) -> bool;

    /// Waits until it is open.
    async fn opened(&self);

    /// Pends until the session has to end, and says why to the client.
    async fn overdue(&self) -> String;
}

/// Waits while the gate is closed.
pub(crate) async fn passable(gate: Option<&Arc<dyn Gate>>) {
    if let Some(gate) = gate
        && gate.is_closed()
    {
        gate.opened().await;
    }
}

/// Pends until a session has to end for the sake of its recording.
pub(crate) async fn overdue(gate: Option<&Arc<dyn Gate>>) -> String {
    match gate {
        Some(gate) => gate.overdue().await,
        None => std::future::pending().await,
    }
}

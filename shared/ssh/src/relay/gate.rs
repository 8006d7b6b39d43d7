//! What stops a session's input while its recording is behind.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use russh::ChannelWriteHalf;
use russh::client::Msg;

use super::pump::Sink;

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

/// A target that gets input only while the gate is open.
pub(super) struct Gated<'a> {
    pub(super) target: &'a ChannelWriteHalf<Msg>,
    pub(super) gate: Option<&'a Arc<dyn Gate>>,
}

impl Sink for Gated<'_> {
    async fn data(&self, data: Bytes) -> bool {
        if let Some(gate) = self.gate
            && gate.is_closed()
        {
            gate.opened().await;
        }
        Sink::data(self.target, data).await
    }

    async fn eof(&self) -> bool {
        Sink::eof(self.target).await
    }
}

/// Pends until a session has to end for the sake of its recording.
pub(super) async fn overdue(gate: Option<&Arc<dyn Gate>>) -> String {
    match gate {
        Some(gate) => gate.overdue().await,
        None => std::future::pending().await,
    }
}

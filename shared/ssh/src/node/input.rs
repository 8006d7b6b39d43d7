//! The input of a program, as a pump's sink. It is there once the program runs.

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use crate::relay::pump::Sink;

type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Where a program's input goes.
pub(super) struct Input {
    writer: Mutex<Option<Writer>>,
    begun: watch::Sender<bool>,
    /// The client has said that nothing more comes, and it was passed on.
    ended: CancellationToken,
}

impl Input {
    pub(super) fn new() -> Self {
        let (begun, ended) = (watch::channel(false).0, CancellationToken::new());
        Self { writer: Mutex::default(), begun, ended }
    }

    /// The program runs.
    pub(super) async fn begin(&self, writer: Writer) {
        *self.writer.lock().await = Some(writer);
        self.begun.send_replace(true);
    }

    /// Waits for the end of input.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Waits until the program runs.
    pub(super) async fn has_begun(&self) {
        // The sender is this very struct, and outlives the wait.
        let _ = self.begun.subscribe().wait_for(|begun| *begun).await;
    }
}

impl Sink for Input {
    /// A program that does not take input any more may still have output: what comes for it is thrown away.
    async fn data(&self, data: Bytes) -> bool {
        self.has_begun().await;
        let mut writer = self.writer.lock().await;
        let failed = match writer.as_mut() {
            Some(open) => {
                async { open.write_all(&data).await.and(open.flush().await) }.await.is_err()
            }
            None => false,
        };
        if failed {
            *writer = None;
        }
        true
    }

    async fn eof(&self) -> bool {
        self.has_begun().await;
        if let Some(mut writer) = self.writer.lock().await.take() {
            let _ = writer.shutdown().await;
        }
        self.ended.cancel();
        true
    }
}

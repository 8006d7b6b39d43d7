//! Runs a channel's state machine over a stream.

use std::io;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::session::{AgentSession, Answer};
use super::socket_session::SocketSession;
use crate::wire::{MAX_MESSAGE, frame};

/// How long the rest of a message may take once its length was read.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// A state machine behind an agent stream.
pub trait Channel: Send {
    /// Answers one message; may wait for a person.
    fn answer(&mut self, message: &[u8], now: DateTime<Utc>)
    -> impl Future<Output = Answer> + Send;
}

impl Channel for AgentSession {
    async fn answer(&mut self, message: &[u8], now: DateTime<Utc>) -> Answer {
        self.handle_asking(message, now).await
    }
}

impl Channel for SocketSession {
    async fn answer(&mut self, message: &[u8], now: DateTime<Utc>) -> Answer {
        self.handle(message, now)
    }
}

/// Answers messages until the peer is done or the channel is to be closed.
pub async fn serve<S, C>(mut stream: S, mut channel: C) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    C: Channel,
{
    let mut message = Vec::new();
    loop {
        let mut len = [0; 4];
        match stream.read_exact(&mut len).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let len = u32::from_be_bytes(len) as usize;
        if len == 0 || len > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "agent message length"));
        }
        // Grows with what arrives, not with what was announced.
        message.clear();
        let mut rest = (&mut stream).take(len as u64);
        let read = rest.read_to_end(&mut message);
        tokio::time::timeout(MESSAGE_TIMEOUT, read)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        if message.len() < len {
            return Ok(());
        }
        let answer = channel.answer(&message, Utc::now()).await;
        if let Some(refusal) = &answer.refusal {
            tracing::warn!(error = refusal as &dyn std::error::Error, "agent refused a request");
        }
        stream.write_all(&frame(&answer.reply.encode())).await?;
        stream.flush().await?;
        if answer.close {
            return stream.shutdown().await;
        }
    }
}

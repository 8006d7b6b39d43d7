//! Both directions of a connection, tied together by what is due.
//!
//! What must stay true: memory is bounded in both directions: values pass in pieces, and a side that does not read
//! stops the other. Neither direction ever waits for the other but for the answer to `AUTH`, and for a client that has
//! sixty thousand different things under way.

mod down;
mod up;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared_wire::redis::{Due, error};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::gate::Gate;
use super::told;
use crate::engine::EngineError;
use crate::relay::{Cause, Side, Watched};

/// What is read at first, and after quiet.
const SMALL: usize = 4 * 1024;
/// What is read at a time under load.
const LARGE: usize = 64 * 1024;
/// How long a server may go on answering a client that has stopped sending, without a byte.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// How long the end of a connection waits for its peer to take the last bytes.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// What both directions know.
pub(super) struct Talk {
    both: Mutex<Both>,
    /// An answer of our own may be due to the client.
    answer: Notify,
    /// A reply has come.
    replied: Notify,
    /// What the client was written last ended a reply.
    settled: AtomicBool,
}

struct Both {
    due: Due,
    gate: Gate,
    /// No more commands are taken: it ends when everything was answered.
    closing: bool,
}

impl Talk {
    pub(super) fn new(gate: Gate) -> Self {
        let both = Both { due: Due::default(), gate, closing: false };
        Self {
            both: Mutex::new(both),
            answer: Notify::new(),
            replied: Notify::new(),
            settled: AtomicBool::new(true),
        }
    }

    fn both(&self) -> MutexGuard<'_, Both> {
        self.both.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves until one side or the session ends; the client has read why.
    pub(super) async fn run<H, C, S>(
        &self,
        session: &H,
        client: &mut C,
        server: &mut S,
    ) -> Result<(), EngineError>
    where
        H: Watched,
        C: AsyncRead + AsyncWrite + Send + Unpin,
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let cause = {
            let (from_client, to_client) = tokio::io::split(&mut *client);
            let (from_server, to_server) = tokio::io::split(server);
            let up = up::Up::new(self, session, from_client, to_server);
            let down = down::Down::new(self, session, from_server, to_client);
            self.until_the_end(session, up.run(), down.run()).await
        };
        let (error, told) = match cause {
            Cause::Closed(_) => return Ok(()),
            Cause::Failed(Side::Client, error) => (EngineError::Client(error), true),
            Cause::Failed(Side::Database, error) => (EngineError::Database(error), false),
            Cause::Malformed(side, malformed) => (malformed.into(), side == Side::Client),
            Cause::Ended(reason) => (EngineError::Ended(reason.text), false),
            Cause::Audit(error) => (error.into(), false),
            Cause::Tap(why) => (EngineError::NotPassedOn(why), false),
        };
        if !told && self.settled.load(Ordering::Relaxed) {
            let last = told::reply(&error);
            let written = async {
                client.write_all(&last).await?;
                client.flush().await
            };
            let _ = tokio::time::timeout(LAST_BYTES, written).await;
        }
        Err(error)
    }

    /// Runs both directions to the end of one, and what the server still has to say.
    async fn until_the_end(
        &self,
        session: &impl Watched,
        up: impl Future<Output = Cause>,
        down: impl Future<Output = Cause>,
    ) -> Cause {
        let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
        let mut ended = std::pin::pin!(session.ended());
        let first = tokio::select! {
            cause = &mut up => cause,
            cause = &mut down => return cause,
            reason = &mut ended => return Cause::Ended(reason),
        };
        let limit = match &first {
            Cause::Closed(_) => LAST_ANSWERS,
            Cause::Malformed(_, why) => {
                self.close(&why.what);
                LAST_BYTES
            }
            // The server may have said why before it went.
            Cause::Failed(Side::Database, _) => LAST_BYTES,
            _ => return first,
        };
        let (mut seen, mut since) = (session.traffic(), Instant::now());
        while since.elapsed() < limit {
            tokio::select! {
                cause = &mut down => return match (first, cause) {
                    (Cause::Failed(..), cause) => cause,
                    (first, _) => first,
                },
                reason = &mut ended => return Cause::Ended(reason),
                () = tokio::time::sleep(LAST_BYTES) => {}
            }
            let now = session.traffic();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
        first
    }

    /// The client is told why nothing more is taken, after the answers to what was.
    fn close(&self, why: &str) {
        let mut both = self.both();
        both.due.refused(error("ERR", &format!("Protocol error: {why}")));
        both.closing = true;
        drop(both);
        self.answer.notify_one();
    }
}

#[cfg(test)]
mod tests;

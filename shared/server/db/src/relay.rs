//! Bytes in both directions, seen by a [`Tap`] each on the way.
//!
//! What must stay true: what a tap saw is in the audit queue before the bytes that completed it are written on; bytes
//! are passed on as they came, without a copy; a side that does not read stops the other, and nothing grows.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shared_events::AuditEvent;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::audit::AuditError;
use crate::session::EndReason;

/// What is read at first, and again after quiet.
const SMALL: usize = 4 * 1024;
/// What is read at a time under load.
const LARGE: usize = 64 * 1024;
/// Small reads in a row after which little is read again.
const QUIET: u32 = 64;
/// How often it is looked whether a message is whole.
const SETTLE_LOOK: Duration = Duration::from_millis(10);
/// How long a database may go on answering a client that has stopped sending, without a byte.
const LAST_ANSWERS: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 5000 });
/// How long the end of a connection waits for its peer to take the last bytes.
const LAST_BYTES: Duration = Duration::from_secs(2);
/// Replies to a client that wait for the database's message to be whole.
const REPLIES: usize = 16;

/// Looks at one direction of a connection.
pub(crate) trait Tap: Send {
    /// Sees the next bytes of its direction, however they were cut, and puts what they mean for the audit log into
    /// `events`, which is empty. Metadata, user, session and database parts are filled in by the audit.
    fn see(&mut self, chunk: &[u8], events: &mut Vec<AuditEvent>) -> Result<Step, Malformed>;

    /// Whether the bytes so far end with a message: only then is something else said in their place.
    fn is_settled(&self) -> bool {
        true
    }
}

/// What happens to the bytes a tap saw.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// All of them are passed on.
    Pass,
    /// The first `pass` of them are passed on, the next `skip` are not, and whoever sent them is answered `reply`,
    /// which may be nothing. The tap sees the rest again as its next chunk.
    Instead {
        /// Passed on.
        pass: usize,
        /// Swallowed.
        skip: usize,
        /// Said to the sender, at the next place where a message of the other direction ends.
        reply: Vec<u8>,
    },
    /// The first `pass` of them are passed on, and the connection ends. The engine tells the client why.
    End {
        /// Passed on.
        pass: usize,
        /// Why, as the client may read it.
        why: String,
    },
}

/// Bytes that are not of the protocol. An event tells of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet: {what}")]
pub(crate) struct Malformed {
    /// What is wrong with them.
    pub(crate) what: String,
    /// Their beginning; as much as an event may hold is kept.
    pub(crate) payload: Vec<u8>,
}

/// Who sent something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client.
    Client,
    /// The database.
    Database,
}

/// Why a relay ended.
#[derive(Debug)]
pub(crate) enum Cause {
    /// One side closed its connection, in order; what it had sent was passed on.
    Closed(Side),
    /// One side's connection failed.
    Failed(Side, io::Error),
    /// A tap ended it, for this reason.
    Tap(String),
    /// One side sent what is not of the protocol. The event is written.
    Malformed(Side, Malformed),
    /// The session has to end.
    Ended(EndReason),
    /// What happens cannot be written down.
    Audit(AuditError),
}

/// How a relay ended.
#[derive(Debug)]
pub(crate) struct Relayed {
    /// Why.
    pub(crate) cause: Cause,
    /// Whether the client stands at the end of a message, so that one more of ours is understood.
    pub(crate) settled: bool,
}

/// The session whose bytes are moved.
pub(crate) trait Watched: Sync {
    /// Bytes came, from either side.
    fn moved(&self, bytes: usize);

    /// Bytes so far.
    fn traffic(&self) -> u64;

    /// Takes what happened, and leaves `events` empty.
    fn happened(
        &self,
        events: &mut Vec<AuditEvent>,
    ) -> impl Future<Output = Result<(), AuditError>> + Send;

    /// Takes a packet that is not of the protocol.
    fn malformed(&self, payload: &[u8]) -> impl Future<Output = Result<(), AuditError>> + Send;

    /// Resolves when it must end.
    fn ended(&self) -> impl Future<Output = EndReason> + Send;
}

/// Moves bytes both ways until one side or the session ends. Both streams stay open: what is said last is the engine's.
pub(crate) async fn relay<H, C, D>(
    session: &H,
    client: &mut C,
    database: &mut D,
    up: &mut dyn Tap,
    down: &mut dyn Tap,
) -> Relayed
where
    H: Watched,
    C: AsyncRead + AsyncWrite + Send + Unpin,
    D: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (from_client, to_client) = tokio::io::split(client);
    let (from_database, to_database) = tokio::io::split(database);
    let (for_client, client_hears) = mpsc::channel(REPLIES);
    let (for_database, database_hears) = mpsc::channel(REPLIES);
    let settled = [AtomicBool::new(true), AtomicBool::new(true)];
    let [up_settled, down_settled] = &settled;
    let up = Lane {
        side: Side::Client,
        from: from_client,
        to: to_database,
        tap: up,
        session,
        replies: for_client,
        inbox: database_hears,
        settled: up_settled,
        events: Vec::new(),
    };
    let down = Lane {
        side: Side::Database,
        from: from_database,
        to: to_client,
        tap: down,
        session,
        replies: for_database,
        inbox: client_hears,
        settled: down_settled,
        events: Vec::new(),
    };
    let cause = until_the_end(session, up.run(), down.run(), down_settled).await;
    Relayed { cause, settled: down_settled.load(Ordering::Relaxed) }
}

/// Runs both directions to the end of one, and what the other still has to say.
async fn until_the_end(
    session: &impl Watched,
    up: impl Future<Output = Cause>,
    down: impl Future<Output = Cause>,
    settled: &AtomicBool,
) -> Cause {
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    let mut ended = std::pin::pin!(session.ended());
    let first = tokio::select! {
        cause = &mut up => cause,
        cause = &mut down => return cause,
        reason = &mut ended => return Cause::Ended(reason),
    };
    let whole_message = matches!(&first, Cause::Tap(_) | Cause::Malformed(..));
    let (limit, look) = match &first {
        Cause::Closed(Side::Client) => (LAST_ANSWERS, LAST_ANSWERS),
        Cause::Failed(Side::Database, _) => (LAST_BYTES, LAST_BYTES),
        _ if whole_message => (LAST_BYTES, SETTLE_LOOK),
        _ => return first,
    };
    let (mut seen, mut since) = (session.traffic(), Instant::now());
    loop {
        if whole_message && settled.load(Ordering::Relaxed) {
            return first;
        }
        tokio::select! {
            cause = &mut down => return match (first, cause) {
                // Why it closed the connection says more than that it did.
                (Cause::Failed(..), cause) => cause,
                (first, _) => first,
            },
            reason = &mut ended => return Cause::Ended(reason),
            () = tokio::time::sleep(look) => {}
        }
        let now = session.traffic();
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() >= limit {
            return first;
        }
    }
}

/// One direction.
struct Lane<'a, H, R, W> {
    side: Side,
    from: ReadHalf<&'a mut R>,
    to: WriteHalf<&'a mut W>,
    tap: &'a mut dyn Tap,
    session: &'a H,
    /// What whoever sends here is answered.
    replies: mpsc::Sender<Vec<u8>>,
    /// What the other direction answers whoever receives here.
    inbox: mpsc::Receiver<Vec<u8>>,
    /// Whether what was written ends with a message.
    settled: &'a AtomicBool,
    events: Vec<AuditEvent>,
}

impl<H, R, W> Lane<'_, H, R, W>
where
    H: Watched,
    R: AsyncRead + AsyncWrite + Send + Unpin,
    W: AsyncRead + AsyncWrite + Send + Unpin,
{
    async fn run(mut self) -> Cause {
        let mut buffer = Buffer::new();
        loop {
            let read = tokio::select! {
                read = self.from.read(buffer.room()) => read,
                Some(reply) = self.inbox.recv(), if self.tap.is_settled() => {
                    if let Err(error) = self.write(&reply).await {
                        return Cause::Failed(self.side.other(), error);
                    }
                    continue;
                }
            };
            let count = match read {
                Ok(0) => {
                    let _ = self.to.shutdown().await;
                    return Cause::Closed(self.side);
                }
                Ok(count) => count,
                Err(error) => return Cause::Failed(self.side, error),
            };
            self.session.moved(count);
            if let Err(cause) = self.pass(buffer.filled(count)).await {
                return cause;
            }
            buffer.adapt(count);
        }
    }

    /// Shows a chunk to the tap, writes down what it saw, and passes on what it lets through.
    async fn pass(&mut self, mut chunk: &[u8]) -> Result<(), Cause> {
        while !chunk.is_empty() {
            let step = self.tap.see(chunk, &mut self.events);
            if !self.events.is_empty() {
                self.session.happened(&mut self.events).await.map_err(Cause::Audit)?;
            }
            let (pass, skip, reply) = match step {
                Ok(Step::Pass) => (chunk.len(), 0, None),
                Ok(Step::Instead { pass, skip, reply }) => (pass, skip, Some(reply)),
                Ok(Step::End { pass, why }) => {
                    self.write_some(chunk, pass).await?;
                    return Err(Cause::Tap(why));
                }
                Err(malformed) => {
                    self.session.malformed(&malformed.payload).await.map_err(Cause::Audit)?;
                    return Err(Cause::Malformed(self.side, malformed));
                }
            };
            self.write_some(chunk, pass).await?;
            if let Some(reply) = reply.filter(|reply| !reply.is_empty()) {
                // The other direction is polled by the same task: it takes replies whenever it can write them.
                let _ = self.replies.send(reply).await;
            }
            chunk = chunk.get(pass.saturating_add(skip).max(1)..).unwrap_or_default();
        }
        Ok(())
    }

    async fn write_some(&mut self, chunk: &[u8], pass: usize) -> Result<(), Cause> {
        let some = chunk.get(..pass.min(chunk.len())).unwrap_or_default();
        if some.is_empty() {
            return Ok(());
        }
        self.write(some).await.map_err(|error| Cause::Failed(self.side.other(), error))
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.settled.store(false, Ordering::Relaxed);
        self.to.write_all(bytes).await?;
        self.to.flush().await?;
        self.settled.store(self.tap.is_settled(), Ordering::Relaxed);
        Ok(())
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Database,
            Self::Database => Self::Client,
        }
    }
}

/// What is read into: small while little comes, so that a thousand idle connections are cheap.
struct Buffer {
    bytes: Vec<u8>,
    /// Reads in a row that a small buffer would have held.
    quiet: u32,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: vec![0; SMALL], quiet: 0 }
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn filled(&self, count: usize) -> &[u8] {
        self.bytes.get(..count).unwrap_or_default()
    }

    /// Grows after a read that filled it, and shrinks after many that did not need it.
    fn adapt(&mut self, count: usize) {
        if count == self.bytes.len() && count < LARGE {
            (self.bytes, self.quiet) = (vec![0; LARGE], 0);
        } else if count > SMALL || self.bytes.len() == SMALL {
            self.quiet = 0;
        } else {
            self.quiet += 1;
            if self.quiet >= QUIET {
                (self.bytes, self.quiet) = (vec![0; SMALL], 0);
            }
        }
    }
}

#[cfg(test)]
mod tests;

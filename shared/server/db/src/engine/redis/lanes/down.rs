//! Replies, from the server to the client.

use std::sync::atomic::Ordering;

use shared_events::{AuditEvent, DatabaseSessionCommandResult, Status};
use shared_wire::redis::{Got, Kind, Replies, Reply};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};

use super::{LARGE, SMALL, Talk};
use crate::relay::{Cause, Malformed, Side, Watched};

pub(super) struct Down<'a, H, S, C> {
    talk: &'a Talk,
    session: &'a H,
    from: ReadHalf<&'a mut S>,
    to: WriteHalf<&'a mut C>,
    replies: Replies,
    events: Vec<AuditEvent>,
}

impl<'a, H, S, C> Down<'a, H, S, C>
where
    H: Watched,
    S: AsyncRead + AsyncWrite + Send + Unpin,
    C: AsyncRead + AsyncWrite + Send + Unpin,
{
    pub(super) fn new(
        talk: &'a Talk,
        session: &'a H,
        from: ReadHalf<&'a mut S>,
        to: WriteHalf<&'a mut C>,
    ) -> Self {
        Self { talk, session, from, to, replies: Replies::default(), events: Vec::new() }
    }

    pub(super) async fn run(mut self) -> Cause {
        let mut buffer = vec![0; SMALL];
        loop {
            if self.replies.between() {
                match self.answer().await {
                    Ok(false) => {}
                    Ok(true) => return Cause::Closed(Side::Database),
                    Err(cause) => return cause,
                }
            }
            let read = tokio::select! {
                read = self.from.read(&mut buffer) => read,
                () = self.talk.answer.notified(), if self.replies.between() => continue,
            };
            let count = match read {
                Ok(0) => {
                    // What is refused needs no server.
                    if self.replies.between()
                        && let Err(cause) = self.answer().await
                    {
                        return cause;
                    }
                    let _ = self.to.shutdown().await;
                    return Cause::Closed(Side::Database);
                }
                Ok(count) => count,
                Err(error) => return Cause::Failed(Side::Database, error),
            };
            self.session.moved(count);
            if let Err(cause) = self.pass(buffer.get(..count).unwrap_or_default()).await {
                return cause;
            }
            let wanted = if count >= SMALL { LARGE } else { SMALL };
            if buffer.len() != wanted {
                buffer = vec![0; wanted];
            }
        }
    }

    /// Writes answers of our own whose turn it is; whether that was the last that this client gets.
    async fn answer(&mut self) -> Result<bool, Cause> {
        loop {
            let (answer, last) = {
                let mut both = self.talk.both();
                let answer = both.due.answer();
                (answer, both.closing && both.due.is_empty())
            };
            let Some(answer) = answer else { return Ok(last) };
            self.write(&answer).await?;
            self.talk.replied.notify_one();
        }
    }

    async fn pass(&mut self, bytes: &[u8]) -> Result<(), Cause> {
        if self.replies.between() {
            // What was refused before the command that these bytes answer comes before them.
            self.answer().await?;
        }
        let (mut done, mut at) = (0, 0);
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            let (used, complete) = match self.replies.scan(rest) {
                Ok(scanned) => scanned,
                Err(error) => {
                    let what = format!("the database answers no Redis protocol: {error}");
                    let malformed = Malformed { what, payload: rest.to_vec() };
                    self.session.malformed(&malformed.payload).await.map_err(Cause::Audit)?;
                    return Err(Cause::Malformed(Side::Database, malformed));
                }
            };
            at += used;
            if complete && self.reply() {
                // Answers of our own follow this reply.
                self.write(bytes.get(done..at).unwrap_or_default()).await?;
                done = at;
                self.answer().await?;
            }
        }
        self.write(bytes.get(done..).unwrap_or_default()).await
    }

    /// Takes note of a reply; whether an answer of our own may be due behind it.
    fn reply(&mut self) -> bool {
        let reply = self.replies.reply();
        let mut both = self.talk.both();
        let got = both.due.got(reply);
        if got.auth == Some(true) {
            both.gate.open();
        }
        let more = both.due.has_answer();
        drop(both);
        self.talk.replied.notify_one();
        if got.answered {
            self.events.push(result(reply, &got));
        }
        more
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Cause> {
        if !self.events.is_empty() {
            self.session.happened(&mut self.events).await.map_err(Cause::Audit)?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.talk.settled.store(false, Ordering::Relaxed);
        let failed = |error| Cause::Failed(Side::Client, error);
        self.to.write_all(bytes).await.map_err(failed)?;
        self.to.flush().await.map_err(failed)?;
        self.talk.settled.store(self.replies.between(), Ordering::Relaxed);
        Ok(())
    }
}

/// How a command was answered.
fn result(reply: &Reply, got: &Got) -> AuditEvent {
    let own = (reply.kind == Kind::Error).then_some(&reply.line);
    let errors: Vec<String> =
        own.into_iter().chain(&reply.errors).map(|line| text(line, got.secret)).collect();
    let status =
        Status { success: errors.is_empty(), error: errors.join("; "), ..Status::default() };
    DatabaseSessionCommandResult { status, ..DatabaseSessionCommandResult::default() }.into()
}

/// An error as it is kept: of one that may repeat a secret, the code in front of it.
fn text(line: &[u8], secret: bool) -> String {
    let line = String::from_utf8_lossy(line);
    if !secret {
        return line.into_owned();
    }
    let code = line.split(' ').next().unwrap_or_default();
    let is_code = !code.is_empty() && code.chars().all(|c| c.is_ascii_uppercase());
    format!("{} <redacted>", if is_code { code } else { "ERR" })
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn an_error_that_may_repeat_a_secret_keeps_its_code() {
        assert_eq!(text(b"WRONGTYPE no", false), "WRONGTYPE no");
        assert_eq!(text(b"ERR Error in modifier '>pw'", true), "ERR <redacted>");
        assert_eq!(text(b">pw", true), "ERR <redacted>");
    }
}

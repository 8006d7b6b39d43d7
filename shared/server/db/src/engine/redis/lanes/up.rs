//! Commands, from the client to the server.

use bytes::{Buf as _, BytesMut};
use shared_events::{AuditEvent, DatabaseSessionQuery, MAX_STATEMENT, Status};
use shared_wire::redis::{self, Command, Commands, INLINE_LIMIT, encode};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};

use super::super::gate::{Class, Verdict};
use super::{Both, LARGE, SMALL, Talk};
use crate::relay::{Cause, Malformed, Side, Watched};

/// The most bytes that wait until their command can be judged; an inline command with its line end is the longest.
const HELD: usize = INLINE_LIMIT + 2;

pub(super) struct Up<'a, H, C, S> {
    talk: &'a Talk,
    session: &'a H,
    from: ReadHalf<&'a mut C>,
    to: WriteHalf<&'a mut S>,
    commands: Commands,
    /// What happens to the command that is being read; not known before its name is.
    class: Option<Class>,
    events: Vec<AuditEvent>,
}

/// Places in the bytes that were read.
struct Places {
    /// Everything before was passed on or dropped.
    done: usize,
    /// Where the command begins that is being read.
    begin: usize,
    /// Everything before was scanned.
    at: usize,
}

impl<'a, H, C, S> Up<'a, H, C, S>
where
    H: Watched,
    C: AsyncRead + AsyncWrite + Send + Unpin,
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    pub(super) fn new(
        talk: &'a Talk,
        session: &'a H,
        from: ReadHalf<&'a mut C>,
        to: WriteHalf<&'a mut S>,
    ) -> Self {
        Self {
            talk,
            session,
            from,
            to,
            commands: Commands::default(),
            class: None,
            events: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) -> Cause {
        let mut buffer = BytesMut::new();
        let mut read = SMALL;
        loop {
            let held = buffer.len();
            buffer.reserve(read);
            let count = match self.from.read_buf(&mut buffer).await {
                Ok(0) => {
                    let _ = self.to.shutdown().await;
                    return Cause::Closed(Side::Client);
                }
                Ok(count) => count,
                Err(error) => return Cause::Failed(Side::Client, error),
            };
            read = if count >= SMALL { LARGE } else { SMALL };
            self.session.moved(count);
            if let Err(cause) = self.pass(&mut buffer, held).await {
                return cause;
            }
            if buffer.is_empty() && read == SMALL {
                // A thousand idle connections hold no buffers.
                buffer = BytesMut::new();
            }
        }
    }

    /// Passes on what may be, and leaves in `buffer` what has to wait; `held` bytes waited already, and were scanned.
    async fn pass(&mut self, buffer: &mut BytesMut, held: usize) -> Result<(), Cause> {
        let mut places = Places { done: 0, begin: 0, at: held };
        while places.at < buffer.len() {
            if self.commands.between() {
                (places.begin, self.class) = (places.at, None);
            }
            let rest = buffer.get(places.at..).unwrap_or_default();
            let (used, complete) = match self.commands.scan(rest) {
                Ok(scanned) => scanned,
                Err(error) => return Err(self.malformed(buffer, &places, &error).await),
            };
            places.at += used;
            if self.class.is_none()
                && let Some(name) = self.commands.name()
            {
                self.class = Some(self.talk.both().gate.classify(name));
            }
            if complete {
                self.complete(buffer, &mut places).await?;
            }
        }
        let end = match self.class {
            _ if self.commands.between() => places.at,
            Some(Class::Passes) => places.at,
            Some(Class::Refused) => {
                self.write(buffer, places.done, places.begin).await?;
                buffer.clear();
                return Ok(());
            }
            Some(Class::Judged) | None => places.begin,
        };
        self.write(buffer, places.done, end).await?;
        buffer.advance(end);
        if buffer.len() > HELD {
            let malformed = self.too_long(buffer);
            return Err(self.report(malformed).await);
        }
        Ok(())
    }

    /// A command is whole.
    async fn complete(&mut self, buffer: &[u8], places: &mut Places) -> Result<(), Cause> {
        let command = self.commands.command();
        if self.class == Some(Class::Passes) && !command.inline() {
            self.events.push(asked(&command, None));
            if self.talk.sent(&command) {
                self.write(buffer, places.done, places.at).await?;
                places.done = places.at;
                self.talk.until(|both| !both.due.full()).await;
            }
            return Ok(());
        }
        let refused = self.class == Some(Class::Refused);
        // What stands before it goes first.
        self.write(buffer, places.done, places.begin).await?;
        places.done = places.at;
        let raw = buffer.get(places.begin..places.at).filter(|_| !refused).unwrap_or_default();
        self.judge(raw).await
    }

    /// A command that is passed on whole, or not at all.
    async fn judge(&mut self, raw: &[u8]) -> Result<(), Cause> {
        let command = self.commands.command();
        let (bytes, waits) = match self.talk.judge(&command, raw) {
            Judged::Passed(bytes, waits) => (bytes, waits),
            Judged::Refused(text) => {
                self.events.push(asked(&command, Some(text)));
                return Ok(());
            }
        };
        self.events.push(asked(&command, None));
        self.write(&bytes, 0, bytes.len()).await?;
        if waits {
            // What comes next passes only if the server has let the user in.
            self.talk.until(|both| !both.due.auth()).await;
        }
        Ok(())
    }

    /// Writes down what was asked, and then passes these bytes on.
    async fn write(&mut self, buffer: &[u8], from: usize, to: usize) -> Result<(), Cause> {
        if !self.events.is_empty() {
            self.session.happened(&mut self.events).await.map_err(Cause::Audit)?;
        }
        let bytes = buffer.get(from..to).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        let failed = |error| Cause::Failed(Side::Database, error);
        self.to.write_all(bytes).await.map_err(failed)?;
        self.to.flush().await.map_err(failed)
    }

    /// The bytes are no command: what stands before them is passed on, they are not.
    async fn malformed(
        &mut self,
        buffer: &[u8],
        places: &Places,
        error: &redis::Malformed,
    ) -> Cause {
        if let Err(cause) = self.write(buffer, places.done, places.begin.max(places.done)).await {
            return cause;
        }
        let payload = buffer.get(places.begin..).unwrap_or_default().to_vec();
        self.report(Malformed { what: error.to_string(), payload }).await
    }

    fn too_long(&self, buffer: &[u8]) -> Malformed {
        let what = match self.commands.name() {
            Some(name) => format!("{} is too long", name.escape_ascii()),
            None => "the name of a command is too long".to_owned(),
        };
        Malformed { what, payload: buffer.to_vec() }
    }

    async fn report(&mut self, mut malformed: Malformed) -> Cause {
        if may_hold_secret(&malformed.payload) {
            malformed.payload = b"<redacted>".to_vec();
        }
        match self.session.malformed(&malformed.payload).await {
            Ok(()) => Cause::Malformed(Side::Client, malformed),
            Err(error) => Cause::Audit(error),
        }
    }
}

/// What becomes of a command that was judged.
enum Judged {
    /// These bytes are passed on; whether nothing else is before they were answered.
    Passed(Vec<u8>, bool),
    /// It is answered with an error of this text.
    Refused(String),
}

impl Talk {
    /// Takes note of a command that is passed on; whether too much is due now.
    fn sent(&self, command: &Command<'_>) -> bool {
        let mut both = self.both();
        both.due.sent(command, false);
        both.due.full()
    }

    /// Judges a command that came as `raw`, and takes note of what is due for it.
    fn judge(&self, command: &Command<'_>, raw: &[u8]) -> Judged {
        let mut both = self.both();
        let (bytes, auth) = match both.gate.judge(command) {
            Verdict::Refuse(code, text) => {
                both.due.refused(redis::error(code, &text));
                self.answer.notify_one();
                return Judged::Refused(text);
            }
            Verdict::Pass { auth } if command.inline() => {
                let args: Vec<&[u8]> = command.args().map(|arg| arg.kept).collect();
                (encode(args.into_iter()), auth)
            }
            Verdict::Pass { auth } => (raw.to_vec(), auth),
            Verdict::Instead(bytes) => (bytes, true),
        };
        both.due.sent(command, auth);
        Judged::Passed(bytes, auth && !both.gate.is_open())
    }

    /// Waits for the other direction.
    async fn until(&self, enough: impl Fn(&Both) -> bool) {
        loop {
            let replied = self.replied.notified();
            if enough(&self.both()) {
                return;
            }
            replied.await;
        }
    }
}

/// Whether bytes that are no command may be meant for one with a password in it.
fn may_hold_secret(bytes: &[u8]) -> bool {
    let text = bytes.to_ascii_lowercase();
    let has = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
    has(b"auth") || has(b"pass") || has(b"setuser")
}

/// The event of a command, with the reason if it is not passed on.
fn asked(command: &Command<'_>, refused: Option<String>) -> AuditEvent {
    let error = refused.unwrap_or_default();
    DatabaseSessionQuery {
        query: command.text(MAX_STATEMENT),
        status: Status { success: error.is_empty(), error, ..Status::default() },
        ..DatabaseSessionQuery::default()
    }
    .into()
}

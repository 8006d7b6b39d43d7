//! One session channel: the client's channel, the target's channel on a connection of its own, and the tap.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg as TargetMsg;
use russh::server::{Handle, Msg as ClientMsg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::filter::Watching;
use super::gate::{Gate, overdue, passable};
use super::pump::{self, Flow, Moved, PumpEnd, Sink, Waiting};
use super::tap::{Ended, Program, PtyInfo, Size, Start, Stream, Tap};
use crate::target::Target;

/// How long a target may take to answer a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the end of output waits for the exit status, which servers send about then.
const EOF_HELD: Duration = Duration::from_millis(200);
/// How long a target may go on talking after the client closed the channel.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a client may take to read a last message.
const LAST_MESSAGE: Duration = Duration::from_secs(2);
/// How many variables a client may set on one channel.
pub(crate) const MAX_ENV: usize = 256;
/// The largest terminal, in either direction.
pub(crate) const MAX_TERMINAL: u32 = 65_535;
/// The longest terminal type.
pub(crate) const MAX_TERM: usize = 128;

pub(crate) fn plain_text(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// What a client asked for before its program started.
#[derive(Debug, Default)]
struct Asked {
    pty: Option<PtyInfo>,
    env: usize,
    started: bool,
}

/// A session channel, as the server's callbacks see it.
pub(super) struct SessionChannel {
    target: ChannelWriteHalf<TargetMsg>,
    connection: Arc<Target>,
    tap: Arc<dyn Tap>,
    asked: Mutex<Asked>,
    replies: Mutex<VecDeque<oneshot::Sender<bool>>>,
    watching: Watching,
    client: ChannelWriteHalf<ClientMsg>,
    client_handle: Handle,
    cut: Mutex<Option<String>>,
    moved: Arc<Moved>,
    stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SessionChannel {
    /// Sends a request and waits for the target's answer. Requests are answered in their order (RFC 4254 §5.4).
    async fn ask(&self, send: impl Future<Output = Result<(), russh::Error>>) -> bool {
        let (reply, answer) = oneshot::channel();
        lock(&self.replies).push_back(reply);
        let exchange = async { send.await.is_ok() && answer.await.unwrap_or(false) };
        tokio::select! {
            answer = tokio::time::timeout(REQUEST_TIMEOUT, exchange) => answer.unwrap_or(false),
            () = self.stop.cancelled() => false,
        }
    }

    fn answered(&self, yes: bool) {
        if let Some(reply) = lock(&self.replies).pop_front() {
            let _ = reply.send(yes);
        }
    }

    /// `pty-req`.
    pub(super) async fn pty(
        &self,
        term: &str,
        size: Size,
        pixels: (u32, u32),
        modes: &[(Pty, u32)],
    ) -> bool {
        let size =
            Size { columns: size.columns.min(MAX_TERMINAL), rows: size.rows.min(MAX_TERMINAL) };
        if lock(&self.asked).started || term.len() > MAX_TERM || !plain_text(term) {
            return false;
        }
        let modes: Vec<_> =
            modes.iter().copied().filter(|(mode, _)| *mode != Pty::TTY_OP_END).collect();
        let granted = self
            .ask(self.target.request_pty(
                true,
                term,
                size.columns,
                size.rows,
                pixels.0,
                pixels.1,
                &modes,
            ))
            .await;
        if granted {
            lock(&self.asked).pty = Some(PtyInfo { term: term.to_owned(), size });
        }
        granted
    }

    /// `env`. Targets refuse most variables; that is no failure.
    pub(super) async fn env(&self, name: &str, value: &str) -> bool {
        if name.is_empty() || !plain_text(name) || !plain_text(value) {
            return false;
        }
        {
            let mut asked = lock(&self.asked);
            if asked.started || asked.env >= MAX_ENV {
                return false;
            }
            asked.env += 1;
        }
        self.target.set_env(false, name, value).await.is_ok()
    }

    /// `shell`, `exec`, `subsystem`: at most one, and only with the tap's leave.
    pub(super) async fn start(&self, program: Program, command: &[u8]) -> bool {
        let pty = {
            let mut asked = lock(&self.asked);
            if asked.started {
                return false;
            }
            asked.started = true;
            asked.pty.clone()
        };
        let start = Start { program, pty };
        match self.tap.start(&start).await {
            Ok(watch) => self.watching.decide(watch),
            // Not a failure: the OpenSSH client would end before showing the text.
            Err(text) => {
                self.end_with(&text).await;
                return true;
            }
        }
        match start.program {
            Program::Shell => self.ask(self.target.request_shell(true)).await,
            Program::Exec(_) => self.ask(self.target.exec(true, command)).await,
            Program::Subsystem(name) => self.ask(self.target.request_subsystem(true, name)).await,
        }
    }

    /// `auth-agent-req@openssh.com`, which is never answered with a failure.
    pub(super) async fn forward_agent(&self) {
        if lock(&self.asked).started {
            return;
        }
        self.connection.allow_agent();
        let _ = self.ask(self.target.agent_forward(true)).await;
    }

    /// Ends the session from outside, with a text on the client's standard error.
    pub(super) async fn end_with(&self, text: &str) {
        lock(&self.cut).get_or_insert_with(|| text.to_owned());
        let line = Bytes::from(format!("\r\nERROR: {text}\r\n"));
        // Waits for the client's window, but not for ever.
        let last = self.client.extended_data_bytes(1, line);
        let _ = tokio::time::timeout(LAST_MESSAGE, last).await;
        self.stop.cancel();
    }

    async fn window_change(&self, size: Size, pixels: (u32, u32)) {
        let size =
            Size { columns: size.columns.min(MAX_TERMINAL), rows: size.rows.min(MAX_TERMINAL) };
        if let Err(text) = self.tap.resize(size).await {
            self.end_with(&text).await;
            return;
        }
        let _ = self.target.window_change(size.columns, size.rows, pixels.0, pixels.1).await;
    }

    async fn client_says(&self, message: ChannelMsg) {
        match message {
            ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
                self.window_change(
                    Size { columns: col_width, rows: row_height },
                    (pix_width, pix_height),
                )
                .await;
            }
            ChannelMsg::Signal { signal } if signal_is_sound(&signal) => {
                let _ = self.target.signal(signal).await;
            }
            // Requests were answered in the callbacks; extended data from a client has no meaning.
            _ => {}
        }
    }
}

/// The target's channel, behind the gate and the filter.
struct ToTarget<'a> {
    session: &'a SessionChannel,
    gate: Option<&'a Arc<dyn Gate>>,
}

impl Sink for ToTarget<'_> {
    async fn data(&self, data: Bytes) -> bool {
        passable(self.gate).await;
        let onward = match self.session.watching.input(data).await {
            Ok(onward) => onward,
            Err(text) => {
                self.session.end_with(&text).await;
                return false;
            }
        };
        for piece in onward {
            if !Sink::data(&self.session.target, piece).await {
                return false;
            }
        }
        true
    }

    async fn eof(&self) -> bool {
        Sink::eof(&self.session.target).await
    }
}

struct FromClient<'a>(&'a SessionChannel);

impl pump::Other for FromClient<'_> {
    async fn message(&mut self, message: ChannelMsg) {
        self.0.client_says(message).await;
    }
}

pub(crate) fn signal_is_sound(signal: &Sig) -> bool {
    match signal {
        Sig::Custom(name) => {
            (1..=64).contains(&name.len())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "@.-_".contains(c))
        }
        _ => true,
    }
}

/// Everything the relay of one session channel needs.
pub(super) struct SessionRelay {
    pub(super) shared: Arc<SessionChannel>,
    client_read: ChannelReadHalf,
    target_read: ChannelReadHalf,
}

impl SessionRelay {
    pub(super) fn new(
        client: Channel<ClientMsg>,
        handle: Handle,
        target: Channel<TargetMsg>,
        connection: Arc<Target>,
        tap: Arc<dyn Tap>,
        moved: Arc<Moved>,
        stop: CancellationToken,
    ) -> Self {
        let (client_read, client_write) = client.split();
        let (target_read, target_write) = target.split();
        let shared = Arc::new(SessionChannel {
            target: target_write,
            connection,
            tap,
            asked: Mutex::default(),
            replies: Mutex::default(),
            watching: Watching::default(),
            client: client_write,
            client_handle: handle,
            cut: Mutex::default(),
            moved,
            stop,
        });
        Self { shared, client_read, target_read }
    }

    /// Relays until both sides are done. `siblings` counts the channels on the client's connection.
    pub(super) async fn run(self, siblings: &AtomicUsize) {
        let Self { shared, mut client_read, mut target_read } = self;
        let moved = Arc::clone(&shared.moved);
        let Moved { to_target, to_client } = moved.as_ref();
        let (up_waits, down_waits) = (Waiting::default(), Waiting::default());
        let mut ended = Ended::default();
        let gate = shared.tap.gate();

        let up = async {
            let flow = Flow { siblings, moved: to_target, mine: &up_waits, opposite: &down_waits };
            let limits = pump::Limits::default();
            let sink = ToTarget { session: &shared, gate: gate.as_ref() };
            let end = pump::pump(&mut client_read, &sink, flow, limits, FromClient(&shared)).await;
            match end {
                PumpEnd::Overflow => {
                    shared
                        .end_with("the target does not read its input; the channel is closed")
                        .await;
                }
                PumpEnd::Closed => {
                    // The client is gone: nobody reads what the target still says.
                    let _ = shared.target.close().await;
                    tokio::time::sleep(LAST_WORDS).await;
                }
                // The target's side is gone; the other direction knows more.
                PumpEnd::Broken => std::future::pending::<()>().await,
            }
        };
        let down = down(&shared, &mut target_read, to_client, &down_waits, &mut ended);
        tokio::select! {
            () = down => {}
            () = up => {}
            text = overdue(gate.as_ref()) => shared.end_with(&text).await,
            () = shared.stop.cancelled() => {}
        }
        // Whoever waits for an answer gets none.
        lock(&shared.replies).clear();
        ended.to_target = to_target.load(Ordering::Relaxed);
        ended.to_client = to_client.load(Ordering::Relaxed);
        ended.cut = lock(&shared.cut).clone();
        // The client is not kept waiting for the disk: it knows the end already, by the exit status.
        let goodbye = async {
            let _ = shared.client.close().await;
            let _ = shared.target.close().await;
            shared.connection.disconnect().await;
        };
        let _ = tokio::join!(tokio::time::timeout(LAST_MESSAGE, goodbye), shared.tap.end(ended));
        shared.stop.cancel();
    }
}

/// From the target to the client, through the tap. Ends with the target's channel.
async fn down(
    shared: &SessionChannel,
    target: &mut ChannelReadHalf,
    moved: &AtomicU64,
    waits: &Waiting,
    ended: &mut Ended,
) {
    let mut eof = HeldEof::default();
    loop {
        let message = tokio::select! {
            message = target.wait() => message,
            () = eof.due() => {
                eof.pass_on(shared).await;
                continue;
            }
            reply = shared.watching.reply() => {
                if waits.during(shared.client.data_bytes(reply)).await.is_err() {
                    return;
                }
                continue;
            }
        };
        match message {
            Some(ChannelMsg::Data { data }) => {
                if !output(shared, Stream::Stdout, data, moved, waits).await {
                    return;
                }
            }
            Some(ChannelMsg::ExtendedData { data, ext: 1 }) => {
                if !output(shared, Stream::Stderr, data, moved, waits).await {
                    return;
                }
            }
            Some(ChannelMsg::Eof) => eof.hold(),
            Some(ChannelMsg::Success) => shared.answered(true),
            Some(ChannelMsg::Failure) => shared.answered(false),
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                ended.exit_status = Some(exit_status);
                let _ =
                    shared.client_handle.exit_status_request(shared.client.id(), exit_status).await;
                eof.pass_on(shared).await;
            }
            Some(ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, lang_tag }) => {
                if !signal_is_sound(&signal_name) {
                    continue;
                }
                ended.exit_signal = Some(signal_text(&signal_name));
                let message = error_message.chars().filter(|c| !c.is_control()).take(256).collect();
                let lang = lang_tag.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
                let (id, client) = (shared.client.id(), &shared.client_handle);
                let _ =
                    client.exit_signal_request(id, signal_name, core_dumped, message, lang).await;
                eof.pass_on(shared).await;
            }
            Some(ChannelMsg::Close) | None => return eof.pass_on(shared).await,
            Some(_) => {}
        }
    }
}

/// The end of a target's output, held until the target says how its command ended, or for a moment: there are clients
/// that close the channel when both ends are said, and would not hear of the exit status behind it.
#[derive(Default)]
struct HeldEof(Option<tokio::time::Instant>);

impl HeldEof {
    fn hold(&mut self) {
        self.0.get_or_insert_with(|| tokio::time::Instant::now() + EOF_HELD);
    }

    /// Pends until it has been held long enough.
    async fn due(&self) {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    async fn pass_on(&mut self, shared: &SessionChannel) {
        if self.0.take().is_some() {
            let _ = shared.client.eof().await;
        }
    }
}

async fn output(
    shared: &SessionChannel,
    stream: Stream,
    data: Bytes,
    moved: &AtomicU64,
    waits: &Waiting,
) -> bool {
    let len = data.len() as u64;
    let onward = match shared.watching.output(shared.tap.as_ref(), stream, data).await {
        Ok(onward) => onward,
        Err(text) => {
            shared.end_with(&text).await;
            return false;
        }
    };
    for piece in onward {
        let sent = match stream {
            Stream::Stdout => waits.during(shared.client.data_bytes(piece)).await,
            Stream::Stderr => waits.during(shared.client.extended_data_bytes(1, piece)).await,
        };
        if sent.is_err() {
            return false;
        }
    }
    moved.fetch_add(len, Ordering::Relaxed);
    true
}

pub(crate) fn signal_text(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}

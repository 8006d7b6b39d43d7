//! One session channel of a node: what the client asks for, the program, and the tap between them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};
use tokio::io::AsyncRead;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::copy;
use super::input::Input;
use super::service::{AgentSocket, Exit, Launch, NodeSession, Process, ProcessControl, PtyRequest};
use crate::relay::filter::Watching;
use crate::relay::gate::{overdue, passable};
use crate::relay::pump::{self, Flow, Moved, PumpEnd, Sink, Waiting};
use crate::relay::session::{
    MAX_ENV, MAX_TERM, MAX_TERMINAL, plain_text, signal_is_sound, signal_text,
};
use crate::relay::{Ended, Gate, Program, PtyInfo, Size, Start, Stream, Tap};

/// How long a program may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a program has when its client is gone or it has to end, before it is left to itself.
const LAST_WORDS: Duration = Duration::from_secs(6);
/// How long a client may take to read a last message.
const LAST_MESSAGE: Duration = Duration::from_secs(2);
/// A terminal on which nothing more comes for so long after its program has ended is held by others.
const AFTER_EXIT: Duration = Duration::from_millis(200);
/// Bytes of all variables a client may set on one channel.
const MAX_ENV_BYTES: usize = 64 * 1024;

type Reader = Box<dyn AsyncRead + Send + Unpin>;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client asked for before its program started.
#[derive(Default)]
struct Asked {
    pty: Option<PtyRequest>,
    env: Vec<(String, String)>,
    agent: bool,
    started: bool,
}

impl Asked {
    /// Whether one more variable may be set.
    fn has_room(&self, name: &str, value: &str) -> bool {
        let held: usize = self.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.env.len() < MAX_ENV && held + name.len() + value.len() <= MAX_ENV_BYTES
    }
}

/// A program's output, and what is done to it.
struct Begun {
    output: Reader,
    errors: Option<Reader>,
    control: Arc<dyn ProcessControl>,
}

/// A session channel, as the server's callbacks see it.
pub(super) struct Session {
    service: Arc<dyn NodeSession>,
    tap: Arc<dyn Tap>,
    client: ChannelWriteHalf<Msg>,
    asked: Mutex<Asked>,
    input: Input,
    begun: Mutex<Option<oneshot::Sender<Begun>>>,
    control: OnceLock<Arc<dyn ProcessControl>>,
    agent: Mutex<Option<oneshot::Receiver<Box<dyn AgentSocket>>>>,
    to_agent: Mutex<Option<oneshot::Sender<Box<dyn AgentSocket>>>>,
    watching: Watching,
    cut: Mutex<Option<String>>,
    stop: CancellationToken,
}

impl Session {
    /// `pty-req`.
    pub(super) fn pty(
        &self,
        term: &str,
        size: Size,
        pixels: (u32, u32),
        modes: &[(Pty, u32)],
    ) -> bool {
        let mut asked = lock(&self.asked);
        if asked.started || term.len() > MAX_TERM || !plain_text(term) {
            return false;
        }
        let modes = modes.iter().filter(|(mode, _)| *mode != Pty::TTY_OP_END);
        let modes = modes.map(|(mode, value)| (*mode as u8, *value)).collect();
        let (term, size) = (term.to_owned(), bounded(size));
        asked.pty = Some(PtyRequest { term, size, pixels, modes });
        true
    }

    /// `env`. Most variables are not taken; that is no failure.
    pub(super) fn env(&self, name: &str, value: &str) -> bool {
        let mut asked = lock(&self.asked);
        let taken = !name.is_empty()
            && plain_text(name)
            && plain_text(value)
            && !name.contains('=')
            && !asked.started
            && asked.has_room(name, value)
            && self.service.takes_env(name);
        if taken {
            asked.env.retain(|(known, _)| known != name);
            asked.env.push((name.to_owned(), value.to_owned()));
        }
        taken
    }

    /// `auth-agent-req@openssh.com`, which is never answered with a failure.
    pub(super) fn forward_agent(&self) {
        lock(&self.asked).agent = true;
    }

    /// `shell`, `exec`, `subsystem`: at most one, and only with the tap's leave. A program that may not or cannot be
    /// started is a text and a close: clients that are answered with a failure do not show the text.
    pub(super) async fn start(&self, program: Program, command: &[u8]) -> bool {
        let (pty, env, agent) = {
            let mut asked = lock(&self.asked);
            if std::mem::replace(&mut asked.started, true) {
                return false;
            }
            (asked.pty.take(), std::mem::take(&mut asked.env), asked.agent)
        };
        let info = pty.as_ref().map(|pty| PtyInfo { term: pty.term.clone(), size: pty.size });
        let starting = async {
            let start = Start { program: program.clone(), pty: info };
            let watch = self.tap.start(&start).await?;
            self.watching.decide(watch);
            let agent = if agent { self.offer_agent().await } else { None };
            let launch = Launch { program, command: command.to_vec(), pty, env, agent };
            self.service.launch(launch).await
        };
        let started = tokio::select! {
            started = tokio::time::timeout(START_TIMEOUT, starting) => {
                started.unwrap_or_else(|_| Err("the program did not start in time".to_owned()))
            }
            () = self.stop.cancelled() => return false,
        };
        match started {
            Ok(process) => self.runs(process).await,
            Err(text) => self.end_with(&text).await,
        }
        true
    }

    async fn runs(&self, process: Process) {
        let Process { input, output, errors, control } = process;
        let _ = self.control.set(Arc::clone(&control));
        self.input.begin(input).await;
        if let Some(begun) = lock(&self.begun).take() {
            let _ = begun.send(Begun { output, errors, control });
        }
    }

    /// A socket for the client's agent. Where there is none, the program does without.
    async fn offer_agent(&self) -> Option<std::path::PathBuf> {
        match self.service.agent().await {
            Ok(socket) => {
                let path = socket.path().to_owned();
                lock(&self.to_agent).take()?.send(socket).ok()?;
                Some(path)
            }
            Err(why) => {
                tracing::info!(why, "the agent is not forwarded");
                None
            }
        }
    }

    /// Waits for the socket of the client's agent; for ever where none is offered.
    pub(super) async fn agent_socket(&self) -> Box<dyn AgentSocket> {
        let offered = lock(&self.agent).take();
        match offered {
            Some(offered) => match offered.await {
                Ok(socket) => socket,
                Err(_) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
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
        let size = bounded(size);
        let Some(control) = self.control.get() else {
            if let Some(pty) = lock(&self.asked).pty.as_mut() {
                (pty.size, pty.pixels) = (size, pixels);
            }
            return;
        };
        match self.tap.resize(size).await {
            Ok(()) => control.resize(size, pixels).await,
            Err(text) => self.end_with(&text).await,
        }
    }

    async fn signal(&self, signal: &Sig) {
        if let Some(control) = self.control.get().filter(|_| signal_is_sound(signal)) {
            control.signal(&signal_text(signal)).await;
        }
    }

    /// The program hears that its client is gone, or has to end.
    async fn leave(&self) {
        let Some(control) = self.control.get() else { return };
        control.hangup().await;
    }
}

fn bounded(size: Size) -> Size {
    Size { columns: size.columns.min(MAX_TERMINAL), rows: size.rows.min(MAX_TERMINAL) }
}

/// The program's input, behind the gate and the filter.
struct ToProgram<'a> {
    session: &'a Session,
    gate: Option<&'a Arc<dyn Gate>>,
}

impl Sink for ToProgram<'_> {
    async fn data(&self, data: Bytes) -> bool {
        self.session.input.has_begun().await;
        passable(self.gate).await;
        let onward = match self.session.watching.input(data).await {
            Ok(onward) => onward,
            Err(text) => {
                self.session.end_with(&text).await;
                return false;
            }
        };
        for piece in onward {
            if !self.session.input.data(piece).await {
                return false;
            }
        }
        true
    }

    async fn eof(&self) -> bool {
        self.session.input.eof().await
    }
}

struct FromClient<'a>(&'a Session);

impl pump::Other for FromClient<'_> {
    async fn message(&mut self, message: ChannelMsg) {
        match message {
            ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
                let size = Size { columns: col_width, rows: row_height };
                self.0.window_change(size, (pix_width, pix_height)).await;
            }
            ChannelMsg::Signal { signal } => self.0.signal(&signal).await,
            // Requests were answered in the callbacks; extended data from a client has no meaning.
            _ => {}
        }
    }
}

/// Notes that a client closed its channel, also while there is input that the program does not read.
struct Noting<'a>(&'a mut ChannelReadHalf, &'a CancellationToken);

impl pump::Source for Noting<'_> {
    async fn next(&mut self) -> Option<ChannelMsg> {
        let message = self.0.wait().await;
        if matches!(message, None | Some(ChannelMsg::Close)) {
            self.1.cancel();
        }
        message
    }
}

/// Everything that one session channel needs to run.
pub(super) struct SessionRun {
    pub(super) session: Arc<Session>,
    handle: Handle,
    client_read: ChannelReadHalf,
    begun: oneshot::Receiver<Begun>,
    gate: Option<Arc<dyn Gate>>,
    moved: Arc<Moved>,
}

impl SessionRun {
    pub(super) fn new(
        client: Channel<Msg>,
        handle: Handle,
        service: Arc<dyn NodeSession>,
        moved: Arc<Moved>,
        stop: CancellationToken,
    ) -> Self {
        let (client_read, client) = client.split();
        let (to_begun, begun) = oneshot::channel();
        let (to_agent, agent) = oneshot::channel();
        let tap = service.tap();
        let gate = tap.gate();
        let session = Arc::new(Session {
            service,
            tap,
            client,
            asked: Mutex::default(),
            input: Input::new(),
            begun: Mutex::new(Some(to_begun)),
            control: OnceLock::new(),
            agent: Mutex::new(Some(agent)),
            to_agent: Mutex::new(Some(to_agent)),
            watching: Watching::default(),
            cut: Mutex::default(),
            stop,
        });
        Self { session, handle, client_read, begun, gate, moved }
    }

    /// Runs until the program has ended, or its client has left it. `siblings` counts the channels on the connection.
    pub(super) async fn run(self, siblings: &AtomicUsize) {
        let Self { session, handle, mut client_read, begun, gate, moved } = self;
        let (up_waits, down_waits) = (Waiting::default(), Waiting::default());
        let down = async {
            match begun.await {
                Ok(begun) => down(&session, begun, &moved, &down_waits).await,
                Err(_) => std::future::pending().await,
            }
        };
        let sink = ToProgram { session: &session, gate: gate.as_ref() };
        let flow =
            Flow { siblings, moved: &moved.to_target, mine: &up_waits, opposite: &down_waits };
        let up = up(&sink, &mut client_read, flow);
        let left = async {
            tokio::select! {
                () = up => {}
                text = overdue(gate.as_ref()) => session.end_with(&text).await,
                () = session.stop.cancelled() => {}
            }
        };
        tokio::pin!(down);
        let exit = tokio::select! {
            exit = &mut down => Some(exit),
            () = left => match session.control.get() {
                Some(_) => {
                    let leaving = async { tokio::join!(session.leave(), down).1 };
                    tokio::time::timeout(LAST_WORDS, leaving).await.ok()
                }
                None => None,
            },
        };
        let cut = lock(&session.cut).clone();
        let ended = Ended {
            exit_status: exit.as_ref().and_then(|exit| exit.status),
            exit_signal: exit.as_ref().and_then(|exit| exit.signal.clone()),
            to_target: moved.to_target.load(Ordering::Relaxed),
            to_client: moved.to_client.load(Ordering::Relaxed),
            cut,
        };
        let goodbye = async {
            if let (Some(exit), None) = (exit, &ended.cut) {
                tell(&session.client, &handle, exit).await;
            }
            let _ = session.client.close().await;
        };
        // The client is not kept waiting for the disk.
        let goodbye = tokio::time::timeout(LAST_MESSAGE, goodbye);
        let _ = tokio::join!(goodbye, session.tap.end(ended.clone()));
        session.stop.cancel();
    }
}

/// Tells the client how its program ended (RFC 4254 §6.10).
async fn tell(client: &ChannelWriteHalf<Msg>, handle: &Handle, exit: Exit) {
    if let Some(signal) = exit.signal {
        let (signal, none) = (Sig::Custom(signal), String::new());
        let _ = handle
            .exit_signal_request(client.id(), signal, exit.core_dumped, none.clone(), none)
            .await;
    } else if let Some(status) = exit.status {
        let _ = handle.exit_status_request(client.id(), status).await;
    }
    // Behind it: there are clients that close the channel when both ends are said.
    let _ = client.eof().await;
}

/// From the client to the program. Ends when the client has closed its channel.
async fn up(sink: &ToProgram<'_>, client: &mut ChannelReadHalf, flow: Flow<'_>) {
    let (session, gone) = (sink.session, CancellationToken::new());
    let mut source = Noting(client, &gone);
    let pumping = pump::pump(&mut source, sink, flow, pump::Limits::default(), FromClient(session));
    // What was sent before the close is for the program, as far as it still reads.
    let given_up = async {
        gone.cancelled().await;
        if session.control.get().is_some() {
            tokio::time::sleep(LAST_WORDS).await;
        }
    };
    tokio::select! {
        end = pumping => {
            if end == PumpEnd::Overflow {
                session.end_with("the program does not read its input; the channel is closed").await;
            }
        }
        () = given_up => {}
    }
}

/// From the program to the client, through the tap, until the program has ended and has said all.
async fn down(session: &Session, begun: Begun, moved: &Moved, waits: &Waiting) -> Exit {
    let Begun { output, errors, control } = begun;
    let terminal = errors.is_none();
    let (mut output, mut errors) = (Some(output), errors);
    let (mut from_output, mut from_errors) = (BytesMut::new(), BytesMut::new());
    let (mut exit, waiting) = (None, control.wait());
    tokio::pin!(waiting);
    while output.is_some() || errors.is_some() {
        let (stream, data) = tokio::select! {
            data = read(&mut output, &mut from_output), if output.is_some() => (Stream::Stdout, data),
            data = read(&mut errors, &mut from_errors), if errors.is_some() => (Stream::Stderr, data),
            ended = &mut waiting, if exit.is_none() => {
                exit = Some(ended);
                continue;
            }
            reply = session.watching.reply() => {
                if waits.during(session.client.data_bytes(reply)).await.is_err() {
                    break;
                }
                continue;
            }
            () = tokio::time::sleep(AFTER_EXIT), if exit.is_some() && terminal => break,
        };
        let passed = match data {
            Some(data) => show(session, stream, data, moved, waits).await,
            None if stream == Stream::Stdout => {
                output = None;
                true
            }
            None => {
                errors = None;
                true
            }
        };
        if !passed {
            break;
        }
    }
    // A program that nobody listens to hears of it when it writes.
    drop((output, errors));
    match exit {
        Some(exit) => exit,
        None => waiting.await,
    }
}

async fn read(source: &mut Option<Reader>, buffer: &mut BytesMut) -> Option<Bytes> {
    match source {
        Some(source) => copy::next(source.as_mut(), buffer).await,
        None => std::future::pending().await,
    }
}

async fn show(
    session: &Session,
    stream: Stream,
    data: Bytes,
    moved: &Moved,
    waits: &Waiting,
) -> bool {
    let len = data.len() as u64;
    let onward = match session.watching.output(session.tap.as_ref(), stream, data).await {
        Ok(onward) => onward,
        Err(text) => {
            session.end_with(&text).await;
            return false;
        }
    };
    for piece in onward {
        let sent = match stream {
            Stream::Stdout => waits.during(session.client.data_bytes(piece)).await,
            Stream::Stderr => waits.during(session.client.extended_data_bytes(1, piece)).await,
        };
        if sent.is_err() {
            return false;
        }
    }
    moved.to_client.fetch_add(len, Ordering::Relaxed);
    true
}

//! One session channel: a shell, a command or a subsystem, with or without a terminal (RFC 4254 §6).
//!
//! The terminal itself is the caller's: bytes come in and go out through queues, sizes and signals
//! through [`Control`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::config::printable;
use super::error::ConnectError;
use super::inner::{OpenChannel, TargetConn};
use super::queue::ByteQueue;

/// Output not yet written at which the channel is read no further.
const PAUSE_AT: usize = 1024 * 1024;
/// The same while other channels of the connection are in use, which stand still when this one does.
const PAUSE_AT_SHARED: usize = 64 * 1024 * 1024;
/// How often a paused reader looks whether other channels came or went.
const PAUSE_LOOK: Duration = Duration::from_millis(100);
/// How long a server may take to close a channel that we closed. sshd does not while the command runs.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowSize {
    /// Columns.
    pub columns: u32,
    /// Rows.
    pub rows: u32,
    /// Pixels across, or 0.
    pub width: u32,
    /// Pixels down, or 0.
    pub height: u32,
}

/// A terminal to ask for.
#[derive(Debug, Clone)]
pub struct PtyRequest {
    /// `TERM`.
    pub term: String,
    /// Its size.
    pub size: WindowSize,
    /// Its modes (RFC 4254 §8).
    pub modes: Vec<(Pty, u32)>,
}

/// What to start.
#[derive(Debug, Clone)]
pub enum Start {
    /// The login shell.
    Shell,
    /// A command, as bytes for the remote shell.
    Exec(Vec<u8>),
    /// A subsystem.
    Subsystem(String),
}

impl Start {
    fn name(&self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Exec(_) => "exec",
            Self::Subsystem(_) => "subsystem",
        }
    }
}

/// A session to open.
#[derive(Debug, Clone)]
pub struct SessionRequest {
    /// Terminal, if any.
    pub pty: Option<PtyRequest>,
    /// Environment; what the server does not want it ignores.
    pub env: Vec<(String, String)>,
    /// What to start.
    pub start: Start,
}

/// What the caller does to a running session.
#[derive(Debug, Clone)]
pub enum Control {
    /// The terminal has a new size.
    Resize(WindowSize),
    /// Send a signal, named as in RFC 4254 §6.10.
    Signal(Sig),
    /// Close the channel now.
    Close,
}

/// What is done when the shell or command runs, before any of its output is passed on.
pub type OnStart = Box<dyn FnOnce() + Send>;

/// The caller's ends of a session.
pub struct SessionIo {
    /// Input; closing it is end of file.
    pub stdin: mpsc::Receiver<Bytes>,
    /// Output.
    pub stdout: Arc<ByteQueue>,
    /// Error output.
    pub stderr: Arc<ByteQueue>,
    /// Sizes and signals. Before the command runs, a signal gives up.
    pub control: mpsc::Receiver<Control>,
    /// The time to put the terminal into raw mode. Must not block.
    pub started: Option<OnStart>,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// With this status.
    Status(u32),
    /// By this signal.
    Signal {
        /// Name without `SIG`.
        name: String,
        /// What the server says.
        message: String,
    },
    /// The channel was closed without a status.
    Closed,
    /// Our own output was closed.
    OutputClosed,
}

impl TargetConn {
    /// Opens a session and runs it to its end. Both output queues are ended when this returns.
    pub async fn run_session(
        &self,
        request: SessionRequest,
        io: SessionIo,
    ) -> Result<SessionEnd, ConnectError> {
        let (stdout, stderr) = (Arc::clone(&io.stdout), Arc::clone(&io.stderr));
        let result = self.session(request, io).await;
        stdout.end();
        stderr.end();
        result
    }

    async fn session(
        &self,
        request: SessionRequest,
        mut io: SessionIo,
    ) -> Result<SessionEnd, ConnectError> {
        let opened = tokio::select! {
            opened = self.open_settled() => opened?,
            () = gives_up(&mut io.control) => return Ok(SessionEnd::Closed),
        };
        let (number, channel, open) = opened;
        let (read, write) = channel.split();
        let write = Arc::new(write);
        self.ask(&request, &write).await?;
        let mut running = Running {
            conn: self,
            number,
            open,
            read,
            stdout: io.stdout,
            stderr: io.stderr,
            replies: Replies {
                pty: request.pty.is_some(),
                start: true,
                name: request.start.name(),
            },
            end: None,
        };
        let (closed, mut is_closed) = oneshot::channel();
        let mut tasks = Tasks::default();
        tasks.0.push(tokio::spawn(send_control(io.control, Arc::clone(&write), closed)));
        let run = async {
            if running.until_started().await? {
                if let Some(started) = io.started {
                    started();
                }
                tasks.0.push(tokio::spawn(send_input(io.stdin, Arc::clone(&write))));
            }
            running.until_closed(&write).await
        };
        let given_up = async {
            if (&mut is_closed).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(CLOSE_WAIT).await;
        };
        tokio::select! {
            end = run => end,
            () = given_up => Ok(SessionEnd::Closed),
        }
    }

    /// Sends everything up to the start of the shell or command.
    async fn ask(
        &self,
        request: &SessionRequest,
        write: &ChannelWriteHalf<Msg>,
    ) -> Result<(), ConnectError> {
        for (name, value) in &request.env {
            write.set_env(false, name, value).await?;
        }
        if self.options().forward_agent.is_some() {
            write.agent_forward(false).await?;
        }
        if let Some(pty) = &request.pty {
            let size = pty.size;
            let (columns, rows) = (size.columns, size.rows);
            write
                .request_pty(true, &pty.term, columns, rows, size.width, size.height, &pty.modes)
                .await?;
        }
        match &request.start {
            Start::Shell => write.request_shell(true).await?,
            Start::Exec(command) => write.exec(true, command.clone()).await?,
            Start::Subsystem(name) => write.request_subsystem(true, name).await?,
        }
        Ok(())
    }
}

/// Ends when the caller wants no session any more.
async fn gives_up(control: &mut mpsc::Receiver<Control>) {
    loop {
        match control.recv().await {
            Some(Control::Resize(_)) => {}
            Some(Control::Signal(_) | Control::Close) => return,
            None => std::future::pending().await,
        }
    }
}

/// Tasks that end with the session.
#[derive(Default)]
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

async fn send_input(mut input: mpsc::Receiver<Bytes>, write: Arc<ChannelWriteHalf<Msg>>) {
    while let Some(bytes) = input.recv().await {
        // Waits for window; an error means that the channel or the connection is gone.
        if write.data_bytes(bytes).await.is_err() {
            return;
        }
    }
    let _ = write.eof().await;
}

async fn send_control(
    mut control: mpsc::Receiver<Control>,
    write: Arc<ChannelWriteHalf<Msg>>,
    closed: oneshot::Sender<()>,
) {
    while let Some(what) = control.recv().await {
        let sent = match what {
            Control::Resize(size) => {
                write.window_change(size.columns, size.rows, size.width, size.height).await
            }
            Control::Signal(signal) => write.signal(signal).await,
            Control::Close => {
                // A connection that takes nothing any more must not hold the end up.
                let _ = tokio::time::timeout(CLOSE_WAIT, write.close()).await;
                let _ = closed.send(());
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Replies still to come, in the order of the requests.
struct Replies {
    pty: bool,
    start: bool,
    name: &'static str,
}

struct Running<'a> {
    conn: &'a TargetConn,
    number: u32,
    open: OpenChannel,
    read: ChannelReadHalf,
    stdout: Arc<ByteQueue>,
    stderr: Arc<ByteQueue>,
    replies: Replies,
    end: Option<SessionEnd>,
}

enum Step {
    Started,
    Closed,
    OutputClosed,
}

impl Running<'_> {
    /// Takes messages until the shell or command runs; `false` when the channel was closed before.
    async fn until_started(&mut self) -> Result<bool, ConnectError> {
        loop {
            match self.step().await? {
                Some(Step::Started) => return Ok(true),
                Some(Step::Closed | Step::OutputClosed) => return Ok(false),
                None => {}
            }
        }
    }

    async fn until_closed(
        mut self,
        write: &ChannelWriteHalf<Msg>,
    ) -> Result<SessionEnd, ConnectError> {
        loop {
            match self.step().await? {
                Some(Step::Closed) => return Ok(self.end.unwrap_or(SessionEnd::Closed)),
                Some(Step::OutputClosed) => {
                    // Nobody reads what the command still says: it is told by the closed channel. Our end of
                    // it goes first, or what it still sends would hold the connection up.
                    drop(self.read);
                    let _ = write.close().await;
                    return Ok(self.end.unwrap_or(SessionEnd::OutputClosed));
                }
                Some(Step::Started) | None => {}
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Step>, ConnectError> {
        self.room().await;
        let Some(message) = self.read.wait().await else {
            // Without a close: either the connection broke, or it broke after all was said.
            return match self.end {
                Some(_) => Ok(Some(Step::Closed)),
                None => Err(self.conn.lost()),
            };
        };
        match message {
            ChannelMsg::Data { data } => {
                let taken = self.stdout.push(data);
                if !taken {
                    return Ok(Some(Step::OutputClosed));
                }
            }
            // Closed error output stops no command.
            ChannelMsg::ExtendedData { data, ext: 1 } => drop(self.stderr.push(data)),
            ChannelMsg::Success if self.replies.pty => self.replies.pty = false,
            ChannelMsg::Success if self.replies.start => {
                self.replies.start = false;
                return Ok(Some(Step::Started));
            }
            ChannelMsg::Failure if self.replies.pty => {
                self.replies.pty = false;
                let text = format!("PTY allocation request failed on channel {}\r\n", self.number);
                self.stderr.push(Bytes::from(text));
            }
            ChannelMsg::Failure if self.replies.start => {
                return Err(ConnectError::Request {
                    request: self.replies.name,
                    channel: self.number,
                });
            }
            ChannelMsg::ExitStatus { exit_status } => {
                self.end = Some(SessionEnd::Status(exit_status));
            }
            ChannelMsg::ExitSignal { signal_name, error_message, .. } => {
                self.end = Some(SessionEnd::Signal {
                    name: signal_text(&signal_name),
                    message: printable(&error_message),
                });
            }
            ChannelMsg::Close => return Ok(Some(Step::Closed)),
            _ => {}
        }
        Ok(None)
    }

    /// Waits until output may be read again: the connection's only channel may hold the connection up,
    /// one of several only when far more is queued than a stopped terminal is worth.
    async fn room(&self) {
        for queue in [&self.stdout, &self.stderr] {
            loop {
                let limit = if self.open.open_channels() > 1 { PAUSE_AT_SHARED } else { PAUSE_AT };
                if queue.len() <= limit || queue.is_broken() {
                    break;
                }
                // Until it is drained, or it is time to look at the other channels again.
                let _ = tokio::time::timeout(PAUSE_LOOK, queue.below(limit)).await;
            }
        }
    }
}

fn signal_text(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => printable(name),
        known => format!("{known:?}"),
    }
}

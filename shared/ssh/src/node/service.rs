//! What a node's server asks of whoever decides and starts programs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::relay::{ForwardTap, Program, Size, Tap};
use crate::server::AuthGate;

/// The terminal a client asked for (RFC 4254 §6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtyRequest {
    /// The terminal type.
    pub term: String,
    /// Its size in characters.
    pub size: Size,
    /// Its size in pixels; zero where the client does not know.
    pub pixels: (u32, u32),
    /// Encoded terminal modes: opcode and argument (RFC 4254 §8).
    pub modes: Vec<(u8, u32)>,
}

/// A program that is to be started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What it is, as events show it.
    pub program: Program,
    /// The command of an `exec`, byte for byte.
    pub command: Vec<u8>,
    /// Its terminal, if any.
    pub pty: Option<PtyRequest>,
    /// Variables of the client that the session takes.
    pub env: Vec<(String, String)>,
    /// The socket of the forwarded agent.
    pub agent: Option<PathBuf>,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exit {
    /// Its exit status; none where a signal killed it.
    pub status: Option<u32>,
    /// The signal that killed it, without `SIG`.
    pub signal: Option<String>,
    /// Whether it left a core.
    pub core_dumped: bool,
}

/// A program that runs. Dropping `input` is its end of input; output ends with an end of file.
pub struct Process {
    /// Standard input, or the terminal.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// Standard output, or the terminal.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// Standard error; none with a terminal.
    pub errors: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Everything else.
    pub control: Arc<dyn ProcessControl>,
}

/// What can be done to a program that runs.
#[async_trait]
pub trait ProcessControl: Send + Sync + 'static {
    /// The terminal has a new size, in characters and in pixels.
    async fn resize(&self, size: Size, pixels: (u32, u32));

    /// A signal for the program, by its name without `SIG`.
    async fn signal(&self, name: &str);

    /// The client is gone, or the program has to end: it hears of that, and is ended if it does not heed.
    async fn hangup(&self);

    /// Waits for the end. May be called again, and be dropped.
    async fn wait(&self) -> Exit;
}

/// A socket on which the programs of a session find the client's agent. Dropping it removes it.
#[async_trait]
pub trait AgentSocket: Send + Sync + 'static {
    /// Where programs connect.
    fn path(&self) -> &Path;

    /// The next program that connects. May be dropped.
    async fn accept(&self) -> io::Result<UnixStream>;
}

/// Why something is not served, as the client may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// By policy.
    Prohibited(String),
    /// It is allowed and did not work.
    Failed(String),
}

/// One session channel.
#[async_trait]
pub trait NodeSession: Send + Sync + 'static {
    /// What sees it.
    fn tap(&self) -> Arc<dyn Tap>;

    /// Whether a client may set this variable.
    fn takes_env(&self, name: &str) -> bool;

    /// A socket for the client's agent, which may be forwarded. The error is for the log.
    async fn agent(&self) -> Result<Box<dyn AgentSocket>, String>;

    /// Starts the program; the tap has seen it. The error is a text for the client.
    async fn launch(&self, launch: Launch) -> Result<Process, String>;
}

/// What a node decides for one client.
#[async_trait]
pub trait NodeService: AuthGate {
    /// One more session channel, authorised anew; what it counts is given back when it is dropped.
    async fn session(
        &self,
        identity: &Self::Identity,
        login: &str,
    ) -> Result<Arc<dyn NodeSession>, Refusal>;

    /// Connects to where a client wants a connection forwarded (`-L`, `-D`), if it may; recorded when this returns.
    async fn connect(
        &self,
        identity: &Self::Identity,
        login: &str,
        to: (&str, u16),
    ) -> Result<(TcpStream, Arc<dyn ForwardTap>), Refusal>;

    /// Listens where a client wants connections forwarded from (`-R`), if it may; recorded when this returns. The
    /// tap's end is the end of listening.
    async fn listen(
        &self,
        identity: &Self::Identity,
        login: &str,
        on: (&str, u16),
    ) -> Result<(TcpListener, Arc<dyn ForwardTap>), Refusal>;

    /// Whether programs may use the client's agent.
    fn may_forward_agent(&self, identity: &Self::Identity) -> bool;

    /// Pends until everything this user does must end, and says why: a lock, a role change, an expired certificate, or
    /// `traffic`, the bytes that were delivered on open channels, that does not change any more.
    async fn ended(
        &self,
        identity: &Self::Identity,
        traffic: &(dyn Fn() -> u64 + Send + Sync),
    ) -> String;
}

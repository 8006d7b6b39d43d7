//! What passes, as the relay shows it. The recorder behind a tap decides what is kept.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::filter::Filter;
use super::gate::Gate;

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: u32,
    /// Rows.
    pub rows: u32,
}

/// The terminal a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtyInfo {
    /// The terminal type.
    pub term: String,
    /// Its size.
    pub size: Size,
}

/// What runs on a session channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// The login shell.
    Shell,
    /// A command; bytes that are not UTF-8 are replaced.
    Exec(String),
    /// A subsystem.
    Subsystem(String),
}

/// A program is about to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// What it is.
    pub program: Program,
    /// Its terminal, if any.
    pub pty: Option<PtyInfo>,
}

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a tap wants to see.
pub enum Watch {
    /// The program's output.
    Output,
    /// Everything both ways passes through this, and nothing is shown to the tap.
    Filter(Arc<dyn Filter>),
    /// Only that it ran.
    Nothing,
}

/// A program has ended, or its channel has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    /// The exit status, where the target told.
    pub exit_status: Option<u32>,
    /// The signal that killed it, without `SIG`.
    pub exit_signal: Option<String>,
    /// Bytes of input.
    pub to_target: u64,
    /// Bytes of output.
    pub to_client: u64,
    /// Why it was ended from outside, where it was.
    pub cut: Option<String>,
}

/// Sees one session channel. Methods may wait; what waits here, waits everywhere.
#[async_trait]
pub trait Tap: Send + Sync + 'static {
    /// The program starts once this is done. The error is a text for the client, and nothing starts.
    async fn start(&self, start: &Start) -> Result<Watch, String>;

    /// Output, before the client gets it. An error ends the session.
    async fn output(&self, stream: Stream, data: &Bytes) -> Result<(), String>;

    /// The terminal has a new size.
    async fn resize(&self, size: Size) -> Result<(), String>;

    /// What stops the session's input, where something does. Asked once, before the program starts.
    fn gate(&self) -> Option<Arc<dyn Gate>> {
        None
    }

    /// The end. Called once for every channel, whether or not a program started.
    async fn end(&self, ended: Ended);
}

/// Sees one forwarded connection.
#[async_trait]
pub trait ForwardTap: Send + Sync + 'static {
    /// The end, with the bytes in each direction; an error where the target did not connect.
    async fn end(&self, to_target: u64, to_client: u64, error: Option<String>);
}

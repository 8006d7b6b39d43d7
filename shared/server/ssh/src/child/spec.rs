//! What to run, as the daemon says it to `teleport exec`.

use serde::{Deserialize, Serialize};
use shared_types::Login;

/// What a session runs, as which login, with what around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildSpec {
    /// The account on this host.
    pub login: Login,
    /// What to run.
    pub program: Program,
    /// A terminal, if the client asked for one.
    pub pty: Option<PtySpec>,
    /// Variables the client sent and the service lets through.
    pub client_env: Vec<(String, String)>,
    /// The session's own variables; they win over all others.
    pub env: Vec<(String, String)>,
    /// Whether `~/.tsh/environment` counts.
    pub permit_user_env: bool,
}

/// The program of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// The login's shell, as a login shell.
    Shell,
    /// A command for the login's shell; any bytes but NUL.
    Exec(Vec<u8>),
    /// The SFTP server; it never has a terminal.
    Sftp,
}

/// A terminal, RFC 4254 §6.2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PtySpec {
    /// Value of `TERM`.
    pub term: String,
    /// Width in characters.
    pub columns: u32,
    /// Height in characters.
    pub rows: u32,
    /// Width and height in pixels, 0 if unknown.
    pub pixels: (u32, u32),
    /// Encoded terminal modes, RFC 4254 §8: opcode and argument.
    pub modes: Vec<(u8, u32)>,
}

//! Starting a child, on the daemon's side.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use shared_types::Login;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::Command;

use super::account::Refusal;
use super::control::{self, ChildControl};
use super::handoff::{self, Failure, MAX_MESSAGE, READY};
use super::spec::{ChildSpec, Program};
use super::streams::{self, ChildInput, ChildOutput, Input, Output};
use super::tty;

/// A directory server may be slow; a client waits no longer than this.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Pipes that hold more mean fewer changes between processes.
const PIPE_SIZE: usize = 256 * 1024;

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The host does not let the login in.
    #[error("login {login} cannot be used on this host: {reason}")]
    Refused {
        /// The login asked for.
        login: Login,
        /// Why.
        reason: Refusal,
    },
    /// The new process could not become the program.
    #[error("start the program as {login}: {step}: {cause}")]
    Step {
        /// The login asked for.
        login: Login,
        /// What it was doing.
        step: String,
        /// What the system said.
        cause: String,
    },
    /// No terminal, no pipe, no process.
    #[error("{step} for a session's program")]
    System {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The new process died before it said why.
    #[error("the process for a session's program ended before it started the program")]
    Died,
    /// The host did not say in time who the login is.
    #[error("the host's name service did not answer within {} s", START_TIMEOUT.as_secs())]
    Timeout,
}

/// A program that runs.
#[derive(Debug)]
pub struct Child {
    /// What it reads.
    pub input: ChildInput,
    /// What it writes: with a terminal, all of it.
    pub output: ChildOutput,
    /// Its errors, unless it has a terminal.
    pub error: Option<ChildOutput>,
    /// The terminal's device.
    pub tty: Option<String>,
    /// Size, signals, end.
    pub control: ChildControl,
}

/// Starts a session's program by way of `teleport exec`, and returns once the program runs.
pub async fn spawn(spec: ChildSpec) -> Result<Child, SpawnError> {
    Launcher::this_program().spawn(spec).await
}

/// The program that knows the hidden command `exec`.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Launcher {
    /// This very program, even if its file was replaced since it started.
    pub fn this_program() -> Self {
        Self::new("/proc/self/exe", [])
    }

    /// Another program; `exec` comes after `arguments`.
    pub fn new(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = OsString>) -> Self {
        Self { program: program.into(), arguments: arguments.into_iter().collect() }
    }

    /// As [`spawn`].
    pub async fn spawn(&self, spec: ChildSpec) -> Result<Child, SpawnError> {
        let login = spec.login.clone();
        let (ours, theirs) = plumb(&spec)?;
        let (here, there) = StdStream::pair().map_err(system("open a socket"))?;
        let mut process = Command::new(&self.program)
            .arg0("teleport")
            .args(&self.arguments)
            .arg("exec")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(there)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(system("start a process"))?;
        let pid =
            process.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or(SpawnError::Died)?;
        let told = tokio::time::timeout(START_TIMEOUT, tell(here, spec, theirs, &ours)).await;
        let user = match told.unwrap_or(Err(SpawnError::Timeout)) {
            Ok(answer) => started(&answer, login)?,
            Err(error) => {
                // Dropping it kills it; waiting for it here would only make the client wait.
                let _ = process.start_kill();
                return Err(error);
            }
        };
        Ok(ours.into_child(process, pid, user))
    }
}

/// Our ends.
enum Ours {
    Tty { master: Arc<tty::Master>, input: ChildInput, output: ChildOutput, name: String },
    Pipes { input: pipe::Sender, output: pipe::Receiver, error: pipe::Receiver },
}

impl Ours {
    fn tty(&self) -> Option<&str> {
        match self {
            Self::Tty { name, .. } => Some(name),
            Self::Pipes { .. } => None,
        }
    }

    fn into_child(self, process: tokio::process::Child, pid: Pid, user: u32) -> Child {
        match self {
            Self::Tty { master, input, output, name } => Child {
                control: control::keep(process, pid, user, Some(&master)),
                input,
                output,
                error: None,
                tty: Some(name),
            },
            Self::Pipes { input, output, error } => Child {
                control: control::keep(process, pid, user, None),
                input: ChildInput(Input::Pipe(input)),
                output: ChildOutput(Output::Pipe(output)),
                error: Some(ChildOutput(Output::Pipe(error))),
                tty: None,
            },
        }
    }
}

/// Our ends and theirs.
fn plumb(spec: &ChildSpec) -> Result<(Ours, Vec<OwnedFd>), SpawnError> {
    match spec.pty.as_ref().filter(|_| spec.program != Program::Sftp) {
        Some(pty) => {
            let pair = tty::open(pty).map_err(system("open a terminal"))?;
            let master = Arc::new(pair.master);
            let (input, output) = streams::of_tty(&master).map_err(system("watch a terminal"))?;
            Ok((Ours::Tty { master, input, output, name: pair.name }, vec![pair.slave]))
        }
        None => pipes().map_err(system("open pipes")),
    }
}

fn pipes() -> std::io::Result<(Ours, Vec<OwnedFd>)> {
    let (their_input, input) = pipe_pair()?;
    let (output, their_output) = pipe_pair()?;
    let (error, their_error) = pipe_pair()?;
    let ours = Ours::Pipes {
        input: pipe::Sender::from_owned_fd(input)?,
        output: pipe::Receiver::from_owned_fd(output)?,
        error: pipe::Receiver::from_owned_fd(error)?,
    };
    Ok((ours, vec![their_input, their_output, their_error]))
}

/// Reading and writing end. Tokio makes our ends non-blocking when it takes them; theirs stay as programs expect.
fn pipe_pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // The host may allow no more: smaller pipes work too.
    let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_SIZE);
    Ok((read, write))
}

/// Hands everything over and takes the answer.
async fn tell(
    socket: StdStream,
    spec: ChildSpec,
    theirs: Vec<OwnedFd>,
    ours: &Ours,
) -> Result<Vec<u8>, SpawnError> {
    let mut order = handoff::Order { tty: ours.tty().map(str::to_owned), spec };
    if order.tty.is_none() {
        order.spec.pty = None;
    }
    let talk = async {
        let text = serde_json::to_vec(&order)?;
        let descriptors: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        handoff::send_descriptors(&socket, text.len(), &descriptors)?;
        drop(descriptors);
        drop(theirs);
        socket.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(socket)?;
        let mut answer = Vec::new();
        // A child that failed before it read everything has said why.
        let written = socket.write_all(&text).await;
        socket.take(MAX_MESSAGE as u64).read_to_end(&mut answer).await?;
        if answer.is_empty() { written.map(|()| answer) } else { Ok(answer) }
    };
    talk.await.map_err(system("talk to the process"))
}

/// Reads the child's answer: the user id of the login, or why not.
fn started(answer: &[u8], login: Login) -> Result<u32, SpawnError> {
    let failure = match answer {
        [READY, a, b, c, d] => return Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        [READY, _, _, _, _, failure @ ..] => failure,
        other => other,
    };
    match serde_json::from_slice(failure) {
        Ok(Failure::Refused(reason)) => Err(SpawnError::Refused { login, reason }),
        Ok(Failure::Step { step, cause }) => Err(SpawnError::Step { login, step, cause }),
        Err(_) => Err(SpawnError::Died),
    }
}

fn system(step: &'static str) -> impl FnOnce(std::io::Error) -> SpawnError {
    move |source| SpawnError::System { step, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let login = || Login::new("joe").unwrap();
        assert_eq!(started(b"R\0\0\x03\xe8", login()).unwrap(), 1000);
        assert!(matches!(started(b"", login()), Err(SpawnError::Died)));
        assert!(matches!(started(b"R\0", login()), Err(SpawnError::Died)));
        let refused = serde_json::to_vec(&Failure::Refused(Refusal::NoAccount)).unwrap();
        assert_eq!(
            started(&refused, login()).unwrap_err().to_string(),
            "login joe cannot be used on this host: no such account"
        );
        let late = Failure::Step { step: "run /bin/x".into(), cause: "no such file".into() };
        let late = [b"R\0\0\0\0".to_vec(), serde_json::to_vec(&late).unwrap()].concat();
        assert_eq!(
            started(&late, login()).unwrap_err().to_string(),
            "start the program as joe: run /bin/x: no such file"
        );
    }
}

//! `tsh ssh`: a shell, a command or forwarded ports on a server, through the proxy.
//!
//! The way there is `shared-ssh`'s client; here are the command line, the terminal, and what a result
//! means to whoever called. Exit status: the remote's own, 255 when the connection failed, like `ssh`.

pub(super) mod connect;
pub(super) mod destination;
mod escape;
mod host_keys;
mod pins;
mod standard;
mod terminal;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared_cli::{CliError, ExitCode, RawMode};
use shared_ssh::agent::hide_process;
use shared_ssh::client::{
    ConnectError, Control, LocalForward, PtyRequest, SessionEnd, SessionIo, SessionRequest, Start,
    TargetConn,
};
use tokio::sync::{mpsc, oneshot};

use clap_complete::engine::ArgValueCompleter;

use crate::commands::{completion, ls};
use crate::context::Ctx;
use connect::{Connected, Wishes, failed};
use destination::Destination;
use standard::{Output, read_stdin};

/// What a shell reports for a program that died of a closed pipe.
const CLOSED_PIPE: u8 = 141;
/// How long a command may take to end after it was sent a signal.
const SIGNAL_GRACE: Duration = Duration::from_secs(1);
/// How long output may take to be written after the user gave up.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Shown below the flags.
const HELP: &str = "\
    Ends with the status of the remote command, and with 255 when the connection failed. In a terminal, \
    '~.' at the beginning of a line closes the session, '~?' shows help.";

/// Flags of `tsh ssh`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct SshArgs {
    /// Port of the server; the cluster's choice when left out
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Let the server use your ssh-agent
    #[arg(short = 'A', long)]
    forward_agent: bool,
    /// Forward a local port: [bind:]port:host:hostport
    #[arg(short = 'L', long = "forward", value_name = "SPEC")]
    forward: Vec<String>,
    /// Run nothing on the server, only forward
    #[arg(short = 'N', long)]
    no_remote_exec: bool,
    /// Ask for a terminal, also for a command; as often as you like
    #[arg(short, long, overrides_with = "tty")]
    tty: bool,
    /// Ask for no terminal
    #[arg(short = 'T', hide = true)]
    no_tty: bool,
    /// Take '~.' and the like as plain input
    #[arg(long = "no-enable-escape-sequences")]
    no_escapes: bool,
    /// Take '~.' after a new line as the end (the default)
    #[arg(long = "enable-escape-sequences", hide = true, overrides_with = "no_escapes")]
    escapes: bool,
    /// Sign no login that does not name the server: refuses those with an sshd before 8.9
    #[arg(long, env = "TELEPORT_HOSTBOUND_ONLY", value_parser = clap::builder::FalseyValueParser::new())]
    hostbound_only: bool,
    /// Server: name or address, with the login in front
    #[arg(value_name = "[USER@]HOST", add = ArgValueCompleter::new(completion::targets))]
    target: Option<String>,
    /// Command and its arguments; a shell when left out
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Connects and runs.
pub async fn run(ctx: &Ctx, args: SshArgs) -> Result<ExitCode, CliError> {
    hide_process();
    if args.tty && args.no_tty {
        return Err(CliError::usage("either -t or -T can be specified, not both"));
    }
    let Some(text) = &args.target else {
        return Err(CliError::usage("required argument '[user@]host' not provided"));
    };
    let forwards = args
        .forward
        .iter()
        .map(|spec| spec.parse::<LocalForward>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?;
    let login = ctx.login()?;
    let destination = Destination::parse(text, ctx.global.login.as_deref(), &login.logins())?;
    // Ports first: one that is taken should not cost a login.
    let mut listening = Vec::new();
    for forward in forwards {
        let open = forward.listen().await;
        listening
            .push(open.map_err(|error| CliError::from_error(&error).exit(ExitCode::Remote(255)))?);
    }

    let wishes = Wishes {
        port: args.port,
        forward_agent: args.forward_agent,
        hostbound_only: args.hostbound_only,
    };
    let connected = match connect::connect(ctx, &login, &destination, wishes).await {
        Err(error) if ls::is_ambiguous(&error) => {
            return Err(ls::ambiguous(ctx, destination.host.as_str()).await);
        }
        other => other?,
    };
    ctx.remember_hosts([destination.host.as_str()].into_iter());
    let mut forwarding = tokio::task::JoinSet::new();
    for open in listening {
        let target = Arc::clone(&connected.target);
        // A carriage return first: the terminal may be in raw mode.
        forwarding.spawn(open.run(target, |error| eprint!("{error}\r\n")));
    }
    let result = if args.no_remote_exec {
        only_forward(&connected.target).await
    } else {
        session(&args, &connected).await
    };
    forwarding.abort_all();
    connected.target.close().await;
    connected.proxy.close().await;
    result
}

/// `-N`: until the connection or the user ends it.
async fn only_forward(target: &TargetConn) -> Result<ExitCode, CliError> {
    let mut signals = Signals::new()?;
    tokio::select! {
        lost = target.closed() => Err(failed(&lost)),
        number = signals.next() => Ok(ExitCode::Remote(128_u8.saturating_add(number))),
    }
}

async fn session(args: &SshArgs, connected: &Connected) -> Result<ExitCode, CliError> {
    let interactive = std::io::stdin().is_terminal();
    let wants_pty = !args.no_tty && (args.tty || (args.command.is_empty() && interactive));
    let pty = wants_pty.then(|| PtyRequest {
        term: std::env::var("TERM")
            .ok()
            .filter(|term| !term.is_empty())
            .unwrap_or_else(|| "xterm".to_owned()),
        size: terminal::size(),
        modes: terminal::modes(),
    });
    let start = if args.command.is_empty() {
        Start::Shell
    } else {
        let words: Vec<&[u8]> = args.command.iter().map(|word| word.as_bytes()).collect();
        Start::Exec(words.join(&b' '))
    };
    let request = SessionRequest { pty, env: environment(), start };

    let (control, control_receiver) = mpsc::channel(16);
    let stdout = Output::stdout();
    let stderr = Output::stderr();
    let raw_wanted = wants_pty && interactive;
    // Not before something runs there: until then what is typed may be the answer to a question.
    let (read_on, may_read) = oneshot::channel();
    // Raw only while something runs there, so that Ctrl-C ends a login that takes long. Restored when dropped, on
    // every way out of here.
    let raw = Arc::new(Mutex::new(None));
    let started = {
        let raw = Arc::clone(&raw);
        move || {
            if raw_wanted {
                *raw.lock().unwrap_or_else(PoisonError::into_inner) = RawMode::enter().ok();
            }
            read_on.send(()).ok();
        }
    };
    let io = SessionIo {
        stdin: read_stdin((raw_wanted && !args.no_escapes).then(|| control.clone()), may_read),
        stdout: stdout.queue(),
        stderr: stderr.queue(),
        control: control_receiver,
        started: Some(Box::new(started)),
    };
    let watcher = tokio::spawn(watch(control, wants_pty, Signals::new()?));
    let end = connected.target.run_session(request, io).await;
    let signalled = if watcher.is_finished() { watcher.await.ok() } else { None };
    // What the server sent is shown before the prompt comes back; not to a reader who does not read,
    // though, once the user gave up.
    let shown = async {
        stdout.finish().await;
        stderr.finish().await;
    };
    if matches!(end, Ok(SessionEnd::Closed)) {
        let _ = tokio::time::timeout(LAST_OUTPUT, shown).await;
    } else {
        shown.await;
    }
    drop(raw);
    outcome(end, signalled, wants_pty, connected)
}

fn outcome(
    end: Result<SessionEnd, ConnectError>,
    signalled: Option<u8>,
    pty: bool,
    connected: &Connected,
) -> Result<ExitCode, CliError> {
    match end {
        Ok(SessionEnd::Status(status)) => {
            // Statuses are a byte; what does not fit must not become success.
            Ok(ExitCode::Remote(u8::try_from(status).unwrap_or(255)))
        }
        Ok(SessionEnd::OutputClosed) => Ok(ExitCode::Remote(CLOSED_PIPE)),
        Ok(SessionEnd::Closed) if signalled.is_some() => {
            Ok(ExitCode::Remote(128_u8.saturating_add(signalled.unwrap_or_default())))
        }
        // As `ssh`: what the signal was is not said, and a terminal's session says that it is over.
        Ok(SessionEnd::Signal { name, message }) => {
            tracing::debug!(%name, %message, "remote command was ended by a signal");
            if pty {
                eprint!("Connection to {} closed.\r\n", connected.target.options().host);
            }
            Ok(ExitCode::Remote(255))
        }
        Ok(SessionEnd::Closed) => Ok(ExitCode::Remote(255)),
        Err(error) => Err(connected.failed(&error)),
    }
}

/// What `ssh` sends by default on the systems people have: language and character set.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name == "LANG" || name.starts_with("LC_"))
        .collect()
}

/// Passes sizes and signals on; ends, with the signal's number, when the command did not.
async fn watch(control: mpsc::Sender<Control>, pty: bool, mut signals: Signals) -> u8 {
    let resize = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change());
    let mut resize = resize.ok().filter(|_| pty);
    loop {
        let resized = async {
            match &mut resize {
                Some(resize) => resize.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = resized => {
                if control.send(Control::Resize(terminal::size())).await.is_err() {
                    return 0;
                }
            }
            number = signals.next() => {
                // An error means that the session is over, which is what the signal is for.
                let _ = control.send(Control::Signal(terminal::signal(number))).await;
                // A second signal, or a server that does not pass signals on: the channel goes.
                let _ = tokio::time::timeout(SIGNAL_GRACE, signals.next()).await;
                let _ = control.send(Control::Close).await;
                return number;
            }
        }
    }
}

/// Signals that end a program.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The number of the next one.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            _ = self.hang_up.recv() => 1,
        }
    }
}

//! `tsh agent`: the certificate on an ssh-agent socket that signs only for hosts of the cluster.

mod renew;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use shared_cli::{CliError, ExitCode};
use shared_ssh::agent::{AgentSocket, SocketAgent, SocketError, agent_comment, hide_process};
use tokio_util::sync::CancellationToken;

use crate::context::Ctx;

/// Shown below the flags.
const HELP: &str = "\
    The socket signs only for logins on connections that ssh has bound to a host with a certificate of \
    the cluster, so whoever it is forwarded to cannot use it elsewhere. OpenSSH binds since 8.9; older \
    clients, and programs that sign other things, need --allow-unbound.\n\n\
    With a command, runs it with SSH_AUTH_SOCK set and ends with its status. Without, prints the \
    variable and serves until it is stopped. A new login is taken up as soon as there is one; when the \
    certificate has ended, or after a logout, the socket offers nothing until then.";

/// Flags of `tsh agent`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct AgentArgs {
    /// Where to listen; the folder must be yours, mode 0700
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Sign anything for whoever reaches the socket, like an ordinary agent
    #[arg(long)]
    allow_unbound: bool,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Serves.
pub async fn run(ctx: &Ctx, args: AgentArgs) -> Result<ExitCode, CliError> {
    hide_process();
    let (profile, login) = (ctx.profile()?, ctx.login()?);
    let key = Arc::new(login.agent_key(&agent_comment(&profile.user))?);
    let agent = SocketAgent::new(key, login.authorities.clone(), args.allow_unbound);
    // A command has the terminal to itself.
    let talks = args.command.is_empty();
    let renewing = renew::follow(&ctx.dir, profile, &login, Arc::clone(&agent), talks);
    let bad = |error: SocketError| CliError::from_error(&error);
    let socket = match &args.socket {
        Some(path) => AgentSocket::at(path).map_err(bad)?,
        None => AgentSocket::in_new_folder().map_err(bad)?,
    };
    let path = socket.path().to_owned();
    let work = async {
        if args.command.is_empty() {
            println!("SSH_AUTH_SOCK={}; export SSH_AUTH_SOCK;", quoted(&path.to_string_lossy()));
            wait().await
        } else {
            command(&args.command, &path).await
        }
    };
    tokio::select! {
        result = work => result,
        never = renewing => match never {},
        served = socket.run(agent, CancellationToken::new()) => {
            served.map_err(bad)?;
            Ok(ExitCode::Done)
        }
    }
}

/// Until a signal.
async fn wait() -> Result<ExitCode, CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok(ExitCode::Done),
        _ = terminate.recv() => Ok(ExitCode::Done),
    }
}

async fn command(words: &[OsString], socket: &std::path::Path) -> Result<ExitCode, CliError> {
    let Some((program, arguments)) = words.split_first() else { return Ok(ExitCode::Done) };
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .env("SSH_AUTH_SOCK", socket)
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| CliError::wrap(format!("run {}", program.display()), &error))?;
    let code = match std::os::unix::process::ExitStatusExt::signal(&status) {
        Some(signal) => 128 + signal,
        None => status.code().unwrap_or(1),
    };
    Ok(ExitCode::Remote(u8::try_from(code).unwrap_or(255)))
}

/// As one word for a shell.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn paths_are_one_word_for_a_shell() {
        assert_eq!(
            quoted("/run/user/0/tsh-agent-1/agent.sock"),
            "/run/user/0/tsh-agent-1/agent.sock"
        );
        assert_eq!(quoted("/tmp/a b$(x)'"), r"'/tmp/a b$(x)'\'''");
    }
}

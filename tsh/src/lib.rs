//! The user client: command line, dispatch, and one place where a result becomes an exit code.
//! Each command lives in `commands/<verb>.rs`; what they share of the profile in `context.rs`.

pub mod commands;
pub mod context;
pub mod ping;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use shared_cli::{CliError, ExitCode, answer_shell, parse, run_main};
use tokio::runtime::Builder;

use crate::context::Ctx;

/// Log in and reach servers with short-lived certificates
#[derive(Debug, Parser)]
#[command(name = "tsh", version = env!("CARGO_PKG_VERSION"), disable_version_flag = true)]
#[command(propagate_version = false, max_term_width = 100)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes; a flag beats the environment, which beats the profile.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct GlobalArgs {
    /// Proxy address: host, host:webport or host:webport,sshport
    #[arg(long, global = true, env = "TELEPORT_PROXY", value_name = "HOST[:PORT]")]
    pub proxy: Option<String>,
    /// User name; the operating system's user when left out
    #[arg(long, global = true, env = "TELEPORT_USER", value_name = "USER")]
    pub user: Option<String>,
    /// Remote login
    #[arg(short = 'l', long, global = true, env = "TELEPORT_LOGIN", value_name = "LOGIN", add = ArgValueCompleter::new(commands::completion::logins))]
    pub login: Option<String>,
    /// Do not verify the proxy's web certificate
    #[arg(long, global = true)]
    pub insecure: bool,
    /// Keep certificates out of a running ssh-agent
    #[arg(long = "no-use-local-ssh-agent", global = true, overrides_with = "use_local_ssh_agent")]
    pub no_use_local_ssh_agent: bool,
    /// Load certificates into a running ssh-agent (the default)
    #[arg(long = "use-local-ssh-agent", global = true, hide = true)]
    pub use_local_ssh_agent: bool,
    /// Print debug logs to standard error
    #[arg(short = 'd', long, global = true, env = "TELEPORT_DEBUG", value_parser = clap::builder::FalseyValueParser::new())]
    pub debug: bool,
    /// Folder of profiles, keys and certificates
    #[arg(long, global = true, env = "TELEPORT_HOME", hide = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
}

impl GlobalArgs {
    /// Whether a running ssh-agent is given the certificates: flag, then environment, then yes.
    pub fn uses_local_ssh_agent(&self) -> bool {
        if self.no_use_local_ssh_agent {
            return false;
        }
        if self.use_local_ssh_agent {
            return true;
        }
        match std::env::var("TELEPORT_USE_LOCAL_SSH_AGENT") {
            Ok(value) => {
                !matches!(value.to_ascii_lowercase().as_str(), "false" | "0" | "no" | "f" | "n")
            }
            Err(_) => true,
        }
    }
}

/// Everything `tsh` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Log in to a cluster and keep short-lived certificates
    Login(commands::login::LoginArgs),
    /// Forget keys and certificates
    Logout(commands::logout::LogoutArgs),
    /// Show who is logged in, where and for how long
    Status(commands::status::StatusArgs),
    /// Set or reset a password with an invitation URL
    Signup(commands::signup::SignupArgs),
    /// List servers
    Ls(commands::ls::LsArgs),
    /// Open a shell or run a command on a server
    Ssh(commands::ssh::SshArgs),
    /// Copy files to or from a server
    Scp(commands::scp::ScpArgs),
    /// Lead other programs through the proxy
    Proxy(commands::proxy::ProxyArgs),
    /// Reach databases with their own clients
    Db(commands::db::DbArgs),
    /// Print an OpenSSH client configuration
    Config(commands::config::ConfigArgs),
    /// Offer the certificates on an ssh-agent socket
    Agent(commands::agent::AgentArgs),
    /// Play a session recording
    Play(commands::play::PlayArgs),
    /// Look at session recordings
    #[command(visible_alias = "recording")]
    Recordings(commands::recordings::RecordingsArgs),
    /// Print a shell completion script
    Completion(commands::completion::CompletionArgs),
    /// Print the version
    Version(commands::version::VersionArgs),
}

/// The command line as clap sees it, for completion scripts and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The program: parses, dispatches, reports.
pub fn main() -> std::process::ExitCode {
    answer_shell(command, commands::completion::VARIABLE);
    run_main(run(std::env::args_os()))
}

/// Runs one command line.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<ExitCode, CliError> {
    let cli: Cli = match parse(args) {
        Ok(cli) => cli,
        Err(code) => return Ok(code),
    };
    start_log(cli.global.debug);
    let ctx = Ctx::new(cli.global)?;
    match cli.command {
        Command::Version(args) => commands::version::run(&ctx, &args),
        Command::Completion(args) => commands::completion::run(&args),
        Command::Status(args) => commands::status::run(&ctx, &args),
        Command::Config(args) => commands::config::run(&ctx, &args),
        Command::Login(args) => wait(commands::login::run(&ctx, &args)),
        Command::Logout(args) => wait(commands::logout::run(&ctx, &args)),
        Command::Signup(args) => wait(commands::signup::run(&ctx, &args)),
        Command::Ls(args) => wait(commands::ls::run(&ctx, &args)),
        Command::Play(args) => wait(commands::play::run(&ctx, &args)),
        Command::Recordings(args) => wait(commands::recordings::run(&ctx, &args)),
        Command::Ssh(args) => {
            wait_on(Builder::new_current_thread(), commands::ssh::run(&ctx, args))
        }
        Command::Scp(args) => wait(commands::scp::run(&ctx, args)),
        Command::Proxy(args) => {
            wait_on(Builder::new_current_thread(), commands::proxy::run(&ctx, args))
        }
        Command::Db(args) => wait_on(Builder::new_current_thread(), commands::db::run(&ctx, args)),
        Command::Agent(args) => wait(commands::agent::run(&ctx, args)),
    }
}

/// Runs a command that talks to the network. Commands that talk to nobody never start a runtime.
fn wait(work: impl Future<Output = Result<ExitCode, CliError>>) -> Result<ExitCode, CliError> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2);
    wait_on(builder, work)
}

/// The same on a given runtime. A session is best on one thread: a keystroke passes several tasks, and between threads
/// each costs a system call and a context switch. Terminal and pipes have threads of their own.
fn wait_on(
    mut builder: Builder,
    work: impl Future<Output = Result<ExitCode, CliError>>,
) -> Result<ExitCode, CliError> {
    shared_transport::install_crypto();
    let runtime = builder.enable_all().build().map_err(|error| CliError::wrap("start", &error))?;
    let result = runtime.block_on(work);
    // A thread may still wait for a key press or a line; it must not hold up the exit.
    runtime.shutdown_background();
    result
}

fn start_log(debug: bool) {
    if debug {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(std::io::stderr)
            .init();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}

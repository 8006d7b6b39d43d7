//! The admin client: command line, dispatch, and one place where a result becomes an exit code.
//! Each noun lives in `commands/<noun>.rs`; how auth is reached and as whom, in `connect.rs`.

pub mod commands;
pub mod connect;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use shared_cli::{CliError, ExitCode, answer_shell, parse, run_main};

use crate::connect::Connection;

/// Administer a cluster
#[derive(Debug, Parser)]
#[command(name = "tctl", version = env!("CARGO_PKG_VERSION"), disable_version_flag = true)]
#[command(max_term_width = 100)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct GlobalArgs {
    /// Configuration of the auth service on this host; its local admin identity is used
    #[arg(short = 'c', long, global = true, env = "TELEPORT_CONFIG_FILE", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data directory of the auth service on this host, in place of a configuration
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "config")]
    pub data_dir: Option<PathBuf>,
    /// Address of the auth service
    #[arg(long, global = true, env = "TELEPORT_AUTH_SERVER", value_name = "HOST:PORT")]
    pub auth_server: Option<String>,
    /// Identity file
    #[arg(short = 'i', long, global = true, env = "TELEPORT_IDENTITY_FILE", value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Do not verify the proxy's web certificate
    #[arg(long, global = true)]
    pub insecure: bool,
    /// Print debug logs to standard error
    #[arg(short = 'd', long, global = true)]
    pub debug: bool,
}

/// Everything `tctl` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the cluster, its version and its authorities
    Status(commands::status::StatusArgs),
    /// Export and sign certificates
    Auth(commands::auth::AuthArgs),
    /// Manage users
    #[command(visible_alias = "user")]
    Users(commands::users::UsersArgs),
    /// Manage join tokens
    #[command(visible_alias = "token")]
    Tokens(commands::tokens::TokensArgs),
    /// List SSH servers of the cluster, and let new ones in
    #[command(visible_alias = "node")]
    Nodes(commands::nodes::NodesArgs),
    /// List the databases that agents serve
    Db(commands::db::DbArgs),
    /// List the processes that serve the cluster
    Inventory(commands::inventory::InventoryArgs),
    /// Stop a user, a role, a login, a node or a proxy at once
    Lock(commands::lock::LockArgs),
    /// Print resources
    Get(commands::resources::GetArgs),
    /// Create or replace resources from YAML
    Create(commands::resources::CreateArgs),
    /// Edit a resource in an editor
    Edit(commands::resources::EditArgs),
    /// Remove a resource
    Rm(commands::resources::RmArgs),
    /// Ask the audit log in SQL
    Audit(commands::audit::AuditArgs),
    /// Look at session recordings
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
    if cli.global.debug {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(std::io::stderr)
            .init();
    }
    match cli.command {
        Command::Version(args) => commands::version::run(&args),
        Command::Completion(args) => commands::completion::run(&args),
        command => connected(&cli.global, command),
    }
}

/// Runs a command that talks to the auth service.
fn connected(global: &GlobalArgs, command: Command) -> Result<ExitCode, CliError> {
    shared_transport::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::wrap("start", &error))?;
    runtime.block_on(async {
        let command = match command {
            Command::Recordings(args) if args.is_offline() => {
                return commands::recordings::run(None, args).await;
            }
            command => command,
        };
        let connection = Connection::open(global).await?;
        match command {
            Command::Status(args) => commands::status::run(&connection, &args).await,
            Command::Auth(args) => commands::auth::run(&connection, args).await,
            Command::Users(args) => commands::users::run(&connection, args).await,
            Command::Tokens(args) => commands::tokens::run(&connection, args).await,
            Command::Nodes(args) => commands::nodes::run(&connection, args).await,
            Command::Db(args) => commands::db::run(&connection, args).await,
            Command::Inventory(args) => commands::inventory::run(&connection, args).await,
            Command::Lock(args) => commands::lock::run(&connection, args).await,
            Command::Get(args) => commands::resources::get(&connection, &args).await,
            Command::Create(args) => commands::resources::create(&connection, &args).await,
            Command::Edit(args) => commands::resources::edit(&connection, &args).await,
            Command::Rm(args) => commands::resources::rm(&connection, &args).await,
            Command::Audit(args) => commands::audit::run(&connection, args).await,
            Command::Recordings(args) => commands::recordings::run(Some(&connection), args).await,
            Command::Version(_) | Command::Completion(_) => Ok(ExitCode::Done),
        }
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}

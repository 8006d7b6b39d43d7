//! `tsh db`: databases of the cluster, and the certificates and settings for their own clients.

mod certs;
mod config;
mod connect;
mod env;
mod exec;
mod login;
mod logout;
mod ls;
pub(crate) mod native;
mod reauth;
mod sections;
pub(crate) mod select;
mod settings;
pub(crate) mod tunnel;

use clap::Subcommand;
use shared_cli::{CliError, ExitCode};

pub(crate) use certs::{active, forget, issue};

use crate::context::Ctx;

/// Flags of `tsh db`.
#[derive(Debug, clap::Args)]
pub struct DbArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List databases
    Ls(ls::LsArgs),
    /// Get a certificate for a database, and tell its clients
    Login(login::LoginArgs),
    /// Forget certificates for databases
    Logout(logout::LogoutArgs),
    /// Print environment variables for a database's clients
    Env(env::EnvArgs),
    /// Print how to connect to a database
    Config(config::ConfigArgs),
    /// Start a database's own client
    Connect(connect::ConnectArgs),
    /// Run a command in several databases
    Exec(exec::ExecArgs),
}

/// Runs one of them.
pub async fn run(ctx: &Ctx, args: DbArgs) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Ls(args) => ls::run(ctx, &args).await,
        Command::Login(args) => login::run(ctx, &args).await,
        Command::Logout(args) => logout::run(ctx, &args).await,
        Command::Env(args) => env::run(ctx, &args).await,
        Command::Config(args) => config::run(ctx, &args).await,
        Command::Connect(args) => connect::run(ctx, &args).await,
        Command::Exec(args) => exec::run(ctx, args).await,
    }
}

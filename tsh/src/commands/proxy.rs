//! `tsh proxy`: ways through the proxy for programs that do not know it.

mod db;
mod listen;
mod pipes;
mod ssh;

use clap::Subcommand;
use shared_cli::{CliError, ExitCode};

use crate::context::Ctx;

/// Flags of `tsh proxy`.
#[derive(Debug, clap::Args)]
pub struct ProxyArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect to a server: for ProxyCommand of OpenSSH, or for any client on a local port
    Ssh(ssh::SshArgs),
    /// Listen on this machine for the clients of databases
    Db(db::DbArgs),
}

/// Runs one of them.
pub async fn run(ctx: &Ctx, args: ProxyArgs) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Ssh(args) => ssh::run(ctx, args).await,
        Command::Db(args) => db::run(ctx, args).await,
    }
}

//! `tctl auth`: export of authorities, signing of certificates.

mod database;
mod export;
mod files;
mod sign;

use shared_cli::{CliError, ExitCode};

use crate::connect::Connection;

/// Flags of `tctl auth`.
#[derive(Debug, clap::Args)]
pub struct AuthArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print the public half of an authority
    Export(export::ExportArgs),
    /// Make a key and sign a certificate for it
    Sign(sign::SignArgs),
}

/// Runs the verb.
pub async fn run(connection: &Connection, args: AuthArgs) -> Result<ExitCode, CliError> {
    match args.verb {
        Verb::Export(args) => export::run(connection, &args).await?,
        Verb::Sign(args) => sign::run(connection, args).await?,
    }
    Ok(ExitCode::Done)
}

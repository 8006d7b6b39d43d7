//! `tctl recordings`.

mod download;
mod ls;
mod rm;
mod verify;

use shared_cli::{CliError, ExitCode};

use crate::connect::Connection;

/// Flags of `tctl recordings`.
#[derive(Debug, clap::Args)]
pub struct RecordingsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List recorded sessions, newest first
    Ls(ls::LsArgs),
    /// Save a recording as it is stored
    Download(download::DownloadArgs),
    /// Remove recordings for good
    Rm(rm::RmArgs),
    /// Verify that recordings are as they were recorded
    Verify(verify::VerifyArgs),
}

impl RecordingsArgs {
    /// Whether the verb needs no cluster.
    pub(crate) fn is_offline(&self) -> bool {
        matches!(&self.verb, Verb::Verify(args) if args.is_offline())
    }
}

/// Runs the verb; without a connection only where it needs none.
pub async fn run(
    connection: Option<&Connection>,
    args: RecordingsArgs,
) -> Result<ExitCode, CliError> {
    match (args.verb, connection) {
        (Verb::Verify(args), connection) => verify::run(connection, &args).await,
        (Verb::Ls(args), Some(connection)) => ls::run(connection, &args).await,
        (Verb::Download(args), Some(connection)) => download::run(connection, &args).await,
        (Verb::Rm(args), Some(connection)) => rm::run(connection, &args).await,
        (_, None) => Err(CliError::new("not connected to a cluster")),
    }
}

//! `tsh recordings`.

mod download;
mod export;
mod ls;

use shared_cli::recordings::ListArgs;
use shared_cli::{CliError, ExitCode};

use crate::context::Ctx;

/// Flags of `tsh recordings`.
#[derive(Debug, clap::Args)]
pub struct RecordingsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List recorded sessions, newest first
    Ls(ListArgs),
    /// Turn a recording into a page that plays, an asciicast, text or JSON
    Export(export::ExportArgs),
    /// Save a recording as it is stored
    Download(download::DownloadArgs),
}

/// Runs the verb.
pub async fn run(ctx: &Ctx, args: &RecordingsArgs) -> Result<ExitCode, CliError> {
    match &args.verb {
        Verb::Ls(args) => ls::run(ctx, args).await,
        Verb::Export(args) => export::run(ctx, args).await,
        Verb::Download(args) => download::run(ctx, args).await,
    }
}

//! `tsh recordings download`.

use std::path::PathBuf;

use shared_cli::{CliError, ExitCode, OutputFile};
use shared_types::SessionId;

use crate::commands::play::source::fetch_into;
use crate::context::Ctx;

/// Flags of `tsh recordings download`.
#[derive(Debug, clap::Args)]
pub(super) struct DownloadArgs {
    /// Session id
    session: SessionId,
    /// Where to; SESSION.tar when left out
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    overwrite: bool,
}

pub(super) async fn run(ctx: &Ctx, args: &DownloadArgs) -> Result<ExitCode, CliError> {
    let target = args.output.clone().unwrap_or_else(|| format!("{}.tar", args.session).into());
    let mut file = OutputFile::create(&target, args.overwrite)?;
    fetch_into(ctx, args.session, &mut file).await?;
    file.finish()?;
    eprintln!("Wrote recording to {}", target.display());
    Ok(ExitCode::Done)
}

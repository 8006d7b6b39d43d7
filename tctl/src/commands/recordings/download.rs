//! `tctl recordings download`.

use std::io::Write;
use std::path::PathBuf;

use shared_cli::{CliError, ExitCode, OutputFile, Progress};
use shared_types::SessionId;

use crate::connect::Connection;

/// Flags of `tctl recordings download`.
#[derive(Debug, clap::Args)]
pub(super) struct DownloadArgs {
    /// Session id
    session: SessionId,
    /// Where to; SESSION.tar when left out
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Folder for SESSION.tar
    #[arg(long, value_name = "FOLDER", conflicts_with = "output")]
    output_dir: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    overwrite: bool,
}

pub(super) async fn run(
    connection: &Connection,
    args: &DownloadArgs,
) -> Result<ExitCode, CliError> {
    let name = format!("{}.tar", args.session);
    let target = match (&args.output, &args.output_dir) {
        (Some(file), _) => file.clone(),
        (None, Some(folder)) => folder.join(name),
        (None, None) => name.into(),
    };
    let mut file = OutputFile::create(&target, args.overwrite)?;
    let mut stream = connection.api.recording(&args.session).await.map_err(Connection::error)?;
    let progress = Progress::bytes("Fetching recording", stream.remaining());
    while let Some(piece) = stream.next().await.map_err(Connection::error)? {
        progress.add(piece.len() as u64);
        file.write_all(&piece)?;
    }
    progress.finish();
    file.finish()?;
    eprintln!("Wrote recording to {}", target.display());
    Ok(ExitCode::Done)
}

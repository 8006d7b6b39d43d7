//! `manual DIR`: the manual pages of the programs (man(7)), one for each command, made from their command lines.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};

/// Write manual pages
#[derive(Parser)]
struct Args {
    /// Where to
    folder: PathBuf,
}

fn main() -> Result<()> {
    let folder = Args::parse().folder;
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    for command in [tsh::command(), tctl::command(), server_daemon::cli::Cli::command()] {
        let name = command.get_name().to_owned();
        clap_mangen::generate_to(command, &folder)
            .with_context(|| format!("write pages of {name} into {}", folder.display()))?;
    }
    Ok(())
}

//! Running cargo and our own programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Cargo, in the root folder.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command to its end; a failure names it.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Builds the whole workspace with one package selection, so that features are resolved once.
pub(crate) fn build(what: &[&str], release: bool) -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--workspace", "--locked"]).args(what);
    if release {
        command.args(["--profile", "dist"]);
    }
    succeed(&mut command)
}

/// Where cargo puts programs.
pub(crate) fn target(release: bool) -> PathBuf {
    let base =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    base.join(if release { "dist" } else { "debug" })
}

/// Runs one of our built programs.
pub(crate) fn binary(name: &str, release: bool, args: &[String]) -> Result<()> {
    succeed(Command::new(target(release).join(name)).args(args).current_dir(root()))
}

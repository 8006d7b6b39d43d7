//! Files with keys and certificates: whether those that are there may go, and writing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use shared_cli::{CliError, Prompter};

/// `OUT` with more behind its name.
pub(super) fn with_ending(out: &Path, ending: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The files as one text.
pub(super) fn names<'a>(files: impl IntoIterator<Item = &'a Path>) -> String {
    files.into_iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Asks before files that are there are replaced.
pub(super) fn may_replace(files: &[&Path], overwrite: bool) -> Result<(), CliError> {
    if overwrite || !files.iter().any(|file| file.exists()) {
        return Ok(());
    }
    let names = names(files.iter().copied());
    let sure =
        Prompter.confirm(&format!("Destination file(s) {names} exist. Overwrite?")).map_err(
            |error| CliError::from_error(&error).hint("--overwrite replaces them without asking"),
        )?;
    if sure {
        Ok(())
    } else {
        Err(CliError::new(format!("not overwriting destination files {names}")))
    }
}

/// Writes beside and renames, so that a crash leaves the former file or the new one; owner only.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), CliError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut temporary: OsString = path.as_os_str().to_owned();
    temporary.push(format!(".{}", uuid::Uuid::new_v4()));
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        std::fs::remove_file(&temporary).ok();
        CliError::wrap(format!("write {}", path.display()), &error)
    })
}

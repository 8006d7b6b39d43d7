//! A file that is there whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// A file being written beside its place. It gets its name when it is whole; one that is given up
/// leaves nothing behind. Only its owner may read it.
#[derive(Debug)]
pub struct OutputFile {
    writer: BufWriter<File>,
    unfinished: Option<PathBuf>,
    target: PathBuf,
    overwrite: bool,
}

impl OutputFile {
    /// Begins a file. One of that name that is there stays, unless it may be overwritten.
    pub fn create(target: &Path, overwrite: bool) -> Result<Self, CliError> {
        if !overwrite && target.symlink_metadata().is_ok() {
            return Err(exists(target));
        }
        let name = target
            .file_name()
            .ok_or_else(|| CliError::usage(format!("{} is no file name", target.display())))?;
        let unfinished =
            target.with_file_name(format!(".{}.{}.part", name.display(), std::process::id()));
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .map_err(|error| CliError::wrap(format!("write {}", target.display()), &error))?;
        Ok(Self {
            writer: BufWriter::with_capacity(256 * 1024, file),
            unfinished: Some(unfinished),
            target: target.to_owned(),
            overwrite,
        })
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> Result<(), CliError> {
        let failed = |error: io::Error| CliError::wrap("write", &error);
        self.writer.flush().map_err(failed)?;
        self.writer.get_ref().sync_all().map_err(failed)?;
        let Some(unfinished) = &self.unfinished else { return Ok(()) };
        if self.overwrite {
            std::fs::rename(unfinished, &self.target).map_err(failed)?;
            self.unfinished = None;
            return Ok(());
        }
        // A link, unlike a renaming, never replaces. What is left behind goes with this value.
        match std::fs::hard_link(unfinished, &self.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(&self.target)),
            linked => linked.map_err(failed),
        }
    }
}

/// A file without a name, readable by nobody else, that goes with the program.
pub fn unnamed_file() -> Result<File, CliError> {
    tempfile::tempfile().map_err(|error| {
        let folder = std::env::temp_dir();
        CliError::wrap(format!("make a file in {}", folder.display()), &error)
    })
}

fn exists(target: &Path) -> CliError {
    CliError::new(format!("{} exists", target.display())).hint("--overwrite replaces it")
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            std::fs::remove_file(unfinished).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out.tar");
        let mut given_up = OutputFile::create(&target, false).unwrap();
        given_up.write_all(b"half").unwrap();
        drop(given_up);
        assert!(names(folder.path()).is_empty());
        let mut file = OutputFile::create(&target, false).unwrap();
        file.write_all(b"whole").unwrap();
        assert!(!target.exists());
        file.finish().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"whole");
        assert_eq!(names(folder.path()), ["out.tar"]);
    }

    #[test]
    fn nothing_is_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out.tar");
        let mut late = OutputFile::create(&target, false).unwrap();
        std::fs::write(&target, "mine").unwrap();
        assert!(OutputFile::create(&target, false).is_err());
        late.write_all(b"other").unwrap();
        assert!(late.finish().is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"mine");
        let mut file = OutputFile::create(&target, true).unwrap();
        file.write_all(b"other").unwrap();
        file.finish().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"other");
        assert_eq!(names(folder.path()), ["out.tar"]);
    }
}

//! Files of the host that are changed together, or not at all.
//!
//! Each file is replaced whole. Until [`Changes::keep`], dropping puts back what was there, so that an error on the way
//! leaves the host as it was.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes.
const LARGEST: u64 = 4 * 1024 * 1024;

/// A step on a file failed.
#[derive(Debug, thiserror::Error)]
#[error("{step} {path}")]
pub(super) struct FileError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FileError {
    pub(super) fn new(step: &'static str, path: &Path, source: io::Error) -> Self {
        Self { step, path: path.to_owned(), source }
    }
}

/// What a file was.
struct Before {
    content: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
}

/// Changes that are taken back unless they are kept.
#[derive(Default)]
pub(super) struct Changes {
    done: Vec<(PathBuf, Option<Before>)>,
}

impl Changes {
    /// Replaces a file, or makes it. One that was there keeps its owner and its mode; a new one gets `mode`.
    pub(super) fn write(
        &mut self,
        path: &Path,
        content: &[u8],
        mode: u32,
    ) -> Result<(), FileError> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let before = before(&path)?;
        if before.as_ref().is_some_and(|before| before.content == content) {
            return Ok(());
        }
        let (mode, owner) = match &before {
            Some(before) => (before.mode, Some(before.owner)),
            None => (mode, None),
        };
        replace(&path, content, mode, owner)?;
        self.done.push((path, before));
        Ok(())
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&mut self, path: &Path) -> Result<(), FileError> {
        let before = before(path)?;
        if before.is_none() {
            return Ok(());
        }
        fs::remove_file(path).map_err(|err| FileError::new("remove", path, err))?;
        self.done.push((path.to_owned(), before));
        Ok(())
    }

    /// Whether anything is other than it was.
    pub(super) fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// What was done stays.
    pub(super) fn keep(mut self) {
        self.done.clear();
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        for (path, before) in self.done.drain(..).rev() {
            let restored = match before {
                Some(before) => replace(&path, &before.content, before.mode, Some(before.owner)),
                None => fs::remove_file(&path).map_err(|err| FileError::new("remove", &path, err)),
            };
            if let Err(error) = restored {
                eprintln!("could not take back a change: {}", server_core::chain(&error));
            }
        }
    }
}

fn before(path: &Path) -> Result<Option<Before>, FileError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::new("read", path, error)),
    };
    let content = read(path)?;
    let mode = metadata.permissions().mode() & 0o7777;
    Ok(Some(Before { content, mode, owner: (metadata.uid(), metadata.gid()) }))
}

/// A whole file of a size that is to be expected.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let fault = |err| FileError::new("read", path, err);
    let length = fs::metadata(path).map_err(fault)?.len();
    if length > LARGEST {
        return Err(fault(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    fs::read(path).map_err(fault)
}

/// The same as text, or nothing where there is no such file.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, FileError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = String::from_utf8(read(path)?)
        .map_err(|_| FileError::new("read", path, io::Error::from(io::ErrorKind::InvalidData)))?;
    Ok(Some(text))
}

/// A file of `/proc`, which says no length.
pub(super) fn read_proc(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    File::open(path).ok()?.take(4096).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Replaces a file whole; on disk when this returns.
pub(super) fn replace(
    path: &Path,
    content: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<(), FileError> {
    let fault = |err| FileError::new("write", path, err);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // A dot in front and an ending of its own: no pattern of an Include takes it while it is written.
    name.push(format!(".tmp-{}", std::process::id()));
    let temporary = path.with_file_name(PathBuf::from(format!(".{}", name.to_string_lossy())));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        if let Some((user, group)) = owner {
            chown(&temporary, Some(user), Some(group))?;
        }
        fs::set_permissions(&temporary, Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|err| {
        fs::remove_file(&temporary).ok();
        fault(err)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(folder: &Path) -> Vec<(String, Vec<u8>, u32)> {
        let mut all: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
                (path.display().to_string(), fs::read(&path).unwrap(), mode)
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn all_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (old, gone, new) =
            (folder.path().join("old"), folder.path().join("gone"), folder.path().join("new"));
        fs::write(&old, "as it was").unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o640)).unwrap();
        fs::write(&gone, "going").unwrap();
        let was = listing(folder.path());
        let change = |changes: &mut Changes| {
            changes.write(&old, b"changed", 0o600).unwrap();
            changes.write(&old, b"changed again", 0o600).unwrap();
            changes.write(&new, b"new", 0o600).unwrap();
            changes.remove(&gone).unwrap();
            changes.remove(&folder.path().join("never")).unwrap();
        };
        let mut changes = Changes::default();
        change(&mut changes);
        drop(changes);
        assert_eq!(listing(folder.path()), was);

        let mut changes = Changes::default();
        change(&mut changes);
        assert!(!changes.is_empty());
        changes.keep();
        assert_eq!(fs::read(&old).unwrap(), b"changed again");
        assert_eq!(fs::metadata(&old).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(!gone.exists());
        let mut same = Changes::default();
        same.write(&new, b"new", 0o600).unwrap();
        assert!(same.is_empty());
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "a").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut changes = Changes::default();
        changes.write(&link, b"b", 0o600).unwrap();
        changes.keep();
        assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"b");
    }
}

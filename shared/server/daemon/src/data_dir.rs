//! The data directory: one process at a time, 0700, host id, files replaced whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use server_store::{LockError, ProcessLock};
use uuid::Uuid;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// Another process has it, or the lock file cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A step on a file failed.
    #[error("{step} {path}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it did not work.
        #[source]
        source: io::Error,
    },
    /// The host id file holds something else.
    #[error("{0} does not hold a UUID")]
    HostId(PathBuf),
}

/// The directory, held until dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: ProcessLock,
}

impl DataDir {
    /// Creates the directory when missing and takes its lock.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |step, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { step, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create", path))?;
        let path = path.canonicalize().map_err(io("open", path))?;
        let mode = fs::metadata(&path).map_err(io("read the mode of", &path))?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
                .map_err(io("set the mode of", &path))?;
        }
        let lock = ProcessLock::acquire(&path.join("teleport.lock"), &path)?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// This host's id: read from `host_uuid`, made at the first start.
    pub(crate) fn host_id(&self) -> Result<Uuid, DataDirError> {
        let path = self.path.join("host_uuid");
        match fs::read_to_string(&path) {
            Ok(text) => Uuid::parse_str(text.trim()).map_err(|_| DataDirError::HostId(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = Uuid::new_v4();
                self.write_secret("host_uuid", format!("{id}\n").as_bytes())?;
                Ok(id)
            }
            Err(source) => Err(DataDirError::Io { step: "read", path, source }),
        }
    }

    /// Replaces a file whole, 0600, on disk when this returns.
    pub(crate) fn write_secret(&self, name: &str, content: &[u8]) -> Result<(), DataDirError> {
        write_secret(&self.path, name, content)
    }
}

/// The same for who has only the path.
pub(crate) fn write_secret(folder: &Path, name: &str, content: &[u8]) -> Result<(), DataDirError> {
    let path = folder.join(name);
    replace(&path, content).map_err(|source| DataDirError::Io { step: "write", path, source })
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let refused = DataDir::open(&path).unwrap_err().to_string();
        assert!(refused.contains("in use by another process"), "{refused}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn the_host_id_stays() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        let id = dir.host_id().unwrap();
        assert_eq!(dir.host_id().unwrap(), id);
        let mode = fs::metadata(folder.path().join("host_uuid")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(folder.path().join("host_uuid"), "no").unwrap();
        assert!(dir.host_id().is_err());
    }
}

//! One process per data directory: a locked file beside the state, which the system releases when
//! the process ends, however it ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Why the lock was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by another process{}: stop it, or choose another data directory", path.display(), holder(pid))]
    InUse {
        /// What is locked.
        path: PathBuf,
        /// Who has it, where that is known.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::sync::Arc<io::Error>,
    },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// Held for as long as this process may use what it guards.
#[derive(Debug)]
pub struct ProcessLock {
    _file: File,
}

impl ProcessLock {
    /// Locks `file` on behalf of `guarded`, which is what a refusal names.
    pub fn acquire(file: &Path, guarded: &Path) -> Result<Self, LockError> {
        let io = |source: io::Error| LockError::Io {
            path: file.to_owned(),
            source: std::sync::Arc::new(source),
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut handle = options.open(file).map_err(io)?;
        match handle.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = (&handle).take(32).read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::InUse { path: guarded.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // The content only helps a person; the lock itself is what counts.
        handle.set_len(0).map_err(io)?;
        handle.rewind().map_err(io)?;
        writeln!(handle, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: handle })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state.lock");
        let first = ProcessLock::acquire(&file, dir.path()).unwrap();
        let text = ProcessLock::acquire(&file, dir.path()).unwrap_err().to_string();
        assert!(
            text.contains(&format!("in use by another process (pid {})", std::process::id())),
            "{text}"
        );
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
        drop(first);
        ProcessLock::acquire(&file, dir.path()).unwrap();
    }
}

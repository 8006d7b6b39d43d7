//! The folder that a server's files are written to.
//!
//! What must stay true: whatever names a server gives, nothing is written outside of the folder. A name is one name in
//! an open folder; neither a folder nor a file is entered or written through a symbolic link, also one that somebody
//! puts there meanwhile.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};

/// The longest name of a file on the systems there are.
const MAX_NAME: usize = 255;

/// Why a server's name is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum BadName {
    /// It is no name at all.
    #[error("the server gave a name that is no file name")]
    NotAName,
    /// It would drive a terminal or a script.
    #[error("the server gave a name with control characters")]
    Control,
}

/// A name in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    pub(super) fn new(name: &str) -> Result<Self, BadName> {
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) || name.len() > MAX_NAME {
            return Err(BadName::NotAName);
        }
        if name.chars().any(char::is_control) {
            return Err(BadName::Control);
        }
        Ok(Self(name.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Folder {
    /// As the user named it, so links in it are the user's.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, DIRECTORY, Mode::empty())?))
    }

    /// The same folder once more.
    pub(super) fn again(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// A folder in this one, made where it is missing.
    pub(super) fn folder(&self, name: &Name) -> io::Result<Self> {
        match rustix::fs::mkdirat(&self.0, name.as_str(), Mode::RWXU | Mode::RWXG | Mode::RWXO) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.0, name.as_str(), flags, Mode::empty());
        fd.map(Self).map_err(|error| through_link(error, "a folder"))
    }

    /// A file in this folder, made or emptied.
    pub(super) fn file(&self, name: &Name, mode: u32) -> io::Result<File> {
        // Neither a pipe that nobody reads nor a device is waited for.
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode((mode & 0o777) | 0o200);
        let fd = rustix::fs::openat(&self.0, name.as_str(), flags, mode)
            .map_err(|error| through_link(error, "a file"))?;
        let file = File::from(fd);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("there is something that is no file"));
        }
        file.set_len(0)?;
        Ok(file)
    }
}

fn through_link(error: rustix::io::Errno, what: &str) -> io::Error {
    match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
            io::Error::other(format!("there is something in its place that is not {what}"))
        }
        error => error.into(),
    }
}

/// What is kept of a file's attributes with `--preserve`: never a set-user-id bit.
pub(super) fn keep(file: &File, mode: Option<u32>, modified: Option<u32>) -> io::Result<()> {
    if let Some(mode) = mode {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o777))?;
    }
    if let Some(modified) = modified {
        file.set_modified(UNIX_EPOCH + Duration::from_secs(modified.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_name() {
        for good in ["a", "a b", "...", "-rf", "ä", ".ssh"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "/etc/passwd", "../x", "a/b", "a\0b", &"x".repeat(256)] {
            assert_eq!(Name::new(bad), Err(BadName::NotAName), "{bad:?}");
        }
        for bad in ["a\nb", "\x1b]0;x\x07", "a\rb", "\u{9b}31m"] {
            assert_eq!(Name::new(bad), Err(BadName::Control), "{bad:?}");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        use std::os::unix::fs::symlink;
        let place = tempfile::tempdir().unwrap();
        let (inside, outside) = (place.path().join("in"), place.path().join("out"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("precious"), "kept").unwrap();
        symlink(&outside, inside.join("folder")).unwrap();
        symlink(outside.join("precious"), inside.join("file")).unwrap();
        symlink(outside.join("new"), inside.join("dangling")).unwrap();
        let folder = Folder::open(&inside).unwrap();
        let name = |name| Name::new(name).unwrap();
        assert!(folder.folder(&name("folder")).is_err());
        assert!(folder.file(&name("file"), 0o644).is_err());
        assert!(folder.file(&name("dangling"), 0o644).is_err());
        assert!(folder.file(&name("folder"), 0o644).is_err());
        assert_eq!(std::fs::read_to_string(outside.join("precious")).unwrap(), "kept");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        let below = folder.folder(&name("new")).unwrap();
        let file = below.file(&name("x"), 0o4755).unwrap();
        keep(&file, Some(0o104_755), Some(1_000_000_000)).unwrap();
        let told = std::fs::metadata(inside.join("new/x")).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(told.permissions().mode() & 0o7777, 0o755);
    }
}

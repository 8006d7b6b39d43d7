//! Requests about paths. Relative ones begin where the process stands: the login's home.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use russh_sftp::protocol::{FileAttributes, StatusCode};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::attributes;
use super::wire::{Answer, Entry, Outcome, Refused, Text};

/// Flags of OPEN.
mod flag {
    pub(super) const READ: u32 = 0x01;
    pub(super) const WRITE: u32 = 0x02;
    pub(super) const APPEND: u32 = 0x04;
    pub(super) const CREATE: u32 = 0x08;
    pub(super) const TRUNCATE: u32 = 0x10;
    pub(super) const EXCLUDE: u32 = 0x20;
}

/// Links that lead to each other end somewhere.
const MAX_LINKS: usize = 40;

pub(super) fn open(
    path: &Path,
    flags: u32,
    wanted: &FileAttributes,
) -> Result<std::fs::File, Refused> {
    let mut how = match flags & (flag::READ | flag::WRITE) {
        flag::WRITE => OFlags::WRONLY,
        flag::READ => OFlags::RDONLY,
        0 => OFlags::RDONLY,
        _ => OFlags::RDWR,
    };
    for (bit, means) in [
        (flag::APPEND, OFlags::APPEND),
        (flag::CREATE, OFlags::CREATE),
        (flag::TRUNCATE, OFlags::TRUNC),
        (flag::EXCLUDE, OFlags::EXCL),
    ] {
        how.set(means, flags & bit != 0);
    }
    let mode = attributes::mode(wanted.permissions.unwrap_or(0o666));
    Ok(rustix::fs::open(path, how | OFlags::CLOEXEC | OFlags::NOCTTY, mode)?.into())
}

pub(super) fn open_folder(path: &Path) -> Result<rustix::fs::Dir, Refused> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::Dir::new(rustix::fs::open(path, how, Mode::empty())?)?)
}

pub(super) fn stat(path: &Path, follow: bool) -> Outcome {
    let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    Ok(Answer::Attributes(attributes::of(&rustix::fs::statat(CWD, path, flags)?)))
}

pub(super) fn make_folder(path: &Path, wanted: &FileAttributes) -> Outcome {
    rustix::fs::mkdir(path, attributes::mode(wanted.permissions.unwrap_or(0o777)))?;
    Ok(Answer::Done)
}

/// RENAME never replaces: the draft wants that, and clients rely on it.
pub(super) fn rename(from: &Path, to: &Path) -> Outcome {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system knows how.
        Err(Errno::INVAL | Errno::NOSYS) => match rustix::fs::lstat(to) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(_) => replace(from, to),
        },
        other => {
            other?;
            Ok(Answer::Done)
        }
    }
}

/// `posix-rename@openssh.com`: replaces.
pub(super) fn replace(from: &Path, to: &Path) -> Outcome {
    rustix::fs::rename(from, to)?;
    Ok(Answer::Done)
}

pub(super) fn read_link(path: &Path) -> Outcome {
    let target = rustix::fs::readlink(path, Vec::new())?;
    Ok(Answer::Names(vec![Entry::bare(Text(target.into_bytes()))]))
}

/// The draft names the link first and the target second; OpenSSH's client sends them the other way round, everyone
/// followed, and so does this server.
pub(super) fn symlink(target: &Path, link: &Path) -> Outcome {
    rustix::fs::symlink(target, link)?;
    Ok(Answer::Done)
}

pub(super) fn real_path(path: &Path) -> Outcome {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Ok(Answer::Names(vec![Entry::bare(Text::from_path(&resolve(path)?))]))
}

/// An absolute path without links; its last part need not exist.
fn resolve(path: &Path) -> Result<PathBuf, Refused> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match path.canonicalize() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => return Ok(other?),
        }
        let missing = || Refused::new(StatusCode::NoSuchFile);
        let name = path.file_name().ok_or_else(missing)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let whole = parent.unwrap_or(Path::new(".")).canonicalize()?.join(name);
        match whole.read_link() {
            Ok(target) => path = whole.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(whole),
        }
    }
    Err(Errno::LOOP.into())
}

/// `expand-path@openssh.com`: `~` and `~login` at the beginning mean a home.
pub(super) fn expand(path: &Path) -> Outcome {
    let bytes = path.as_os_str().as_bytes();
    let Some(rest) = bytes.strip_prefix(b"~") else {
        return real_path(path);
    };
    let end = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (login, rest) = rest.split_at(end);
    let slashes = rest.iter().take_while(|&&byte| byte == b'/').count();
    let rest = Path::new(OsStr::from_bytes(&rest[slashes..]));
    real_path(&home_of(login)?.join(rest))
}

/// `home-directory`: the home of a login, of our own if it is empty.
pub(super) fn home(login: &[u8]) -> Outcome {
    Ok(Answer::Names(vec![Entry::bare(Text::from_path(&home_of(login)?))]))
}

fn home_of(login: &[u8]) -> Result<PathBuf, Refused> {
    let user = if login.is_empty() {
        nix::unistd::User::from_uid(nix::unistd::Uid::current())
    } else {
        let name = std::str::from_utf8(login).map_err(|_| Refused::new(StatusCode::NoSuchFile))?;
        nix::unistd::User::from_name(name)
    };
    let user = user.map_err(std::io::Error::from)?;
    user.map(|user| user.dir).ok_or_else(|| Refused::new(StatusCode::NoSuchFile))
}

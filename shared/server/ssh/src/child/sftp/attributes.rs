//! Attributes of files, read and set.

use std::fs::File;
use std::path::Path;

use russh_sftp::protocol::{FileAttributes, StatusCode};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};

use super::wire::Refused;

/// What the protocol has of a file's attributes.
pub(super) fn of(stat: &Stat) -> FileAttributes {
    FileAttributes {
        size: Some(stat.st_size.cast_unsigned()),
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
        permissions: Some(stat.st_mode),
        atime: Some(seconds(stat.st_atime)),
        mtime: Some(seconds(stat.st_mtime)),
        ..FileAttributes::empty()
    }
}

/// The protocol's times end in 2106 and begin in 1970.
fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}

/// Whose attributes are set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    Path(&'a Path),
    /// The link itself, if it is one.
    Link(&'a Path),
    File(&'a File),
}

/// Sets what `wanted` has. All of it is tried; the last failure is told.
pub(super) fn set(target: Target<'_>, wanted: &FileAttributes) -> Result<(), Refused> {
    let mut outcome = Ok(());
    let mut keep = |step: Result<(), Refused>| {
        if step.is_err() {
            outcome = step;
        }
    };
    if let Some(size) = wanted.size {
        keep(set_size(target, size));
    }
    if let Some(permissions) = wanted.permissions {
        keep(set_mode(target, mode(permissions)));
    }
    if let (Some(accessed), Some(modified)) = (wanted.atime, wanted.mtime) {
        keep(set_times(target, accessed, modified));
    }
    if let (Some(user), Some(group)) = (wanted.uid, wanted.gid) {
        keep(set_owner(target, user, group));
    }
    outcome
}

/// Permissions without the file type.
pub(super) fn mode(permissions: u32) -> Mode {
    Mode::from_raw_mode(permissions & 0o7777)
}

fn set_size(target: Target<'_>, size: u64) -> Result<(), Refused> {
    match target {
        Target::Path(path) => {
            // Without waiting for the other end of what may be a pipe.
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
            let file = rustix::fs::open(path, flags, Mode::empty())?;
            Ok(rustix::fs::ftruncate(&file, size)?)
        }
        Target::Link(_) => Err(Refused::new(StatusCode::BadMessage)),
        Target::File(file) => Ok(rustix::fs::ftruncate(file, size)?),
    }
}

fn set_mode(target: Target<'_>, mode: Mode) -> Result<(), Refused> {
    Ok(match target {
        Target::Path(path) => rustix::fs::chmod(path, mode),
        Target::Link(path) => rustix::fs::chmodat(CWD, path, mode, AtFlags::SYMLINK_NOFOLLOW),
        Target::File(file) => rustix::fs::fchmod(file, mode),
    }?)
}

fn set_times(target: Target<'_>, accessed: u32, modified: u32) -> Result<(), Refused> {
    let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    let times = Timestamps { last_access: at(accessed), last_modification: at(modified) };
    Ok(match target {
        Target::Path(path) => rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()),
        Target::Link(path) => rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW),
        Target::File(file) => rustix::fs::futimens(file, &times),
    }?)
}

fn set_owner(target: Target<'_>, user: u32, group: u32) -> Result<(), Refused> {
    let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    Ok(match target {
        Target::Path(path) => rustix::fs::chown(path, user, group),
        Target::Link(path) => {
            rustix::fs::chownat(CWD, path, user, group, AtFlags::SYMLINK_NOFOLLOW)
        }
        Target::File(file) => rustix::fs::fchown(file, user, group),
    }?)
}

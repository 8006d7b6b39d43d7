//! OpenSSH's extensions.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use russh_sftp::extensions::{LimitsExtension, Statvfs};
use russh_sftp::protocol::StatusCode;
use rustix::fs::{CWD, StatVfs, StatVfsMountFlags};
use serde::Serialize;

use super::attributes::{self, Target};
use super::handles::Handles;
use super::paths;
use super::wire::{Answer, MAX_PACKET, OVERHEAD, One, OneWith, Outcome, Refused, Text, Two, parse};

/// Name and version of each.
const KNOWN: &[(&str, &str)] = &[
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
    ("home-directory", "1"),
];

/// The server's greeting: version and extensions.
#[derive(Debug, Serialize)]
pub(super) struct Greeting {
    version: u32,
    extensions: HashMap<&'static str, &'static str>,
}

pub(super) fn greeting() -> Greeting {
    Greeting { version: russh_sftp::protocol::VERSION, extensions: KNOWN.iter().copied().collect() }
}

/// Does the request `name`.
pub(super) fn perform(name: &[u8], body: &[u8], handles: &Handles) -> Outcome {
    match name {
        b"posix-rename@openssh.com" => {
            let Two { first, second } = parse(body)?;
            paths::replace(&first.path(), &second.path())
        }
        b"hardlink@openssh.com" => {
            let Two { first, second } = parse(body)?;
            let (first, second) = (first.path(), second.path());
            rustix::fs::linkat(CWD, first, CWD, second, rustix::fs::AtFlags::empty())?;
            Ok(Answer::Done)
        }
        b"statvfs@openssh.com" => space(&rustix::fs::statvfs(one(body)?.path())?),
        b"fstatvfs@openssh.com" => space(&rustix::fs::fstatvfs(handles.file(&one(body)?.0)?)?),
        b"fsync@openssh.com" => {
            rustix::fs::fsync(handles.file(&one(body)?.0)?)?;
            Ok(Answer::Done)
        }
        b"lsetstat@openssh.com" => {
            let OneWith { what, attributes } = parse(body)?;
            attributes::set(Target::Link(&what.path()), &attributes)?;
            Ok(Answer::Done)
        }
        b"limits@openssh.com" => limits(handles),
        b"expand-path@openssh.com" => paths::expand(Path::new(&one(body)?.path())),
        b"home-directory" => paths::home(&one(body)?.0),
        _ => Err(Refused::new(StatusCode::OpUnsupported)),
    }
}

fn one(body: &[u8]) -> Result<Text, Refused> {
    parse::<One>(body).map(|one| one.what)
}

fn limits(handles: &Handles) -> Outcome {
    extended(&LimitsExtension {
        max_packet_len: MAX_PACKET as u64,
        max_read_len: (MAX_PACKET - OVERHEAD) as u64,
        max_write_len: (MAX_PACKET - OVERHEAD) as u64,
        max_open_handles: handles.max() as u64,
    })
}

fn space(of: &StatVfs) -> Outcome {
    let flags = [(StatVfsMountFlags::RDONLY, 1), (StatVfsMountFlags::NOSUID, 2)];
    extended(&Statvfs {
        block_size: of.f_bsize,
        fragment_size: of.f_frsize,
        blocks: of.f_blocks,
        blocks_free: of.f_bfree,
        blocks_avail: of.f_bavail,
        inodes: of.f_files,
        inodes_free: of.f_ffree,
        inodes_avail: of.f_favail,
        fs_id: of.f_fsid,
        flags: flags.iter().filter(|(flag, _)| of.f_flag.contains(*flag)).map(|(_, bit)| bit).sum(),
        name_max: of.f_namemax,
    })
}

fn extended<T: Serialize>(body: &T) -> Outcome {
    let body: Bytes =
        russh_sftp::ser::to_bytes(body).map_err(|_| Refused::new(StatusCode::Failure))?;
    Ok(Answer::Extended(body))
}

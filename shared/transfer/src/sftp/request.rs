//! What a request asks for, and what the policy says to it.

use super::wire::{self, Fields};
use crate::observer::{Lost, Policy};
use crate::record::{Action, Attributes, Operation};
use crate::{Direction, text};

/// A request, read.
pub(super) enum Request {
    Open {
        path: String,
        flags: u32,
    },
    OpenDir {
        path: String,
    },
    Close {
        handle: Vec<u8>,
    },
    Read {
        handle: Vec<u8>,
        offset: u64,
    },
    Stat {
        path: String,
    },
    FStat {
        handle: Vec<u8>,
    },
    FSetStat {
        handle: Vec<u8>,
        attributes: Attributes,
    },
    ReadDir {
        handle: Vec<u8>,
    },
    RealPath {
        path: String,
    },
    /// Told with its outcome.
    Operation(Operation),
    /// A copy inside the server, between two handles.
    CopyData {
        from: Vec<u8>,
        to: Vec<u8>,
    },
    /// Changes nothing and moves no content.
    Harmless,
    /// An extension that is not known here.
    Unknown {
        name: String,
    },
}

/// Extensions that change nothing.
const HARMLESS: [&[u8]; 7] = [
    b"statvfs@openssh.com",
    b"fstatvfs@openssh.com",
    b"fsync@openssh.com",
    b"limits@openssh.com",
    b"expand-path@openssh.com",
    b"home-directory",
    b"users-groups-by-id@openssh.com",
];

impl Request {
    /// Reads a request of `kind` from what stands behind its id.
    pub(super) fn parse(kind: u8, body: &[u8]) -> Result<Self, Lost> {
        let mut fields = Fields(body);
        let path = |fields: &mut Fields<'_>| fields.string().map(text::name);
        let simple = |action, fields: &mut Fields<'_>| {
            path(fields).map(|path| Self::Operation(Operation::new(action, path)))
        };
        Ok(match kind {
            wire::OPEN => {
                let (path, flags) = (path(&mut fields)?, fields.u32()?);
                Self::Open { path, flags }
            }
            wire::OPENDIR => Self::OpenDir { path: path(&mut fields)? },
            wire::CLOSE => Self::Close { handle: fields.string()?.to_vec() },
            wire::READ => Self::Read { handle: fields.string()?.to_vec(), offset: fields.u64()? },
            wire::LSTAT | wire::STAT => Self::Stat { path: path(&mut fields)? },
            wire::FSTAT => Self::FStat { handle: fields.string()?.to_vec() },
            wire::FSETSTAT => Self::FSetStat {
                handle: fields.string()?.to_vec(),
                attributes: fields.attributes()?,
            },
            wire::SETSTAT => Self::set_stat(&mut fields)?,
            wire::READDIR => Self::ReadDir { handle: fields.string()?.to_vec() },
            wire::REALPATH => Self::RealPath { path: path(&mut fields)? },
            wire::REMOVE => simple(Action::Remove, &mut fields)?,
            wire::RMDIR => simple(Action::RmDir, &mut fields)?,
            wire::MKDIR => {
                let path = path(&mut fields)?;
                let attributes = Some(fields.attributes()?);
                Self::Operation(Operation { attributes, ..Operation::new(Action::MkDir, path) })
            }
            wire::RENAME => Self::pair(Action::Rename, &mut fields)?,
            wire::SYMLINK => Self::link(&mut fields)?,
            wire::READLINK => Self::Harmless,
            wire::EXTENDED => Self::extended(&mut fields)?,
            _ => return Err(Lost::new("sftp: a request of an unknown type")),
        })
    }

    fn set_stat(fields: &mut Fields<'_>) -> Result<Self, Lost> {
        let path = text::name(fields.string()?);
        let attributes = Some(fields.attributes()?);
        Ok(Self::Operation(Operation { attributes, ..Operation::new(Action::SetStat, path) }))
    }

    fn pair(action: Action, fields: &mut Fields<'_>) -> Result<Self, Lost> {
        let path = text::name(fields.string()?);
        let target = Some(text::name(fields.string()?));
        Ok(Self::Operation(Operation { target, ..Operation::new(action, path) }))
    }

    /// What the link points to stands first; OpenSSH has it so, and everybody followed.
    fn link(fields: &mut Fields<'_>) -> Result<Self, Lost> {
        let target = Some(text::name(fields.string()?));
        let path = text::name(fields.string()?);
        Ok(Self::Operation(Operation { target, ..Operation::new(Action::Symlink, path) }))
    }

    fn extended(fields: &mut Fields<'_>) -> Result<Self, Lost> {
        match fields.string()? {
            b"posix-rename@openssh.com" => Self::pair(Action::Rename, fields),
            b"hardlink@openssh.com" => Self::pair(Action::Link, fields),
            b"lsetstat@openssh.com" => Self::set_stat(fields),
            b"copy-data" => {
                let from = fields.string()?.to_vec();
                let (_offset, _length) = (fields.u64()?, fields.u64()?);
                Ok(Self::CopyData { from, to: fields.string()?.to_vec() })
            }
            known if HARMLESS.contains(&known) => Ok(Self::Harmless),
            name => Ok(Self::Unknown { name: text::name(name) }),
        }
    }

    /// Why the policy forbids it, where it does.
    pub(super) fn forbidden(&self, policy: Policy) -> Option<Direction> {
        let directions = match self {
            Self::Open { flags, .. } => open_directions(*flags),
            Self::Operation(_) | Self::FSetStat { .. } | Self::CopyData { .. } => UPLOAD,
            Self::Read { .. } => DOWNLOAD,
            // Nobody knows what it does.
            Self::Unknown { .. } => &[Direction::Upload, Direction::Download],
            _ => &[],
        };
        directions.iter().copied().find(|direction| !policy.allows(*direction))
    }
}

const UPLOAD: &[Direction] = &[Direction::Upload];
const DOWNLOAD: &[Direction] = &[Direction::Download];

/// What opening a file with these flags is for. Who opens it for both may do one of them, and is stopped at the other.
fn open_directions(flags: u32) -> &'static [Direction] {
    if flags & !wire::FXF_READ != 0 { UPLOAD } else { DOWNLOAD }
}

//! What an observer tells.

use std::fmt;
use std::time::Duration;

use crate::Direction;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An operation of SFTP, with its outcome.
    Operation(Operation),
    /// A file was closed, or copied to its end.
    File(FileRecord),
    /// From here on nothing is known of what is copied.
    Untracked {
        /// Why.
        reason: String,
    },
}

/// Operations, with the numbers that audit events give them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Action {
    /// A file was opened.
    Open = 1,
    /// It was closed.
    Close = 2,
    /// It was read; told only where it is refused.
    Read = 3,
    /// It was written; told where it is refused, and for copies inside the server.
    Write = 4,
    /// Attributes were set by name.
    SetStat = 7,
    /// Attributes of an open file were set.
    FSetStat = 8,
    /// A folder was opened.
    OpenDir = 9,
    /// A folder was listed.
    ReadDir = 10,
    /// A file was removed.
    Remove = 11,
    /// A folder was made.
    MkDir = 12,
    /// A folder was removed.
    RmDir = 13,
    /// A file or folder was renamed.
    Rename = 16,
    /// A symbolic link was made.
    Symlink = 18,
    /// A hard link was made.
    Link = 19,
    /// An extension that is not known here; told only where it is refused.
    Extended = 0,
}

impl Action {
    /// The number in audit events; 0 for what has none.
    #[must_use]
    pub fn number(self) -> i32 {
        self as i32
    }
}

/// Attributes that a request carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Bytes.
    pub size: Option<u64>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Mode bits.
    pub permissions: Option<u32>,
}

/// An operation and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What was done.
    pub action: Action,
    /// To what, as the client named it.
    pub path: String,
    /// The new name, or what a link points to.
    pub target: Option<String>,
    /// How a file was opened (`SSH_FXF_…`).
    pub flags: Option<u32>,
    /// What was set.
    pub attributes: Option<Attributes>,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether the policy forbade it, and the server never saw it.
    pub refused: bool,
}

impl Operation {
    pub(crate) fn new(action: Action, path: String) -> Self {
        Self {
            action,
            path,
            target: None,
            flags: None,
            attributes: None,
            error: None,
            refused: false,
        }
    }
}

/// What was copied of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// Its name: for SFTP as it was opened, for `scp` below the path of the command.
    pub path: String,
    /// Which way.
    pub direction: Direction,
    /// How large it is, where that is known.
    pub size: Option<u64>,
    /// Bytes that went to the client.
    pub read: u64,
    /// Bytes that the server took.
    pub written: u64,
    /// From its opening to its closing.
    pub duration: Duration,
    /// Whether it was read or written from its first byte on without a leap.
    pub sequential: bool,
    /// The hash of the file, or why there is none.
    pub sha256: Result<[u8; 32], Missing>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Why a file has no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Hashes are off.
    Off,
    /// The first byte was not the file's first.
    NotFromStart(u64),
    /// The bytes did not come one after the other.
    OutOfSequence,
    /// The file's end was not reached, or not seen.
    NotToEnd,
    /// It was opened to add to its end.
    Appended,
    /// It was written over without being emptied first.
    KeptContent,
    /// It was given another length than was written.
    Resized,
    /// It was read and written.
    ReadAndWritten,
    /// The server copied content of another file into it.
    CopiedInside,
    /// A part of it could not be read or written.
    Failed,
    /// The session ended, or the track was lost.
    Interrupted,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("hashing is off"),
            Self::NotFromStart(offset) => write!(f, "begins at byte {offset}"),
            Self::OutOfSequence => f.write_str("not in sequence"),
            Self::NotToEnd => f.write_str("not to its end"),
            Self::Appended => f.write_str("added to an existing file"),
            Self::KeptContent => f.write_str("written over without emptying it first"),
            Self::Resized => f.write_str("another length was set"),
            Self::ReadAndWritten => f.write_str("read and written"),
            Self::CopiedInside => f.write_str("copied inside the server"),
            Self::Failed => f.write_str("a part failed"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// Everything an observer saw, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Operations, refused ones included.
    pub operations: u64,
    /// Content that went to the client; for `rsync` all its output.
    pub read: u64,
    /// Content that the server took; for `rsync` all its input.
    pub written: u64,
}

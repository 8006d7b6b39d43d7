//! Requests and answers as they stand on the wire.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use russh_sftp::protocol::{FileAttributes, StatusCode};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// No packet is longer, in either direction (the length itself not counted).
pub(super) const MAX_PACKET: usize = 256 * 1024;

/// Of a packet, this much is left for what is not file contents.
pub(super) const OVERHEAD: usize = 1024;

/// Packet types.
pub(super) mod kind {
    pub(in super::super) const INIT: u8 = 1;
    pub(in super::super) const VERSION: u8 = 2;
    pub(in super::super) const OPEN: u8 = 3;
    pub(in super::super) const CLOSE: u8 = 4;
    pub(in super::super) const READ: u8 = 5;
    pub(in super::super) const WRITE: u8 = 6;
    pub(in super::super) const LSTAT: u8 = 7;
    pub(in super::super) const FSTAT: u8 = 8;
    pub(in super::super) const SETSTAT: u8 = 9;
    pub(in super::super) const FSETSTAT: u8 = 10;
    pub(in super::super) const OPENDIR: u8 = 11;
    pub(in super::super) const READDIR: u8 = 12;
    pub(in super::super) const REMOVE: u8 = 13;
    pub(in super::super) const MKDIR: u8 = 14;
    pub(in super::super) const RMDIR: u8 = 15;
    pub(in super::super) const REALPATH: u8 = 16;
    pub(in super::super) const STAT: u8 = 17;
    pub(in super::super) const RENAME: u8 = 18;
    pub(in super::super) const READLINK: u8 = 19;
    pub(in super::super) const SYMLINK: u8 = 20;
    pub(in super::super) const STATUS: u8 = 101;
    pub(in super::super) const HANDLE: u8 = 102;
    pub(in super::super) const DATA: u8 = 103;
    pub(in super::super) const NAME: u8 = 104;
    pub(in super::super) const ATTRS: u8 = 105;
    pub(in super::super) const EXTENDED: u8 = 200;
    pub(in super::super) const EXTENDED_REPLY: u8 = 201;
}

/// A string of the protocol: any bytes.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Text(#[serde(with = "serde_bytes")] pub(super) Vec<u8>);

impl Text {
    pub(super) fn path(self) -> PathBuf {
        OsString::from_vec(self.0).into()
    }

    pub(super) fn from_path(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Open {
    pub(super) path: Text,
    pub(super) flags: u32,
    pub(super) attributes: FileAttributes,
}

/// One path or handle.
#[derive(Debug, Deserialize)]
pub(super) struct One {
    pub(super) what: Text,
}

/// One path or handle, and attributes for it.
#[derive(Debug, Deserialize)]
pub(super) struct OneWith {
    pub(super) what: Text,
    pub(super) attributes: FileAttributes,
}

/// Two paths, in the order in which they come.
#[derive(Debug, Deserialize)]
pub(super) struct Two {
    pub(super) first: Text,
    pub(super) second: Text,
}

/// A name with the line that `ls -l` would print for it.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    pub(super) name: Text,
    pub(super) long_name: Text,
    pub(super) attributes: FileAttributes,
}

impl Entry {
    /// A mere name, as answers about one path have it.
    pub(super) fn bare(name: Text) -> Self {
        Self { long_name: name.clone(), name, attributes: FileAttributes::empty() }
    }
}

/// What a request is answered with.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Handle(u32),
    Names(Vec<Entry>),
    Attributes(FileAttributes),
    Extended(Bytes),
}

/// What a request is refused with.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: StatusCode,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(code: StatusCode) -> Self {
        Self { code, message: code.to_string() }
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        let code = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP) => {
                StatusCode::NoSuchFile
            }
            Some(Errno::PERM | Errno::ACCESS | Errno::FAULT) => StatusCode::PermissionDenied,
            Some(Errno::NAMETOOLONG | Errno::INVAL) => StatusCode::BadMessage,
            Some(Errno::NOSYS | Errno::OPNOTSUPP) => StatusCode::OpUnsupported,
            Some(_) => StatusCode::Failure,
            // A NUL in a path, and the like.
            None if error.kind() == std::io::ErrorKind::InvalidInput => StatusCode::BadMessage,
            None => StatusCode::Failure,
        };
        match code {
            StatusCode::Failure => Self { code, message: error.to_string() },
            _ => Self::new(code),
        }
    }
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Self {
        std::io::Error::from(error).into()
    }
}

pub(super) type Outcome = Result<Answer, Refused>;

/// Reads the rest of a request.
pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let mut bytes = Bytes::copy_from_slice(body);
    russh_sftp::de::from_bytes(&mut bytes).map_err(|_| Refused::new(StatusCode::BadMessage))
}

/// Takes a number from the front.
pub(super) fn take_u32(body: &mut &[u8]) -> Option<u32> {
    let (number, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(u32::from_be_bytes(*number))
}

/// Takes a number from the front.
pub(super) fn take_u64(body: &mut &[u8]) -> Option<u64> {
    let (number, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(u64::from_be_bytes(*number))
}

/// Takes a string from the front, without a copy.
pub(super) fn take_text<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_u32(body)? as usize;
    let (text, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(text)
}

/// Appends an answer to request `id`. Fails only for what cannot be: an answer of 4 GiB.
pub(super) fn put(out: &mut Vec<u8>, id: u32, outcome: Outcome) -> std::io::Result<()> {
    match outcome {
        Ok(Answer::Done) => put_status(out, id, Refused::new(StatusCode::Ok)),
        Ok(Answer::Handle(handle)) => {
            put_body(out, kind::HANDLE, &(id, Text(handle.to_be_bytes().to_vec())))
        }
        Ok(Answer::Names(names)) => put_body(out, kind::NAME, &(id, names)),
        Ok(Answer::Attributes(attributes)) => put_body(out, kind::ATTRS, &(id, attributes)),
        Ok(Answer::Extended(data)) => {
            frame(out, kind::EXTENDED_REPLY, &[&id.to_be_bytes()[..], &data].concat())
        }
        Err(refused) => put_status(out, id, refused),
    }
}

fn put_status(
    out: &mut Vec<u8>,
    id: u32,
    Refused { code, message }: Refused,
) -> std::io::Result<()> {
    put_body(out, kind::STATUS, &(id, code as u32, message, "en"))
}

/// Appends a packet of one type.
pub(super) fn put_body<T: Serialize>(out: &mut Vec<u8>, kind: u8, body: &T) -> std::io::Result<()> {
    let body = russh_sftp::ser::to_bytes(body).map_err(std::io::Error::other)?;
    frame(out, kind, &body)
}

fn frame(out: &mut Vec<u8>, kind: u8, body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(body.len() + 1).map_err(std::io::Error::other)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(body);
    Ok(())
}

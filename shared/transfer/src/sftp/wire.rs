//! Packets of SFTP version 3, as far as their heads go.

use crate::observer::Lost;
use crate::record::Attributes;

pub(crate) const INIT: u8 = 1;
pub(crate) const VERSION: u8 = 2;
pub(crate) const OPEN: u8 = 3;
pub(crate) const CLOSE: u8 = 4;
pub(crate) const READ: u8 = 5;
pub(crate) const WRITE: u8 = 6;
pub(crate) const LSTAT: u8 = 7;
pub(crate) const FSTAT: u8 = 8;
pub(crate) const SETSTAT: u8 = 9;
pub(crate) const FSETSTAT: u8 = 10;
pub(crate) const OPENDIR: u8 = 11;
pub(crate) const READDIR: u8 = 12;
pub(crate) const REMOVE: u8 = 13;
pub(crate) const MKDIR: u8 = 14;
pub(crate) const RMDIR: u8 = 15;
pub(crate) const REALPATH: u8 = 16;
pub(crate) const STAT: u8 = 17;
pub(crate) const RENAME: u8 = 18;
pub(crate) const READLINK: u8 = 19;
pub(crate) const SYMLINK: u8 = 20;
pub(crate) const STATUS: u8 = 101;
pub(crate) const HANDLE: u8 = 102;
pub(crate) const DATA: u8 = 103;
pub(crate) const NAME: u8 = 104;
pub(crate) const ATTRS: u8 = 105;
pub(crate) const EXTENDED: u8 = 200;
pub(crate) const EXTENDED_REPLY: u8 = 201;

pub(crate) const FXF_READ: u32 = 0x01;
pub(crate) const FXF_WRITE: u32 = 0x02;
pub(crate) const FXF_APPEND: u32 = 0x04;
pub(crate) const FXF_TRUNC: u32 = 0x10;
pub(crate) const FXF_EXCL: u32 = 0x20;

pub(crate) const FX_OK: u32 = 0;
pub(crate) const FX_EOF: u32 = 1;
pub(crate) const FX_PERMISSION_DENIED: u32 = 3;

/// Length and type.
pub(crate) const PREFIX: usize = 5;
/// Length, type and request id.
pub(crate) const WITH_ID: usize = 9;
/// Handles are short by the draft (§6.2).
const MAX_HANDLE: usize = 256;
/// So much of a server's text is read.
const MAX_TEXT: usize = 1024;

/// How long the packet that begins with `head` is, its length field included.
pub(crate) fn length(head: &[u8]) -> Result<u64, Lost> {
    let length = u64::from(Fields(head).u32()?);
    if length == 0 { Err(Lost::new("sftp: an empty packet")) } else { Ok(length + 4) }
}

/// So much of a request has to be seen before it says what it is; data is never among it.
pub(crate) fn request_head(head: &[u8], limit: usize) -> Result<usize, Lost> {
    let Some(kind) = head.get(4) else { return Ok(PREFIX) };
    let total = length(head)?;
    let whole = usize::try_from(total).ok().filter(|total| *total <= limit.max(PREFIX));
    if *kind == WRITE {
        let wanted = data_head(head)?;
        // Else what is behind the packet would pass as a part of it.
        let fits = wanted as u64 <= total;
        return if fits { Ok(wanted) } else { Err(Lost::new("sftp: a packet ends too early")) };
    }
    whole.ok_or_else(|| Lost::new("sftp: a request is too long"))
}

/// Up to the data of a `WRITE`.
fn data_head(head: &[u8]) -> Result<usize, Lost> {
    const HANDLE_AT: usize = WITH_ID + 4;
    if head.len() < HANDLE_AT {
        return Ok(HANDLE_AT);
    }
    let handle = Fields(head.get(WITH_ID..).unwrap_or_default()).u32()?;
    match usize::try_from(handle) {
        Ok(handle) if handle <= MAX_HANDLE => Ok(HANDLE_AT + handle + 8 + 4),
        _ => Err(Lost::new("sftp: a handle is too long")),
    }
}

/// So much of an answer has to be seen; the rest is passed over.
pub(crate) fn answer_head(head: &[u8]) -> Result<usize, Lost> {
    let Some(kind) = head.get(4) else { return Ok(PREFIX) };
    let total = length(head)?;
    let most = match *kind {
        VERSION | EXTENDED_REPLY => WITH_ID,
        STATUS => WITH_ID + 4 + 4 + MAX_TEXT,
        HANDLE => {
            if total > (WITH_ID + 4 + MAX_HANDLE) as u64 {
                return Err(Lost::new("sftp: a handle is too long"));
            }
            WITH_ID + 4 + MAX_HANDLE
        }
        DATA => WITH_ID + 4,
        NAME => WITH_ID + 4 + 4 + crate::text::MAX_NAME,
        ATTRS => WITH_ID + 4 + 8,
        _ => return Err(Lost::new("sftp: an answer of an unknown type")),
    };
    Ok(usize::try_from(total).map_or(most, |total| total.min(most)))
}

/// Reads fields one after the other.
pub(crate) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Lost> {
        let Some((taken, rest)) = self.0.split_at_checked(length) else {
            return Err(Lost::new("sftp: a packet ends too early"));
        };
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Lost> {
        let bytes = self.take(4)?.try_into().map_err(|_| Lost::new("sftp"))?;
        Ok(u32::from_be_bytes(bytes))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Lost> {
        let bytes = self.take(8)?.try_into().map_err(|_| Lost::new("sftp"))?;
        Ok(u64::from_be_bytes(bytes))
    }

    pub(crate) fn string(&mut self) -> Result<&'a [u8], Lost> {
        let length = self.u32()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A string of which the end may be missing.
    pub(crate) fn begin_of_string(&mut self) -> Result<&'a [u8], Lost> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        self.take(length.min(self.0.len()))
    }

    /// `ATTRS` (§5). What a client left out is not there.
    pub(crate) fn attributes(&mut self) -> Result<Attributes, Lost> {
        if self.0.is_empty() {
            return Ok(Attributes::default());
        }
        let flags = self.u32()?;
        let size = if flags & 1 != 0 { Some(self.u64()?) } else { None };
        let owner = if flags & 2 != 0 { Some((self.u32()?, self.u32()?)) } else { None };
        let permissions = if flags & 4 != 0 { Some(self.u32()?) } else { None };
        Ok(Attributes { size, owner, permissions })
    }
}

/// The refusal of a request.
pub(crate) fn refusal(id: u32, text: &str) -> bytes::Bytes {
    let length = 1 + 4 + 4 + (4 + text.len()) + 4;
    let mut packet = Vec::with_capacity(4 + length);
    packet.extend((length as u32).to_be_bytes());
    packet.push(STATUS);
    packet.extend(id.to_be_bytes());
    packet.extend(FX_PERMISSION_DENIED.to_be_bytes());
    packet.extend((text.len() as u32).to_be_bytes());
    packet.extend(text.as_bytes());
    packet.extend(0_u32.to_be_bytes());
    packet.into()
}

/// What a status means, where it is a failure.
pub(crate) fn failure(code: u32, text: &[u8]) -> Option<String> {
    let known = match code {
        FX_OK => return None,
        FX_EOF => "end of file",
        2 => "no such file",
        FX_PERMISSION_DENIED => "permission denied",
        4 => "failure",
        5 => "bad message",
        6 => "no connection",
        7 => "connection lost",
        8 => "operation not supported",
        _ => "unknown failure",
    };
    let said = crate::text::name(text);
    Some(if said.is_empty() { known.to_owned() } else { said })
}

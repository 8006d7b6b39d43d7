//! Open files and folders.

use std::fs::File;

use russh_sftp::protocol::StatusCode;
use rustix::fs::Dir;

use super::wire::Refused;

/// For standard streams, listings and name lookups.
const RESERVED: u64 = 16;

/// However many files the host allows.
const MAX: u64 = 4096;

/// What a client has open.
pub(super) enum Handle {
    File(File),
    Folder(Dir),
}

/// A numbered set of them; numbers of closed ones are used again.
pub(super) struct Handles {
    all: Vec<Option<Handle>>,
    free: Vec<u32>,
    max: usize,
}

impl Handles {
    pub(super) fn new() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let max = limit.unwrap_or(u64::MAX).saturating_sub(RESERVED).clamp(1, MAX);
        Self::with_max(usize::try_from(max).unwrap_or(usize::MAX))
    }

    fn with_max(max: usize) -> Self {
        Self { all: Vec::new(), free: Vec::new(), max }
    }

    /// The most that can be open at a time.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// An error when no more may be opened; ask before opening.
    pub(super) fn room(&self) -> Result<(), Refused> {
        if self.all.len() - self.free.len() < self.max {
            return Ok(());
        }
        Err(Refused { code: StatusCode::Failure, message: "too many open handles".into() })
    }

    pub(super) fn add(&mut self, handle: Handle) -> u32 {
        let free = self.free.pop();
        if let Some(number) = free
            && let Some(slot) = self.all.get_mut(number as usize)
        {
            *slot = Some(handle);
            return number;
        }
        self.all.push(Some(handle));
        u32::try_from(self.all.len() - 1).expect("handles are limited")
    }

    /// Takes a handle as clients name it.
    pub(super) fn remove(&mut self, name: &[u8]) -> Result<Handle, Refused> {
        let number = number(name)?;
        let slot = self.all.get_mut(number as usize).ok_or_else(unknown)?;
        let handle = slot.take().ok_or_else(unknown)?;
        self.free.push(number);
        Ok(handle)
    }

    pub(super) fn file(&self, name: &[u8]) -> Result<&File, Refused> {
        match self.all.get(number(name)? as usize) {
            Some(Some(Handle::File(file))) => Ok(file),
            _ => Err(unknown()),
        }
    }

    pub(super) fn folder(&mut self, name: &[u8]) -> Result<&mut Dir, Refused> {
        match self.all.get_mut(number(name)? as usize) {
            Some(Some(Handle::Folder(folder))) => Ok(folder),
            _ => Err(unknown()),
        }
    }
}

fn number(name: &[u8]) -> Result<u32, Refused> {
    name.try_into().map(u32::from_be_bytes).map_err(|_| unknown())
}

fn unknown() -> Refused {
    Refused { code: StatusCode::Failure, message: "no such handle".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> Handle {
        Handle::Folder(Dir::read_from(File::open("/").unwrap()).unwrap())
    }

    #[test]
    fn handles_run_out_and_come_back() {
        let mut handles = Handles::with_max(2);
        assert!(handles.room().is_ok());
        assert_eq!((handles.add(folder()), handles.add(folder())), (0, 1));
        assert!(handles.room().is_err());
        handles.remove(&1_u32.to_be_bytes()).unwrap();
        assert!(handles.remove(&1_u32.to_be_bytes()).is_err(), "closed already");
        assert!(handles.room().is_ok());
        assert_eq!(handles.add(folder()), 1);
        assert!(handles.folder(&0_u32.to_be_bytes()).is_ok());
        assert!(handles.file(&0_u32.to_be_bytes()).is_err(), "a folder is no file");
        for odd in [&b""[..], b"abc", b"\0\0\0\x09", b"\xff\xff\xff\xff", b"\0\0\0\0\0"] {
            assert!(handles.file(odd).is_err());
        }
    }
}

//! Open files and folders, by the handles the server gave.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::wire;
use crate::observer::{Book, Limits, Lost};
use crate::record::{FileRecord, Missing};
use crate::sequence::Sequence;
use crate::{Action, Direction, Operation};

/// So many sizes are remembered of files that were asked about before they were opened.
const SIZES: usize = 64;

/// A number for each handle that was ever given, for handles are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id(u64);

/// An open file.
pub(super) struct File {
    pub(super) path: String,
    flags: u32,
    began: Duration,
    content: Sequence,
    /// Its size before anything was done to it.
    pub(super) size: Option<u64>,
    /// Where a read found the end.
    end: Option<u64>,
    /// The length that was set.
    set: Option<u64>,
    read: u64,
    written: u64,
    touched: Option<Direction>,
    error: Option<String>,
}

impl File {
    pub(super) fn new(
        path: String,
        flags: u32,
        size: Option<u64>,
        hash: bool,
        now: Duration,
    ) -> Self {
        Self {
            path,
            flags,
            began: now,
            content: Sequence::new(hash),
            size,
            end: None,
            set: None,
            read: 0,
            written: 0,
            touched: None,
            error: None,
        }
    }

    fn touch(&mut self, direction: Direction) {
        if self.touched.is_some_and(|before| before != direction) {
            self.content.spoil(Missing::ReadAndWritten);
        }
        self.touched = Some(direction);
    }

    /// Content for `offset` is about to pass. Answers whether it is to be shown.
    pub(super) fn content_at(&mut self, direction: Direction, offset: u64) -> bool {
        self.touch(direction);
        self.content.at(offset)
    }

    pub(super) fn content(&mut self, data: &[u8]) {
        self.content.update(data);
    }

    pub(super) fn was_read(&mut self, bytes: u64) {
        self.read += bytes;
    }

    pub(super) fn was_written(&mut self, bytes: u64) {
        self.written += bytes;
    }

    pub(super) fn ends_at(&mut self, offset: u64) {
        self.touch(Direction::Download);
        self.end = Some(self.end.map_or(offset, |end| end.min(offset)));
    }

    /// Content came from another file of the server.
    pub(super) fn copied_inside(&mut self) {
        self.touch(Direction::Upload);
        self.content.spoil(Missing::CopiedInside);
    }

    pub(super) fn set_length(&mut self, length: u64) {
        self.set = Some(length);
    }

    pub(super) fn failed(&mut self, why: String) {
        self.error.get_or_insert(why);
    }

    fn direction(&self) -> Direction {
        self.touched.unwrap_or(if self.flags & wire::FXF_WRITE != 0 {
            Direction::Upload
        } else {
            Direction::Download
        })
    }

    /// Whether the bytes that passed in sequence are the file.
    fn whole(&self) -> Result<(), Missing> {
        let moved = self.content.next();
        if self.error.is_some() {
            return Err(Missing::Failed);
        }
        match self.direction() {
            Direction::Download => {
                let whole = self.end == Some(moved) || self.size == Some(moved);
                if whole { Ok(()) } else { Err(Missing::NotToEnd) }
            }
            Direction::Upload if self.flags & wire::FXF_APPEND != 0 => Err(Missing::Appended),
            Direction::Upload => match self.set {
                Some(length) if length == moved => Ok(()),
                Some(_) => Err(Missing::Resized),
                None if self.flags & (wire::FXF_TRUNC | wire::FXF_EXCL) != 0 => Ok(()),
                None => Err(Missing::KeptContent),
            },
        }
    }

    /// What is told of it at its end.
    pub(super) fn close(mut self, now: Duration, cut: bool) -> FileRecord {
        if cut {
            self.error.get_or_insert_with(|| "not closed when the session ended".to_owned());
        }
        let whole = if cut { Err(Missing::Interrupted) } else { self.whole() };
        let direction = self.direction();
        let size = match direction {
            Direction::Download => self.end.or(self.size),
            Direction::Upload => whole.is_ok().then_some(self.content.next()),
        };
        let appended = direction == Direction::Upload && self.flags & wire::FXF_APPEND != 0;
        FileRecord {
            direction,
            size,
            read: self.read,
            written: self.written,
            duration: now.saturating_sub(self.began),
            sequential: self.content.is_sequential() && !appended,
            sha256: self.content.finish(whole),
            error: self.error,
            path: self.path,
        }
    }
}

/// An open handle.
pub(super) enum Open {
    File(Box<File>),
    Folder { path: String, listed: bool },
}

impl Open {
    pub(super) fn path(&self) -> &str {
        match self {
            Self::File(file) => &file.path,
            Self::Folder { path, .. } => path,
        }
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Files {
    by_handle: HashMap<Vec<u8>, Id>,
    open: HashMap<Id, (Vec<u8>, Open)>,
    names: usize,
    given: u64,
    sizes: VecDeque<(String, u64)>,
}

impl Files {
    pub(super) fn id(&self, handle: &[u8]) -> Option<Id> {
        self.by_handle.get(handle).copied()
    }

    pub(super) fn get(&mut self, id: Id) -> Option<&mut Open> {
        self.open.get_mut(&id).map(|(_, open)| open)
    }

    pub(super) fn file(&mut self, id: Id) -> Option<&mut File> {
        match self.get(id) {
            Some(Open::File(file)) => Some(file),
            _ => None,
        }
    }

    /// The name behind a handle.
    pub(super) fn path(&self, id: Option<Id>) -> String {
        let open = id.and_then(|id| self.open.get(&id));
        open.map(|(_, open)| open.path().to_owned()).unwrap_or_default()
    }

    /// The server gave a handle.
    pub(super) fn insert(
        &mut self,
        handle: &[u8],
        open: Open,
        limits: &Limits,
    ) -> Result<(), Lost> {
        if self.by_handle.contains_key(handle) {
            return Err(Lost::new("sftp: a handle was given twice"));
        }
        self.names += open.path().len();
        if self.open.len() >= limits.handles || self.names > limits.names {
            return Err(Lost::new("sftp: too many open files"));
        }
        let id = Id(self.given);
        self.given += 1;
        self.by_handle.insert(handle.to_vec(), id);
        self.open.insert(id, (handle.to_vec(), open));
        Ok(())
    }

    /// Nothing can come for this handle any more, and the server may give it again.
    pub(super) fn remove(&mut self, id: Id) -> Option<Open> {
        let (handle, open) = self.open.remove(&id)?;
        self.by_handle.remove(&handle);
        self.names = self.names.saturating_sub(open.path().len());
        Some(open)
    }

    /// The client was told the size of a file.
    pub(super) fn remember(&mut self, path: String, size: u64) {
        self.sizes.retain(|(known, _)| *known != path);
        if self.sizes.len() >= SIZES {
            self.sizes.pop_front();
        }
        self.sizes.push_back((path, size));
    }

    /// What the client was told of a file that it opens.
    pub(super) fn size(&self, path: &str) -> Option<u64> {
        self.sizes.iter().find(|(known, _)| known == path).map(|(_, size)| *size)
    }

    /// Tells what is still open.
    pub(super) fn finish(&mut self, now: Duration, book: &mut Book) {
        let mut left: Vec<_> = self.open.drain().collect();
        left.sort_by_key(|(id, _)| id.0);
        for (_, (_, open)) in left {
            if let Open::File(file) = open {
                book.file(file.close(now, true));
            }
        }
        self.by_handle.clear();
        self.names = 0;
    }
}

/// Tells that a folder was listed, once for each time it was opened.
pub(super) fn listed(open: Option<&mut Open>, book: &mut Book) {
    if let Some(Open::Folder { path, listed }) = open
        && !*listed
    {
        *listed = true;
        book.operation(Operation::new(Action::ReadDir, path.clone()));
    }
}

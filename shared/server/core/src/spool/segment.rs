//! Segments: the files of the event spool. Blocking; runs on the spool's own thread.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::frame::{self, Read};
use super::{SpoolError, at, private_folder, sync_folder};

const SUFFIX: &str = "events";

/// The folder of segments, and the one being written.
pub(super) struct Segments {
    folder: PathBuf,
    next: u64,
    open: Option<Open>,
}

struct Open {
    path: PathBuf,
    file: File,
    len: u64,
    count: u64,
}

/// A segment nobody writes any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) path: PathBuf,
    pub(super) len: u64,
    pub(super) count: u64,
}

impl Segments {
    /// Opens the folder; what an earlier run left is answered, oldest first.
    pub(super) fn open(folder: &Path) -> Result<(Self, Vec<Sealed>), SpoolError> {
        private_folder(folder)?;
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(at("read folder", folder))? {
            let path = entry.map_err(at("read folder", folder))?.path();
            let number = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse::<u64>().ok());
            if let (Some(number), true) =
                (number, path.extension().is_some_and(|ext| ext == SUFFIX))
            {
                numbers.push((number, path));
            }
        }
        numbers.sort_unstable();
        let next = numbers.last().map_or(1, |(number, _)| number.saturating_add(1));
        let mut left = Vec::new();
        for (_, path) in numbers {
            let bytes = std::fs::read(&path).map_err(at("read", &path))?;
            let events = frames(&bytes);
            if events.damaged > 0 {
                keep_damaged(&path);
            }
            if events.torn > 0 {
                tracing::warn!(path = %path.display(), bytes = events.torn, "event spool ends in an unfinished write");
            }
            left.push(Sealed { path, len: bytes.len() as u64, count: events.frames.len() as u64 });
        }
        Ok((Self { folder: folder.to_owned(), next, open: None }, left))
    }

    /// Appends frames and waits until they are on disk; on an error none of them counts as written.
    pub(super) fn append(&mut self, bytes: &[u8], count: u64) -> Result<(), SpoolError> {
        if self.open.is_none() {
            self.open = Some(self.create()?);
        }
        let Some(open) = &mut self.open else { return Err(SpoolError::Closed) };
        let written = open.file.write_all(bytes).and_then(|()| open.file.sync_data());
        match written {
            Ok(()) => {
                open.len += bytes.len() as u64;
                open.count += count;
                Ok(())
            }
            Err(err) => {
                let path = open.path.clone();
                // Half a frame must not stand in front of the next: cut it off, or go on in a new file.
                let cut = open
                    .file
                    .set_len(open.len)
                    .and_then(|()| std::io::Seek::seek(&mut open.file, std::io::SeekFrom::End(0)));
                if cut.is_err() {
                    self.next += 1;
                    tracing::error!(path = %path.display(), "event spool segment cannot be repaired");
                }
                Err(at("write", &path)(err))
            }
        }
    }

    fn create(&mut self) -> Result<Open, SpoolError> {
        let path = self.folder.join(format!("{:020}.{SUFFIX}", self.next));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(at("create", &path))?;
        self.next += 1;
        sync_folder(&self.folder)?;
        Ok(Open { path, file, len: 0, count: 0 })
    }

    /// Writes no more into the open segment and gives it out.
    pub(super) fn seal(&mut self) -> Option<Sealed> {
        let open = self.open.take()?;
        Some(Sealed { path: open.path, len: open.len, count: open.count })
    }
}

/// The frames of a segment.
pub(super) struct Frames<'a> {
    pub(super) frames: Vec<&'a [u8]>,
    pub(super) damaged: usize,
    pub(super) torn: usize,
}

pub(super) fn frames(mut bytes: &[u8]) -> Frames<'_> {
    let mut out = Frames { frames: Vec::new(), damaged: 0, torn: 0 };
    loop {
        match frame::read(bytes) {
            Read::Frame(frame, rest) => {
                out.frames.push(frame);
                bytes = rest;
            }
            Read::Damaged(rest) => {
                out.damaged += 1;
                bytes = rest;
            }
            Read::End { torn } => {
                out.torn = torn;
                return out;
            }
        }
    }
}

/// A segment with damage in the middle is kept for a person to look at; what is whole in it is sent all the same.
fn keep_damaged(path: &Path) {
    let kept = path.with_extension("damaged");
    match std::fs::copy(path, &kept) {
        Ok(_) => tracing::error!(kept = %kept.display(), "event spool is damaged, a copy is kept"),
        Err(err) => tracing::error!(path = %path.display(), error = %err, "event spool is damaged"),
    }
}

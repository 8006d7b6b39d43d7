//! Segments: the files of the event spool. Blocking; runs on the spool's own thread.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::frame::{self, Read};
use super::{SpoolError, at, durable_folder, sync_folder};

const SUFFIX: &str = "events";
/// A segment this long is ended: each is read into memory as a whole when it is sent.
const SEGMENT: u64 = 8 * 1024 * 1024;

/// The folder of segments, and the one being written.
pub(super) struct Segments {
    folder: PathBuf,
    next: u64,
    open: Option<Open>,
    /// Ended, and not yet given out; oldest first.
    ended: VecDeque<Sealed>,
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
        durable_folder(folder)?;
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
        let ended = VecDeque::new();
        Ok((Self { folder: folder.to_owned(), next, open: None, ended }, left))
    }

    /// Appends frames and waits until they are on disk; on an error none of them counts as written.
    pub(super) fn append(&mut self, bytes: &[u8], count: u64) -> Result<(), SpoolError> {
        if self.open.is_none() {
            self.open = Some(self.create()?);
        }
        let Some(open) = &mut self.open else { return Err(SpoolError::Closed) };
        match open.file.write_all(bytes).and_then(|()| open.file.sync_data()) {
            Ok(()) => {
                open.len += bytes.len() as u64;
                open.count += count;
                if open.len >= SEGMENT {
                    self.end();
                }
                Ok(())
            }
            Err(err) => {
                let fault = at("write", &open.path)(err);
                // Half a frame must not stand in front of the next one, and after a failed sync nobody knows what the
                // system still holds: cut it off, and go on in a new file whether or not that worked.
                let cut = open.file.set_len(open.len).and_then(|()| open.file.sync_all());
                if let Err(error) = cut {
                    tracing::error!(path = %open.path.display(), %error, "event spool segment cannot be cut back");
                }
                self.end();
                Err(fault)
            }
        }
    }

    /// Writes no more into the open segment.
    fn end(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.count > 0 {
            self.ended.push_back(Sealed { path: open.path, len: open.len, count: open.count });
        } else if let Err(error) = std::fs::remove_file(&open.path) {
            tracing::warn!(path = %open.path.display(), %error, "remove empty event spool segment");
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

    /// Gives out the oldest segment that is ended; where there is none, ends the open one.
    pub(super) fn seal(&mut self) -> Option<Sealed> {
        if self.ended.is_empty() {
            self.end();
        }
        self.ended.pop_front()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert!(frame::write(&mut bytes, text.as_bytes()));
        bytes
    }

    #[test]
    fn after_a_failed_write_the_next_goes_into_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (mut segments, left) = Segments::open(folder.path()).unwrap();
        assert_eq!(left, []);
        segments.append(&frame("one"), 1).unwrap();
        // Half a frame came to the disk, and the file can neither be written nor cut any more.
        let open = segments.open.as_mut().unwrap();
        open.file.write_all(b"\0\0\0\x20half").unwrap();
        open.file = File::open(&open.path).unwrap();
        assert!(segments.append(&frame("lost"), 1).is_err());
        segments.append(&frame("two"), 1).unwrap();
        let (first, second) = (segments.seal().unwrap(), segments.seal().unwrap());
        assert_eq!((first.count, second.count), (1, 1));
        assert_eq!(segments.seal(), None);
        let (one, two) =
            (std::fs::read(&first.path).unwrap(), std::fs::read(&second.path).unwrap());
        assert_eq!(frames(&one).frames, [b"one"]);
        assert_eq!(frames(&two).frames, [b"two"]);
        // A segment nothing was written into leaves no file.
        segments.append(&frame("three"), 1).unwrap();
        segments.seal().unwrap();
        segments.open = Some(segments.create().unwrap());
        let open = segments.open.as_mut().unwrap();
        open.file = File::open(&open.path).unwrap();
        let path = open.path.clone();
        assert!(segments.append(&frame("lost"), 1).is_err());
        assert!(!path.exists() && segments.seal().is_none());
    }

    #[test]
    fn a_long_segment_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (mut segments, _) = Segments::open(folder.path()).unwrap();
        let long = frame(&"x".repeat(3 * 1024 * 1024));
        for _ in 0..4 {
            segments.append(&long, 1).unwrap();
        }
        let counts: Vec<u64> =
            std::iter::from_fn(|| segments.seal()).map(|sealed| sealed.count).collect();
        assert_eq!(counts, [3, 1]);
    }
}

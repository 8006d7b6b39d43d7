//! The protocol of `scp -t` and `scp -f`, as OpenSSH's `scp.c` speaks it.
//!
//! The side that sends says `T…`, `C0644 SIZE NAME`, `D0755 0 NAME`, `E`, each in a line, and waits for an answer to
//! each: a zero, or a one or two and a line of text. After the answer to a `C` come the bytes, a zero, and one more
//! answer. Content is known by its announced length, so the answer decides what the next byte is: whoever sends ahead
//! of it cannot be followed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::observer::{Book, Lost, Settings};
use crate::record::{FileRecord, Missing};
use crate::sequence::Sequence;
use crate::{Direction, text};

/// The longest line.
const MAX_LINE: usize = 8 * 1024;
/// Answers that may be outstanding.
const MAX_ASKED: usize = 64;
/// Folders below each other.
const MAX_DEPTH: usize = 1024;

/// A file that is being copied.
struct File {
    path: String,
    size: u64,
    began: Duration,
    content: Sequence,
    error: Option<String>,
}

/// What the next byte of the sender is.
enum Sender {
    Line(Vec<u8>),
    /// The answer to a `C` decides.
    Announced,
    Data(u64),
    /// After the data: a zero, or a complaint.
    Status,
}

/// What an answer is to.
enum Asked {
    Anything,
    Folder,
    File,
    Content(Box<File>),
}

/// What the next byte of the receiver is.
enum Receiver {
    Answer,
    /// The text of a refusal.
    Text(Vec<u8>),
}

pub(crate) struct Scp {
    direction: Direction,
    hash: bool,
    names: usize,
    sender: Sender,
    receiver: Receiver,
    asked: VecDeque<Asked>,
    folders: Vec<String>,
    file: Option<Box<File>>,
}

impl Scp {
    pub(crate) fn new(direction: Direction, settings: Settings) -> Self {
        Self {
            direction,
            hash: settings.hash,
            names: settings.limits.names,
            sender: Sender::Line(Vec::new()),
            receiver: Receiver::Answer,
            // The receiver says that it is there.
            asked: VecDeque::from([Asked::Anything]),
            folders: Vec::new(),
            file: None,
        }
    }

    pub(crate) fn input(
        &mut self,
        data: &[u8],
        now: Duration,
        book: &mut Book,
    ) -> Result<(), Lost> {
        match self.direction {
            Direction::Upload => self.sent(data, now, book),
            Direction::Download => self.answered(data, now, book),
        }
    }

    pub(crate) fn output(
        &mut self,
        data: &[u8],
        now: Duration,
        book: &mut Book,
    ) -> Result<(), Lost> {
        match self.direction {
            Direction::Upload => self.answered(data, now, book),
            Direction::Download => self.sent(data, now, book),
        }
    }

    pub(crate) fn finish(&mut self, now: Duration, book: &mut Book) {
        let contents = self.asked.drain(..).filter_map(|asked| match asked {
            Asked::Content(file) => Some(file),
            _ => None,
        });
        for mut file in contents.chain(self.file.take()).collect::<Vec<_>>() {
            file.error.get_or_insert_with(|| "interrupted".to_owned());
            self.tell(*file, Err(Missing::Interrupted), now, book);
        }
    }

    fn sent(&mut self, mut data: &[u8], now: Duration, book: &mut Book) -> Result<(), Lost> {
        while let Some(first) = data.first().copied() {
            match &mut self.sender {
                Sender::Announced => return Err(Lost::new("scp: data ahead of the answer")),
                Sender::Line(line) => {
                    let (part, rest) = take_line(data);
                    if line.len() + part.len() > MAX_LINE {
                        return Err(Lost::new("scp: a line is too long"));
                    }
                    line.extend_from_slice(part);
                    data = rest;
                    if line.last() == Some(&b'\n') {
                        line.pop();
                        let line = std::mem::take(line);
                        self.line(&line, now)?;
                    }
                }
                Sender::Data(left) => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                    let (part, rest) = data.split_at(length);
                    *left -= part.len() as u64;
                    let done = *left == 0;
                    data = rest;
                    if let Some(file) = &mut self.file {
                        file.content.update(part);
                    }
                    self.count(part.len(), book);
                    if done {
                        self.sender = Sender::Status;
                    }
                }
                Sender::Status => {
                    let file = self.file.take().ok_or_else(|| Lost::new("scp: no file"))?;
                    if first == 0 {
                        self.ask(Asked::Content(file))?;
                        self.sender = Sender::Line(Vec::new());
                        data = data.get(1..).unwrap_or_default();
                    } else {
                        // A complaint is a line, and answered like the zero.
                        let mut file = file;
                        file.error = Some("the sender could not read all of it".to_owned());
                        self.ask(Asked::Content(file))?;
                        self.sender = Sender::Line(Vec::new());
                    }
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], now: Duration) -> Result<(), Lost> {
        let Some((kind, rest)) = line.split_first() else {
            return Err(Lost::new("scp: an empty line"));
        };
        match kind {
            // A complaint; nobody answers it.
            1 | 2 => Ok(()),
            b'T' => self.ask(Asked::Anything),
            b'E' => {
                self.folders.pop();
                self.ask(Asked::Anything)
            }
            b'D' => {
                let (_, name) = announced(rest)?;
                let held: usize = self.folders.iter().map(String::len).sum();
                if self.folders.len() >= MAX_DEPTH || held + name.len() > self.names {
                    return Err(Lost::new("scp: folders are too deep"));
                }
                self.folders.push(name);
                self.ask(Asked::Folder)
            }
            b'C' => {
                let (size, name) = announced(rest)?;
                let mut path = self.folders.join("/");
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(&name);
                let content = Sequence::new(self.hash);
                let path = text::name(path.as_bytes());
                self.file = Some(Box::new(File { path, size, began: now, content, error: None }));
                self.sender = Sender::Announced;
                self.ask(Asked::File)
            }
            _ => Err(Lost::new("scp: a line that is not of the protocol")),
        }
    }

    fn ask(&mut self, asked: Asked) -> Result<(), Lost> {
        if self.asked.len() >= MAX_ASKED {
            return Err(Lost::new("scp: the sender does not wait for answers"));
        }
        self.asked.push_back(asked);
        Ok(())
    }

    fn answered(&mut self, mut data: &[u8], now: Duration, book: &mut Book) -> Result<(), Lost> {
        while let Some(first) = data.first().copied() {
            match &mut self.receiver {
                Receiver::Answer => {
                    data = data.get(1..).unwrap_or_default();
                    match first {
                        0 => self.answer(None, now, book)?,
                        1 | 2 => self.receiver = Receiver::Text(Vec::new()),
                        _ => return Err(Lost::new("scp: an answer that is not of the protocol")),
                    }
                }
                Receiver::Text(line) => {
                    let (part, rest) = take_line(data);
                    if line.len() + part.len() > MAX_LINE {
                        return Err(Lost::new("scp: an answer is too long"));
                    }
                    line.extend_from_slice(part);
                    data = rest;
                    if line.last() == Some(&b'\n') {
                        line.pop();
                        let why = text::name(line);
                        self.receiver = Receiver::Answer;
                        self.answer(Some(why), now, book)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn answer(
        &mut self,
        refusal: Option<String>,
        now: Duration,
        book: &mut Book,
    ) -> Result<(), Lost> {
        match self.asked.pop_front() {
            None => Err(Lost::new("scp: an answer to nothing")),
            Some(Asked::Anything) => Ok(()),
            Some(Asked::Folder) => {
                if refusal.is_some() {
                    self.folders.pop();
                }
                Ok(())
            }
            Some(Asked::File) => {
                let Some(file) = &mut self.file else { return Err(Lost::new("scp: no file")) };
                if refusal.is_none() {
                    self.sender = match file.size {
                        0 => Sender::Status,
                        size => Sender::Data(size),
                    };
                    return Ok(());
                }
                file.error = refusal;
                self.sender = Sender::Line(Vec::new());
                if let Some(file) = self.file.take() {
                    self.tell(*file, Err(Missing::Failed), now, book);
                }
                Ok(())
            }
            Some(Asked::Content(mut file)) => {
                let whole = if file.error.is_some() || refusal.is_some() {
                    Err(Missing::Failed)
                } else {
                    Ok(())
                };
                file.error = file.error.or(refusal);
                self.tell(*file, whole, now, book);
                Ok(())
            }
        }
    }

    fn count(&self, bytes: usize, book: &mut Book) {
        match self.direction {
            Direction::Upload => book.totals.written += bytes as u64,
            Direction::Download => book.totals.read += bytes as u64,
        }
    }

    fn tell(&self, file: File, whole: Result<(), Missing>, now: Duration, book: &mut Book) {
        let moved = file.content.next();
        let (read, written) = match self.direction {
            Direction::Upload => (0, moved),
            Direction::Download => (moved, 0),
        };
        book.file(FileRecord {
            path: file.path,
            direction: self.direction,
            size: Some(file.size),
            read,
            written,
            duration: now.saturating_sub(file.began),
            sequential: true,
            sha256: file.content.finish(whole),
            error: file.error,
        });
    }
}

/// Up to and with the end of a line, and what is behind it.
fn take_line(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').map_or(data.len(), |at| at + 1);
    data.split_at(end)
}

/// `0644 SIZE NAME`.
fn announced(line: &[u8]) -> Result<(u64, String), Lost> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let mode = words.next().filter(|mode| {
        (4..=5).contains(&mode.len()) && mode.iter().all(|digit| (b'0'..=b'7').contains(digit))
    });
    let size = words.next().and_then(|size| std::str::from_utf8(size).ok());
    let size = size.filter(|size| !size.starts_with('+')).and_then(|size| size.parse().ok());
    match (mode, size, words.next()) {
        (Some(_), Some(size), Some(name)) if !name.is_empty() => Ok((size, text::name(name))),
        _ => Err(Lost::new("scp: an announcement that is not of the protocol")),
    }
}

#[cfg(test)]
mod tests;

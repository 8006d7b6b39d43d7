//! The log as it is at one moment: its files, opened, up to their length of then. So a statement
//! that reads a table twice reads the same twice, and a line being written is not seen in half.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chrono::{Days, NaiveDate, NaiveDateTime};

/// The longest line that is read; the log's own limit is lower.
const MAX_LINE: u64 = 1 << 20;
/// How a file of the log is called.
const LAYOUT: &str = "%Y-%m-%d.%H:%M:%S.log";

/// The files of the log.
#[derive(Debug)]
pub(crate) struct Snapshot {
    files: Vec<(Arc<File>, u64)>,
    /// Only events of this day and later.
    pub(crate) first_day: Option<NaiveDate>,
    read: AtomicU64,
}

impl Snapshot {
    /// Opens what may hold events of `first_day` and later.
    pub(crate) fn take(dir: &Path, first_day: Option<NaiveDate>) -> io::Result<Self> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(begun) =
                name.to_str().and_then(|name| NaiveDateTime::parse_from_str(name, LAYOUT).ok())
            else {
                continue;
            };
            // A sender's clock may be ahead of ours.
            let oldest = first_day.and_then(|day| day.checked_sub_days(Days::new(1)));
            if oldest.is_none_or(|oldest| begun.date() >= oldest) {
                found.push((begun, entry.path()));
            }
        }
        found.sort();
        let open = |path: &Path| {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            io::Result::Ok((Arc::new(file), length))
        };
        let files = found.iter().map(|(_, path)| open(path)).collect::<io::Result<_>>()?;
        Ok(Self { files, first_day, read: AtomicU64::new(0) })
    }

    /// How much was read by all readers.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Reads all lines, oldest file first.
    pub(crate) fn lines(self: &Arc<Self>) -> Lines {
        Lines { snapshot: self.clone(), next: 0, reader: None }
    }
}

/// Where one reader is.
pub(crate) struct Lines {
    snapshot: Arc<Snapshot>,
    next: usize,
    reader: Option<BufReader<Section>>,
}

/// A file up to a length, read by position: several readers share it.
struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(room) = buffer.get_mut(..left) else { return Ok(0) };
        let read = std::os::unix::fs::FileExt::read_at(&*self.file, room, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Lines {
    /// The next whole line without its end; `false` at the end of the log.
    pub(crate) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let Some(reader) = &mut self.reader else {
                let Some((file, end)) = self.snapshot.files.get(self.next) else {
                    return Ok(false);
                };
                self.next += 1;
                let section = Section { file: file.clone(), at: 0, end: *end };
                self.reader = Some(BufReader::with_capacity(1 << 16, section));
                continue;
            };
            line.clear();
            let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', line)?;
            self.snapshot.read.fetch_add(read as u64, Ordering::Relaxed);
            if line.last() == Some(&b'\n') {
                line.pop();
                return Ok(true);
            }
            if (read as u64) < MAX_LINE || !skip_line(reader)? {
                // The end of the file, in the middle of a line that nobody was promised.
                self.reader = None;
            }
        }
    }
}

/// Passes over the rest of a line; `false` when the file ends first.
fn skip_line(reader: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(false);
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(chunk.len(), |at| at + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn all(snapshot: &Arc<Snapshot>) -> Vec<String> {
        let (mut lines, mut line, mut seen) = (snapshot.lines(), Vec::new(), Vec::new());
        while lines.next(&mut line).unwrap() {
            seen.push(String::from_utf8_lossy(&line).chars().take(9).collect());
        }
        seen
    }

    #[test]
    fn whole_lines_of_that_moment_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("2025-01-02.00:00:00.log"), "c\n").unwrap();
        fs::write(path("2025-01-01.00:00:00.log"), format!("a\n{}\nb\ntorn", "x".repeat(2 << 20)))
            .unwrap();
        fs::write(path("2025-01-02.00:00:00.log.torn"), "no\n").unwrap();
        let snapshot = Arc::new(Snapshot::take(dir.path(), None).unwrap());
        let mut later =
            fs::OpenOptions::new().append(true).open(path("2025-01-02.00:00:00.log")).unwrap();
        later.write_all(b"d\n").unwrap();
        assert_eq!(all(&snapshot), ["a", "b", "c"]);
        assert_eq!(all(&snapshot), ["a", "b", "c"]);
        let day = NaiveDate::from_ymd_opt(2025, 1, 3);
        assert_eq!(all(&Arc::new(Snapshot::take(dir.path(), day).unwrap())), ["c", "d"]);
    }
}

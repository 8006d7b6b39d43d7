//! The one thread that writes the log: it takes all that waits, writes it at once, synchronises
//! once, and only then answers each.
//!
//! After a failure the file is cut back to its last acknowledged byte, or given up for a new one:
//! after a failed synchronisation nobody knows what the system still holds.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{mpsc, oneshot};

use crate::{
    recent::Recent,
    segment::{Segment, link_current, seconds},
};

/// Bytes that share one synchronisation at most.
const BATCH_BYTES: usize = 8 << 20;

/// One event as it will stand in the log, without the line end.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) uid: String,
    pub(crate) line: String,
}

/// Lines to be written together.
pub(crate) struct Append {
    pub(crate) entries: Vec<Entry>,
    pub(crate) done: oneshot::Sender<Result<(), Arc<io::Error>>>,
}

/// How a file is written; a test puts a failing disk here.
pub(crate) trait Disk: Send + 'static {
    /// Writes all of `bytes` at the end.
    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    /// Returns when all that was written is on disk.
    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// The disk there is.
pub(crate) struct RealDisk;

impl Disk for RealDisk {}

struct Open {
    segment: Segment,
    file: File,
    /// The bytes that are known to be on disk.
    good: u64,
}

/// The state of the writing thread.
pub(crate) struct Writer<D> {
    dir: PathBuf,
    now: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
    recent: Recent,
    open: Option<Open>,
    /// The newest file may be written on.
    last: Option<Segment>,
    /// Whether the newest file was given up.
    fresh: bool,
    disk: D,
}

impl<D: Disk> Writer<D> {
    /// Continues after `last`, whose end is sound.
    pub(crate) fn new(
        dir: PathBuf,
        now: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
        recent: Recent,
        last: Option<Segment>,
        disk: D,
    ) -> Self {
        Self { dir, now, recent, open: None, last, fresh: false, disk }
    }

    /// Serves until nobody can append any more.
    pub(crate) fn run(mut self, mut requests: mpsc::Receiver<Append>) {
        while let Some(first) = requests.blocking_recv() {
            let mut size = bytes(&first);
            let mut batch = vec![first];
            while size < BATCH_BYTES {
                let Ok(next) = requests.try_recv() else { break };
                size += bytes(&next);
                batch.push(next);
            }
            let answer = self.commit(&batch).map_err(Arc::new);
            if let Err(error) = &answer {
                tracing::error!(%error, "audit events were not written");
            }
            for request in batch {
                // Who asked may have gone; what is written is written.
                let _ = request.done.send(answer.clone());
            }
        }
    }

    fn commit(&mut self, batch: &[Append]) -> io::Result<()> {
        let mut text = Vec::new();
        let mut here = HashSet::new();
        for entry in batch.iter().flat_map(|append| &append.entries) {
            if self.recent.contains(&entry.uid)
                || !(entry.uid.is_empty() || here.insert(entry.uid.as_str()))
            {
                tracing::debug!(uid = entry.uid, "event is in the log already");
                continue;
            }
            text.extend_from_slice(entry.line.as_bytes());
            text.push(b'\n');
        }
        if text.is_empty() {
            return Ok(());
        }
        self.write(&text)?;
        for uid in here {
            self.recent.insert(uid);
        }
        Ok(())
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let mut open = self.current()?;
        let written = match self.disk.write(&mut open.file, text) {
            Ok(()) => self.disk.sync(&open.file).map_err(|error| (error, false)),
            Err(error) => Err((error, true)),
        };
        match written {
            Ok(()) => {
                open.good += text.len() as u64;
                self.open = Some(open);
                Ok(())
            }
            Err((error, file_is_known)) => {
                let cut = open.file.set_len(open.good).and_then(|()| open.file.sync_all());
                if file_is_known && cut.is_ok() {
                    self.open = Some(open);
                } else {
                    tracing::error!(file = %open.segment.path.display(), "this file of the audit log is given up for a new one");
                    self.fresh = true;
                }
                Err(error)
            }
        }
    }

    /// The file to write to now; it never goes back to an older day.
    fn current(&mut self) -> io::Result<Open> {
        let now = (self.now)();
        if let Some(open) = self.open.take()
            && open.segment.day() >= now.date_naive()
        {
            return Ok(open);
        }
        let (segment, fresh) = match &self.last {
            Some(last) if self.fresh => {
                (Segment::at(&self.dir, seconds(now).max(last.begun + TimeDelta::seconds(1))), true)
            }
            Some(last) if last.day() >= now.date_naive() => (last.clone(), false),
            _ => (Segment::of_day(&self.dir, now.date_naive()), false),
        };
        let file = segment.open(fresh)?;
        let good = file.metadata()?.len();
        link_current(&segment);
        self.last = Some(segment.clone());
        self.fresh = false;
        Ok(Open { segment, file, good })
    }
}

fn bytes(append: &Append) -> usize {
    append.entries.iter().map(|entry| entry.line.len() + 1).sum()
}

#[cfg(test)]
mod tests;

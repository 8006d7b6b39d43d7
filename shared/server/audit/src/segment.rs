//! The files of the log: one per UTC day, `YYYY-MM-DD.00:00:00.log`, and another with the time of
//! day when one had to be given up in the middle of a day.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

const LAYOUT: &str = "%Y-%m-%d.%H:%M:%S.log";

/// One file of the log, ordered by when it was begun.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment {
    pub(crate) begun: NaiveDateTime,
    pub(crate) path: PathBuf,
}

impl Segment {
    /// The file that begins at this time.
    pub(crate) fn at(dir: &Path, begun: NaiveDateTime) -> Self {
        Self { begun, path: dir.join(begun.format(LAYOUT).to_string()) }
    }

    /// The file of a day.
    pub(crate) fn of_day(dir: &Path, day: NaiveDate) -> Self {
        Self::at(dir, day.and_time(chrono::NaiveTime::MIN))
    }

    /// Its UTC day.
    pub(crate) fn day(&self) -> NaiveDate {
        self.begun.date()
    }

    /// A file beside it that holds what could not stay in it.
    pub(crate) fn aside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(ending);
        name.into()
    }

    /// All files of the log, oldest first; other files are none of ours.
    pub(crate) fn list(dir: &Path) -> io::Result<Vec<Self>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(begun) =
                name.and_then(|name| NaiveDateTime::parse_from_str(name, LAYOUT).ok())
            {
                segments.push(Self { begun, path });
            }
        }
        segments.sort();
        Ok(segments)
    }

    /// Opens it for appending; with `fresh`, only if it does not exist. The name is durable.
    pub(crate) fn open(&self, fresh: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).read(true).create(!fresh).create_new(fresh);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
        let file = options.open(&self.path)?;
        if let Some(dir) = self.path.parent() {
            sync_dir(dir)?;
        }
        Ok(file)
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A folder and its parents, durable.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o750);
    match builder.create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    parent.map_or(Ok(()), sync_dir)
}

/// Points `events.log` in the folder `log` above at the current file; for people, so a failure
/// only matters to them.
pub(crate) fn link_current(segment: &Segment) {
    let Some(dir) = segment.path.parent() else { return };
    let Some(log) = dir.parent().filter(|log| log.file_name().is_some_and(|name| name == "log"))
    else {
        return;
    };
    let (Some(folder), Some(name)) = (dir.file_name(), segment.path.file_name()) else { return };
    let fresh = log.join(".events.log.new");
    let _ = fs::remove_file(&fresh);
    #[cfg(unix)]
    let linked = std::os::unix::fs::symlink(Path::new(folder).join(name), &fresh);
    #[cfg(not(unix))]
    let linked = fs::write(&fresh, format!("{}", Path::new(folder).join(name).display()));
    if let Err(error) = linked.and_then(|()| fs::rename(&fresh, log.join("events.log"))) {
        tracing::warn!(%error, "events.log was not updated");
    }
}

/// The time as a segment's name counts it.
pub(crate) fn seconds(now: DateTime<Utc>) -> NaiveDateTime {
    chrono::SubsecRound::trunc_subsecs(now.naive_utc(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented_and_strangers_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let day = NaiveDate::from_ymd_opt(2025, 3, 4).unwrap();
        let segment = Segment::of_day(dir.path(), day);
        assert_eq!(segment.path, dir.path().join("2025-03-04.00:00:00.log"));
        segment.open(false).unwrap();
        assert!(segment.open(true).is_err(), "fresh means fresh");
        Segment::at(dir.path(), day.and_hms_opt(7, 8, 9).unwrap()).open(true).unwrap();
        for stranger in ["2025-03-04.00:00:00.log.torn", "notes.txt", "2025-13-04.00:00:00.log"] {
            fs::write(dir.path().join(stranger), "").unwrap();
        }
        let found = Segment::list(dir.path()).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], segment);
        assert_eq!(found[1].day(), day);
    }

    #[cfg(unix)]
    #[test]
    fn the_link_follows_the_current_file() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("log/host");
        create_dir(&host).unwrap();
        for day in [4, 5] {
            let segment = Segment::of_day(&host, NaiveDate::from_ymd_opt(2025, 3, day).unwrap());
            segment.open(false).unwrap();
            link_current(&segment);
            let target = fs::read_link(dir.path().join("log/events.log")).unwrap();
            assert_eq!(target, Path::new("host").join(format!("2025-03-0{day}.00:00:00.log")));
        }
    }
}

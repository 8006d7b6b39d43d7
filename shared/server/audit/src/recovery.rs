//! What is done to the log before it is used: the torn end of a file is put aside, lines that are
//! no events are reported and copied aside, and the last ids are remembered.
//!
//! A line counts from its line end on, because only then can it have been acknowledged: lines are
//! written whole, synchronised, then answered.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    lines::{self, Line},
    recent::Recent,
    segment::{Segment, sync_dir},
};

/// Something in the log that is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// In which file.
    pub file: PathBuf,
    /// Where it begins.
    pub offset: u64,
    /// How much it is.
    pub bytes: u64,
    /// Where a copy was put.
    pub kept: PathBuf,
    /// Whether it was an unfinished last line, which nobody had been promised.
    pub unfinished: bool,
}

/// What a line must at least be.
#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow)]
    event: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    uid: std::borrow::Cow<'a, str>,
}

/// Makes the end of `segment` ready for appending and fills `recent` with its ids.
pub(crate) fn recover(
    segment: &Segment,
    limit: usize,
    recent: &mut Recent,
) -> io::Result<Vec<Damage>> {
    let file = OpenOptions::new().read(true).write(true).open(&segment.path)?;
    let mut reader = BufReader::with_capacity(1 << 16, &file);
    let mut text = Vec::new();
    let mut offset = 0u64;
    let mut found = Vec::new();
    let damage = |offset, bytes, unfinished| {
        let kept = segment.aside(if unfinished { ".torn" } else { ".damaged" });
        Damage { file: segment.path.clone(), offset, bytes, kept, unfinished }
    };
    loop {
        let (line, bytes) = lines::next(&mut reader, &mut text, limit)?;
        match line {
            Line::End => break,
            Line::Torn => found.push(damage(offset, bytes, true)),
            Line::TooLong => found.push(damage(offset, bytes, false)),
            Line::Whole => match serde_json::from_slice::<Probe<'_>>(&text) {
                Ok(probe) if !probe.event.is_empty() => recent.insert(&probe.uid),
                _ => found.push(damage(offset, bytes, false)),
            },
        }
        offset += bytes;
    }
    drop(reader);
    if !found.is_empty() {
        put_aside(segment, &file, &found)?;
    }
    Ok(found)
}

fn put_aside(segment: &Segment, file: &File, found: &[Damage]) -> io::Result<()> {
    // Bad lines stay where they are; the copy is made anew at each start.
    let damaged = segment.aside(".damaged");
    let lines = found.iter().filter(|damage| !damage.unfinished);
    if lines.clone().next().is_some() {
        let fresh = segment.aside(".damaged.new");
        let mut copy = beside(OpenOptions::new().write(true).create(true).truncate(true), &fresh)?;
        for damage in lines {
            copy_range(file, damage, &mut copy)?;
        }
        copy.sync_all()?;
        fs::rename(&fresh, &damaged)?;
    }
    // The unfinished end goes, so that the next line begins on its own.
    if let Some(torn) = found.iter().find(|damage| damage.unfinished) {
        let mut copy = beside(OpenOptions::new().append(true).create(true), &torn.kept)?;
        copy_range(file, torn, &mut copy)?;
        copy.write_all(b"\n")?;
        copy.sync_all()?;
        if let Some(dir) = segment.path.parent() {
            sync_dir(dir)?;
        }
        file.set_len(torn.offset)?;
        file.sync_all()?;
    }
    for damage in found {
        tracing::warn!(
            file = %damage.file.display(), offset = damage.offset, bytes = damage.bytes, kept = %damage.kept.display(),
            unfinished = damage.unfinished, "part of the audit log is no event and was put aside"
        );
    }
    segment.path.parent().map_or(Ok(()), sync_dir)
}

/// A file that no more people may read than the log.
fn beside(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o640);
    options.open(path)
}

fn copy_range(mut file: &File, damage: &Damage, to: &mut File) -> io::Result<()> {
    file.seek(SeekFrom::Start(damage.offset))?;
    io::copy(&mut file.take(damage.bytes), to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = concat!(
        r#"{"event":"exec","uid":"u1","command":"ls"}"#,
        "\n",
        r#"{"event":"user.login","uid":"u2"}"#,
        "\n",
        r#"{"event":"session.start","uid":"u3","user":"jos\u00e9"}"#,
        "\n"
    );

    fn segment(content: &[u8]) -> (tempfile::TempDir, Segment) {
        let dir = tempfile::tempdir().unwrap();
        let segment =
            Segment::of_day(dir.path(), chrono::NaiveDate::from_ymd_opt(2025, 1, 1).unwrap());
        fs::write(&segment.path, content).unwrap();
        (dir, segment)
    }

    #[test]
    fn a_tail_torn_at_any_byte_leaves_whole_lines_and_loses_nothing() {
        for end in 0..=LINES.len() {
            let written = &LINES.as_bytes()[..end];
            let (_dir, segment) = segment(written);
            let mut recent = Recent::new(10);
            let found = recover(&segment, 1000, &mut recent).unwrap();
            let whole = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            assert_eq!(fs::read(&segment.path).unwrap(), &written[..whole]);
            if whole == end {
                assert!(found.is_empty());
            } else {
                assert!(found.len() == 1 && found[0].unfinished);
                assert_eq!(fs::read(&found[0].kept).unwrap(), [&written[whole..], b"\n"].concat());
            }
            let lines = written[..whole].iter().filter(|byte| **byte == b'\n').count();
            let known = ["u1", "u2", "u3"].iter().filter(|uid| recent.contains(uid)).count();
            assert_eq!(known, lines);
            assert!(
                recover(&segment, 1000, &mut recent).unwrap().is_empty(),
                "clean the second time"
            );
        }
    }

    #[test]
    fn lines_that_are_no_events_are_copied_aside_and_stay() {
        let long = "x".repeat(200);
        let content = format!("not json\n{{\"uid\":\"only\"}}\n{LINES}{long}\n\0\0\0\0");
        let (_dir, segment) = segment(content.as_bytes());
        for _ in 0..2 {
            let mut recent = Recent::new(10);
            let found = recover(&segment, 100, &mut recent).unwrap();
            let lines: Vec<_> = found.iter().filter(|damage| !damage.unfinished).collect();
            assert_eq!(lines.iter().map(|damage| damage.bytes).collect::<Vec<_>>(), [9, 15, 201]);
            assert!(recent.contains("u1") && recent.contains("u3") && !recent.contains("only"));
            let kept = fs::read_to_string(segment.aside(".damaged")).unwrap();
            assert_eq!(kept, format!("not json\n{{\"uid\":\"only\"}}\n{long}\n"));
        }
        assert_eq!(fs::read(segment.aside(".torn")).unwrap(), b"\0\0\0\0\n");
        assert_eq!(fs::read(&segment.path).unwrap(), content.trim_end_matches('\0').as_bytes());
    }
}

//! Finding events by time and type in the files of the log.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    fs::File,
    io::{self, BufReader},
    path::Path,
};

use chrono::{DateTime, Days, Utc};
use memchr::memmem;
use serde::Deserialize;

use crate::{
    lines::{self, Line},
    segment::Segment,
};

/// How far a sender's clock may be ahead of the day an event was written.
const SKEW_DAYS: u64 = 1;

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    time: DateTime<Utc>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
}

/// Time, place in the log, id and line of an event.
type Found = (DateTime<Utc>, u64, String, String);

/// The newest `limit` lines of these types in the time, newest first.
pub(crate) fn newest(
    dir: &Path,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    types: &[String],
    limit: usize,
    longest: usize,
) -> io::Result<Vec<String>> {
    // A file of a day holds events up to that day, and late ones of earlier days.
    let first_day = from.date_naive().checked_sub_days(Days::new(SKEW_DAYS)).unwrap_or_default();
    let mut kept: BinaryHeap<Reverse<Found>> = BinaryHeap::new();
    // Of what is kept: an event may stand in the log twice.
    let mut uids = HashSet::new();
    let finders: Vec<_> = types.iter().map(|kind| memmem::Finder::new(kind.as_bytes())).collect();
    let mut number = 0u64;
    let mut text = Vec::new();
    for segment in Segment::list(dir)?.iter().filter(|segment| segment.day() >= first_day) {
        let mut reader = BufReader::with_capacity(1 << 16, File::open(&segment.path)?);
        loop {
            match lines::next(&mut reader, &mut text, longest)?.0 {
                Line::Whole => {}
                Line::TooLong => continue,
                Line::Torn | Line::End => break,
            }
            // Most lines are of other types: whether the name stands there at all is known sooner than the whole.
            if !finders.is_empty() && finders.iter().all(|finder| finder.find(&text).is_none()) {
                continue;
            }
            let Ok(head) = serde_json::from_slice::<Head<'_>>(&text) else { continue };
            let wanted = types.is_empty() || types.iter().any(|kind| *kind == head.event);
            if !wanted || head.time < from || head.time >= to {
                continue;
            }
            if kept.len() >= limit
                && kept.peek().is_some_and(|Reverse((oldest, ..))| head.time < *oldest)
            {
                continue;
            }
            if !head.uid.is_empty() && !uids.insert(head.uid.clone().into_owned()) {
                continue;
            }
            number += 1;
            let (time, uid) = (head.time, head.uid.into_owned());
            kept.push(Reverse((time, number, uid, String::from_utf8_lossy(&text).into_owned())));
            if kept.len() > limit
                && let Some(Reverse((_, _, uid, _))) = kept.pop()
            {
                uids.remove(&uid);
            }
        }
    }
    Ok(kept.into_sorted_vec().into_iter().map(|Reverse((_, _, _, line))| line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_first_by_time_type_and_limit() {
        let dir = tempfile::tempdir().unwrap();
        let line = |kind: &str, uid: &str, time: &str| {
            format!(r#"{{"event":"{kind}","uid":"{uid}","time":"{time}"}}"#)
        };
        let day = |name: &str, lines: &[String]| {
            std::fs::write(dir.path().join(name), lines.join("\n") + "\n").unwrap()
        };
        day(
            "2025-01-01.00:00:00.log",
            &[
                line("a", "1", "2025-01-01T10:00:00Z"),
                "junk".into(),
                line("b", "2", "2025-01-01T11:00:00Z"),
            ],
        );
        // A late one, and one that was written twice.
        day(
            "2025-01-02.00:00:00.log",
            &[line("a", "3", "2025-01-01T09:00:00.5Z"), line("a", "1", "2025-01-01T10:00:00Z")],
        );
        let mut last = line("a", "4", "2025-01-03T00:00:00Z") + "\n";
        last += r#"{"event":"a","uid":"5","time":"2025-01-03T01:"#;
        std::fs::write(dir.path().join("2025-01-03.00:00:00.log"), last).unwrap();
        let find = |from: &str, to: &str, types: &[&str], limit| {
            let types: Vec<String> = types.iter().map(|&kind| kind.to_owned()).collect();
            let found =
                newest(dir.path(), from.parse().unwrap(), to.parse().unwrap(), &types, limit, 1000)
                    .unwrap();
            found.iter().map(|line| line[20..21].to_owned()).collect::<String>()
        };
        let (start, end) = ("2025-01-01T00:00:00Z", "2025-01-04T00:00:00Z");
        assert_eq!(find(start, end, &[], 9), "4213");
        assert_eq!(find(start, end, &["a"], 9), "413");
        assert_eq!(find(start, end, &["a"], 2), "41");
        assert_eq!(find(start, "2025-01-01T11:00:00Z", &[], 9), "13");
        assert_eq!(find("2025-01-02T00:00:00Z", end, &[], 9), "4");
    }
}

//! Listings of folders: names, attributes, and lines as `ls -l` prints them, which clients show unread.

use std::collections::HashMap;

use chrono::{DateTime, Local, TimeDelta, Utc};
use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::{AtFlags, Dir, FileType, Stat};

use super::attributes;
use super::wire::{Entry, Refused, Text};

/// Names in one answer.
const BATCH: usize = 100;

/// Files older than this show their year instead of the time.
const RECENT: TimeDelta = TimeDelta::days(182);

/// Owners seen at once; more are shown as numbers.
const MAX_NAMES: usize = 1024;

/// Names of users and groups, each asked for once.
#[derive(Default)]
pub(super) struct Owners {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Owners {
    fn user(&mut self, id: u32) -> String {
        cached(&mut self.users, id, |id| Some(User::from_uid(Uid::from_raw(id)).ok()??.name))
    }

    fn group(&mut self, id: u32) -> String {
        cached(&mut self.groups, id, |id| Some(Group::from_gid(Gid::from_raw(id)).ok()??.name))
    }
}

fn cached(
    known: &mut HashMap<u32, String>,
    id: u32,
    ask: impl Fn(u32) -> Option<String>,
) -> String {
    if let Some(name) = known.get(&id) {
        return name.clone();
    }
    if known.len() >= MAX_NAMES {
        return id.to_string();
    }
    let name = ask(id).unwrap_or_else(|| id.to_string());
    known.insert(id, name.clone());
    name
}

/// The next entries of a folder; none at its end. Files that went away meanwhile are left out.
pub(super) fn next(folder: &mut Dir, owners: &mut Owners) -> Result<Vec<Entry>, Refused> {
    let mut entries = Vec::new();
    while entries.len() < BATCH {
        let Some(found) = folder.read() else { break };
        let found = found?;
        let name = found.file_name();
        let Ok(stat) = rustix::fs::statat(folder.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        entries.push(Entry {
            name: Text(name.to_bytes().to_vec()),
            long_name: Text(long_name(name.to_bytes(), &stat, owners, Utc::now())),
            attributes: attributes::of(&stat),
        });
    }
    Ok(entries)
}

fn long_name(name: &[u8], stat: &Stat, owners: &mut Owners, now: DateTime<Utc>) -> Vec<u8> {
    let line = format!(
        "{} {:>3} {:<8} {:<8} {:>8} {} ",
        symbolic(stat.st_mode),
        stat.st_nlink,
        owners.user(stat.st_uid),
        owners.group(stat.st_gid),
        stat.st_size,
        when(stat.st_mtime, now),
    );
    [line.as_bytes(), name].concat()
}

fn when(modified: i64, now: DateTime<Utc>) -> String {
    let Some(time) = DateTime::from_timestamp(modified, 0) else {
        return modified.to_string();
    };
    let age = now - time;
    let recent = age < RECENT && age > -TimeDelta::days(1);
    time.with_timezone(&Local).format(if recent { "%b %e %H:%M" } else { "%b %e  %Y" }).to_string()
}

/// `drwxr-sr-t` and the like.
fn symbolic(mode: u32) -> String {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::RegularFile => '-',
        FileType::Unknown => '?',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_ls_writes_them() {
        for (mode, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o041_777, "drwxrwxrwt"),
            (0o104_755, "-rwsr-xr-x"),
            (0o102_644, "-rw-r-Sr--"),
            (0o010_600, "prw-------"),
            (0, "?---------"),
        ] {
            assert_eq!(symbolic(mode), text);
        }
    }

    #[test]
    fn old_files_show_their_year() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        assert!(when(1_699_990_000, now).contains(':'));
        assert!(when(1_600_000_000, now).ends_with("2020"));
        assert!(when(1_800_000_000, now).ends_with("2027"));
        assert_eq!(when(i64::MAX, now), i64::MAX.to_string());
    }

    #[test]
    fn names_are_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let odd = std::os::unix::ffi::OsStringExt::from_vec(b"a\xff\nb".to_vec());
        let odd: std::ffi::OsString = odd;
        std::fs::write(folder.path().join(&odd), "x").unwrap();
        let mut open = Dir::read_from(std::fs::File::open(folder.path()).unwrap()).unwrap();
        let mut entries = next(&mut open, &mut Owners::default()).unwrap();
        entries.sort_by(|a, b| a.name.0.cmp(&b.name.0));
        let names: Vec<_> = entries.iter().map(|entry| entry.name.0.as_slice()).collect();
        assert_eq!(names, [&b"."[..], b"..", b"a\xff\nb"]);
        assert!(entries[2].long_name.0.ends_with(b" a\xff\nb"));
        assert!(next(&mut open, &mut Owners::default()).unwrap().is_empty());
    }
}

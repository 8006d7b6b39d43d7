//! Processes of a session, held so that a signal cannot reach a stranger.
//!
//! A process id is only a number that comes round again. A pidfd is opened first and the process looked at second: if
//! what was looked at is another process, the descriptor's own is gone and the signal goes nowhere.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process and the users whose signals it takes.
#[derive(Debug)]
pub(super) struct Member {
    pidfd: OwnedFd,
    place: Place,
    real: u32,
    saved: u32,
}

/// Where a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    group: i32,
    session: i32,
}

/// The processes that are in the session of `leader` now. Reads all of `/proc`: not for the runtime's threads.
pub(super) fn session(leader: Pid) -> Vec<Member> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter_map(|pid| member(pid, leader)).collect()
}

/// Those of the session that are in its leader's own process group.
pub(super) fn own_group(session: Vec<Member>) -> Vec<Member> {
    session.into_iter().filter(|member| member.place.group == member.place.session).collect()
}

fn member(pid: Pid, leader: Pid) -> Option<Member> {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let place = || {
        let place = place_of(&std::fs::read(format!("{folder}/stat")).ok()?)?;
        (place.session == leader.as_raw_nonzero().get()).then_some(place)
    };
    // Cheap first: most processes are elsewhere.
    place()?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let place = place()?;
    let status = std::fs::read_to_string(format!("{folder}/status")).ok()?;
    let (real, saved) = users_of(&status)?;
    Some(Member { pidfd, place, real, saved })
}

/// Group and session in `proc_pid_stat(5)`; the program's name before them may hold anything.
fn place_of(stat: &[u8]) -> Option<Place> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace().skip(2);
    Some(Place { group: fields.next()?.parse().ok()?, session: fields.next()?.parse().ok()? })
}

/// Real and saved user of the `Uid:` line in `proc_pid_status(5)`.
fn users_of(status: &str) -> Option<(u32, u32)> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let mut users = line.split_ascii_whitespace();
    Some((users.next()?.parse().ok()?, users.nth(1)?.parse().ok()?))
}

/// Signals `members`; with `by`, only those whom that user may signal (`kill(2)`).
pub(super) fn signal(members: &[Member], signal: Signal, by: Option<u32>) {
    for member in members {
        if by.is_none_or(|user| user == 0 || user == member.real || user == member.saved) {
            // Gone already is as good.
            let _ = pidfd_send_signal(&member.pidfd, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn hostile_names_do_not_confuse() {
        assert_eq!(place_of(b"7 (a) S 1 2) 3) S 5 99 6"), Some(Place { group: 99, session: 6 }));
        assert_eq!(place_of(b"7 (a"), None);
        assert_eq!(users_of("Name:\tx\nUid:\t1\t2\t3\t4\n"), Some((1, 3)));
    }

    #[test]
    fn only_the_session_and_only_with_the_right() {
        let sleep = || std::process::Command::new("setsid").args(["sleep", "60"]).spawn().unwrap();
        let (mut child, mut other) = (sleep(), sleep());
        let leader = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        let found = loop {
            let found = session(leader);
            if !found.is_empty() {
                break found;
            }
        };
        assert_eq!(found.len(), 1);
        signal(&found, Signal::TERM, Some(4_000_000));
        assert!(child.try_wait().unwrap().is_none(), "a stranger may not");
        let found = own_group(found);
        signal(&found, Signal::TERM, None);
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(session(leader).is_empty());
        signal(&found, Signal::TERM, None);
    }
}

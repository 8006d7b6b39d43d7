//! `teleport exec`: the new process becomes the login, then the program.
//!
//! One thread, from the first line to the last: what is set here is set for the whole process. The order matters:
//! descriptors first (nothing of the daemon's may be open when foreign code runs), rights next, and only then anything
//! that the login can influence (home, its files, its shell).

use std::ffi::{CString, OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::{Uid, setgid, setuid};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::account::{self, Account};
use super::environment::Environment;
use super::handoff::{self, Failure, READY};
use super::spec::Program;
use super::{sftp, tty};

/// Other programs' files are for their owner to write.
const UMASK: Mode = Mode::WGRP.union(Mode::WOTH);

/// What programs get as a start; those that want more files ask, and many that use select(2) break with more.
const OPEN_FILES: u64 = 1024;

/// The C library keeps these to itself, and programs cannot set them.
const LIBC_SIGNALS: &[i32] = &[32, 33];

/// Runs `teleport exec`: takes an order from the daemon on descriptor 0. Comes back only if the program could not be
/// started, or was the SFTP server; with the exit status.
pub fn run_exec() -> u8 {
    close_inherited();
    let Ok(mut socket) = take_socket() else {
        return 1;
    };
    match enter(&mut socket) {
        Ok(Next::Sftp) => {
            drop(socket);
            run_sftp()
        }
        Err(failure) => {
            if let Ok(text) = serde_json::to_vec(&failure) {
                let _ = socket.write_all(&text);
            }
            1
        }
    }
}

/// Runs `teleport sftp`: an SFTP server on standard input and output, as whoever runs it. Returns the exit status.
pub fn run_sftp() -> u8 {
    match sftp::serve_stdio() {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "sftp: {error}");
            1
        }
    }
}

/// What remains to do in this process; a program that was started leaves nothing.
enum Next {
    Sftp,
}

/// Whatever a careless opener in the daemon left open for its children.
fn close_inherited() {
    let open: Vec<RawFd> = match std::fs::read_dir("/proc/self/fd") {
        Ok(entries) => {
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        }
        Err(_) => (3..1024).collect(),
    };
    for descriptor in open.into_iter().filter(|&descriptor| descriptor > 2) {
        // Among them is the listing's own, closed by now.
        let _ = nix::unistd::close(descriptor);
    }
}

/// Moves the socket away from descriptor 0, where the program's input comes.
fn take_socket() -> std::io::Result<UnixStream> {
    let moved = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3)?;
    Ok(UnixStream::from(moved))
}

fn enter(socket: &mut UnixStream) -> Result<Next, Failure> {
    let (order, descriptors) = handoff::receive(socket)?;
    let account = account::admit(&order.spec.login)
        .map_err(Failure::step("look the login up"))?
        .map_err(Failure::Refused)?;
    let mut environment = Environment::of_host(&account);
    rustix::process::setsid().map_err(Failure::step("start a session"))?;
    match (&order.spec.pty, descriptors.as_slice()) {
        (Some(pty), [slave]) => take_terminal(slave, &account, &pty.modes)?,
        (None, [input, output, error]) => take_descriptors(input, output, error)?,
        _ => {
            return Err(Failure::Step {
                step: "take descriptors".into(),
                cause: "wrong number".into(),
            });
        }
    }
    drop(descriptors);
    limit_open_files().map_err(Failure::step("set limits"))?;
    become_login(&account)?;
    rustix::process::umask(UMASK);
    if std::env::set_current_dir(&account.home).is_err() {
        std::env::set_current_dir("/").map_err(Failure::step("change to /"))?;
    }
    environment.complete(&account, &order);
    let ready = [&[READY][..], &account.uid.as_raw().to_be_bytes()].concat();
    socket.write_all(&ready).map_err(Failure::step("answer"))?;
    match order.spec.program {
        Program::Sftp => Ok(Next::Sftp),
        Program::Shell => Err(run(&account, environment, None)),
        Program::Exec(command) => Err(run(&account, environment, Some(&command))),
    }
}

fn take_terminal(slave: &OwnedFd, account: &Account, modes: &[(u8, u32)]) -> Result<(), Failure> {
    if Uid::effective().is_root() {
        tty::give_to(slave, account.uid.as_raw(), account.gid.as_raw())
            .map_err(Failure::step("give the terminal to the login"))?;
    }
    tty::set_modes(slave, modes).map_err(Failure::step("set the terminal's modes"))?;
    rustix::process::ioctl_tiocsctty(slave).map_err(Failure::step("take the terminal"))?;
    take_descriptors(slave, slave, slave)
}

fn take_descriptors(input: &OwnedFd, output: &OwnedFd, error: &OwnedFd) -> Result<(), Failure> {
    rustix::stdio::dup2_stdin(input)
        .and_then(|()| rustix::stdio::dup2_stdout(output))
        .and_then(|()| rustix::stdio::dup2_stderr(error))
        .map_err(Failure::step("take descriptors"))
}

/// The service raises its own limit, which is no login's.
fn limit_open_files() -> std::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum.map_or(OPEN_FILES, |hard| hard.min(OPEN_FILES));
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum })?)
}

/// Groups, group, user, in this order, and a look whether it lasts.
fn become_login(account: &Account) -> Result<(), Failure> {
    if Uid::effective().is_root() {
        let name = CString::new(account.name.as_bytes())
            .map_err(Failure::step("read the login's name"))?;
        nix::unistd::initgroups(&name, account.gid)
            .map_err(Failure::step("take the login's groups"))?;
        setgid(account.gid).map_err(Failure::step("take the login's group"))?;
        setuid(account.uid).map_err(Failure::step("become the login"))?;
    }
    let is_login = Uid::current() == account.uid && Uid::effective() == account.uid;
    if !is_login || (!account.uid.is_root() && setuid(Uid::from_raw(0)).is_ok()) {
        return Err(Failure::Step {
            step: "become the login".into(),
            cause: "rights were kept".into(),
        });
    }
    Ok(())
}

/// Becomes the login's shell; without a command as a login shell, whose name begins with `-`. Returns why not.
fn run(account: &Account, environment: Environment, command: Option<&[u8]>) -> Failure {
    let name = account.shell.file_name().unwrap_or(OsStr::new("sh"));
    let mut shell = Command::new(&account.shell);
    match command {
        Some(command) => shell.arg0(name).arg("-c").arg(OsStr::from_bytes(command)),
        None => {
            let mut login_name = OsString::from("-");
            login_name.push(name);
            shell.arg0(login_name)
        }
    };
    shell.env_clear().envs(environment.into_vars());
    if let Err(failure) = default_signals() {
        return failure;
    }
    Failure::step(&format!("run {}", account.shell.display()))(shell.exec())
}

/// Signals that whoever started the daemon had ignored (`nohup`) would stay ignored. A handler in their place goes
/// away with the start of the program, and leaves the default. (`PIPE` and the mask are the standard library's.)
fn default_signals() -> Result<(), Failure> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for signal in ignored(&status) {
        if signal_hook::consts::FORBIDDEN.contains(&signal) || LIBC_SIGNALS.contains(&signal) {
            continue;
        }
        signal_hook::flag::register(signal, std::sync::Arc::default())
            .map_err(Failure::step("reset signals"))?;
    }
    Ok(())
}

/// Signals of the mask `SigIgn:` in `proc_pid_status(5)`.
fn ignored(status: &str) -> Vec<i32> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=64).filter(|signal| mask & (1 << (signal - 1)) != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001003\n"), [1, 2, 13]);
        assert_eq!(ignored("SigIgn:\t8000000000000000\n"), [64]);
        assert!(ignored("").is_empty());
        assert!(ignored("SigIgn:\tnonsense").is_empty());
    }
}

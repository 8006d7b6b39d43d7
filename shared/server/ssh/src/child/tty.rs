//! Pseudo terminals.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, fcntl_setfl};
use rustix::pty::OpenptFlags;
use rustix::termios::{Termios, Winsize};

use super::spec::PtySpec;

/// The daemon's side of a terminal. When the last owner drops it, the terminal hangs up.
#[derive(Debug)]
pub(super) struct Master(OwnedFd);

/// A terminal before its program has it.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) master: Master,
    pub(super) slave: OwnedFd,
    /// `/dev/pts/N`.
    pub(super) name: String,
}

/// Makes a terminal of the size the client has.
pub(super) fn open(spec: &PtySpec) -> std::io::Result<Pair> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?.to_string_lossy().into_owned();
    // Not by its name: somebody else's /dev/pts could be mounted there.
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
    let master = Master(master);
    master.resize(spec.columns, spec.rows, spec.pixels)?;
    Ok(Pair { master, slave, name })
}

impl Master {
    /// Sets the size; the foreground program is told by the kernel (`WINCH`).
    pub(super) fn resize(
        &self,
        columns: u32,
        rows: u32,
        pixels: (u32, u32),
    ) -> std::io::Result<()> {
        let short = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        let size = Winsize {
            ws_row: short(rows),
            ws_col: short(columns),
            ws_xpixel: short(pixels.0),
            ws_ypixel: short(pixels.1),
        };
        Ok(rustix::termios::tcsetwinsize(&self.0, size)?)
    }

    /// Takes the device away from the login before its number is used again.
    fn give_back(&self) -> std::io::Result<()> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&self.0, flags)?;
        fchown(&slave, Some(Uid::ROOT), Some(Gid::ROOT))?;
        Ok(fchmod(&slave, Mode::RUSR | Mode::WUSR)?)
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            tracing::debug!(%error, "terminal was not given back");
        }
    }
}

impl AsRawFd for Master {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Master {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives the device to the login. Others may write to it (`write`, `wall`) if the host has a group for that.
pub(super) fn give_to(slave: &OwnedFd, uid: u32, gid: u32) -> std::io::Result<()> {
    let tty = nix::unistd::Group::from_name("tty").ok().flatten();
    let (group, mode) = match tty {
        Some(tty) => (tty.gid.as_raw(), Mode::RUSR | Mode::WUSR | Mode::WGRP),
        None => (gid, Mode::RUSR | Mode::WUSR),
    };
    fchown(slave, Some(Uid::from_raw(uid)), Some(Gid::from_raw(group)))?;
    Ok(fchmod(slave, mode)?)
}

/// Sets what the client sent of its own terminal.
pub(super) fn set_modes(slave: &OwnedFd, modes: &[(u8, u32)]) -> std::io::Result<()> {
    let mut termios: Termios = rustix::termios::tcgetattr(slave)?;
    super::modes::apply(&mut termios, modes);
    Ok(rustix::termios::tcsetattr(slave, rustix::termios::OptionalActions::Now, &termios)?)
}

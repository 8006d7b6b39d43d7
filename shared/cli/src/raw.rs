//! The terminal in raw mode.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Raw until dropped; the former modes come back, also after an error.
#[derive(Debug)]
pub struct RawMode {
    /// Another terminal than the one on standard input.
    terminal: Option<File>,
    before: Termios,
}

impl RawMode {
    /// Switches the terminal on standard input.
    pub fn enter() -> std::io::Result<Self> {
        Ok(Self { terminal: None, before: switch(rustix::stdio::stdin())? })
    }

    /// Switches another terminal.
    pub fn on(terminal: File) -> std::io::Result<Self> {
        let before = switch(terminal.as_fd())?;
        Ok(Self { terminal: Some(terminal), before })
    }
}

fn switch(terminal: BorrowedFd<'_>) -> std::io::Result<Termios> {
    let before = tcgetattr(terminal)?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(terminal, OptionalActions::Drain, &raw)?;
    Ok(before)
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let terminal = self.terminal.as_ref().map_or(rustix::stdio::stdin(), AsFd::as_fd);
        // A terminal that is gone needs no restoring.
        tcsetattr(terminal, OptionalActions::Drain, &self.before).ok();
    }
}

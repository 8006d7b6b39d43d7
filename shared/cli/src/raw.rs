//! The terminal in raw mode.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Raw until dropped; the former modes come back, also after an error.
#[derive(Debug)]
pub struct RawMode(Termios);

impl RawMode {
    /// Switches the terminal on standard input.
    pub fn enter() -> std::io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Drain, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.0).ok();
    }
}

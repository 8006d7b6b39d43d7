//! Questions to the person at the terminal. Nothing asks when standard input is no terminal, but a
//! secret may be piped in as one line.

use std::io::{BufRead, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::text::printable_lines;

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Standard input is no terminal, so nobody can answer.
    #[error("{0}: nobody to ask, standard input is no terminal")]
    NoTerminal(String),
    /// Input ended before an answer.
    #[error("no answer given")]
    Ended,
    /// The terminal failed.
    #[error("read from the terminal")]
    Io(#[from] std::io::Error),
}

/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 4096;

/// Asks on standard error and reads from standard input.
#[derive(Debug, Default)]
pub struct Prompter;

impl Prompter {
    /// A question answered by `y` or `yes`; anything else is no.
    pub fn confirm(&self, question: &str) -> Result<bool, PromptError> {
        if !std::io::stdin().is_terminal() {
            return Err(PromptError::NoTerminal(question.to_owned()));
        }
        eprint!("{} [y/N]: ", printable_lines(question));
        std::io::stderr().flush()?;
        let answer = read_line()?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// A secret, not echoed. From a pipe, one line is taken as the answer.
    pub fn secret(&self, question: &str) -> Result<Zeroizing<String>, PromptError> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return read_line();
        }
        let before = tcgetattr(&stdin).map_err(std::io::Error::from)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(std::io::Error::from)?;
        // Only now, for what is typed before is thrown away.
        eprint!("{} ", printable_lines(question));
        let answer = read_line();
        tcsetattr(&stdin, OptionalActions::Now, &before).map_err(std::io::Error::from)?;
        answer
    }
}

/// One line without its end; what follows stays in the shared buffer for the next question.
fn read_line() -> Result<Zeroizing<String>, PromptError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(256));
    let stdin = std::io::stdin();
    let read = stdin.lock().take(LONGEST_ANSWER).read_until(b'\n', &mut bytes)?;
    if read == 0 {
        return Err(PromptError::Ended);
    }
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(PromptError::Io(std::io::Error::from(std::io::ErrorKind::InvalidData))),
    }
}

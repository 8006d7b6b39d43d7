//! Errors at the edge: one type that says what went wrong, why, what to type next, and with which
//! code the program ends.

use std::error::Error;
use std::fmt;
use std::io::Write;

/// How a program ends. Commands that run something remote return its status instead, and 255 when
/// the connection itself failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// The command line was wrong.
    Usage,
    /// Not logged in, or the login has ended.
    NotLoggedIn,
    /// Access was denied.
    Denied,
    /// The thing asked for does not exist.
    NotFound,
    /// A remote command's own status, or 255 for a failed connection.
    Remote(u8),
}

impl ExitCode {
    /// The number the operating system sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotLoggedIn => 3,
            Self::Denied => 4,
            Self::NotFound => 5,
            Self::Remote(code) => code,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

/// An error as a person reads it: `ERROR: message`, the causes below, then `hint: …`.
#[derive(Debug)]
pub struct CliError {
    exit: ExitCode,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    /// Nobody reads what the program prints.
    reader_gone: bool,
}

impl CliError {
    /// An error that ends the program with code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self::with_exit(ExitCode::Failed, message)
    }

    /// An error with an exit code of its own.
    pub fn with_exit(exit: ExitCode, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), causes: Vec::new(), hint: None, reader_gone: false }
    }

    /// A wrong command line: code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::with_exit(ExitCode::Usage, message)
    }

    /// What was being done, with `error` and its sources as the causes.
    pub fn wrap(message: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        Self { causes: chain(error), ..Self::new(message) }
    }

    /// `error` itself as the message, its sources as the causes.
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        let mut causes = chain(error);
        let message = if causes.is_empty() { error.to_string() } else { causes.remove(0) };
        Self { causes, ..Self::new(message) }
    }

    /// Sets the exit code.
    #[must_use]
    pub fn exit(mut self, exit: ExitCode) -> Self {
        self.exit = exit;
        self
    }

    /// Adds the next thing to type.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what was being done in front; the former message becomes the first cause.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        let former = std::mem::replace(&mut self.message, message.into());
        self.causes.insert(0, former);
        self
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        self.exit
    }

    /// The message without causes and hint.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CliError {}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        let reader_gone = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { reader_gone, ..Self::from_error(&error) }
    }
}

/// The texts of `error` and its sources, without a text that its parent already contains.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(current) = next {
        let text = current.to_string();
        if !texts.last().is_some_and(|last| last.contains(&text)) {
            texts.push(text);
        }
        next = current.source();
    }
    texts
}

/// Writes `error` to `out`; colour only when asked.
pub fn report(error: &CliError, colour: bool, out: &mut dyn Write) -> std::io::Result<()> {
    use crate::text::printable_lines as clean;
    if colour {
        write!(out, "\x1b[31mERROR:\x1b[0m ")?;
    } else {
        write!(out, "ERROR: ")?;
    }
    writeln!(out, "{}", clean(&error.message))?;
    for cause in &error.causes {
        writeln!(out, "  {}", clean(cause))?;
    }
    if let Some(hint) = &error.hint {
        writeln!(out, "hint: {}", clean(hint))?;
    }
    Ok(())
}

/// Makes a print to a reader that has gone away (closed pipe) end the program quietly instead of with a panic.
pub(crate) fn end_quietly_without_reader() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to std") && text.contains("Broken pipe") {
            std::process::exit(i32::from(ExitCode::Done.code()));
        }
        before(info);
    }));
}

/// The one place where a program turns its result into a message and an exit code. A reader that
/// has gone away (closed pipe) ends the program quietly.
pub fn run_main(result: Result<ExitCode, CliError>) -> std::process::ExitCode {
    match result {
        Ok(code) => code.into(),
        Err(error) => {
            if error.reader_gone && error.exit == ExitCode::Failed {
                return ExitCode::Done.into();
            }
            let stderr = std::io::stderr();
            let colour = crate::text::colour_wanted(&stderr);
            report(&error, colour, &mut stderr.lock()).ok();
            error.exit.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("dial node")]
    struct Outer(#[source] Inner);
    #[derive(Debug, thiserror::Error)]
    #[error("no such host")]
    struct Inner;

    fn text(error: &CliError) -> String {
        let mut out = Vec::new();
        report(error, false, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn message_causes_and_hint_in_order() {
        let error = CliError::wrap("open session", &Outer(Inner)).hint("tsh ls");
        assert_eq!(
            text(&error),
            "ERROR: open session\n  dial node\n  no such host\nhint: tsh ls\n"
        );
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let error = CliError::new("host \x1b]0;owned\x07 unknown");
        assert!(!text(&error).contains('\x1b'));
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [
            ExitCode::Done,
            ExitCode::Failed,
            ExitCode::Usage,
            ExitCode::NotLoggedIn,
            ExitCode::Denied,
            ExitCode::NotFound,
            ExitCode::Remote(255),
        ]
        .map(ExitCode::code);
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 255]);
    }

    /// A connection that broke is no success.
    #[test]
    fn only_a_reader_that_is_gone_ends_quietly() {
        let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(CliError::from(gone()).reader_gone);
        let failed = CliError::wrap("ask the auth service", &gone());
        assert!(!failed.reader_gone);
        assert_eq!(
            format!("{:?}", run_main(Err(failed))),
            format!("{:?}", std::process::ExitCode::FAILURE)
        );
    }
}

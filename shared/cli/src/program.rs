//! What every client program does around its commands: parse, log, complete.

use std::ffi::OsString;

use clap::Parser;
use clap_complete::CompleteEnv;
use clap_complete::env::Shells;

use crate::error::{CliError, ExitCode};

/// Parses a command line. Help and usage errors are printed; the error is then the code to end with.
pub fn parse<C: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<C, ExitCode> {
    crate::error::end_quietly_without_reader();
    C::try_parse_from(args).map_err(|error| {
        error.print().ok();
        if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done }
    })
}

/// Answers a shell that asks for candidates through `variable`, and ends; returns when none does.
pub fn answer_shell(command: fn() -> clap::Command, variable: &'static str) {
    CompleteEnv::with_factory(command).var(variable).complete();
}

/// Prints the script that makes `program` itself the completer of its command line.
pub fn print_completion(shell: &str, program: &str, variable: &str) -> Result<ExitCode, CliError> {
    let shells = Shells::builtins();
    let shell = shells
        .completer(shell)
        .ok_or_else(|| CliError::usage(format!("unknown shell {shell:?}")))?;
    let mut script = Vec::new();
    shell.write_registration(variable, program, program, program, &mut script)?;
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(ExitCode::Done)
}

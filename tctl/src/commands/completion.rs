//! `tctl completion`: the script registers the program itself as the completer.

use clap_complete::CompleteEnv;
use clap_complete::env::Shells;
use shared_cli::{CliError, ExitCode};

/// The variable by which a shell asks for candidates.
const VARIABLE: &str = "TCTL_COMPLETE";

/// Flags of `tctl completion`.
#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    /// Shell
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

/// Answers a shell that asks for candidates, and ends; returns when none does.
pub fn answer_shell() {
    CompleteEnv::with_factory(crate::command).var(VARIABLE).complete();
}

/// Prints the script.
pub fn run(args: &CompletionArgs) -> Result<ExitCode, CliError> {
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell).ok_or_else(|| CliError::usage("unknown shell"))?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "tctl", "tctl", "tctl", &mut script)?;
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(ExitCode::Done)
}

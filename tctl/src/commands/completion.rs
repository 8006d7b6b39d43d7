//! `tctl completion`: the script registers the program itself as the completer.

use shared_cli::{CliError, ExitCode, print_completion};

/// The variable by which a shell asks for candidates.
pub const VARIABLE: &str = "TCTL_COMPLETE";

/// Flags of `tctl completion`.
#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    /// Shell
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

/// Prints the script.
pub fn run(args: &CompletionArgs) -> Result<ExitCode, CliError> {
    print_completion(&args.shell, "tctl", VARIABLE)
}

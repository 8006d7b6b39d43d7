//! `tctl version`.

use shared_cli::{CliError, ExitCode, Format, print_structured};

/// Flags of `tctl version`.
#[derive(Debug, clap::Args)]
pub struct VersionArgs {
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value_t)]
    format: Format,
}

/// Prints it.
pub fn run(args: &VersionArgs) -> Result<ExitCode, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    match args.format {
        Format::Text => println!("Gatehouse v{version}"),
        format => print_structured(&serde_json::json!({ "version": version }), format)?,
    }
    Ok(ExitCode::Done)
}

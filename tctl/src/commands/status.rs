//! `tctl status`.

use shared_cli::{CliError, ExitCode, Format, Table, print_structured, terminal_width};

use crate::connect::Connection;

/// Flags of `tctl status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value_t)]
    format: Format,
}

/// Prints cluster, version, authorities and pins.
pub async fn run(connection: &Connection, args: &StatusArgs) -> Result<ExitCode, CliError> {
    let status = connection.api.status().await.map_err(Connection::error)?;
    if args.format != Format::Text {
        print_structured(&status, args.format)?;
        return Ok(ExitCode::Done);
    }
    let mut table = Table::headless();
    table.row(["Cluster", status.cluster.as_ref()]);
    table.row(["Version", &status.version]);
    for authority in &status.authorities {
        table.row([format!("{} CA", authority.kind), authority.state.clone()]);
    }
    for pin in &status.ca_pins {
        table.row(["CA pin", pin]);
    }
    table.write(terminal_width(), &mut std::io::stdout().lock())?;
    Ok(ExitCode::Done)
}

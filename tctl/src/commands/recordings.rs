//! `tctl recordings`.

use shared_api::RecordingsQuery;
use shared_cli::{CliError, ExitCode, Format, Table, print_structured, terminal_width};

use crate::connect::Connection;

/// Flags of `tctl recordings`.
#[derive(Debug, clap::Args)]
pub struct RecordingsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List recorded sessions, newest first
    Ls {
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// Runs the verb.
pub async fn run(connection: &Connection, args: RecordingsArgs) -> Result<ExitCode, CliError> {
    let Verb::Ls { limit, format } = args.verb;
    let query = RecordingsQuery { limit: Some(limit), ..RecordingsQuery::default() };
    let ends = connection.api.recordings(&query).await.map_err(Connection::error)?;
    if format != Format::Text {
        print_structured(&ends, format)?;
        return Ok(ExitCode::Done);
    }
    let mut table = Table::new(&["ID", "Type", "Participants", "Hostname", "Timestamp"]);
    for end in &ends {
        let row = shared_events::recording_row(end);
        table.row([row.id, row.kind, row.participants, row.target, row.time]);
    }
    table.write(terminal_width(), &mut std::io::stdout().lock())?;
    Ok(ExitCode::Done)
}

//! `tctl recordings ls`.

use chrono::Utc;
use shared_api::{RecordingState, RecordingsQuery};
use shared_cli::recordings::ListArgs;
use shared_cli::{CliError, ExitCode};

use crate::connect::Connection;

/// Flags of `tctl recordings ls`.
#[derive(Debug, clap::Args)]
pub(super) struct LsArgs {
    #[command(flatten)]
    list: ListArgs,
    /// Recordings in this state only: complete, truncated, failed or uploading
    #[arg(long, value_name = "STATE")]
    state: Option<RecordingState>,
}

pub(super) async fn run(connection: &Connection, args: &LsArgs) -> Result<ExitCode, CliError> {
    let (state, args) = (args.state, &args.list);
    let (from, to) = args.range(Utc::now())?;
    let query = RecordingsQuery {
        from: Some(from),
        to: Some(to),
        limit: Some(args.limit),
        user: args.user.clone(),
        login: args.login.clone(),
        host: args.host.clone(),
        state,
    };
    let ends = connection.api.recordings(&query).await.map_err(Connection::error)?;
    args.print(&ends, "Hostname")?;
    Ok(ExitCode::Done)
}

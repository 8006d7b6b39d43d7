//! `tctl recordings rm`.

use std::io::IsTerminal;

use shared_cli::{CliError, ExitCode, Prompter};
use shared_types::SessionId;

use crate::connect::Connection;

/// Flags of `tctl recordings rm`.
#[derive(Debug, clap::Args)]
pub(super) struct RmArgs {
    /// Session ids
    #[arg(required = true)]
    sessions: Vec<SessionId>,
    /// Do not ask
    #[arg(short = 'f', long)]
    force: bool,
}

pub(super) async fn run(connection: &Connection, args: &RmArgs) -> Result<ExitCode, CliError> {
    for session in &args.sessions {
        if !args.force && std::io::stdin().is_terminal() {
            let question = format!("Remove the recording of session {session} for good?");
            match Prompter.confirm(&question) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => return Err(CliError::from_error(&error)),
            }
        }
        connection.api.remove_recording(session).await.map_err(Connection::error)?;
        println!("Recording of session {session} has been removed");
    }
    Ok(ExitCode::Done)
}

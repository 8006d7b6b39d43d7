//! `tsh recordings ls`.

use std::ffi::OsString;

use chrono::Utc;
use shared_api::RecordingsQuery;
use shared_cli::recordings::ListArgs;
use shared_cli::{CliError, ExitCode, Format};

use crate::context::{Ctx, api_error};

pub(super) async fn run(ctx: &Ctx, args: &ListArgs) -> Result<ExitCode, CliError> {
    let (from, to) = args.range(Utc::now())?;
    // All commands have a user and a login, also by variables of the environment. Those say who one
    // is; only what was typed narrows the list.
    let typed = |flag: &str| is_typed(std::env::args_os(), flag);
    let query = RecordingsQuery {
        from: Some(from),
        to: Some(to),
        limit: Some(args.limit),
        user: args.user.clone().filter(|_| typed("--user")),
        login: args.login.clone().filter(|_| typed("--login")),
        host: args.host.clone(),
        state: None,
    };
    let ends = ctx
        .api()?
        .recordings(&query)
        .await
        .map_err(|error| api_error(error).context("getting session events"))?;
    args.print(&ends, "Target")?;
    if args.format == Format::Text {
        println!();
    }
    Ok(ExitCode::Done)
}

/// Whether a flag stands behind the command.
fn is_typed(args: impl Iterator<Item = OsString>, flag: &str) -> bool {
    args.skip_while(|arg| arg != "ls").any(|arg| {
        let rest = arg.to_str().and_then(|arg| arg.strip_prefix(flag));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_behind_the_command_is_typed() {
        let typed = |line: &str| is_typed(line.split(' ').map(OsString::from), "--user");
        assert!(
            typed("tsh recordings ls --user joe") && typed("tsh recordings ls -f json --user=joe")
        );
        assert!(!typed("tsh --user=joe recordings ls") && !typed("tsh recordings ls --users=joe"));
    }
}

//! `tsh db connect`: the database's own client, through a tunnel that lives as long as it does.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use shared_cli::{CliError, ExitCode};
use shared_types::DbProtocol;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::certs::active;
use super::native::{Native, Reach, client, installed};
use super::select::{AsArgs, PickArgs, pick, reachable, route};
use super::tunnel::{Reauth, any_port, open};
use crate::context::Ctx;

/// Flags of `tsh db connect`.
#[derive(Debug, clap::Args)]
pub(super) struct ConnectArgs {
    #[command(flatten)]
    pick: PickArgs,
    #[command(flatten)]
    as_whom: AsArgs,
    /// Accepted, and without effect: there is always a tunnel
    #[arg(long, hide = true)]
    tunnel: bool,
}

/// Runs it, and ends as it does.
pub(super) async fn run(ctx: &Ctx, args: &ConnectArgs) -> Result<ExitCode, CliError> {
    let api = ctx.api()?;
    let profile = ctx.profile()?;
    let entries = reachable(ctx, &api, &args.pick.filter).await?;
    let active = active(&ctx.dir, &profile)?;
    // Without a name, the only one that the user is logged in to is meant.
    let name = match (&args.pick.database, active.as_slice()) {
        (None, [one]) if args.pick.filter.to_query() == Default::default() => {
            Some(one.route.service.as_str())
        }
        (name, _) => name.as_deref(),
    };
    let entry = pick(&entries, name, &args.pick.filter)?;
    let protocol = entry.database.spec.protocol;
    if protocol == DbProtocol::Dynamodb {
        return Err(CliError::new(
            "tsh db connect does not support DynamoDB: it has no client of its own",
        )
        .hint(format!("tsh proxy db --tunnel {}", entry.database.name())));
    }
    let former = active.iter().find(|one| one.route.service == entry.database.name());
    let route = route(entry, &args.as_whom, former.map(|one| &one.route))?;
    let stop = CancellationToken::new();
    // Taken before anything is asked for: what is typed to interrupt the client is for the client.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let reauth = Reauth::silent(ctx)?;
    let listening = open(ctx, &reauth, &route, any_port(), &stop).await?;
    let reach = Reach::Tunnel(listening.addr.port());
    let native = client(protocol, &route.user, &route.name, reach, &installed)?;
    let mut child = command(&native)?.spawn().map_err(|error| not_started(&native, &error))?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = interrupts.recv() => {}
        }
    };
    stop.cancel();
    let _ = listening.task.await;
    let status =
        status.map_err(|error| CliError::wrap(format!("wait for {}", native.program), &error))?;
    Ok(ExitCode::Remote(code(status)))
}

/// The client as a process.
pub(super) fn command(native: &Native) -> Result<Command, CliError> {
    if !installed(&native.program) {
        return Err(CliError::new(format!("the client {:?} is not installed", native.program))
            .hint("tsh proxy db --tunnel DB serves any other client"));
    }
    let mut command = Command::new(&native.program);
    command.args(&native.args).envs(native.env.iter().copied()).kill_on_drop(true);
    Ok(command)
}

pub(super) fn not_started(native: &Native, error: &std::io::Error) -> CliError {
    CliError::wrap(format!("start {}", native.program), error)
}

/// As a shell reports it: the status, or 128 and the signal.
pub(super) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    u8::try_from(code).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_client_is_told_from_one_that_ends() {
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
    }

    #[test]
    fn a_client_that_is_missing_is_named() {
        let native =
            Native { program: "no-such-client".to_owned(), args: Vec::new(), env: Vec::new() };
        assert!(command(&native).unwrap_err().message().contains("no-such-client"));
    }
}

//! `tsh db login`.

use shared_cli::{CliError, ExitCode, printable};

use super::certs::{active, issue, store};
use super::select::{AsArgs, PickArgs, pick, reachable, route};
use super::settings::local_proxy_reason;
use crate::context::Ctx;

/// Flags of `tsh db login`.
#[derive(Debug, clap::Args)]
pub(super) struct LoginArgs {
    #[command(flatten)]
    pick: PickArgs,
    #[command(flatten)]
    as_whom: AsArgs,
}

/// Gets a certificate, and tells the database's clients where it is.
pub(super) async fn run(ctx: &Ctx, args: &LoginArgs) -> Result<ExitCode, CliError> {
    let api = ctx.api()?;
    let profile = ctx.profile()?;
    let entries = reachable(ctx, &api, &args.pick.filter).await?;
    let entry = pick(&entries, args.pick.database.as_deref(), &args.pick.filter)?;
    let active = active(&ctx.dir, &profile)?;
    let former = active.iter().find(|one| one.route.service == entry.database.name());
    let route = route(entry, &args.as_whom, former.map(|one| &one.route))?;
    let issued = issue(&api, &route).await?;
    store(&ctx.dir, &profile, &route, &issued, ctx.global.insecure)?;
    let name = printable(&route.service);
    println!("\nConnection information for database \"{name}\" has been saved.\n");
    let protocol = entry.database.spec.protocol;
    if protocol != shared_types::DbProtocol::Dynamodb {
        println!("You can now connect to it using the following command:\n");
        println!("  tsh db connect {name}\n");
    }
    match local_proxy_reason(protocol, &profile) {
        None => {
            println!("Or configure your client by what this command prints:\n");
            println!("  tsh db config --format=cmd {name}\n");
        }
        Some(reason) => {
            println!("Programs of your own need a local proxy, because {reason}:\n");
            println!("  tsh proxy db --tunnel {name}\n");
        }
    }
    Ok(ExitCode::Done)
}

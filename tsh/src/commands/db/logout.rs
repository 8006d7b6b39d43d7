//! `tsh db logout`.

use shared_cli::{CliError, ExitCode, printable};

use super::certs::forget;
use super::select::{PickArgs, check_cluster, reachable};
use crate::context::{Ctx, config_error};

/// Flags of `tsh db logout`.
#[derive(Debug, clap::Args)]
pub(super) struct LogoutArgs {
    #[command(flatten)]
    pick: PickArgs,
}

/// Removes certificates and what clients were told, of one, of those that match, or of all.
pub(super) async fn run(ctx: &Ctx, args: &LogoutArgs) -> Result<ExitCode, CliError> {
    let profile = ctx.profile()?;
    check_cluster(ctx, args.pick.filter.cluster.as_deref())?;
    // Also those that have ended.
    let here = ctx.dir.databases(&profile).map_err(config_error)?;
    let filter = &args.pick.filter;
    if let Some(name) = &args.pick.database {
        if !here.contains(name) {
            return Err(CliError::with_exit(
                ExitCode::NotFound,
                format!("not logged into database {name:?}"),
            ));
        }
        forget(&ctx.dir, &profile, name)?;
        println!("Logged out of database {:?}", printable(name));
        return Ok(ExitCode::Done);
    }
    if filter.labels.is_some() || filter.query.is_some() {
        let matching = reachable(ctx, &ctx.api()?, filter).await?;
        for entry in
            matching.iter().filter(|entry| here.iter().any(|name| name == entry.database.name()))
        {
            forget(&ctx.dir, &profile, entry.database.name())?;
            println!("Logged out of database {:?}", printable(entry.database.name()));
        }
        return Ok(ExitCode::Done);
    }
    for name in &here {
        forget(&ctx.dir, &profile, name)?;
    }
    println!("Logged out of all databases");
    Ok(ExitCode::Done)
}

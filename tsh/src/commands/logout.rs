//! `tsh logout`.

use shared_cli::{CliError, ExitCode, printable};

use crate::context::{Ctx, config_error};

/// Flags of `tsh logout`; `--proxy` and `--user` choose one profile.
#[derive(Debug, clap::Args)]
pub struct LogoutArgs {}

/// Removes keys, certificates and agent entries.
pub async fn run(ctx: &Ctx, _args: &LogoutArgs) -> Result<ExitCode, CliError> {
    match (&ctx.global.proxy, &ctx.global.user) {
        (None, Some(_)) => {
            Err(CliError::usage("--user without --proxy").hint("give --proxy too, or drop --user"))
        }
        (None, None) => {
            let profiles = ctx.dir.profiles().map_err(config_error)?;
            if profiles.is_empty() {
                println!("All users logged out.");
                return Ok(ExitCode::Done);
            }
            for profile in &profiles {
                ctx.forget(profile).await?;
            }
            println!("Logged out all users from all proxies.");
            Ok(ExitCode::Done)
        }
        (Some(proxy), user) => {
            let proxy: crate::ping::ProxyAddr = proxy.parse()?;
            let profile = ctx.dir.load(&proxy.host).map_err(config_error)?;
            let wanted = user.as_deref();
            match profile.filter(|profile| wanted.is_none_or(|user| profile.user.as_ref() == user))
            {
                Some(profile) => {
                    ctx.forget(&profile).await?;
                    println!(
                        "Logged out {} from {}.",
                        printable(profile.user.as_ref()),
                        printable(&proxy.host)
                    );
                    Ok(ExitCode::Done)
                }
                None => Err(CliError::new(format!(
                    "User {} already logged out from {}.",
                    wanted.unwrap_or("?"),
                    proxy.host
                ))),
            }
        }
    }
}

//! `tsh status`.

use chrono::{DateTime, Utc};
use shared_cli::{CliError, ExitCode, Format, print_structured, printable};
use shared_config::Profile;
use shared_types::GoDuration;

use crate::context::{Ctx, config_error};

/// Flags of `tsh status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value_t)]
    format: Format,
}

/// Prints every profile, the active one first.
pub fn run(ctx: &Ctx, args: &StatusArgs) -> Result<ExitCode, CliError> {
    let current = ctx.current_profile()?;
    let profiles = ctx.dir.profiles().map_err(config_error)?;
    let not_logged_in = || {
        CliError::with_exit(ExitCode::NotLoggedIn, "Not logged in.").hint("tsh login --proxy=HOST")
    };
    let Some(current) = current else { return Err(not_logged_in()) };
    let others: Vec<&Profile> =
        profiles.iter().filter(|profile| profile.name() != current.name()).collect();
    let expired =
        ctx.login_of(&current)?.is_none_or(|login| login.identity.valid_until <= Utc::now());
    if args.format != Format::Text {
        let value = serde_json::json!({
            "active": describe(ctx, &current)?,
            "profiles": others.iter().map(|profile| describe(ctx, profile)).collect::<Result<Vec<_>, _>>()?,
        });
        print_structured(&value, args.format)?;
    } else {
        print_profile(ctx, &current, true)?;
        for profile in others {
            print_profile(ctx, profile, false)?;
        }
    }
    if expired {
        return Err(
            CliError::with_exit(ExitCode::NotLoggedIn, "Active profile expired.").hint("tsh login")
        );
    }
    Ok(ExitCode::Done)
}

fn describe(ctx: &Ctx, profile: &Profile) -> Result<serde_json::Value, CliError> {
    let mut value = serde_json::json!({
        "profile_url": format!("https://{}", profile.web_proxy_addr),
        "username": profile.user,
        "cluster": profile.cluster,
        "kubernetes_enabled": false,
    });
    if let Some(login) = ctx.login_of(profile)? {
        value["roles"] = serde_json::json!(login.identity.roles);
        value["logins"] = serde_json::json!(login.logins());
        value["traits"] = serde_json::json!(login.identity.traits);
        value["valid_until"] = serde_json::json!(login.identity.valid_until);
        value["databases"] = serde_json::json!(databases(ctx, profile)?);
        value["extensions"] = serde_json::json!(login.extensions());
    }
    Ok(value)
}

/// One profile as a block of lines, values from column 23.
pub fn print_profile(ctx: &Ctx, profile: &Profile, active: bool) -> Result<(), CliError> {
    let mut first = active;
    let mut line = |label: &str, value: &str| {
        println!(
            "{} {:<20}{}",
            if first { ">" } else { " " },
            format!("{label}:"),
            printable(value)
        );
        first = false;
    };
    line("Profile URL", &format!("https://{}", profile.web_proxy_addr));
    line("Logged in as", profile.user.as_ref());
    line("Cluster", profile.cluster.as_ref());
    if let Some(login) = ctx.login_of(profile)? {
        let mut roles: Vec<&str> = login.identity.roles.iter().map(AsRef::as_ref).collect();
        roles.sort_unstable();
        line("Roles", &roles.join(", "));
        if !login.logins().is_empty() {
            line("Logins", &login.logins().join(", "));
        }
        line("Kubernetes", "disabled");
        let databases = databases(ctx, profile)?;
        if !databases.is_empty() {
            line("Databases", &databases.join(", "));
        }
        line("Valid until", &validity(login.identity.valid_until, Utc::now()));
        line("Extensions", &login.extensions().join(", "));
    }
    println!();
    Ok(())
}

/// The databases that the user is logged in to.
fn databases(ctx: &Ctx, profile: &Profile) -> Result<Vec<String>, CliError> {
    let active = crate::commands::db::active(&ctx.dir, profile)?;
    Ok(active.into_iter().map(|one| one.route.service).collect())
}

/// The end, and what is left of it.
fn validity(until: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let left = (until - now).num_seconds();
    let note = match left {
        ..=0 => "EXPIRED".to_owned(),
        1..60 => "valid for <1m".to_owned(),
        _ => {
            let minutes = u64::try_from(left).unwrap_or(0) / 60 * 60;
            let shown = GoDuration::from_secs(minutes).to_string();
            format!(
                "valid for {}",
                shown.trim_end_matches("0s").trim_end_matches("h0m").to_owned()
                    + if shown.ends_with("h0m0s") { "h" } else { "" }
            )
        }
    };
    format!("{} [{note}]", until.format("%Y-%m-%d %H:%M:%S +0000 UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_trimmed_to_units() {
        let now = DateTime::<Utc>::UNIX_EPOCH;
        let at = |seconds: i64| validity(now + chrono::Duration::seconds(seconds), now);
        assert!(at(0).ends_with("[EXPIRED]"));
        assert!(at(59).ends_with("[valid for <1m]"));
        assert!(at(12 * 3600 - 1).ends_with("[valid for 11h59m]"), "{}", at(12 * 3600 - 1));
        assert!(at(12 * 3600).ends_with("[valid for 12h]"), "{}", at(12 * 3600));
    }
}

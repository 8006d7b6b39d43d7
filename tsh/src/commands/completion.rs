//! `tsh completion`: the script registers the program itself as the completer, so hosts and logins
//! are completed live, from the profile and a cache of host names, with no network and no prompt.

use clap_complete::engine::CompletionCandidate;
use shared_cli::{CliError, ExitCode, print_completion};

use crate::GlobalArgs;
use crate::context::Ctx;

/// The variable by which a shell asks for candidates.
pub const VARIABLE: &str = "TSH_COMPLETE";

/// Flags of `tsh completion`.
#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    /// Shell
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

/// Prints the script.
pub fn run(args: &CompletionArgs) -> Result<ExitCode, CliError> {
    print_completion(&args.shell, "tsh", VARIABLE)
}

fn context() -> Option<Ctx> {
    Ctx::new(GlobalArgs {
        home: std::env::var_os("TELEPORT_HOME").map(Into::into),
        ..GlobalArgs::default()
    })
    .ok()
}

fn known_logins(ctx: &Ctx) -> Vec<String> {
    let logins = ctx.login().map(|login| login.logins()).unwrap_or_default();
    // The placeholder of a role without logins is no login anybody types.
    logins.into_iter().filter(|login| !login.starts_with("no-login-")).collect()
}

fn starting(values: Vec<String>, typed: &str) -> Vec<CompletionCandidate> {
    values
        .into_iter()
        .filter(|value| value.starts_with(typed))
        .map(CompletionCandidate::new)
        .collect()
}

/// Logins in the certificate.
pub(crate) fn logins(typed: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
    let values = context().map(|ctx| known_logins(&ctx)).unwrap_or_default();
    starting(values, &typed.to_string_lossy())
}

/// Databases, as the last listing showed them.
pub(crate) fn databases(typed: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
    let values = context().map(|ctx| ctx.remembered_databases()).unwrap_or_default();
    starting(values, &typed.to_string_lossy())
}

/// `host`, `login@host` once a login is typed, and logins to begin with.
pub(crate) fn targets(typed: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
    let Some(ctx) = context() else { return Vec::new() };
    let typed = typed.to_string_lossy();
    let hosts = ctx.remembered_hosts();
    let values = match typed.split_once('@') {
        Some((login, _)) => hosts.iter().map(|host| format!("{login}@{host}")).collect(),
        None => {
            let mut values = hosts;
            values.extend(known_logins(&ctx).into_iter().map(|login| login + "@"));
            values
        }
    };
    starting(values, &typed)
}

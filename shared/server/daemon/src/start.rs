//! `teleport start`: flags over environment over file over defaults, then the services.

use std::path::{Path, PathBuf};

use shared_cli::{CliError, ExitCode};
use shared_config::{ConfigError, JoinToken, TeleportConfig};

use crate::cli::{Role, StartArgs};
use crate::data_dir::DataDir;
use crate::services::{self, RunError};
use crate::signals::Shutdown;

/// Read when it exists and no other file is named.
pub(crate) const USUAL_CONFIG: &str = "/etc/teleport.yaml";
/// Where state is kept without a file and flag.
const USUAL_DATA_DIR: &str = "/var/lib/teleport";
/// How long what is still running has after the second signal, to leave the disk in order.
const LAST: std::time::Duration = std::time::Duration::from_secs(2);

pub(crate) fn run(args: StartArgs) -> Result<ExitCode, CliError> {
    let config = configuration(&args)?;
    crate::logging::init(&config.log, args.debug)?;
    shared_transport::install_crypto();
    let dir = DataDir::open(&config.data_dir).map_err(|error| CliError::from_error(&error))?;
    if let Some(path) = &config.pid_file {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| CliError::wrap(format!("write {}", path.display()), &error))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("teleport")
        .build()
        .map_err(|error| CliError::wrap("start the runtime", &error))?;
    crate::ready::withdraw(&dir);
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::on_signals()?;
        let now = shutdown.now.clone();
        tokio::select! {
            biased;
            () = now.cancelled() => Err(CliError::new("ended before everything had finished")),
            done = services::run(&config, &dir, &shutdown) => done.map_err(shown),
        }
    });
    crate::ready::withdraw(&dir);
    if let Some(path) = &config.pid_file {
        std::fs::remove_file(path).ok();
    }
    runtime.shutdown_timeout(LAST);
    outcome.map(|()| ExitCode::Done)
}

fn shown(error: RunError) -> CliError {
    let hint = error.hint();
    let shown = CliError::from_error(&error);
    match hint {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}

fn configuration(args: &StartArgs) -> Result<TeleportConfig, CliError> {
    let mut config = match &args.config {
        Some(path) => load(path)?,
        None if Path::new(USUAL_CONFIG).is_file() => load(Path::new(USUAL_CONFIG))?,
        None => TeleportConfig::all_in_one(Path::new(USUAL_DATA_DIR))
            .map_err(|error| shown_config(&error))?,
    };
    if let Some(dir) = &args.data_dir {
        config.data_dir = dir.clone();
    }
    if let Some(path) = &args.pid_file {
        config.pid_file = Some(path.clone());
    }
    if let Some(token) = &args.token {
        let file = token.starts_with('/');
        config.auth_token = Some(if file {
            JoinToken::File(PathBuf::from(token))
        } else {
            JoinToken::Value(token.clone())
        });
    }
    if let Some(addr) = &args.auth_server {
        config.auth_servers = vec![addr.clone()];
    }
    if !args.ca_pin.is_empty() {
        config.ca_pins = args.ca_pin.clone();
    }
    choose_roles(&mut config, &args.roles)?;
    Ok(config)
}

/// Leaves only what `--roles` names; what it names has to be configured.
fn choose_roles(config: &mut TeleportConfig, roles: &[Role]) -> Result<(), CliError> {
    if roles.is_empty() {
        return Ok(());
    }
    for (role, there, name) in [
        (Role::Auth, config.auth.is_some(), "auth"),
        (Role::Proxy, config.proxy.is_some(), "proxy"),
    ] {
        if roles.contains(&role) && !there {
            return Err(CliError::usage(format!(
                "--roles names {name}, but {name}_service is not enabled"
            )));
        }
    }
    if !roles.contains(&Role::Auth) {
        config.auth = None;
    }
    if !roles.contains(&Role::Proxy) {
        config.proxy = None;
    }
    if config.auth.is_none() && config.auth_servers.is_empty() {
        return Err(CliError::usage(
            "a proxy without the auth service needs --auth-server or teleport.auth_server",
        ));
    }
    Ok(())
}

fn load(path: &Path) -> Result<TeleportConfig, CliError> {
    TeleportConfig::load(path).map_err(|error| shown_config(&error))
}

fn shown_config(error: &ConfigError) -> CliError {
    CliError::from_error(error).exit(ExitCode::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> TeleportConfig {
        TeleportConfig::parse(text, "t").unwrap()
    }

    #[test]
    fn roles_narrow_what_is_configured() {
        let mut both = config("version: v3\n");
        choose_roles(&mut both, &[Role::Auth]).unwrap();
        assert!(both.auth.is_some() && both.proxy.is_none());
        let mut both = config("version: v3\n");
        assert!(choose_roles(&mut both, &[Role::Proxy]).is_err(), "no auth service to join");
        let mut auth = config("proxy_service:\n  enabled: no\n");
        assert!(choose_roles(&mut auth, &[Role::Proxy]).is_err(), "not configured");
    }
}

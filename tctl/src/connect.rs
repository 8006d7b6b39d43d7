//! How `tctl` reaches the auth service, and as whom: the local admin identity of an auth host, or
//! the profile of the user who is logged in.

use std::path::{Path, PathBuf};

use shared_api::{
    Client, ClientConfig, ClientError, ErrorKind, LocalAdmin, LocalAdminError, Route, StoredLogin,
};
use shared_cli::{CliError, ExitCode};
use shared_config::{ProfileDir, TeleportConfig};

use crate::GlobalArgs;

/// Where the configuration of an auth host usually is.
const USUAL_CONFIG: &str = "/etc/teleport.yaml";

/// A connection to the auth service.
#[derive(Debug)]
pub struct Connection {
    /// The API.
    pub api: Client,
    /// The proxy, as far as the credentials name one.
    pub proxy: Option<String>,
}

impl Connection {
    /// Chooses the credentials; connects with the first call.
    pub async fn open(global: &GlobalArgs) -> Result<Self, CliError> {
        if let Some(path) = &global.identity {
            return Err(CliError::usage(format!(
                "{}: identity files are not supported yet",
                path.display()
            ))
            .hint("log in with tsh, or run tctl on the auth host"));
        }
        match local(global)? {
            Some((admin, proxy)) => {
                let mut config = admin.client_config();
                if let Some(addr) = &global.auth_server {
                    config.route = Route::Direct { addr: addr.clone() };
                }
                Ok(Self { api: client(config)?, proxy })
            }
            None => profile(global),
        }
    }

    /// What a failed call means to a person.
    pub fn error(error: ClientError) -> CliError {
        let exit = match error.kind() {
            ErrorKind::BadRequest => ExitCode::Failed,
            ErrorKind::Unauthenticated => ExitCode::NotLoggedIn,
            ErrorKind::Denied | ErrorKind::Locked => ExitCode::Denied,
            ErrorKind::NotFound => ExitCode::NotFound,
            _ => ExitCode::Failed,
        };
        let shown = CliError::from_error(&error).exit(exit);
        match error.hint() {
            Some(hint) => shown.hint(hint),
            None => shown,
        }
    }
}

fn client(config: ClientConfig) -> Result<Client, CliError> {
    Client::new(config).map_err(Connection::error)
}

/// The identity in a data directory of this host, with the proxy its configuration names.
fn local(global: &GlobalArgs) -> Result<Option<(LocalAdmin, Option<String>)>, CliError> {
    let (data_dir, proxy, asked): (PathBuf, Option<String>, bool) =
        match (&global.data_dir, &global.config) {
            (Some(dir), _) => (dir.clone(), None, true),
            (None, Some(path)) => {
                let config = load(path)?;
                if config.auth.is_none() {
                    return Err(CliError::usage(format!(
                        "{}: auth_service is not enabled there",
                        path.display()
                    ))
                    .hint("log in with tsh, or run tctl on the auth host"));
                }
                let proxy = proxy_of(&config);
                (config.data_dir, proxy, true)
            }
            (None, None) if Path::new(USUAL_CONFIG).is_file() => {
                match load(Path::new(USUAL_CONFIG)) {
                    Ok(config) if config.auth.is_some() => {
                        let proxy = proxy_of(&config);
                        (config.data_dir, proxy, false)
                    }
                    // Another user's file that cannot be read says nothing about whom we are logged in as.
                    _ => return Ok(None),
                }
            }
            (None, None) => return Ok(None),
        };
    match LocalAdmin::load(&data_dir) {
        Ok(admin) => Ok(Some((admin, proxy))),
        Err(LocalAdminError::Io { .. }) if !asked => Ok(None),
        Err(error) => Err(CliError::from_error(&error)
            .hint("run tctl as the user that runs the auth service, after its first start, or log in with tsh")),
    }
}

fn load(path: &Path) -> Result<TeleportConfig, CliError> {
    TeleportConfig::load(path).map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))
}

fn proxy_of(config: &TeleportConfig) -> Option<String> {
    let proxy = config.proxy.as_ref()?;
    proxy.public_addr.first().map(ToString::to_string)
}

/// The user who is logged in on this machine.
fn profile(global: &GlobalArgs) -> Result<Connection, CliError> {
    let not_logged_in = || {
        CliError::with_exit(ExitCode::NotLoggedIn, "Not logged in.")
            .hint("tsh login --proxy=HOST, or run tctl on the auth host")
    };
    let dir = ProfileDir::from_env().map_err(|error| CliError::from_error(&error))?;
    let profile =
        dir.current().map_err(|error| CliError::from_error(&error))?.ok_or_else(not_logged_in)?;
    let login = StoredLogin::load(&dir, &profile)
        .map_err(|error| CliError::from_error(&error))?
        .ok_or_else(not_logged_in)?;
    let mut config = login.client_config(&profile);
    if let Some(addr) = &global.auth_server {
        config.route = Route::Direct { addr: addr.clone() };
    }
    let proxy = Some(profile.web_proxy_addr.clone());
    Ok(Connection { api: client(config)?, proxy })
}

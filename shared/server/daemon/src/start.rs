//! `teleport start`: flags over environment over file over defaults, then the services.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use shared_cli::{CliError, ExitCode};
use shared_config::{ConfigError, JoinToken, TeleportConfig};
use shared_types::{HostName, Labels, parse_labels};

use crate::cli::{DbStartArgs, Role, StartArgs};
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
    start(&config, args.debug)
}

/// `teleport db start`.
pub(crate) fn run_db(args: DbStartArgs) -> Result<ExitCode, CliError> {
    let config = db_configuration(&args)?;
    start(&config, args.start.debug)
}

fn start(config: &TeleportConfig, debug: bool) -> Result<ExitCode, CliError> {
    crate::logging::init(&config.log, debug)?;
    shared_transport::install_crypto();
    allow_descriptors();
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
            done = services::run(config, &dir, &shutdown) => done.map_err(shown),
        }
    });
    crate::ready::withdraw(&dir);
    if let Some(path) = &config.pid_file {
        std::fs::remove_file(path).ok();
    }
    runtime.shutdown_timeout(LAST);
    outcome.map(|()| ExitCode::Done)
}

/// Takes as many descriptors as the system lets us have: each connection is one, and the usual limit is an old one for
/// programs that cannot count beyond 1024. Programs of logins get that one back.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
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
    let file = match &args.config {
        Some(path) => Some(load(path)?),
        None if Path::new(USUAL_CONFIG).is_file() => Some(load(Path::new(USUAL_CONFIG))?),
        None => None,
    };
    let mut config = match file {
        Some(mut config) => {
            overrule(&mut config, args)?;
            choose_roles(&mut config, &args.roles)?;
            config
        }
        None => from_flags(args)?,
    };
    set_paths(&mut config, args);
    Ok(config)
}

/// The configuration of an agent in front of the database that the flags name, or of those in its file.
fn db_configuration(args: &DbStartArgs) -> Result<TeleportConfig, CliError> {
    let mut start = args.start.clone();
    start.roles = vec![Role::Db];
    let Some(name) = &args.name else {
        if start.config.is_none() && !Path::new(USUAL_CONFIG).is_file() {
            return Err(CliError::usage("--name, --protocol and --uri say which database it is"));
        }
        return configuration(&start);
    };
    if args.start.config.is_some() {
        return Err(CliError::usage(
            "--name stands beside --config; write the database into the file's db_service.databases",
        ));
    }
    let mut database = json!({"name": name, "protocol": args.protocol, "uri": args.uri});
    for (key, value) in [("description", &args.description), ("ca_cert_file", &args.ca_cert)] {
        if let Some(value) = value {
            database[key] = json!(value);
        }
    }
    // Labels of the flags are the database's.
    if let Some(labels) = labels(&start)? {
        database["static_labels"] = json!(labels);
        start.labels = None;
    }
    let mut file = file_of_flags(&start)?;
    file["db_service"]["databases"] = json!([database]);
    let mut config = parsed(&file)?;
    set_paths(&mut config, &start);
    Ok(config)
}

fn set_paths(config: &mut TeleportConfig, args: &StartArgs) {
    if let Some(dir) = &args.data_dir {
        config.data_dir = dir.clone();
    }
    if let Some(path) = &args.pid_file {
        config.pid_file = Some(path.clone());
    }
}

/// A configuration out of flags alone: as a file that says the same.
fn from_flags(args: &StartArgs) -> Result<TeleportConfig, CliError> {
    parsed(&file_of_flags(args)?)
}

fn parsed(file: &Value) -> Result<TeleportConfig, CliError> {
    TeleportConfig::parse(&file.to_string(), "command line").map_err(|error| shown_config(&error))
}

fn file_of_flags(args: &StartArgs) -> Result<Value, CliError> {
    let usual = [Role::Auth, Role::Proxy];
    let roles = if args.roles.is_empty() { &usual } else { args.roles.as_slice() };
    let on = |role| json!({"enabled": roles.contains(&role)});
    let mut ssh = on(Role::Node);
    if let Some(labels) = labels(args)? {
        ssh["labels"] = json!(labels);
    }
    let mut global = json!({"data_dir": USUAL_DATA_DIR});
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            global[key] = value;
        }
    };
    let several = |list: &[String]| (!list.is_empty()).then(|| json!(list));
    set("auth_token", args.token.as_ref().map(|token| json!(token)));
    set("auth_servers", several(&args.auth_server));
    set("proxy_server", args.proxy_server.as_ref().map(|addr| json!(addr)));
    set("ca_pin", several(&args.ca_pin));
    set("nodename", args.nodename.as_ref().map(|name| json!(name)));
    set("advertise_ip", args.advertise_ip.as_ref().map(|addr| json!(addr)));
    Ok(json!({
        "version": "v1",
        "teleport": global,
        "auth_service": on(Role::Auth),
        "proxy_service": on(Role::Proxy),
        "ssh_service": ssh,
        "db_service": on(Role::Db),
    }))
}

fn labels(args: &StartArgs) -> Result<Option<Labels>, CliError> {
    let parsed = args.labels.as_deref().map(parse_labels).transpose();
    parsed.map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))
}

/// Flags beat the file.
fn overrule(config: &mut TeleportConfig, args: &StartArgs) -> Result<(), CliError> {
    if let Some(token) = &args.token {
        let file = token.starts_with('/');
        config.auth_token = Some(if file {
            JoinToken::File(PathBuf::from(token))
        } else {
            JoinToken::Value(token.clone())
        });
    }
    if !args.auth_server.is_empty() {
        config.auth_servers = args.auth_server.clone();
        config.proxy_server = None;
    }
    if let Some(addr) = &args.proxy_server {
        config.proxy_server = Some(addr.clone());
        config.auth_servers.clear();
    }
    if !args.ca_pin.is_empty() {
        config.ca_pins = args.ca_pin.clone();
    }
    if let Some(name) = &args.nodename {
        let name = HostName::new(name.as_str());
        let name = name.map_err(|error| CliError::usage(format!("--nodename: {error}")))?;
        config.nodename = Some(name.to_string());
    }
    if let Some(addr) = &args.advertise_ip {
        let addr = HostName::new(addr.as_str());
        let addr = addr.map_err(|error| CliError::usage(format!("--advertise-ip: {error}")))?;
        config.advertise_ip = Some(addr.to_string());
    }
    if let (Some(labels), Some(ssh)) = (labels(args)?, &mut config.ssh) {
        ssh.labels.extend(labels);
    }
    Ok(())
}

/// Leaves only what `--roles` names; what it names has to be configured.
fn choose_roles(config: &mut TeleportConfig, roles: &[Role]) -> Result<(), CliError> {
    if roles.is_empty() {
        return Ok(());
    }
    for (role, there, name, service) in [
        (Role::Auth, config.auth.is_some(), "auth", "auth_service"),
        (Role::Proxy, config.proxy.is_some(), "proxy", "proxy_service"),
        (Role::Node, config.ssh.is_some(), "node", "ssh_service"),
        (Role::Db, config.db.is_some(), "db", "db_service"),
    ] {
        if roles.contains(&role) && !there {
            return Err(CliError::usage(format!(
                "--roles names {name}, but {service} is not enabled in the configuration file"
            )));
        }
    }
    if !roles.contains(&Role::Auth) {
        config.auth = None;
    }
    if !roles.contains(&Role::Proxy) {
        config.proxy = None;
    }
    if !roles.contains(&Role::Node) {
        config.ssh = None;
    }
    if !roles.contains(&Role::Db) {
        config.db = None;
    }
    if config.auth.is_none() && config.auth_servers.is_empty() {
        if config.proxy.is_some() {
            return Err(CliError::usage(
                "a proxy without the auth service needs --auth-server or teleport.auth_server",
            ));
        }
        if config.proxy_server.is_none() {
            return Err(CliError::usage(
                "a node without the auth service needs --auth-server or --proxy-server",
            ));
        }
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

    fn flags(line: &str) -> StartArgs {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            start: StartArgs,
        }
        let words = std::iter::once("teleport").chain(line.split_whitespace());
        <Flags as clap::Parser>::try_parse_from(words).unwrap().start
    }

    #[test]
    fn a_node_joins_by_flags_alone() {
        let args = flags(
            "--roles=node --token=/etc/token --ca-pin=sha256:ab --auth-server=auth.example.test --nodename=db-1 --labels=env=prod,team=a",
        );
        let config = from_flags(&args).unwrap();
        assert!(config.auth.is_none() && config.proxy.is_none());
        assert_eq!(config.ssh.unwrap().labels["env"], "prod");
        assert_eq!(config.auth_servers, ["auth.example.test:3025"]);
        assert_eq!(config.nodename.as_deref(), Some("db-1"));
        assert_eq!(config.auth_token, Some(JoinToken::File("/etc/token".into())));
        let config = from_flags(&flags("--roles=node --proxy-server=p.example.test")).unwrap();
        assert_eq!(config.proxy_server.as_deref(), Some("p.example.test:3080"));
        assert!(from_flags(&flags("--roles=node")).is_err(), "nowhere to join");
        assert!(from_flags(&flags("--roles=node --auth-server=a --labels=x")).is_err());
        let usual = from_flags(&flags("")).unwrap();
        assert!(usual.auth.is_some() && usual.proxy.is_some() && usual.ssh.is_none());
    }

    #[test]
    fn an_agent_in_front_of_a_database_starts_by_flags_alone() {
        let db = |line: &str| {
            #[derive(clap::Parser)]
            struct Flags {
                #[command(flatten)]
                start: DbStartArgs,
            }
            let words = std::iter::once("teleport").chain(line.split_whitespace());
            let flags = <Flags as clap::Parser>::try_parse_from(words).map_err(|e| e.to_string());
            db_configuration(&flags?.start).map_err(|error| format!("{error:?}"))
        };
        let join = "--token=/etc/token --proxy-server=p.example.test --data-dir=/srv/d";
        let config = db(&format!(
            "--name=orders --protocol=postgres --uri=pg.test:5432 --labels=env=prod --ca-cert=/ca.pem {join}"
        ));
        let config = config.unwrap();
        assert!(config.auth.is_none() && config.proxy.is_none() && config.ssh.is_none());
        assert_eq!(config.data_dir, Path::new("/srv/d"));
        let orders = &config.db.unwrap().databases[0];
        assert_eq!(orders.database.metadata.labels["env"], "prod");
        assert_eq!(orders.ca_cert_file.as_deref(), Some(Path::new("/ca.pem")));
        assert!(db(&format!("--name=orders --protocol=db2 --uri=a:1 {join}")).is_err());
        assert!(db(&format!("--protocol=mysql {join}")).is_err(), "of which database?");
        let config = from_flags(&flags(&format!("--roles=db {join}"))).unwrap();
        assert!(config.db.is_some() && config.ssh.is_none());
        assert!(from_flags(&flags("--roles=db")).is_err(), "nowhere to join");
    }

    #[test]
    fn flags_beat_the_file() {
        let mut file = config(
            "teleport:\n  auth_server: a.example.test\nauth_service:\n  enabled: no\nproxy_service:\n  enabled: no\nssh_service:\n  enabled: yes\n  labels: {env: dev, os: linux}\n",
        );
        overrule(&mut file, &flags("--proxy-server=p.example.test:443 --labels=env=prod")).unwrap();
        assert_eq!(file.proxy_server.as_deref(), Some("p.example.test:443"));
        assert!(file.auth_servers.is_empty());
        let labels = file.ssh.unwrap().labels;
        assert_eq!((labels["env"].as_str(), labels["os"].as_str()), ("prod", "linux"));
    }
}

//! `teleport configure`: print a commented configuration, or test one.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shared_cli::{CliError, ExitCode, printable};
use shared_config::{TeleportConfig, default_file};
use shared_types::parse_labels;

use crate::cli::{ConfigureArgs, JoinArgs, NodeConfigureArgs, Role};
use crate::start::USUAL_CONFIG;

pub(crate) fn run(args: ConfigureArgs) -> Result<ExitCode, CliError> {
    match &args.test {
        Some(path) => test(path),
        None => {
            let output = args.output.clone();
            write(&filled(default_file(), &Wanted::from(args))?, &output)
        }
    }
}

fn test(path: &Path) -> Result<ExitCode, CliError> {
    let shown = path.display().to_string();
    match TeleportConfig::load(path) {
        Ok(_) => {
            eprintln!("OK {}", printable(&shown));
            Ok(ExitCode::Done)
        }
        Err(error) => {
            eprintln!("FAIL {}", printable(&shown));
            Err(CliError::from_error(&error).exit(ExitCode::Usage))
        }
    }
}

/// `teleport node configure`.
pub(crate) fn run_node(args: NodeConfigureArgs) -> Result<ExitCode, CliError> {
    let wanted = Wanted {
        version: args.version,
        roles: vec![Role::Node],
        node_addr: args.public_addr,
        data_dir: args.data_dir,
        join: args.join,
        ..Wanted::default()
    };
    write(&filled(default_file(), &wanted)?, &args.output)
}

/// What a new file says other than its template.
#[derive(Debug, Default)]
struct Wanted {
    version: String,
    roles: Vec<Role>,
    cluster_name: Option<String>,
    public_addr: Option<String>,
    node_addr: Option<String>,
    data_dir: Option<PathBuf>,
    join: JoinArgs,
}

fn write(text: &str, output: &str) -> Result<ExitCode, CliError> {
    let path = match output {
        "stdout" => {
            std::io::stdout().write_all(text.as_bytes())?;
            return Ok(ExitCode::Done);
        }
        "file" => PathBuf::from(USUAL_CONFIG),
        other => match other.strip_prefix("file://") {
            Some(path) if path.starts_with('/') => PathBuf::from(path),
            _ => return Err(CliError::usage("--output is stdout, file, or file:///PATH")),
        },
    };
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        let shown = CliError::wrap(format!("write {}", path.display()), &error);
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            shown.hint("move the old file away first")
        } else {
            shown
        }
    })?;
    eprintln!("Wrote config to file {:?}. Now you can start the server: teleport start", path);
    Ok(ExitCode::Done)
}

impl From<ConfigureArgs> for Wanted {
    fn from(args: ConfigureArgs) -> Self {
        Self {
            version: args.version,
            roles: args.roles,
            cluster_name: args.cluster_name,
            public_addr: args.public_addr,
            node_addr: None,
            data_dir: args.data_dir,
            join: args.join,
        }
    }
}

impl Wanted {
    /// Sections, keys and values to write in place of what the template has.
    fn keys(&self) -> Result<Vec<(&'static str, &'static str, Value)>, CliError> {
        let join = &self.join;
        let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
        let data_dir = self.data_dir.as_ref().map(|path| json!(path.display().to_string()));
        let pins = (!join.ca_pin.is_empty()).then(|| json!(join.ca_pin));
        let method = join.join_method.as_deref().unwrap_or("token");
        let params =
            join.token.as_ref().map(|token| json!({"method": method, "token_name": token}));
        let labels = join.node_labels.as_deref().map(parse_labels).transpose();
        let labels = labels.map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?;
        let mut keys = vec![
            ("auth_service:", "cluster_name:", text(&self.cluster_name)),
            ("proxy_service:", "public_addr:", text(&self.public_addr)),
            ("ssh_service:", "public_addr:", text(&self.node_addr)),
            ("ssh_service:", "labels:", labels.map(|labels| json!(labels))),
            ("teleport:", "data_dir:", data_dir),
            ("teleport:", "nodename:", text(&join.node_name)),
            ("teleport:", "join_params:", params),
            ("teleport:", "auth_server:", text(&join.auth_server)),
            ("teleport:", "proxy_server:", text(&join.proxy)),
            ("teleport:", "ca_pin:", pins),
        ];
        if !self.roles.is_empty() {
            for (section, role) in [
                ("auth_service:", Role::Auth),
                ("proxy_service:", Role::Proxy),
                ("ssh_service:", Role::Node),
                ("db_service:", Role::Db),
            ] {
                keys.push((section, "enabled:", Some(json!(self.roles.contains(&role)))));
            }
        }
        let given = keys.into_iter();
        Ok(given.filter_map(|(section, key, value)| Some((section, key, value?))).collect())
    }
}

/// The commented file with what was given in place of its example or default.
fn filled(text: &str, wanted: &Wanted) -> Result<String, CliError> {
    let keys = wanted.keys()?;
    let mut out = String::with_capacity(text.len());
    let mut section = "";
    for line in text.lines() {
        if !line.starts_with([' ', '#']) {
            section = line.trim();
        }
        let key = line.trim_start().trim_start_matches("# ");
        // Keys of the section itself; those below them are further in.
        let own = line.trim_start_matches("  # ").len() == line.len().saturating_sub(4)
            || line.strip_prefix("  ").is_some_and(|rest| !rest.starts_with([' ', '#']));
        let found =
            keys.iter().find(|(of, name, _)| own && *of == section && key.starts_with(name));
        match found {
            Some((_, name, value)) => {
                // JSON is YAML, so nothing in a value can become structure.
                let _ = writeln!(out, "  {name} {value}");
            }
            None if line.starts_with("version:") && !wanted.version.is_empty() => {
                let _ = writeln!(out, "version: {}", wanted.version);
            }
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    TeleportConfig::parse(&out, "configuration")
        .map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_land_in_their_keys() {
        let wanted = Wanted {
            cluster_name: Some("example.test".to_owned()),
            public_addr: Some("gate.example.test:443".to_owned()),
            data_dir: Some("/srv/t".into()),
            ..Wanted::default()
        };
        let text = filled(default_file(), &wanted).unwrap();
        let config = TeleportConfig::parse(&text, "t").unwrap();
        assert_eq!(config.auth.unwrap().cluster_name.as_deref(), Some("example.test"));
        assert_eq!(config.proxy.unwrap().public_addr, ["gate.example.test:443"]);
        assert_eq!(config.data_dir, PathBuf::from("/srv/t"));
    }

    #[test]
    fn a_node_is_configured_by_flags() {
        let join = JoinArgs {
            token: Some("/etc/token".to_owned()),
            proxy: Some("gate.example.test:443".to_owned()),
            ca_pin: vec!["sha256:ab".to_owned()],
            node_name: Some("db-1".to_owned()),
            node_labels: Some("env=prod,note=\"a: b\"".to_owned()),
            ..JoinArgs::default()
        };
        let roles = vec![Role::Node];
        let wanted = Wanted { version: "v3".to_owned(), roles, join, ..Wanted::default() };
        let text = filled(default_file(), &wanted).unwrap();
        let config = TeleportConfig::parse(&text, "t").unwrap();
        assert!(config.auth.is_none() && config.proxy.is_none());
        assert_eq!(config.ssh.unwrap().labels["note"], "a: b");
        assert_eq!(config.proxy_server.as_deref(), Some("gate.example.test:443"));
        assert_eq!(config.auth_token, Some(shared_config::JoinToken::File("/etc/token".into())));
        assert_eq!((config.nodename.as_deref(), config.ca_pins.len()), (Some("db-1"), 1));
        let nowhere = Wanted { roles: vec![Role::Node], ..Wanted::default() };
        assert!(filled(default_file(), &nowhere).is_err());
    }

    #[test]
    fn without_flags_it_is_the_default_file() {
        let text = filled(default_file(), &Wanted::default()).unwrap();
        assert_eq!(text.trim_end(), default_file().trim_end());
    }
}

//! `teleport configure`: print a commented configuration, or test one.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use shared_cli::{CliError, ExitCode, printable};
use shared_config::{TeleportConfig, default_file};

use crate::cli::ConfigureArgs;
use crate::start::USUAL_CONFIG;

pub(crate) fn run(args: ConfigureArgs) -> Result<ExitCode, CliError> {
    match &args.test {
        Some(path) => test(path),
        None => write(&args),
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

fn write(args: &ConfigureArgs) -> Result<ExitCode, CliError> {
    let text = filled(default_file(), args)?;
    let path = match args.output.as_str() {
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

/// The commented file with what was given in place of its example or default.
fn filled(text: &str, args: &ConfigureArgs) -> Result<String, CliError> {
    let data_dir = args.data_dir.as_ref().map(|path| path.display().to_string());
    let wanted = [
        ("auth_service:", "cluster_name:", args.cluster_name.clone()),
        ("proxy_service:", "public_addr:", args.public_addr.clone()),
        ("teleport:", "data_dir:", data_dir),
    ];
    let mut out = String::with_capacity(text.len());
    let mut section = "";
    for line in text.lines() {
        if !line.starts_with([' ', '#']) {
            section = line.trim();
        }
        let key = line.trim_start().trim_start_matches("# ");
        let found = wanted
            .iter()
            .find(|(of, name, value)| *of == section && key.starts_with(name) && value.is_some());
        match found {
            Some((_, name, Some(value))) => {
                // JSON strings are YAML strings, so nothing in a value can become structure.
                let quoted = serde_json::to_string(value).unwrap_or_default();
                let _ = writeln!(out, "  {name} {quoted}");
            }
            _ => {
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

    fn args(cluster: Option<&str>, public: Option<&str>, data: Option<&str>) -> ConfigureArgs {
        ConfigureArgs {
            output: "stdout".to_owned(),
            cluster_name: cluster.map(str::to_owned),
            public_addr: public.map(str::to_owned),
            data_dir: data.map(PathBuf::from),
            test: None,
        }
    }

    #[test]
    fn flags_land_in_their_keys() {
        let text = filled(
            default_file(),
            &args(Some("example.test"), Some("gate.example.test:443"), Some("/srv/t")),
        )
        .unwrap();
        let config = TeleportConfig::parse(&text, "t").unwrap();
        assert_eq!(config.auth.unwrap().cluster_name.as_deref(), Some("example.test"));
        assert_eq!(config.proxy.unwrap().public_addr, ["gate.example.test:443"]);
        assert_eq!(config.data_dir, PathBuf::from("/srv/t"));
    }

    #[test]
    fn without_flags_it_is_the_default_file() {
        assert_eq!(
            filled(default_file(), &args(None, None, None)).unwrap().trim_end(),
            default_file().trim_end()
        );
    }
}

//! The places on the command line.

use std::path::PathBuf;

use shared_cli::CliError;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Upload,
    Download,
}

/// What is to be copied.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) direction: Direction,
    /// `[user@]host`.
    pub(super) host: String,
    /// On the server: what to copy, or the one place to copy to.
    pub(super) remote: Vec<String>,
    /// Here: the one place to copy to, or what to copy.
    pub(super) local: Vec<PathBuf>,
}

impl Plan {
    pub(super) fn parse(places: &[String]) -> Result<Self, CliError> {
        let Some((to, from)) = places.split_last().filter(|(_, from)| !from.is_empty()) else {
            return Err(CliError::usage("local and remote destinations are required"));
        };
        match remote(to) {
            Some((host, path)) => {
                if from.iter().any(|place| remote(place).is_some()) {
                    return Err(CliError::usage("one side has to be local"));
                }
                Ok(Self {
                    direction: Direction::Upload,
                    host: host.to_owned(),
                    remote: vec![path.to_owned()],
                    local: from.iter().map(PathBuf::from).collect(),
                })
            }
            None => {
                let places: Option<Vec<_>> = from.iter().map(|place| remote(place)).collect();
                let Some(places) = places else {
                    return Err(CliError::usage("one side has to be remote: [user@]host:path"));
                };
                let host = places.first().map(|(host, _)| *host).unwrap_or_default();
                if places.iter().any(|(other, _)| *other != host) {
                    return Err(CliError::usage("all remote places have to be on the same server"));
                }
                Ok(Self {
                    direction: Direction::Download,
                    host: host.to_owned(),
                    remote: places.iter().map(|(_, path)| (*path).to_owned()).collect(),
                    local: vec![PathBuf::from(to)],
                })
            }
        }
    }
}

/// `[user@]host:path`, with an IPv6 address in brackets. A colon behind a slash is part of a local name.
fn remote(place: &str) -> Option<(&str, &str)> {
    let colon = match place.find("]:") {
        Some(end) if place.split('@').next_back()?.starts_with('[') => end + 1,
        _ => place.find(':')?,
    };
    let (host, path) = (place.get(..colon)?, place.get(colon + 1..)?);
    (!host.is_empty() && !host.contains('/')).then_some((host, path))
}

/// The last name of a path, where it has one that can be a file's.
pub(super) fn last_name(path: &str) -> Option<&str> {
    let name = path.trim_end_matches('/').rsplit('/').next()?;
    (!matches!(name, "" | "." | "..")).then_some(name)
}

/// A name in a folder of the server.
pub(super) fn join(folder: &str, name: &str) -> String {
    match folder.strip_suffix('/') {
        Some(_) => format!("{folder}{name}"),
        None => format!("{folder}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(places: &[&str]) -> Result<Plan, CliError> {
        Plan::parse(&places.iter().map(|place| (*place).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn places_as_users_write_them() {
        let up = plan(&["a", "./b:c", "joe@db:/tmp"]).unwrap();
        assert_eq!((up.direction, up.host.as_str()), (Direction::Upload, "joe@db"));
        assert_eq!(up.remote, ["/tmp"]);
        assert_eq!(up.local, [PathBuf::from("a"), PathBuf::from("./b:c")]);
        let down = plan(&["db:", "db:x:y", "."]).unwrap();
        assert_eq!((down.direction, down.host.as_str()), (Direction::Download, "db"));
        assert_eq!(down.remote, ["", "x:y"]);
        let six = plan(&["joe@[::1]:a", "b"]).unwrap();
        assert_eq!((six.host.as_str(), six.remote), ("joe@[::1]", vec!["a".to_owned()]));
        for wrong in [
            &["a"][..],
            &[],
            &["a", "b"],
            &["x:a", "y:b"],
            &["x:a", "y:b", "c"],
            &["x:a", "b", "c"],
        ] {
            assert_eq!(plan(wrong).unwrap_err().exit_code().code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn names_of_files() {
        assert_eq!(last_name("/a/b/"), Some("b"));
        assert_eq!(last_name("b"), Some("b"));
        for none in ["", "/", ".", "..", "a/..", "a/./"] {
            assert_eq!(last_name(none), None, "{none}");
        }
    }
}

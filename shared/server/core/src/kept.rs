//! The last cluster state, and with it the nodes, kept on disk, so that a service can start while the auth service is
//! away.
//!
//! What must stay true: the file is replaced whole and private; its age is when the auth service last vouched for it,
//! not when it last changed; a state that is too old decides nothing, since locks may have come meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared_api::{ClusterState, NodeChanges, NodeView};
use shared_types::SystemRole;

/// A state that nobody has vouched for since is not started from.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// How often the age is brought up to date where nothing else changes.
pub(crate) const REFRESH: Duration = Duration::from_secs(300);
/// How far the clock may have gone back.
const AHEAD: TimeDelta = TimeDelta::minutes(5);

/// Why there is no state to start from.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// Nothing was kept.
    #[error("{0} does not exist: this service has not run with its auth service yet")]
    Nothing(PathBuf),
    /// The file cannot be read or written.
    #[error("{step} {path}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path} does not hold what this service keeps there")]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is too old, or from the future.
    #[error("{path} is of {at}, and only one of the last {} hours is used", MAX_AGE.as_secs() / 3600)]
    Age {
        /// Which.
        path: PathBuf,
        /// When the auth service last vouched for it.
        at: DateTime<Utc>,
    },
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Kept<S> {
    /// When the auth service last vouched for it.
    confirmed: DateTime<Utc>,
    state: S,
}

/// Where the last state is kept.
#[derive(Debug, Clone)]
pub struct KeptState {
    state: PathBuf,
    nodes: PathBuf,
}

impl KeptState {
    /// In this data directory, for a service of this role.
    pub fn new(data_dir: &Path, role: SystemRole) -> Self {
        let state = match role {
            SystemRole::Proxy => "cluster-state.json".to_owned(),
            other => format!("cluster-state-{}.json", other.as_str().to_ascii_lowercase()),
        };
        Self { state: data_dir.join(state), nodes: data_dir.join("cluster-nodes.json") }
    }

    /// The kept state, if it is young enough at `now`, and when it was vouched for. Blocks on the disk.
    pub fn load(&self, now: DateTime<Utc>) -> Result<(ClusterState, DateTime<Utc>), KeptError> {
        load(&self.state, now)
    }

    /// Keeps a state that the auth service vouched for at `confirmed`. On disk when this returns; blocks until then.
    pub fn save(&self, state: &ClusterState, confirmed: DateTime<Utc>) -> Result<(), KeptError> {
        save(&self.state, state, confirmed)
    }

    /// The kept nodes. Blocks on the disk.
    pub fn load_nodes(&self, now: DateTime<Utc>) -> Result<NodeView, KeptError> {
        let (nodes, _) = load::<NodeChanges>(&self.nodes, now)?;
        Ok(NodeView::default().after(NodeChanges { whole: true, ..nodes }))
    }

    /// Keeps the nodes as they were at `confirmed`. On disk when this returns; blocks until then.
    pub fn save_nodes(&self, nodes: &NodeView, confirmed: DateTime<Utc>) -> Result<(), KeptError> {
        save(&self.nodes, &nodes.to_changes(), confirmed)
    }
}

fn at(path: &Path, step: &'static str) -> impl FnOnce(io::Error) -> KeptError {
    let path = path.to_owned();
    move |source| KeptError::Io { step, path, source }
}

fn load<T: DeserializeOwned>(
    path: &Path,
    now: DateTime<Utc>,
) -> Result<(T, DateTime<Utc>), KeptError> {
    let bytes = fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KeptError::Nothing(path.to_owned()),
        _ => at(path, "read")(source),
    })?;
    let kept: Kept<T> = serde_json::from_slice(&bytes)
        .map_err(|source| KeptError::Content { path: path.to_owned(), source })?;
    let (age, confirmed) = (now - kept.confirmed, kept.confirmed);
    let oldest = TimeDelta::from_std(MAX_AGE).unwrap_or_default();
    if age > oldest || age < -AHEAD {
        return Err(KeptError::Age { path: path.to_owned(), at: confirmed });
    }
    Ok((kept.state, confirmed))
}

fn save(path: &Path, state: &impl Serialize, confirmed: DateTime<Utc>) -> Result<(), KeptError> {
    let text = serde_json::to_vec(&Kept { confirmed, state })
        .map_err(|source| KeptError::Content { path: path.to_owned(), source })?;
    replace(path, &text).map_err(at(path, "write"))
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("json.new");
    // One that a crash left may have another mode.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use shared_types::resource::NodeSpec;
    use shared_types::{HostId, Node};

    use super::*;
    use crate::testing::state;

    #[test]
    fn what_was_kept_is_there_for_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptState::new(folder.path(), SystemRole::Proxy);
        let now = Utc::now();
        assert!(matches!(kept.load(now), Err(KeptError::Nothing(_))));
        kept.save(&state(), now).unwrap();
        let (back, at) = kept.load(now + TimeDelta::hours(23)).unwrap();
        assert_eq!((back.revision, at), (1, now));
        assert_eq!(back.users, state().users);
        let mode = fs::metadata(&kept.state).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let old = kept.load(now + TimeDelta::hours(25)).unwrap_err().to_string();
        assert!(old.contains("only one of the last 24 hours"), "{old}");
        assert!(kept.load(now - TimeDelta::hours(1)).is_err(), "from the future");
        // Another one replaces it whole; one that is cut short is none.
        kept.save(&ClusterState { revision: 2, ..state() }, now).unwrap();
        assert_eq!(kept.load(now).unwrap().0.revision, 2);
        fs::write(&kept.state, "{\"confirmed\":").unwrap();
        assert!(matches!(kept.load(now), Err(KeptError::Content { .. })));
    }

    #[test]
    fn nodes_are_kept_beside_and_services_do_not_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptState::new(folder.path(), SystemRole::Proxy);
        let now = Utc::now();
        assert!(matches!(kept.load_nodes(now), Err(KeptError::Nothing(_))));
        let host = HostId::random();
        let spec = NodeSpec { hostname: "db-1".to_owned(), ..NodeSpec::default() };
        let nodes = vec![Node::new(host.to_string(), spec)];
        let view =
            NodeView::default().after(NodeChanges { revision: 7, nodes, ..Default::default() });
        kept.save_nodes(&view, now).unwrap();
        assert_eq!(kept.load_nodes(now).unwrap(), view);
        assert!(kept.load_nodes(now + TimeDelta::hours(25)).is_err());
        kept.save(&state(), now).unwrap();
        let node = KeptState::new(folder.path(), SystemRole::Node);
        assert!(matches!(node.load(now), Err(KeptError::Nothing(_))));
    }
}

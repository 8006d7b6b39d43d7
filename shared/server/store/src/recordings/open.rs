//! The recording store that the configuration names.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use shared_config::SessionsUri;

use super::{LocalRecordings, ObjectRecordings, RecordingError, RecordingStore};

/// Where recordings are below the data directory.
const RECORDS: &str = "log/records";

/// The variables of the environment that stores take their credentials from. Never shown.
#[derive(Clone, Default)]
pub struct StoreEnv(BTreeMap<String, String>);

impl std::fmt::Debug for StoreEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StoreEnv").field(&self.0.keys()).finish()
    }
}

impl StoreEnv {
    /// Those of this process: `AWS_*` and `GOOGLE_*`.
    pub fn process() -> Self {
        let known = |name: &String| name.starts_with("AWS_") || name.starts_with("GOOGLE_");
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).filter(|(name, _)| known(name)).collect())
    }

    /// These and no others.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self(variables.into_iter().map(owned).collect())
    }

    pub(super) fn starting_with(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.0.get(*name)).filter(|text| !text.is_empty()).cloned()
    }
}

/// Opens the store that `uri` names; without one, a folder below the data directory. With an object store, what
/// waits for it is there too. Runs in a tokio runtime; a store that is away is no error here.
pub fn open_recordings(
    uri: Option<&SessionsUri>,
    data_dir: &Path,
    env: &StoreEnv,
) -> Result<Arc<dyn RecordingStore>, RecordingError> {
    let base = data_dir.join(RECORDS);
    let folder = match uri {
        Some(SessionsUri::S3(uri)) => return Ok(Arc::new(ObjectRecordings::s3(uri, &base, env)?)),
        Some(SessionsUri::Gcs(uri)) => {
            return Ok(Arc::new(ObjectRecordings::gcs(uri, &base, env)?));
        }
        Some(SessionsUri::Directory(folder)) => folder,
        None => &base,
    };
    let store = LocalRecordings::open(folder)?;
    store.adopt_outbox(&base)?;
    Ok(Arc::new(store))
}

//! How far an upload is, on disk.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared_types::SessionId;
use uuid::Uuid;

use super::{SpoolError, at};

/// How far an upload is; the file format of `<sid>.checkpoint`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Checkpoint {
    #[serde(rename = "UploadID")]
    pub(super) upload_id: Uuid,
    #[serde(default = "before_all")]
    pub(super) last_event_index: i64,
    #[serde(default)]
    pub(super) last_upload_time: Option<chrono::DateTime<chrono::Utc>>,
    /// Parts the auth service has.
    #[serde(default)]
    pub(super) parts: u64,
    /// Where the next one begins.
    #[serde(default)]
    pub(super) offset: u64,
    /// The recording was not closed by its session.
    #[serde(default)]
    pub(super) truncated: bool,
}

fn before_all() -> i64 {
    -1
}

impl Checkpoint {
    /// Nothing sent yet.
    pub(super) fn new(upload_id: Uuid, truncated: bool) -> Self {
        Self {
            upload_id,
            last_event_index: before_all(),
            last_upload_time: None,
            parts: 0,
            offset: 0,
            truncated,
        }
    }
}

/// Where it is.
pub(super) fn path_of(root: &Path, session: &SessionId) -> PathBuf {
    root.join(format!("{session}.checkpoint"))
}

/// The checkpoint; one that cannot be read is as good as none, since sending a part again does no harm.
pub(super) fn load(root: &Path, session: &SessionId) -> Option<Checkpoint> {
    serde_json::from_slice(&std::fs::read(path_of(root, session)).ok()?).ok()
}

/// Writes it, whole or not at all.
pub(super) fn save(
    root: &Path,
    session: &SessionId,
    checkpoint: &Checkpoint,
) -> Result<(), SpoolError> {
    let path = path_of(root, session);
    let fresh = path.with_extension("checkpoint.new");
    let text = serde_json::to_vec(checkpoint).map_err(|err| at("write", &path)(err.into()))?;
    let write = || {
        use std::io::Write as _;
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&text)?;
        file.sync_data()?;
        std::fs::rename(&fresh, &path)
    };
    write().map_err(at("write", &path))
}

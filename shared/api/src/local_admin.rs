//! The identity that the auth service leaves in its data directory for `tctl` on the same host.
//!
//! Who can read the file is an administrator, so it is 0600 in a 0700 folder, its certificate is
//! short-lived, and the daemon writes a new one before the old ends.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared_pki::TrustedAuthority;
use zeroize::Zeroizing;

use crate::{ClientConfig, ClientIdentity, Route, Secret};

/// Name of the file inside the data directory.
pub const LOCAL_ADMIN_FILE: &str = "admin.json";

/// The file's content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LocalAdmin {
    /// Where the auth service listens, `host:port`.
    pub auth_addr: String,
    /// Client certificate of role Admin, PEM.
    pub cert_pem: String,
    /// Its key, PEM.
    pub key_pem: Secret,
    /// The cluster's authorities.
    pub authorities: Vec<TrustedAuthority>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LocalAdminError {
    /// It cannot be read or written.
    #[error("open {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{path} holds no admin identity")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl LocalAdmin {
    /// Reads it from a data directory.
    pub fn load(data_dir: &Path) -> Result<Self, LocalAdminError> {
        let path = data_dir.join(LOCAL_ADMIN_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(source) => return Err(LocalAdminError::Io { path, source }),
        };
        serde_json::from_slice(&bytes).map_err(|source| LocalAdminError::Content { path, source })
    }

    /// Writes it into a data directory, whole or not at all.
    pub fn save(&self, data_dir: &Path) -> Result<(), LocalAdminError> {
        let path = data_dir.join(LOCAL_ADMIN_FILE);
        let json = match serde_json::to_vec_pretty(self) {
            Ok(json) => Zeroizing::new(json),
            Err(source) => return Err(LocalAdminError::Content { path, source }),
        };
        let temporary = data_dir.join(format!("{LOCAL_ADMIN_FILE}.{}", uuid::Uuid::new_v4()));
        let write = || -> std::io::Result<()> {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&json)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|source| {
            std::fs::remove_file(&temporary).ok();
            LocalAdminError::Io { path, source }
        })
    }

    /// What a client needs to use it.
    pub fn client_config(&self) -> ClientConfig {
        let identity = ClientIdentity {
            cert_pem: self.cert_pem.clone(),
            key_pem: Zeroizing::new(self.key_pem.expose().to_owned()),
        };
        ClientConfig::new(
            Route::Direct { addr: self.auth_addr.clone() },
            self.authorities.clone(),
            Some(identity),
        )
    }
}

//! What tells others that everything listens: one log line and `DATA_DIR/listen.json`.
//!
//! `listen.json` is written when every listener is open and serving, and removed at the end:
//! `{"auth":"127.0.0.1:3025","web":"127.0.0.1:3080","ssh":"127.0.0.1:3023"}`, with the real ports where
//! the configuration said 0; a service that does not run has no key.

use std::net::SocketAddr;

use serde::Serialize;

use crate::data_dir::{DataDir, DataDirError};

/// Name of the file in the data directory.
const FILE: &str = "listen.json";

/// The addresses on which this process listens.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Listening {
    /// Metrics and health.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) diag: Option<SocketAddr>,
    /// The auth API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) auth: Option<SocketAddr>,
    /// The proxy's TLS port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) web: Option<SocketAddr>,
    /// The proxy's SSH port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ssh: Option<SocketAddr>,
    /// The proxy's port for agents' tunnels alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel: Option<SocketAddr>,
    /// The proxy's port for PostgreSQL alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) postgres: Option<SocketAddr>,
    /// The proxy's port for MySQL alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mysql: Option<SocketAddr>,
    /// The SSH service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<SocketAddr>,
}

impl Listening {
    /// Says that this process is ready.
    pub(crate) fn announce(&self, dir: &DataDir) -> Result<(), DataDirError> {
        let text = serde_json::to_string(self).unwrap_or_default();
        dir.write_secret(FILE, format!("{text}\n").as_bytes())?;
        let show = |address: Option<SocketAddr>| match address {
            Some(address) => address.to_string(),
            None => "-".to_owned(),
        };
        tracing::info!(
            auth = show(self.auth),
            web = show(self.web),
            ssh = show(self.ssh),
            tunnel = show(self.tunnel),
            postgres = show(self.postgres),
            mysql = show(self.mysql),
            node = show(self.node),
            "ready"
        );
        Ok(())
    }
}

/// The process no longer listens, or does not yet.
pub(crate) fn withdraw(dir: &DataDir) {
    let path = dir.path().join(FILE);
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "could not remove the listen file");
    }
}

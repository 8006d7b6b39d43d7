//! Configuration: raw as it stands in a file, then checked.
//!
//! `teleport.yaml` with the keys users know ([`TeleportConfig`]), resource documents
//! ([`read_resources`]), and the client's profiles ([`ProfileDir`]). A bad file is reported with path, line, column, key and what was expected.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod db_service;
mod defaults;
mod error;
mod places;
mod profile;
mod profile_db;
mod raw;
mod resources;
mod sessions_uri;
mod ssh_service;
mod teleport;
mod yaml;

pub use db_service::{DbConfig, StaticDatabase};
pub use defaults::default_file;
pub use error::ConfigError;
pub use profile::{Profile, ProfileDir, ProfileError};
pub use resources::read_resources;
pub use sessions_uri::{GcsUri, S3Encryption, S3Uri, SessionsUri, SessionsUriError};
pub use ssh_service::SshConfig;
pub use teleport::{
    AuthConfig, ExecRecording, JoinToken, Keypair, ListenerMode, LogConfig, LogFormat, ProxyConfig,
    RoutingStrategy, StaticToken, TeleportConfig,
};

//! The proxy service: one TLS port for everything, the SSH port, the recording SSH proxy, the way to databases.
//!
//! What must stay true: no user gets in but by the one verifier; nothing is dialled without a `Granted`; what is
//! recorded is on disk within a second; connections to the auth service pass through unread; what a peer is told does
//! not say whether something exists that it may not see.
//!
//! Left to others: who may do what (`shared-authz`, `server-core`), the SSH relay (`shared-ssh`), the format of
//! recordings (`shared-recording`).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod auth_path;
mod db;
mod ping;
mod port;
mod service;
mod settings;
mod shards;
mod ssh;
mod startups;
mod tunnels;
mod web;
mod web_cert;

pub use auth_path::{AuthPath, AuthStream, InProcessAuth, RemoteAuth};
pub use service::{ProxyListeners, ProxyService, StartError};
pub use settings::{ProxySettings, PublicAddrs, Timeouts};
pub use ssh::HostKeyFileError;

#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod sync_tests;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;

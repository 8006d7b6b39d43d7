//! The SSH service: users with certificates log in on the host where the agent runs.
//!
//! What must stay true: nobody gets in but by the one verifier; a program starts only after the event that says so is
//! durable; it runs as the login and never as the service; what is recorded is recorded before the client sees it.
//!
//! Left to others: who may do what (`shared-authz`, `server-core`), SSH itself (`shared-ssh`), how connections arrive.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod child;
mod environment;
mod forward;
mod process;
mod quiet;
mod service;
mod session;
mod settings;
mod visit;

pub use service::SshService;
pub use settings::{SshServiceSettings, Timeouts};

#[cfg(test)]
mod tests;

//! The daemon: configuration to services to drain; no logic of its own.
//!
//! One process runs any set of services. What holds here: the data directory belongs to one
//! process at a time, secrets in it are 0600, a signal drains and a second one ends at once, and
//! the only place that turns an error into a message and an exit code is `main`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agents;
mod auth_service;
pub mod cli;
mod configure;
mod data_dir;
mod diag;
mod host_identity;
mod join_openssh;
mod listeners;
mod logging;
mod member;
mod proxy_service;
mod ready;
mod services;
mod signals;
mod start;
mod version;

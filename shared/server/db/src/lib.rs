//! The database service: agents in front of databases.
//!
//! What must stay true: the agent believes a user by the certificate that the user holds, verified here, whatever a
//! proxy says of it; nothing is dialled before the decision is in the audit log; what a client asks of its database is in
//! the audit queue before the database reads it; a client is told why in the words of its own protocol.
//!
//! Left to others: who may do what (`shared-authz`, `server-core`), how connections arrive (`server-core`'s tunnels), the
//! bytes of each protocol (`shared-wire`).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod audit;
mod catalog;
mod connect;
mod engine;
mod health;
mod parts;
mod relay;
mod service;
mod session;
mod settings;

pub use catalog::{Listed, Listing};
pub use service::DbService;
pub use settings::DbServiceSettings;

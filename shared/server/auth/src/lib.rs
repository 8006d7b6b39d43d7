//! The auth service: authorities, users, roles, tokens, certificates, recordings, the audit log, and the
//! API over all of them.
//!
//! What must stay true: private CA keys leave this process only into its own store; a decision about a caller
//! is made anew for each request, from the certificate and from what the cluster knows now; what was done is
//! in the audit log before the caller hears of it; what a caller reads in an error does not say whether
//! something exists that it may not see.
//!
//! Left to others: how state and recordings are stored (`server-store`), how events become durable
//! (`server-audit`), what a role allows (`shared-authz`), what a certificate says (`shared-pki`).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod about;
mod admin;
mod audit;
mod authority;
mod caller;
mod certs;
mod databases;
mod endings;
mod error;
mod events;
mod hosts;
mod http;
mod init;
mod intake;
mod invites;
mod join;
mod limiter;
mod lockout;
mod locks;
mod login;
mod made_up;
mod nodes;
mod openssh;
mod password;
mod presence;
mod recordings;
mod remembered;
mod resources;
mod seals;
mod server_cert;
mod service;
mod sessions;
mod state;
mod tend;
#[cfg(test)]
mod tests;
mod tokens;
mod unfinished;
mod uploads;
mod users;
mod visits;

pub use authority::LocalAuthority;
pub use caller::Caller;
pub use error::AuthError;
pub use http::AuthServer;
pub use init::OpenError;
pub use password::PasswordError;
pub use service::{AuthService, AuthSettings};
pub use tokens::StaticToken;

//! The auth API: what is asked, what is answered, and the client.
//!
//! JSON over HTTP/2 over TLS; who asks is said by the client certificate and by nothing in a body.
//! Bulk (recordings) goes as raw bodies, streamed. Every reply that fails carries an [`ApiError`].
//! The server side lives in the auth service; both sides take paths and shapes from here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod client;
mod error;
pub mod limits;
mod local_admin;
pub mod paths;
mod secret;
pub mod stored;
pub mod types;

pub use client::{
    Client, ClientConfig, ClientError, ClientIdentity, Route, Timeouts, fetch_authorities,
};
pub use error::{ApiError, ErrorBody, ErrorKind};
pub use local_admin::{LOCAL_ADMIN_FILE, LocalAdmin, LocalAdminError};
pub use secret::Secret;
pub use stored::{StoredLogin, StoredLoginError};
pub use types::*;

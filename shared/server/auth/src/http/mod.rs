//! The API over HTTP: connections, who asks, routes.

mod databases;
mod extract;
mod peer;
mod reply;
mod routes;
mod serve;

pub use serve::AuthServer;

#[cfg(test)]
pub(crate) use peer::Peer;
pub(crate) use routes::router;

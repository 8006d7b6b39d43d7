//! The protocol of MySQL and MariaDB ("Client/Server Protocol"): what both sides of a connection say to each other,
//! found in the bytes as they pass.
//!
//! [`Conversation`] follows one connection after its handshake: [`Requests`] sees the client's bytes and tells what is
//! asked, with the values of parameters; [`Answers`] sees the server's and tells how it went. The handshake itself is
//! [`Greeting`], [`Login`] and [`Reply`].
//!
//! What is absent on purpose: compression, query attributes, and everything of replication.

mod answers;
pub mod capability;
mod command;
mod conversation;
mod frame;
mod greeting;
mod login;
mod parameters;
mod placeholders;
mod read;
mod reply;
mod requests;
mod statements;
mod text;
mod value;

pub mod fuzz;

pub use answers::{Answers, Outcome};
pub use command::{Refresh, Request};
pub use conversation::Conversation;
pub use frame::{HEADER, MAX_PAYLOAD, packet, read_header};
pub use greeting::{Greeting, GreetingError, NATIVE, VERSION, greeting};
pub use login::{Login, SSL_REQUEST, ssl_request};
pub use reply::{Failure, Reply, refuse};
pub use requests::{Requests, Seen};
pub use text::Text;

/// Bytes that are not of the protocol, or not of what was agreed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Malformed {
    what: String,
}

impl Malformed {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

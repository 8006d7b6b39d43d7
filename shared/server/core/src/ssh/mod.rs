//! What services that end SSH sessions share: the proxy and the SSH service on a node.
//!
//! * [`events`]: the audit events, with what they have in common filled in.
//! * [`tap`]: the recording and the events of one session channel.
//! * [`ledger`]: what file copies move.
//! * [`options`], [`limits`], [`watch`]: what a user's roles say, how much of a user there may be, and when it ends.
//! * [`running`], [`signer`]: what one process tells the auth service of its recordings, and signs them with.
//! * [`rate`]: how often one address may ask.

pub mod events;
pub mod ledger;
pub mod limits;
pub mod options;
pub mod rate;
pub mod running;
pub mod signer;
pub mod tap;
pub mod watch;

use std::net::SocketAddr;

/// Both ends of a client's connection.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The client.
    pub peer: SocketAddr,
    /// Where it was accepted.
    pub local: Option<SocketAddr>,
}

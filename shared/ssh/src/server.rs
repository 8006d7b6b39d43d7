//! The SSH servers of the proxy: what they offer, how they tell clients apart, and how users get in.
//!
//! What must stay true: users get in by certificate only, checked at the moment of a verified signature; a user name
//! that changes in mid-authentication ends the connection; callbacks that would wait for a peer hand over and return.
//!
//! * [`serve_outer`] is the server on the listener: it takes the `proxy:` subsystem and offers the client's agent.
//! * [`crate::relay::serve_inner`] is the server a client meets behind it, in the name of the target.

mod config;
mod ident;
pub(crate) mod login;
mod outer;
mod request;
pub(crate) mod serve;

pub use config::{
    CipherOverrideError, HostIdentityKey, INNER_PACKET, ServerLimits, check_cipher_names,
    ciphers_for, inner_server_config, local_server_config, server_config,
};
pub use ident::ClientIdent;
pub use login::{AuthGate, Login};
pub use outer::{AgentSource, OuterService, OuterSession, SubsystemReply, serve_outer};
pub use request::{ProxyRequest, RequestError, Subsystem};

#[cfg(test)]
mod tests;

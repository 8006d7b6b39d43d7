//! Codecs for what crosses an agent channel, without I/O: the agent protocol
//! (draft-miller-ssh-agent, OpenSSH PROTOCOL.agent) and the userauth request that an agent is asked to
//! sign (RFC 4252 §7, `publickey-hostbound-v00@openssh.com`).
//!
//! Everything here reads bytes of a peer that may be hostile: every length is checked against what is
//! there before it is used, nothing allocates by a peer's number, booleans are 0 or 1, and spare bytes
//! are an error. What is read borrows from the message.

mod field;
mod message;
mod userauth;

pub use field::{Fields, Put, WireError};
pub use message::{
    AddCertificate, IdentityEntry, MAX_MESSAGE, Reply, Request, SESSION_BIND, SessionBind, frame,
    parse_reply, parse_request,
};
pub use userauth::{AuthMethod, HOSTBOUND, SSH_CONNECTION, UserAuthRequest, encode_userauth};

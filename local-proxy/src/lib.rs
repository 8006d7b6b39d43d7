//! Local listeners in front of what the cluster serves, for programs that know nothing of it.
//!
//! A listener takes plain connections on this machine and carries each to the proxy, inside TLS that shows the user's
//! certificate. What must stay true: nothing but loopback is listened on unless the user asked for more in so many
//! words; nothing is carried with a certificate that has ended, and a client is told so in its own protocol while the
//! listener stays; the path of the bytes is one task and two buffers per connection. Who logs in again, and how people
//! are asked, is the caller's ([`Renew`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod db;
mod keeper;
mod listen;
mod refuse;
mod relay;
mod upstream;

pub use db::{DbListener, Notice};
pub use keeper::{Credentials, Keeper, Renew};
pub use listen::{ListenError, bind, listen_address};
pub use refuse::refuse;
pub use relay::{Ended, Side, linger, relay};
pub use upstream::{Upstream, UpstreamError, UpstreamStream};

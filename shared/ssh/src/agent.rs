//! The embedded agent: holds one key with one certificate and signs only to log in to the host that the
//! user named.
//!
//! * [`AgentSession`] is one agent channel as a pure state machine: bytes in, [`Answer`] out, time as an
//!   argument. `tsh` serves it to the proxy (design §7, "The embedded agent").
//! * [`SocketSession`] is the same for the socket of `tsh agent`, where the host is not known beforehand.
//! * [`serve`] runs either over a stream.
//! * [`RunningAgent`] loads key and certificate into an ssh-agent that is already running.
//!
//! What must stay true: nothing but list, bind and sign exists; nothing is signed that is not a whole
//! userauth request for the bound connection; no answer tells a peer why it was refused.

mod budget;
mod checks;
mod host_keys;
mod key;
mod memory;
#[cfg(test)]
mod plain_key_tests;
mod running;
mod serve;
mod session;
mod socket;
mod socket_session;
#[cfg(test)]
pub(crate) mod test_support;

pub use budget::Budget;
pub use checks::{BoundHost, Refusal};
pub(crate) use host_keys::plain_key;
pub use host_keys::{HostKeyRefusal, HostKeys};
pub use key::{AgentKey, KeyError};
pub use memory::hide_process;
pub use running::{
    Loaded, RunningAgent, RunningAgentError, agent_comment, load_into_running_agent,
    unload_from_running_agent,
};
pub use serve::{Channel, serve};
pub use session::{AgentSession, Answer, EmbeddedAgent, Policy};
pub use socket::{AgentSocket, SocketError};
pub use socket_session::{SocketAgent, SocketSession};

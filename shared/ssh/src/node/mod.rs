//! The SSH server of a host where users log in: its channels are served by programs and connections of that host.
//!
//! What must stay true:
//! * Nothing is served that is not in the [`table`].
//! * Output is shown to the tap before the client gets it; a slow tap or a slow client stops the program.
//! * russh opens a window again on receipt, so input that a program does not read is kept up to
//!   [`crate::relay::CHANNEL_CAP`]: a channel that is alone then waits, one with siblings is closed alone.
//! * Callbacks of russh hand over and return. Only the requests that start a program wait there, with a limit.
//!
//! Who may do what, and what a program is, is decided by the [`NodeService`]; this module asks and obeys.

mod channels;
mod copy;
mod forward;
mod input;
mod remote;
mod server;
mod service;
mod session;
pub mod table;

pub use server::serve_node;
pub use service::{
    AgentSocket, Exit, Launch, NodeService, NodeSession, Process, ProcessControl, PtyRequest,
    Refusal,
};

//! Everything that runs as the login on the host.
//!
//! The daemon is root and many threads; a login's program must be neither. So for each program the daemon starts
//! itself again as `teleport exec`, hands over what to run through a socket on descriptor 0 (never in arguments, which
//! every login on the host can read) together with the descriptors the program will have, and the new process (one
//! thread, no secrets) becomes the login and then the program.
//!
//! What must stay true: nothing of the daemon but the descriptors handed over reaches the program; a process is
//! signalled only while its number cannot belong to another; whoever stops listening to a child ends it.
//!
//! Left to others: who may log in as whom, what is recorded, SSH.

mod account;
mod agent_socket;
mod control;
mod enter;
mod environment;
mod group;
mod handoff;
mod launch;
mod modes;
pub mod sftp;
mod spec;
mod streams;
mod tty;

pub use account::Refusal;
pub use agent_socket::{AgentSocket, AgentSocketError, agent_socket};
pub use control::{ChildControl, Exit, UnknownSignal};
pub use enter::{run_exec, run_sftp};
pub use launch::{Child, Launcher, SpawnError, spawn};
pub use spec::{ChildSpec, Program, PtySpec};
pub use streams::{ChildInput, ChildOutput};

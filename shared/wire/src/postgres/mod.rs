//! PostgreSQL's protocol 3 ("Frontend/Backend Protocol" of its manual), which CockroachDB speaks as well.
//!
//! What must stay true: bodies are read where they lie and copied only when a cut goes through one that is wanted; what
//! is kept of one is bounded, whatever its length says; every cut of the bytes gives the same.
//!
//! Left to others: sockets, TLS, and who may do what. The crates for this protocol want whole messages in buffers of
//! theirs, or know only one side of it; between two sockets neither is needed.

mod backend;
mod body;
mod frames;
mod frontend;
pub mod fuzz;
mod refusal;
mod startup;

pub use backend::{Backend, CommandTag, ServerError, backend};
pub use frames::{Cut, FrameError, Frames, Message};
pub use frontend::{Bind, Frontend, FunctionCall, Parameter, Parameters, Text, frontend};
pub use refusal::{refuse, sqlstate};
pub use startup::{
    AUTHENTICATION_OK, Cancel, FIRST_LIMIT, First, GSSENC_REQUEST, SSL_REQUEST, Startup,
    StartupError, first,
};

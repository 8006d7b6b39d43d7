//! A user's way to a target: an outer connection to the proxy, and through one of its channels an inner
//! one to the target, or, when the proxy records, to the proxy speaking for the target.
//!
//! * [`ProxyConn`] is the outer connection. The embedded agent is served here and nowhere else.
//! * [`TargetConn`] is the inner one; [`TargetConn::run_session`] and [`LocalForward`] use it.
//!
//! What must stay true: a bare host key is never accepted; a Proxy-role certificate passes for a target
//! only when the caller says that recording is expected; no channel the peer opens is accepted but agent
//! channels, and those only where they were asked for; a reader that stops stops one channel, not memory.

mod config;
mod error;
mod forward;
mod host;
mod inner;
mod outer;
mod queue;
mod session;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod relay_tests;
#[cfg(test)]
mod tests;

pub use config::printable;
pub use error::{ConnectError, Leg};
pub use forward::{ForwardError, Listening, LocalForward};
pub use inner::{AgentSource, TargetConn, TargetOptions};
pub use outer::{ProxyConn, ProxyOptions, TargetStream, proxy_request};
pub use queue::{ByteQueue, Shortcut};
pub use session::{
    Control, OnStart, PtyRequest, SessionEnd, SessionIo, SessionRequest, Start, WindowSize,
};

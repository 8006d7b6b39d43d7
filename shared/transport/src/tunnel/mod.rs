//! The reverse tunnel: one connection from an agent to a proxy, over which the proxy reaches the agent.
//!
//! The agent dials, because it may stand behind a firewall that lets nothing in; then the roles turn. Inside the
//! mutual TLS that the caller has set up and checked, HTTP/2 runs with the proxy as its client: a `POST /dial` becomes
//! a byte stream to a service of the agent, `POST /discovery` tells of other proxies, `POST /reconnect` asks for a new
//! connection before this one ends. HTTP/2 pings are the heartbeat. Why HTTP/2 and not SSH: docs/decisions/0009.
//!
//! What must stay true: each stream has a window of its own, so that one who does not read stops nobody else and holds
//! no more than that window; whoever is silent for [`SILENCE`] is gone; a proxy sends requests and takes none.
//!
//! Left to others: who the peers are (the caller has verified the certificates), what is done with a stream.

mod agent;
mod dial;
mod heart;
mod proxy;
mod stream;

pub use agent::{AgentTunnel, Asked, DialReply, ProxyList};
pub use dial::{ConnType, DialRequest, ProxyEntry, UnknownConnType};
pub use heart::SILENCE;
pub use proxy::{Driver, Refused, Tunnel};
pub use stream::TunnelStream;

/// Window of one stream: what a reader that stops holds at most. Enough for a long fat link.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// Window of the connection: out of the way, so that streams are bounded by their own.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// One frame takes an SSH packet whole.
const FRAME: u32 = 64 * 1024;
/// Streams at a time.
const STREAMS: u32 = 1024;
/// Bytes of headers in one request.
const HEADERS: u32 = 16 * 1024;
/// Budget for unread small frames, whose bookkeeping is larger than they are (h2 counts up to 256 for each): about a
/// million of them. An SSH packet has 36 bytes or more, so dozens of streams with nothing else may stand still.
const SMALL_FRAMES: usize = 256 * 1024 * 1024;
/// Bytes that one stream may have waiting for the connection.
const SEND_BUFFER: usize = 256 * 1024;
/// The longest text of a refusal, and the longest list of proxies.
const MAX_TEXT: usize = 4 * 1024;
const MAX_LIST: usize = 256 * 1024;

/// Why a tunnel ended or did not come about.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// HTTP/2 broke, or the connection below it.
    #[error("tunnel")]
    Http(#[from] h2::Error),
    /// Nothing was heard for too long.
    #[error("tunnel: nothing heard from the other side for {} s", SILENCE.as_secs())]
    Silent,
    /// The other side did not get as far as a tunnel.
    #[error("tunnel: no answer in {} s", .0.as_secs())]
    TimedOut(std::time::Duration),
}

#[cfg(test)]
mod tests;

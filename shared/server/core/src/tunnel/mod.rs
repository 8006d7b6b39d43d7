//! How connections come to an agent: through the tunnels it holds to the proxies, handed over by a proxy that dials it,
//! from one in the same process, or straight from a stock client.
//!
//! What must stay true: a proxy is believed by its host certificate of role Proxy and nothing else, and so is what it
//! says of a client's address; an agent that lost its proxies dials again within seconds, and a thousand of them do
//! not do so in the same moment; what runs through a tunnel goes on while the agent makes a new one.

mod direct;
mod host_tls;
mod local;
mod pool;
mod service;

pub use direct::serve_direct;
pub use host_tls::{HostTls, HostTlsError, PeerHost, TlsIo};
pub use local::{LocalServices, Offered};
pub use pool::{PoolSettings, TunnelPool, TunnelStatus};
pub use service::{AgentService, Arrival, ArrivedBy, BoxedStream, ByteStream};
pub use shared_transport::tunnel::ConnType;

#[cfg(test)]
mod tests;

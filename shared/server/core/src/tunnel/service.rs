//! What takes the connections of an agent.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use shared_transport::tunnel::ConnType;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// A connection's bytes, however they came.
pub type BoxedStream = Box<dyn ByteStream>;

/// What a [`BoxedStream`] can do.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// Which way a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrivedBy {
    /// Through a tunnel to a proxy.
    Tunnel,
    /// Handed over by a proxy that dialled this host.
    Proxy,
    /// From a proxy in the same process.
    Local,
    /// From the client itself.
    Direct,
}

/// What is known of a connection before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The client's address; said by a proxy where one is in between.
    pub client: SocketAddr,
    /// Which way it came.
    pub via: ArrivedBy,
    /// What kind of service is asked for.
    pub conn_type: ConnType,
}

/// A service of an agent.
#[async_trait]
pub trait AgentService: Send + Sync + 'static {
    /// Serves one connection to its end. After `stop` it has the drain's time.
    async fn connection(
        self: Arc<Self>,
        stream: BoxedStream,
        arrival: Arrival,
        stop: CancellationToken,
    );
}

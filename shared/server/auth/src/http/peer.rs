//! Who sent a request: its address, and the certificate of the connection, if it showed one.

use std::net::SocketAddr;
use std::sync::Arc;

/// Put into each request by the server, before routing.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Where the connection comes from.
    pub(crate) address: SocketAddr,
    /// The client's certificate (DER) as the handshake verified it.
    pub(crate) certificate: Option<Arc<[u8]>>,
}

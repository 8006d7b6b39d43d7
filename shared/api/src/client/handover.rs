//! A proxy hands a client's connection on to the auth service.
//!
//! The client's own TLS runs inside: the proxy reads nothing of it. Around it is the proxy's mutual TLS, in which it
//! says first who the client is, because the auth service sees only the proxy's address. A line of text, the client's
//! `IP:PORT`, and then the client's bytes.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use shared_transport::{alpn, dial, handover, tls};
use tokio::net::TcpStream;

use super::{Client, ClientError};

/// A connection on which a client's own bytes may follow.
pub type Handover = tokio_rustls::client::TlsStream<TcpStream>;

impl Client {
    /// Opens a connection for the bytes of `client`. Only a proxy's identity is let in.
    pub async fn hand_over(&self, client: SocketAddr) -> Result<Handover, ClientError> {
        let limit = self.inner.timeouts.connect;
        let addr = self.inner.route.addr();
        let stream = dial(addr, limit).await?;
        let current = Arc::clone(&self.inner.tls.lock().unwrap_or_else(PoisonError::into_inner));
        let mut config = rustls::ClientConfig::clone(&current);
        config.alpn_protocols = vec![alpn::AUTH_HANDOVER.to_vec()];
        let fault = |source| ClientError::Tls { addr: addr.to_owned(), source };
        let mut stream = tls::connect(Arc::new(config), &self.server_name(), stream, limit)
            .await
            .map_err(fault)?;
        let announced = handover::announce(&mut stream, client).await;
        announced.map_err(|source| fault(tls::TlsError::Handshake(source)))?;
        Ok(stream)
    }
}

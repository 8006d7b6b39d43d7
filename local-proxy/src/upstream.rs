//! The way to the proxy: TCP, and TLS in which the cluster's own authority vouches for the proxy, so that it works
//! behind any web certificate.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use shared_pki::TrustedAuthority;
use shared_pki::verify::ServerVerifier;
use shared_transport::tls::{self, TlsError};
use shared_transport::{DialError, alpn, dial};
use shared_types::{ClusterName, SystemRole};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// How long dialling and the handshake may take, each.
const PATIENCE: Duration = Duration::from_secs(15);
/// As much as is read from the socket at once. TLS by itself reads 4 KiB at a time, four system calls for each record.
const READ_AHEAD: usize = 32 * 1024;

/// A connection to the proxy.
pub type UpstreamStream = TlsStream<BufReader<TcpStream>>;

/// Why the proxy was not reached.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection.
    #[error("reach the proxy")]
    Dial(#[from] DialError),
    /// No TLS, or somebody else answers.
    #[error("secure connection to the proxy at {addr}")]
    Tls {
        /// Where.
        addr: String,
        /// Why.
        #[source]
        source: TlsError,
    },
}

/// Where the proxy is.
#[derive(Debug, Clone)]
pub struct Upstream {
    addr: String,
    server_name: String,
}

impl Upstream {
    /// The proxy of `cluster` at `addr`, `host:port` of its TLS port.
    pub fn new(addr: String, cluster: &ClusterName) -> Self {
        // The name asks for the certificate of the cluster's authority rather than the web's.
        Self { addr, server_name: alpn::auth_server_name(Some(cluster)) }
    }

    /// TLS for what `alpn` names, with the user's certificate where there is one.
    pub fn tls(
        authorities: &[TrustedAuthority],
        alpn: &[u8],
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let verifier = ServerVerifier::new(authorities, &[SystemRole::Proxy]);
        let mut config = tls::client_config(verifier, identity)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Arc::new(config))
    }

    /// Connects.
    pub async fn connect(
        &self,
        config: Arc<ClientConfig>,
    ) -> Result<UpstreamStream, UpstreamError> {
        let stream = BufReader::with_capacity(READ_AHEAD, dial(&self.addr, PATIENCE).await?);
        tls::connect(config, &self.server_name, stream, PATIENCE)
            .await
            .map_err(|source| UpstreamError::Tls { addr: self.addr.clone(), source })
    }
}

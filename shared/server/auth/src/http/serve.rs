//! Connections: TLS with an optional client certificate, then HTTP/2 or HTTP/1.
//!
//! Every wait has a limit: the TLS handshake here, the rest in `server_core::http`. The
//! certificate seen in the handshake travels with each request and is verified again there, since a
//! connection may outlive it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use server_core::http::HttpLimits;
use shared_transport::{AcceptLimits, Drained, alpn, handover};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::peer::Peer;
use crate::service::AuthService;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long running requests may go on once the end was asked for.
const DRAIN: Duration = Duration::from_secs(10);
/// Connections at a time, and from one address; behind one address may be a proxy with many users.
const CONNECTIONS: (usize, usize) = (16_384, 4_096);

/// Serves the auth API on TCP listeners and on streams that others accepted.
#[derive(Clone)]
pub struct AuthServer {
    router: Router,
    tls: Arc<rustls::ServerConfig>,
    service: Arc<AuthService>,
}

impl AuthServer {
    pub(crate) fn new(
        router: Router,
        tls: Arc<rustls::ServerConfig>,
        service: Arc<AuthService>,
    ) -> Self {
        Self { router, tls, service }
    }

    /// Accepts until `shutdown`, then returns when the connections have ended their running requests.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> Drained {
        let limits =
            AcceptLimits { connections: CONNECTIONS.0, per_peer: CONNECTIONS.1, drain: DRAIN };
        shared_transport::serve(listener, limits, shutdown, |stream, address, ending| {
            let server = self.clone();
            async move { server.connection(stream, address, ending).await }
        })
        .await
    }

    /// Serves one stream that came some other way than through [`AuthServer::serve`]: a proxy in this
    /// process hands over what it passes through, with the address of the real client. Returns when it
    /// ends, or soon after `ending`.
    pub async fn connection<S>(&self, stream: S, address: SocketAddr, ending: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Some((mut tls, certificate)) = self.accept(stream, address).await else { return };
        if tls.get_ref().1.alpn_protocol() != Some(alpn::AUTH_HANDOVER) {
            return self.requests(tls, certificate, address, ending).await;
        }
        if !self.is_proxy(certificate.as_deref(), address).await {
            tracing::warn!(peer = %address, "only a proxy hands connections over");
            return;
        }
        let Some(client) = handover::client_address(&mut tls).await else {
            tracing::debug!(peer = %address, "no client's address");
            return;
        };
        let Some((inner, certificate)) = self.accept(tls, client).await else { return };
        if inner.get_ref().1.alpn_protocol() == Some(alpn::AUTH_HANDOVER) {
            tracing::warn!(peer = %address, %client, "a connection that was handed over hands none over");
            return;
        }
        self.requests(inner, certificate, client, ending).await;
    }

    async fn is_proxy(&self, certificate: Option<&[u8]>, address: SocketAddr) -> bool {
        match certificate {
            Some(certificate) => self
                .service
                .caller(certificate, address)
                .await
                .is_ok_and(|caller| caller.is_proxy()),
            None => false,
        }
    }

    /// The handshake, and the certificate that was shown in it.
    async fn accept<S>(
        &self,
        stream: S,
        address: SocketAddr,
    ) -> Option<(TlsStream<S>, Option<Arc<[u8]>>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match shared_transport::tls::accept(Arc::clone(&self.tls), stream, HANDSHAKE).await {
            Ok(tls) => {
                let chain = tls.get_ref().1.peer_certificates();
                let certificate = chain
                    .and_then(|chain| chain.first())
                    .map(|leaf| Arc::<[u8]>::from(leaf.as_ref()));
                Some((tls, certificate))
            }
            Err(error) => {
                tracing::debug!(peer = %address, error = %crate::error::chain(&error), "connection refused");
                None
            }
        }
    }

    /// HTTP to its end.
    async fn requests<S>(
        &self,
        tls: TlsStream<S>,
        certificate: Option<Arc<[u8]>>,
        address: SocketAddr,
        ending: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let peer = Peer { address, certificate };
        let router = self.router.clone();
        let service =
            hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let router = router.clone();
                let peer = peer.clone();
                async move {
                    let mut request = request.map(axum::body::Body::new);
                    request.extensions_mut().insert(peer);
                    let answer: Result<_, Infallible> = router.oneshot(request).await;
                    answer
                }
            });
        let limits = HttpLimits { drain: DRAIN, ..HttpLimits::default() };
        let served = server_core::http::serve(tls, service, limits, &ending).await;
        if let Err(error) = served {
            tracing::debug!(peer = %address, error = %error, "connection");
        }
    }
}

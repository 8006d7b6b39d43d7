//! Connections: TLS with an optional client certificate, then HTTP/2 or HTTP/1.
//!
//! Every wait has a limit: the TLS handshake, the request head, an idle peer (HTTP/2 pings). The
//! certificate seen in the handshake travels with each request and is verified again there, since a
//! connection may outlive it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use shared_transport::{AcceptLimits, Drained, alpn};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::handover::client_address;
use super::peer::Peer;
use crate::service::AuthService;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a request's head may take on HTTP/1.
const HEAD: Duration = Duration::from_secs(15);
/// How often a silent HTTP/2 peer is asked whether it lives, and how long it has for the answer.
const PING: Duration = Duration::from_secs(30);
/// Requests at once on one connection.
const STREAMS: u32 = 256;
/// How long running requests may go on once the end was asked for.
const DRAIN: Duration = Duration::from_secs(10);
/// A connection without a request for so long is closed; a client that needs it again makes a new one.
const IDLE: Duration = Duration::from_secs(300);
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
        let Some(client) = client_address(&mut tls).await else {
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
        let activity = Arc::new(Activity::default());
        let counted = Arc::clone(&activity);
        let service =
            hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let router = router.clone();
                let peer = peer.clone();
                let running = Activity::begin(&counted);
                async move {
                    let _running = running;
                    let mut request = request.map(axum::body::Body::new);
                    request.extensions_mut().insert(peer);
                    let answer: Result<_, Infallible> = router.oneshot(request).await;
                    answer
                }
            });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(32 * 1024);
        let connection = builder.serve_connection(TokioIo::new(tls), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = ending_or_idle(&ending, &activity) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %address, error = %error, "connection");
        }
    }
}

/// Requests of one connection: how many run, and how many ran.
#[derive(Default)]
struct Activity {
    running: AtomicU64,
    begun: AtomicU64,
}

/// One request that runs.
struct Running(Arc<Activity>);

impl Activity {
    fn begin(this: &Arc<Self>) -> Running {
        this.running.fetch_add(1, Ordering::Relaxed);
        this.begun.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(this))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Comes back when the service ends, or when nothing was asked for a while.
async fn ending_or_idle(ending: &CancellationToken, activity: &Activity) {
    let mut seen = 0;
    while ending.run_until_cancelled(tokio::time::sleep(IDLE)).await.is_some() {
        let begun = activity.begun.load(Ordering::Relaxed);
        if begun == seen && activity.running.load(Ordering::Relaxed) == 0 {
            return;
        }
        seen = begun;
    }
}

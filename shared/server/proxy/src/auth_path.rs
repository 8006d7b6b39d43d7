//! The way to the auth service, which passes through the proxy unread.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// A connection of a client, its TLS untouched.
pub type AuthStream = Box<dyn AuthIo>;

/// What an [`AuthStream`] can do.
pub trait AuthIo: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> AuthIo for T {}

/// Takes connections for the auth service.
#[async_trait]
pub trait AuthPath: Send + Sync + 'static {
    /// Serves one connection to its end, or to soon after `ending`.
    async fn pass(&self, stream: AuthStream, client: SocketAddr, ending: CancellationToken);
}

/// An auth service at an address.
#[derive(Debug, Clone)]
pub struct RemoteAuth {
    /// `host:port`.
    pub addr: String,
    /// What connecting may take.
    pub dial: Duration,
    /// How long nothing may move.
    pub idle: Duration,
}

impl RemoteAuth {
    /// The auth service at `addr`, with usual limits.
    pub fn new(addr: impl Into<String>) -> Self {
        Self { addr: addr.into(), dial: Duration::from_secs(10), idle: Duration::from_secs(600) }
    }
}

#[async_trait]
impl AuthPath for RemoteAuth {
    async fn pass(&self, stream: AuthStream, client: SocketAddr, ending: CancellationToken) {
        let auth = match shared_transport::dial(&self.addr, self.dial).await {
            Ok(auth) => auth,
            Err(err) => {
                tracing::warn!(addr = %self.addr, error = %err, "auth service cannot be reached");
                return;
            }
        };
        tokio::select! {
            copied = shared_transport::copy_bidirectional(stream, auth, Some(self.idle)) => {
                if let Err(err) = copied {
                    tracing::debug!(%client, error = %err, "connection to the auth service ended");
                }
            }
            () = ending.cancelled() => {}
        }
    }
}

/// An auth service in this process.
pub struct InProcessAuth<F>(F);

impl<F> InProcessAuth<F>
where
    F: Fn(AuthStream, SocketAddr, CancellationToken) -> BoxFuture<'static, ()> + Send + Sync + 'static,
{
    /// `serve` takes a connection with the address of its client.
    pub fn new(serve: F) -> Self {
        Self(serve)
    }
}

impl<F> std::fmt::Debug for InProcessAuth<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InProcessAuth")
    }
}

#[async_trait]
impl<F> AuthPath for InProcessAuth<F>
where
    F: Fn(AuthStream, SocketAddr, CancellationToken) -> BoxFuture<'static, ()> + Send + Sync + 'static,
{
    async fn pass(&self, stream: AuthStream, client: SocketAddr, ending: CancellationToken) {
        (self.0)(stream, client, ending).await;
    }
}

//! The way to the auth service, which passes through the proxy unread.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use shared_api::Client;
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

/// How long nothing may move on the way to an auth service.
const IDLE: Duration = Duration::from_secs(600);

/// An auth service in another process.
#[derive(Debug, Clone)]
pub struct RemoteAuth {
    client: Client,
}

impl RemoteAuth {
    /// Hands connections over with the identity of `client`, which is this proxy's own.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl AuthPath for RemoteAuth {
    async fn pass(&self, stream: AuthStream, client: SocketAddr, ending: CancellationToken) {
        let auth = match self.client.hand_over(client).await {
            Ok(auth) => auth,
            Err(err) => {
                let err: &dyn std::error::Error = &err;
                tracing::warn!(
                    addr = self.client.route().addr(),
                    error = err,
                    "auth service cannot be reached"
                );
                return;
            }
        };
        tokio::select! {
            copied = shared_transport::copy_bidirectional(stream, auth, Some(IDLE)) => {
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
    F: Fn(AuthStream, SocketAddr, CancellationToken) -> BoxFuture<'static, ()>
        + Send
        + Sync
        + 'static,
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
    F: Fn(AuthStream, SocketAddr, CancellationToken) -> BoxFuture<'static, ()>
        + Send
        + Sync
        + 'static,
{
    async fn pass(&self, stream: AuthStream, client: SocketAddr, ending: CancellationToken) {
        (self.0)(stream, client, ending).await;
    }
}

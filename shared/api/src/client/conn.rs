//! TCP, TLS and HTTP/2 to an auth service.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use shared_pki::TrustedAuthority;
use shared_transport::{alpn, dial, tls};
use shared_types::SystemRole;
use tokio::time::timeout;

use super::{Client, ClientError, ClientIdentity, Route};

/// A request's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
/// One HTTP/2 connection.
pub(crate) type Sender = http2::SendRequest<Body>;

/// A body out of bytes in hand.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// TLS as this route needs it, trusting a server of role Auth from the pinned host CA and nobody else.
pub(crate) fn tls(
    route: &Route,
    authorities: &[TrustedAuthority],
    identity: Option<&ClientIdentity>,
) -> Result<rustls::ClientConfig, ClientError> {
    let verifier = shared_pki::verify::ServerVerifier::new(authorities, &[SystemRole::Auth]);
    let identity = identity
        .map(|identity| {
            Ok((
                tls::certs_from_pem(identity.cert_pem.as_bytes())?,
                tls::key_from_pem(identity.key_pem.as_bytes())?,
            ))
        })
        .transpose()
        .map_err(ClientError::Identity)?;
    let mut config = tls::client_config(verifier, identity).map_err(ClientError::Identity)?;
    offer(&mut config, route);
    Ok(config)
}

/// The ALPN names: the auth service answers with HTTP/2, a proxy passes on by the name before it.
pub(crate) fn offer(config: &mut rustls::ClientConfig, route: &Route) {
    config.alpn_protocols = match route {
        Route::Direct { .. } => vec![alpn::H2.to_vec()],
        Route::Proxy { cluster, .. } => vec![alpn::auth(cluster.as_ref()), alpn::H2.to_vec()],
    };
}

impl Client {
    /// The server name and HTTP authority.
    pub(crate) fn server_name(&self) -> String {
        alpn::auth_server_name(self.inner.route.cluster())
    }

    async fn connect(&self) -> Result<Sender, ClientError> {
        let limit = self.inner.timeouts.connect;
        let addr = self.inner.route.addr();
        let stream = dial(addr, limit).await?;
        let config = Arc::clone(&self.inner.tls.lock().unwrap_or_else(PoisonError::into_inner));
        let stream = tls::connect(config, &self.server_name(), stream, limit)
            .await
            .map_err(|source| ClientError::Tls { addr: addr.to_owned(), source })?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(4 * 1024 * 1024)
            .max_header_list_size(64 * 1024);
        let (sender, conn) =
            timeout(limit, builder.handshake(TokioIo::new(stream))).await.map_err(|_| {
                ClientError::TimedOut { what: "the HTTP/2 preface".to_owned(), limit }
            })??;
        tokio::spawn(async move {
            if let Err(err) = conn.await {
                tracing::debug!(error = %err, "connection to auth service ended");
            }
        });
        Ok(sender)
    }

    async fn sender(&self) -> Result<Sender, ClientError> {
        let mut slot = self.inner.conn.lock().await;
        if let Some(sender) = slot.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let fresh = self.connect().await?;
        *slot = Some(fresh.clone());
        Ok(fresh)
    }

    /// Sends, and waits for the answer's head. A request that provably never left is sent once more on a new connection.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
        what: &str,
        limit: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        for last in [false, true] {
            let mut sender = self.sender().await?;
            match timeout(limit, sender.ready()).await {
                Ok(Ok(())) => {}
                Ok(Err(err)) if last => return Err(err.into()),
                Ok(Err(_)) => {
                    self.forget().await;
                    continue;
                }
                Err(_) => {
                    self.forget().await;
                    return Err(ClientError::TimedOut { what: what.to_owned(), limit });
                }
            }
            match timeout(limit, sender.try_send_request(request)).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(mut failed)) => match failed.take_message() {
                    Some(unsent) if !last => {
                        self.forget().await;
                        request = unsent;
                    }
                    _ => return Err(failed.into_error().into()),
                },
                // The connection may be dead without knowing it: the next call takes a new one.
                Err(_) => {
                    self.forget().await;
                    return Err(ClientError::TimedOut { what: what.to_owned(), limit });
                }
            }
        }
        Err(ClientError::Cut)
    }

    /// Lets the connection go; calls under way on it finish.
    async fn forget(&self) {
        *self.inner.conn.lock().await = None;
    }
}

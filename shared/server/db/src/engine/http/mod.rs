//! Databases that speak HTTP: what is the same for all of them. What differs is a [`Dialect`].
//!
//! What must stay true: a client's connection is one session, has one connection to the database, and ends with it;
//! every request has one event with the status it was answered with, whether or not it got as far as the database, and
//! whether or not its client is still there; bodies of requests are bounded, and all of them together.

mod counted;
mod exchange;
mod refused;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use server_core::tunnel::BoxedStream;
use shared_events::AuditEvent;
use shared_types::Database;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use self::counted::Counted;
use self::exchange::Exchange;
pub(super) use self::exchange::drop_hop;
use super::EngineError;
use crate::session::Session;

/// The longest head of a request or a reply, in bytes.
const MOST_HEAD: usize = 64 * 1024;
/// How long a client has for the head of a request, and between requests.
const HEAD: Duration = Duration::from_secs(3600);
/// How long a request under way has when its session ends.
const LAST_REPLY: Duration = Duration::from_secs(5);

/// A request as it came, all of it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Whose fault it is that a request has no reply of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Somebody may not, or has to ask otherwise: asking again does not help.
    Client,
    /// Something is away; asking again may help.
    Away,
}

/// A reply of our own.
pub(super) type Said = Response<Full<Bytes>>;

/// What differs between databases that speak HTTP.
#[async_trait]
pub(super) trait Dialect: Send + Sync + 'static {
    /// The longest body of a request, in bytes.
    fn most_body(&self) -> usize;

    /// The headers with which a request goes on to the database: without what belongs to the client's connection and
    /// to the client's own identity, with ours. The text of a failure is for the client.
    async fn headers(&self, database: &Database, asked: &Asked) -> Result<HeaderMap, String>;

    /// The event of a request that was answered with `status`.
    fn event(&self, asked: &Asked, status: StatusCode) -> AuditEvent;

    /// An error as the database would say it.
    fn error(&self, status: StatusCode, fault: Fault, text: &str) -> Said;
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Serves a client that was let through as far as here.
pub(super) async fn serve(
    dialect: Arc<dyn Dialect>,
    client: BoxedStream,
    session: &mut Session,
) -> Result<(), EngineError> {
    let (exchange, database) = match open(&dialect, session).await {
        Ok(opened) => opened,
        Err(error) => {
            refused::refuse(dialect.as_ref(), client, &error).await;
            return Err(error);
        }
    };
    let served = run(&exchange, database, client, session).await;
    exchange.finish(LAST_REPLY).await;
    served
}

/// Decides and connects.
async fn open(
    dialect: &Arc<dyn Dialect>,
    session: &mut Session,
) -> Result<(Exchange, JoinHandle<hyper::Result<()>>), EngineError> {
    let route = session.route().clone();
    let granted = session.authorize(&route.user, &route.name, "").await?;
    let dialled = session.dial(granted).await?;
    let stream: Box<dyn Stream> = match session.database().spec.uri.starts_with("http://") {
        true => Box::new(dialled.stream),
        false => Box::new(session.secure(dialled).await?),
    };
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(MOST_HEAD);
    let shaken = builder.handshake(TokioIo::new(stream)).await;
    let (sender, connection) =
        shaken.map_err(|error| EngineError::Database(std::io::Error::other(error)))?;
    let database = Arc::clone(session.shared_database());
    let exchange = Exchange::new(Arc::clone(dialect), database, session.audit(), sender);
    Ok((exchange, tokio::spawn(connection)))
}

/// Takes requests until one side or the session ends.
async fn run(
    exchange: &Exchange,
    mut database: JoinHandle<hyper::Result<()>>,
    client: BoxedStream,
    session: &Session,
) -> Result<(), EngineError> {
    let unwritten = OnceLock::new();
    let service = service_fn(|request| async {
        exchange.answer(request).await.map_err(|error| {
            let text = error.peer_text();
            let _ = unwritten.set(error);
            text
        })
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MOST_HEAD);
    let served = {
        let client = TokioIo::new(Counted::new(client, session));
        let mut connection = std::pin::pin!(builder.serve_connection(client, service));
        let broken = |error| EngineError::Client(std::io::Error::other(error));
        let served = tokio::select! {
            closed = &mut connection => Some(closed.map_err(broken)),
            reason = session.ended() => Some(Err(EngineError::Ended(reason.text))),
            _ = &mut database => None,
        };
        if !matches!(served, Some(Ok(()) | Err(EngineError::Client(_)))) {
            // Nothing new is taken; a reply under way may arrive.
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(LAST_REPLY, connection).await;
        }
        served.unwrap_or(Ok(()))
    };
    database.abort();
    unwritten.into_inner().map_or(served, |error| Err(error.into()))
}

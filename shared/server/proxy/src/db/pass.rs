//! A client's connection, handed to the agent.
//!
//! This is where everything passes that a database and its client say to each other. An agent in this process gets the
//! client's connection itself, with the preamble put in front of it, and serves it on this thread: no byte is copied
//! and no task is woken in between. For one behind a tunnel the bytes are copied between TLS and the tunnel's stream,
//! by this one task.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use server_core::access::check_user;
use server_core::db::Preamble;
use server_core::ssh::Ends;
use server_core::ssh::limits;
use server_core::tunnel::{AgentService, Arrival, ArrivedBy, BoxedStream, ConnType};
use shared_pki::Identity;
use shared_transport::Rewind;
use shared_transport::tunnel::TunnelStream;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::admit::{Admitted, Agent};
use super::meet::Guest;
use super::{DbProxy, canonical};

/// How long a client may stay whose agent has said its last.
const AFTERWARDS: Duration = Duration::from_secs(10);
/// How long an agent may take to end a connection itself.
const AGENTS_TURN: Duration = Duration::from_secs(3);
/// How long an agent may take to take what the proxy and the client said first.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client and the agent it is led to.
pub(super) struct Ready {
    guest: Guest,
    certificate: bytes::Bytes,
    identity: Identity,
    agent: Agent,
    counted: limits::Connection,
}

impl Ready {
    pub(super) fn new(guest: Guest, admitted: Admitted, agent: Agent) -> Self {
        let Admitted { certificate, identity, counted, .. } = admitted;
        Self { guest, certificate, identity, agent, counted }
    }
}

impl DbProxy {
    /// Serves a connection to its end. After `ending` it has the drain's time.
    pub(super) async fn pass(&self, ready: Ready, ends: Ends, ending: CancellationToken) {
        let Ready { guest, certificate, identity, agent, counted: _counted } = ready;
        let client = canonical(ends.peer);
        let preamble = Preamble { client, certificate, greeted: guest.greeted };
        let (stream, seen) = guest.stream.into_parts();
        let mut first = BytesMut::from(preamble.to_bytes());
        first.extend_from_slice(&seen);
        drop(seen);
        match agent {
            Agent::Here(service) => {
                here(service, Rewind::with_seen(stream, &first), ends, ending).await;
            }
            Agent::There(agent) => {
                let overdue = async {
                    ending.cancelled().await;
                    tokio::time::sleep(self.settings.timeouts.drain).await;
                };
                tokio::select! {
                    () = there(stream, agent, &first, ends) => {}
                    () = overdue => {}
                    () = self.shut_out(&identity) => {}
                }
            }
        }
    }

    /// Pends until a user may not be here any more, through this proxy or at all. The agent ends such a connection
    /// itself, and says why; it does not know of a lock on this proxy, and may have lost the auth service.
    async fn shut_out(&self, identity: &Identity) {
        let mut states = self.authority.watch();
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            if check_user(&state, identity, None, self.via()).is_err() {
                return tokio::time::sleep(AGENTS_TURN).await;
            }
            if states.changed().await.is_err() {
                // The service is stopping, and ends connections itself.
                return std::future::pending().await;
            }
        }
    }
}

async fn here(
    service: Arc<dyn AgentService>,
    stream: Rewind<BoxedStream>,
    ends: Ends,
    ending: CancellationToken,
) {
    let client = canonical(ends.peer);
    let arrival = Arrival { client, via: ArrivedBy::Local, conn_type: ConnType::Db };
    service.connection(Box::new(stream), arrival, ending).await;
}

async fn there(client: BoxedStream, mut agent: TunnelStream, first: &[u8], ends: Ends) {
    let peer = ends.peer;
    match tokio::time::timeout(PATIENCE, agent.write_all(first)).await {
        Ok(Ok(())) => {}
        Ok(Err(err)) => return tracing::debug!(%peer, error = %err, "agent left at once"),
        Err(_) => return tracing::debug!(%peer, "agent takes nothing"),
    }
    let ended = Arc::new(Notify::new());
    let agent = Telling { inner: agent, ended: Arc::clone(&ended) };
    let served = async {
        ended.notified().await;
        tokio::time::sleep(AFTERWARDS).await;
    };
    tokio::select! {
        copied = shared_transport::copy_bidirectional(client, agent, None) => {
            if let Err(err) = copied {
                tracing::debug!(%peer, error = %err, "database connection ended");
            }
        }
        () = served => {}
    }
}

/// Tells when reading has come to the end.
struct Telling<S> {
    inner: S,
    ended: Arc<Notify>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Telling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if matches!(polled, Poll::Ready(Ok(()))) && buf.filled().len() == before {
            self.ended.notify_one();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Telling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

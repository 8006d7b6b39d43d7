//! The listener of an agent that can be dialled: proxies hand connections over, stock clients speak plain SSH.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shared_transport::tunnel::ConnType;
use shared_transport::{AcceptLimits, Drained, Protocol, Rewind, alpn, handover};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{AgentService, Arrival, ArrivedBy, BoxedStream, HostTls};

/// How long a client may take to say what it speaks. Who waits for us to begin speaks SSH.
const FIRST_BYTES: Duration = Duration::from_secs(2);
/// How long a client hello may take.
const HELLO: Duration = Duration::from_secs(10);

/// Accepts until `stop`, then lets connections end within the drain of `limits`.
pub async fn serve_direct(
    listener: TcpListener,
    limits: AcceptLimits,
    tls: Arc<HostTls>,
    service: Arc<dyn AgentService>,
    stop: CancellationToken,
) -> Drained {
    shared_transport::serve(listener, limits, stop, move |stream, peer, ending| {
        let (tls, service) = (Arc::clone(&tls), Arc::clone(&service));
        async move {
            let Some((stream, arrival)) = arrive(stream, peer, &tls).await else { return };
            service.connection(stream, arrival, ending).await;
        }
    })
    .await
}

async fn arrive(
    stream: TcpStream,
    peer: SocketAddr,
    tls: &HostTls,
) -> Option<(BoxedStream, Arrival)> {
    let mut stream = Rewind::new(stream);
    match shared_transport::detect(&mut stream, FIRST_BYTES).await {
        Ok(Protocol::Ssh | Protocol::Silent) => {
            let arrival =
                Arrival { client: peer, via: ArrivedBy::Direct, conn_type: ConnType::Node };
            Some((Box::new(stream), arrival))
        }
        Ok(Protocol::Tls) => handed_over(stream, peer, tls).await,
        Ok(protocol) => {
            tracing::debug!(%peer, ?protocol, "protocol is not spoken here");
            None
        }
        Err(err) => {
            tracing::debug!(%peer, error = %err, "connection ended");
            None
        }
    }
}

async fn handed_over(
    mut stream: Rewind<TcpStream>,
    peer: SocketAddr,
    tls: &HostTls,
) -> Option<(BoxedStream, Arrival)> {
    let hello = shared_transport::client_hello(&mut stream, HELLO).await;
    let wanted = |hello: &shared_transport::ClientHello| {
        hello.alpn.iter().any(|name| name.as_slice() == alpn::NODE_HANDOVER)
    };
    if !hello.as_ref().is_ok_and(wanted) {
        tracing::debug!(%peer, "only proxies speak TLS here");
        return None;
    }
    let mut stream = match tls.accept(stream).await {
        Ok((stream, _proxy)) => stream,
        Err(err) => {
            tracing::warn!(%peer, error = &err as &dyn std::error::Error, "handover refused");
            return None;
        }
    };
    let Some(client) = handover::client_address(&mut stream).await else {
        tracing::debug!(%peer, "no client's address");
        return None;
    };
    let arrival = Arrival { client, via: ArrivedBy::Proxy, conn_type: ConnType::Node };
    Some((Box::new(stream), arrival))
}

//! The accept loop: bounded, never ending by itself, drained at the end.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// How much a listener takes on.
#[derive(Debug, Clone, Copy)]
pub struct AcceptLimits {
    /// Connections at a time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Connections at a time from one address; further ones are closed.
    pub per_peer: usize,
    /// How long connections may go on after the end was asked for.
    pub drain: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self { connections: 15_000, per_peer: 15_000, drain: Duration::from_secs(30) }
    }
}

/// How a listener ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open when the drain's time was over; 0 is a clean end.
    pub left: usize,
}

/// Accepts until `shutdown`, runs `handle` for each connection in a task of its own, then lets them finish within
/// `limits.drain`. The handler's token is a child of `shutdown`: what can end early does when it is cancelled.
/// Tasks that are left are dropped.
pub async fn serve<H, F>(
    listener: TcpListener,
    limits: AcceptLimits,
    shutdown: CancellationToken,
    handle: H,
) -> Drained
where
    H: Fn(TcpStream, SocketAddr, CancellationToken) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let peers = Arc::new(Peers { max: limits.per_peer.max(1), open: Mutex::default() });
    let tracker = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, peer, slot)) = accepted else { continue };
        let Some(place) = Peers::enter(&peers, peer.ip()) else {
            debug!(%peer, "too many connections from one address");
            continue;
        };
        crate::tune(&stream);
        let work = handle(stream, peer, shutdown.child_token());
        let abort = abort.clone();
        tracker.spawn(async move {
            let _held = (slot, place);
            let _ = abort.run_until_cancelled(work).await;
        });
    }
    drop(listener);
    tracker.close();
    let _ = tokio::time::timeout(limits.drain, tracker.wait()).await;
    let left = tracker.len();
    abort.cancel();
    tracker.wait().await;
    Drained { left }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, slot)),
        Err(err) => {
            // A connection that died in the queue is the peer's affair; lack of descriptors passes when others close.
            if !matches!(
                err.kind(),
                std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset
            ) {
                warn!(error = %err, "accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            None
        }
    }
}

struct Peers {
    max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

struct Place {
    peers: Arc<Peers>,
    ip: IpAddr,
}

impl Peers {
    fn enter(this: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let ip = ip.to_canonical();
        let mut open = this.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(ip).or_default();
        if *count >= this.max {
            return None;
        }
        *count += 1;
        Some(Place { peers: Arc::clone(this), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    async fn echo(mut stream: TcpStream, _peer: SocketAddr, _end: CancellationToken) {
        let mut buf = [0; 64];
        while let Ok(n @ 1..) = stream.read(&mut buf).await {
            if stream.write_all(&buf[..n]).await.is_err() {
                return;
            }
        }
    }

    async fn say(stream: &mut TcpStream) -> bool {
        let mut back = [0; 2];
        stream.write_all(b"hi").await.is_ok() && stream.read_exact(&mut back).await.is_ok()
    }

    #[tokio::test]
    async fn open_connections_finish_and_new_ones_are_refused() {
        let (listener, addr) = listener().await;
        let end = CancellationToken::new();
        let server = tokio::spawn(serve(listener, AcceptLimits::default(), end.clone(), echo));
        let mut stream = TcpStream::connect(addr).await.unwrap();
        assert!(say(&mut stream).await);
        end.cancel();
        while TcpStream::connect(addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(say(&mut stream).await, "an open connection goes on");
        drop(stream);
        assert_eq!(server.await.unwrap(), Drained { left: 0 });
    }

    #[tokio::test]
    async fn the_drain_has_a_limit() {
        let (listener, addr) = listener().await;
        let end = CancellationToken::new();
        let limits = AcceptLimits { drain: Duration::from_millis(50), ..AcceptLimits::default() };
        let server = tokio::spawn(serve(listener, limits, end.clone(), echo));
        let mut stream = TcpStream::connect(addr).await.unwrap();
        assert!(say(&mut stream).await);
        end.cancel();
        assert_eq!(server.await.unwrap(), Drained { left: 1 });
        assert!(!say(&mut stream).await);
    }

    #[tokio::test]
    async fn limits_hold_and_are_given_back() {
        let (listener, addr) = listener().await;
        let end = CancellationToken::new();
        let limits = AcceptLimits { per_peer: 2, ..AcceptLimits::default() };
        let _server = tokio::spawn(serve(listener, limits, end.clone(), echo));
        let mut first = TcpStream::connect(addr).await.unwrap();
        let mut second = TcpStream::connect(addr).await.unwrap();
        assert!(say(&mut first).await && say(&mut second).await);
        let mut third = TcpStream::connect(addr).await.unwrap();
        assert!(!say(&mut third).await, "one too many is closed");
        drop(first);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let mut again = TcpStream::connect(addr).await.unwrap();
            if say(&mut again).await {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "the place came back");
        }
    }
}

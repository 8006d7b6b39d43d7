//! Threads that connections of users are spread over: SSH and databases.
//!
//! A proxied connection is several tasks that hand every packet on: the client's connection, the one inside it, the
//! relay, the target's. On one thread a hand-over costs a push to a queue; between threads it costs a system call and
//! two context switches, for every packet and every keystroke. So a connection stays on one thread with all its tasks,
//! and connections share the machine between them. What blocks (disk, compression) runs on threads for that.

use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

/// The threads. They end when this is dropped.
pub(crate) struct Shards {
    shards: Vec<Arc<Shard>>,
    _stop: DropGuard,
}

struct Shard {
    runtime: Handle,
    connections: AtomicUsize,
}

/// One connection's place on a shard.
struct Place(Arc<Shard>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shards {
    /// Starts `threads` threads.
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let stop = CancellationToken::new();
        let mut shards = Vec::new();
        for number in 0..threads.max(1) {
            let runtime =
                Builder::new_current_thread().enable_all().thread_name("ssh-blocking").build()?;
            let connections = AtomicUsize::new(0);
            shards.push(Arc::new(Shard { runtime: runtime.handle().clone(), connections }));
            let stopped = stop.clone();
            std::thread::Builder::new().name(format!("ssh-{number}")).spawn(move || {
                runtime.block_on(stopped.cancelled());
                // Whatever still blocks must not hold up the end.
                runtime.shutdown_background();
            })?;
        }
        Ok(Self { shards, _stop: stop.drop_guard() })
    }

    /// The shard with the fewest connections, and one more on it.
    fn place(&self) -> Option<Place> {
        let shard =
            self.shards.iter().min_by_key(|shard| shard.connections.load(Ordering::Relaxed))?;
        shard.connections.fetch_add(1, Ordering::Relaxed);
        Some(Place(Arc::clone(shard)))
    }

    /// Serves a connection on one of the threads, to its end. Dropped before, the connection ends.
    pub(crate) async fn run<F>(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(place) = self.place() else { return };
        let stream: StdStream = match stream.into_std() {
            Ok(stream) => stream,
            Err(err) => return tracing::warn!(error = %err, "connection cannot be handed over"),
        };
        let runtime = place.0.runtime.clone();
        let serving = runtime.spawn(async move {
            let _place = place;
            // Registers with this thread's poll.
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(err) => tracing::warn!(error = %err, "connection cannot be handed over"),
            }
        });
        if let Err(err) = AbortOnDropHandle::new(serving).await {
            tracing::error!(error = %err, "connection ended by a fault");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn connections_are_spread_and_served_elsewhere() {
        let shards = Arc::new(Shards::start(2).unwrap());
        let mut clients = Vec::new();
        for _ in 0..4 {
            let (near, far) = pair().await;
            let shards = Arc::clone(&shards);
            tokio::spawn(async move {
                let serve = |mut stream: TcpStream| async move {
                    let name = std::thread::current().name().unwrap_or_default().to_owned();
                    stream.write_all(name.as_bytes()).await.unwrap();
                    let _ = stream.read_u8().await;
                };
                shards.run(far, serve).await;
            });
            clients.push(near);
        }
        let mut names = Vec::new();
        for client in &mut clients {
            let mut name = [0; 5];
            client.read_exact(&mut name).await.unwrap();
            names.push(String::from_utf8_lossy(&name).into_owned());
        }
        names.sort();
        assert_eq!(names, ["ssh-0", "ssh-0", "ssh-1", "ssh-1"]);
    }

    #[tokio::test]
    async fn a_connection_ends_with_who_waits_for_it() {
        let shards = Shards::start(1).unwrap();
        let (mut near, far) = pair().await;
        let serving = shards.run(far, |stream| async move {
            let _held = stream;
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(std::time::Duration::from_millis(50), serving).await.is_err());
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        // Its place is given back on the other thread, soon after its stream.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while shards.shards.iter().any(|shard| shard.connections.load(Ordering::Relaxed) > 0) {
            assert!(std::time::Instant::now() < deadline, "the place is never given back");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

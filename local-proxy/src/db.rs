//! A listener for the clients of one database.

use std::sync::Arc;
use std::time::Duration;

use shared_types::DbProtocol;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::keeper::Keeper;
use crate::refuse::refuse;
use crate::relay::{Side, linger, relay};
use crate::upstream::{Upstream, UpstreamError};

/// Connections at a time.
const CONNECTIONS: usize = 4096;
/// How long connections may take to end when the listener does.
const FAREWELL: Duration = Duration::from_secs(1);

/// Shows a person at the terminal what a client may not have been able to show.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// What stands behind a listener.
pub struct DbListener {
    /// What its clients speak.
    pub protocol: DbProtocol,
    /// Where the proxy is.
    pub upstream: Upstream,
    /// What is shown there.
    pub keeper: Keeper,
    /// Where trouble is told.
    pub notice: Notice,
}

impl DbListener {
    /// Serves until `stop`; then ends what still runs.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let connections = TaskTracker::new();
        let this = Arc::clone(&self);
        let keeping = tokio::spawn(async move { this.keeper.keep().await });
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, mostly: those who wait are taken when some are free again.
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let place = Arc::clone(&places).try_acquire_owned();
            let (this, stop) = (Arc::clone(&self), stop.clone());
            connections.spawn(async move {
                shared_transport::tune(&stream);
                tokio::select! {
                    () = async {
                        match place {
                            Ok(_place) => this.carry(stream).await,
                            Err(_) => this.refuse(stream, "too many connections to this local proxy").await,
                        }
                    } => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        keeping.abort();
        connections.close();
        let _ = tokio::time::timeout(FAREWELL, connections.wait()).await;
    }

    async fn carry(&self, mut client: TcpStream) {
        let tls = match self.keeper.tls().await {
            Ok(tls) => tls,
            Err(text) => return self.refuse(client, &text).await,
        };
        let mut upstream = match self.upstream.connect(tls).await {
            Ok(upstream) => upstream,
            Err(error) => {
                let text = chain(&error);
                (self.notice)(&text);
                return self.refuse(client, &text).await;
            }
        };
        let ended = relay(&mut client, &mut upstream).await;
        // Before a first word the proxy can say no only in TLS, which the client does not see.
        if let Some((Side::Upstream, error)) = &ended.fault
            && ended.to_client == 0
        {
            (self.notice)(&format!("the proxy ended a connection: {error}"));
        }
        tracing::debug!(?ended, "connection ended");
        drop(upstream);
        linger(&mut client).await;
    }

    async fn refuse(&self, mut client: TcpStream, text: &str) {
        refuse(self.protocol, &mut client, text).await;
    }
}

/// The error with its causes in one line.
fn chain(error: &UpstreamError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
#[path = "db_tests.rs"]
mod tests;

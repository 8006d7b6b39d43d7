//! One connection of a server whose channels run in tasks: the door, the time a client has there, and the end.

use std::sync::Arc;
use std::time::Duration;

use russh::server;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::elastic::Elastic;
use crate::guard::Guarded;

/// How long the channels of a connection that has ended may take to finish their recordings.
const FINISH: Duration = Duration::from_secs(60);

/// The channels of one connection.
pub(crate) trait Channels: Send + Sync {
    /// The tasks they run in.
    fn tasks(&self) -> &TaskTracker;

    /// Pends until everything of the user who got in has to end, and says why.
    fn ended(&self) -> impl Future<Output = String> + Send;

    /// Ends every session with a message.
    fn end_all(&self, text: &str) -> impl Future<Output = ()> + Send;
}

/// Serves one client to its end, channels included. `admitted` tells when somebody got in, and `patience` is the time
/// there is for that. `stop` is cancelled when this returns.
pub(crate) async fn serve<C, H, T>(
    channels: &C,
    handler: H,
    stream: T,
    config: Arc<server::Config>,
    (mut admitted, patience): (watch::Receiver<bool>, Duration),
    stop: CancellationToken,
) where
    C: Channels,
    H: server::Handler + Send + 'static,
    H::Error: std::fmt::Display,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let cut = CancellationToken::new();
    let stream = Elastic::new(Guarded::new(stream, cut.clone()));
    let serving = async {
        match server::run_stream(config, stream, handler).await {
            Ok(session) => session.await,
            Err(err) => Err(err),
        }
    };
    let watching = async {
        let in_time = tokio::time::timeout(patience, admitted.wait_for(|admitted| *admitted))
            .await
            .map(|waited| waited.is_ok());
        match in_time {
            Ok(true) => channels.ended().await,
            // The sender is gone: the connection ended by itself.
            Ok(false) => std::future::pending().await,
            Err(_) => "authentication took too long".to_owned(),
        }
    };
    tokio::pin!(serving);
    let mut client_is_gone = false;
    tokio::select! {
        end = &mut serving => {
            client_is_gone = true;
            if let Err(err) = end {
                tracing::debug!(error = %err, "ssh connection ended");
            }
        }
        text = watching => channels.end_all(&text).await,
        () = stop.cancelled() => {}
    }
    stop.cancel();
    channels.tasks().close();
    if tokio::time::timeout(FINISH, channels.tasks().wait()).await.is_err() {
        tracing::warn!("channels of a connection did not finish in time");
    }
    if !client_is_gone {
        // Last messages and closes are on their way.
        let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
    }
    cut.cancel();
}

//! Forwarded connections, to the node's side (`-L`, `-D`) and from it (`-R`), and the agent's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::Channel;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use tokio::net::{TcpStream, UnixStream};

use super::channels::{Channels, MAX_AGENTS, MAX_CHANNELS};
use super::copy;
use super::service::{AgentSocket, NodeService, Refusal};
use crate::relay::shared::Counted;
use crate::relay::{connect_failed, prohibited};

/// How long a client may take to open a channel.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

impl From<Refusal> for russh::ChannelOpenFailure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Prohibited(text) => prohibited(text),
            Refusal::Failed(text) => connect_failed(text),
        }
    }
}

impl<S: NodeService> Channels<S> {
    /// `direct-tcpip` (RFC 4254 §7.2).
    pub(super) async fn forward(
        self: Arc<Self>,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        to: (String, u32),
    ) {
        let Some((identity, login)) = self.user() else { return };
        let (Some(_channel), Ok(port)) =
            (Counted::new(&self.open, MAX_CHANNELS), u16::try_from(to.1))
        else {
            return reply.reject(russh::ChannelOpenFailure::ResourceShortage).await;
        };
        let connected = tokio::select! {
            connected = self.service.connect(&identity, &login, (&to.0, port)) => connected,
            () = self.stop.cancelled() => return,
        };
        let (stream, tap) = match connected {
            Ok(connected) => connected,
            Err(refusal) => return reply.reject(refusal.into()).await,
        };
        reply.accept().await;
        let moved = self.counted();
        let error = copy::both(channel, stream, &self.open, &moved, &self.stop).await;
        let (to_target, to_client) =
            (moved.to_target.load(Ordering::Relaxed), moved.to_client.load(Ordering::Relaxed));
        tap.end(to_target, to_client, error).await;
    }

    /// A connection to a port that the client had this node listen on (RFC 4254 §7.2, `forwarded-tcpip`). Answers the
    /// bytes in each direction.
    pub(super) async fn forwarded(
        &self,
        handle: &Handle,
        stream: TcpStream,
        from: SocketAddr,
        listening: (&str, u16),
    ) -> (u64, u64) {
        let Some(_channel) = Counted::new(&self.open, MAX_CHANNELS) else { return (0, 0) };
        let (address, port) = (listening.0.to_owned(), u32::from(listening.1));
        let (origin, origin_port) = (from.ip().to_string(), u32::from(from.port()));
        let opening = handle.channel_open_forwarded_tcpip(address, port, origin, origin_port);
        let Ok(Ok(channel)) = tokio::time::timeout(OPEN_TIMEOUT, opening).await else {
            return (0, 0);
        };
        let moved = self.counted();
        copy::both(channel, stream, &self.open, &moved, &self.stop).await;
        (moved.to_target.load(Ordering::Relaxed), moved.to_client.load(Ordering::Relaxed))
    }

    /// Passes connections to a session's agent socket to the client. Never ends by itself.
    pub(super) async fn serve_agents(&self, socket: &dyn AgentSocket, client: &Handle) {
        let mut running = futures::stream::FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok(stream) => running.push(self.serve_agent(stream, client)),
                    // No descriptor left, say: the next may be served again.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(()) = futures::StreamExt::next(&mut running), if !running.is_empty() => {}
            }
        }
    }

    async fn serve_agent(&self, mut program: UnixStream, client: &Handle) {
        let (Some(_agent), Some(_channel)) =
            (Counted::new(&self.agents, MAX_AGENTS), Counted::new(&self.open, MAX_CHANNELS))
        else {
            return;
        };
        let opening = tokio::time::timeout(OPEN_TIMEOUT, client.channel_open_agent());
        let Ok(Ok(channel)) = opening.await else { return };
        let _ = tokio::io::copy_bidirectional(&mut program, &mut channel.into_stream()).await;
    }
}

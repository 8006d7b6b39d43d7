//! One tunnel after the other, for one holder.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use shared_transport::DialError;
use shared_transport::tunnel::{AgentTunnel, Asked, DialReply, DialRequest, TunnelError};
use shared_types::HostId;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::TunnelPool;
use super::slots::{Claim, Holder};
use crate::backoff::Backoff;
use crate::tunnel::host_tls::HostTlsError;
use crate::tunnel::{Arrival, ArrivedBy, TlsIo};

/// How long one try to connect may take. Short: a packet that was lost while a link was cut must not be waited for.
const CONNECT: Duration = Duration::from_secs(3);
/// The longest wait between tries: what is back is found within ten seconds.
const LONGEST: Duration = Duration::from_secs(4);
/// How long a proxy may take to say the first thing.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// How often a holder whose proxy is held by another looks again.
const HELD: Duration = Duration::from_secs(60);
/// How long after new keys or a proxy's wish a new tunnel is made at the latest.
const SOON: Duration = Duration::from_secs(2);

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Host(#[from] HostTlsError),
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error("the proxy said nothing in {} s", FIRST_WORD.as_secs())]
    Mute,
    #[error("the proxy ended the tunnel")]
    Ended,
    #[error("met proxy {met}, to which there is a tunnel already")]
    Met { met: HostId },
}

/// What a tunnel ran on.
type Stream = TlsIo<TcpStream>;

/// How a tunnel ended.
enum End {
    /// It is gone.
    Gone(LinkError),
    /// It takes nothing new, and what runs through it goes on.
    Draining,
    /// The pool is stopping.
    Stopped,
}

impl TunnelPool {
    /// Holds a tunnel until `stop`, or until its proxy is listed no more.
    pub(super) async fn hold(self: Arc<Self>, holder: Holder, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(500), LONGEST);
        let mut away = false;
        while !stop.is_cancelled() && !self.slots.retire(&holder) {
            if self.slots.is_held(&holder) {
                self.until_free(&holder, &stop).await;
                continue;
            }
            let wait = match self.link(&holder, &stop, &mut backoff, &mut away).await {
                End::Stopped => return,
                End::Draining => some_of(SOON),
                End::Gone(LinkError::Met { met }) => {
                    tracing::debug!(addr = holder.addr, %met, "that proxy is known already");
                    some_of(backoff.next().max(SOON))
                }
                End::Gone(error) => {
                    let error: &dyn std::error::Error = &error;
                    if std::mem::replace(&mut away, true) {
                        tracing::debug!(addr = holder.addr, error, "no tunnel to the proxy");
                    } else {
                        tracing::warn!(
                            addr = holder.addr,
                            error,
                            "no tunnel to the proxy, trying on"
                        );
                    }
                    some_of(backoff.next())
                }
            };
            let _ = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
    }

    /// Waits while what a holder is after is held by another.
    async fn until_free(&self, holder: &Holder, stop: &CancellationToken) {
        let mut status = self.slots.status();
        let free = async { while self.slots.is_held(holder) && status.changed().await.is_ok() {} };
        let _ = stop.run_until_cancelled(tokio::time::timeout(HELD, free)).await;
    }

    /// Makes one tunnel and serves it.
    async fn link(
        self: &Arc<Self>,
        holder: &Holder,
        stop: &CancellationToken,
        backoff: &mut Backoff,
        away: &mut bool,
    ) -> End {
        let made = stop.run_until_cancelled(self.make(holder)).await;
        let (mut tunnel, proxy) = match made {
            None => return End::Stopped,
            Some(Ok(made)) => made,
            Some(Err(error)) => return End::Gone(error),
        };
        // A proxy that does not want this host says so only after the handshake: there is a tunnel once it has spoken.
        let first = match tokio::time::timeout(FIRST_WORD, tunnel.next()).await {
            Ok(Ok(Some(first))) => first,
            Ok(Ok(None)) => return End::Gone(LinkError::Ended),
            Ok(Err(error)) => return End::Gone(error.into()),
            Err(_) => return End::Gone(LinkError::Mute),
        };
        let Some(claim) = self.slots.claim(proxy) else {
            return End::Gone(LinkError::Met { met: proxy });
        };
        tracing::info!(addr = holder.addr, %proxy, "tunnel to the proxy");
        backoff.reset();
        *away = false;
        self.serve(tunnel, first, claim, stop).await
    }

    async fn make(&self, holder: &Holder) -> Result<(AgentTunnel<Stream>, HostId), LinkError> {
        let stream = shared_transport::dial(&holder.addr, CONNECT).await?;
        let (stream, proxy) = self.tls.connect(stream).await?;
        let proxy = proxy.host_id;
        let known = self.slots.status().borrow().proxies.contains(&proxy);
        if known {
            return Err(LinkError::Met { met: proxy });
        }
        Ok((AgentTunnel::open(stream).await?, proxy))
    }

    async fn serve(
        self: &Arc<Self>,
        mut tunnel: AgentTunnel<Stream>,
        first: Asked,
        claim: Claim,
        stop: &CancellationToken,
    ) -> End {
        let mut keys = self.tls.keys();
        keys.mark_unchanged();
        let mut asked = Some(first);
        loop {
            let next = match asked.take() {
                Some(first) => Ok(Some(first)),
                None => tokio::select! {
                    next = tunnel.next() => next,
                    // New certificates, or authorities: a new tunnel shows them.
                    Ok(()) = keys.changed() => Ok(Some(Asked::Reconnect)),
                    () = stop.cancelled() => {
                        drop(claim);
                        self.finish(tunnel).await;
                        return End::Stopped;
                    }
                },
            };
            match next {
                Ok(Some(Asked::Dial(request, reply))) => self.dialled(request, reply, stop),
                Ok(Some(Asked::Discovery(list))) => {
                    let pool = Arc::clone(self);
                    self.served.spawn(async move {
                        if let Some(proxies) = list.read().await {
                            pool.list(proxies);
                        }
                    });
                }
                Ok(Some(Asked::Reconnect)) => {
                    drop(claim);
                    let pool = Arc::clone(self);
                    self.served.spawn(async move { pool.finish(tunnel).await });
                    return End::Draining;
                }
                Ok(None) => return End::Gone(LinkError::Ended),
                Err(error) => return End::Gone(error.into()),
            }
        }
    }

    /// Lets what runs through a tunnel end.
    async fn finish(&self, mut tunnel: AgentTunnel<Stream>) {
        tunnel.finish();
        while let Ok(Some(asked)) = tunnel.next().await {
            if let Asked::Dial(_, reply) = asked {
                reply.refuse("agent connection is draining");
            }
        }
    }

    fn dialled(self: &Arc<Self>, request: DialRequest, reply: DialReply, stop: &CancellationToken) {
        let ours = request.server_id.split('.').next() == Some(&self.settings.host_id.to_string());
        let service = self.services.get(&request.conn_type);
        let Some(service) = service.filter(|_| ours) else {
            return reply.refuse(&format!(
                "this agent serves no connections of type {} for {}",
                request.conn_type.as_str(),
                request.server_id
            ));
        };
        let (service, stop) = (Arc::clone(service), stop.child_token());
        let arrival = Arrival {
            client: request.client_src_addr,
            via: ArrivedBy::Tunnel,
            conn_type: request.conn_type,
        };
        match reply.accept() {
            Ok(stream) => {
                self.served.spawn(service.connection(Box::new(stream), arrival, stop));
            }
            Err(error) => tracing::debug!(%error, "a dial that ended before it began"),
        }
    }
}

/// A part of a wait, so that many agents that lost the same proxy come back one after the other.
fn some_of(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.1..=1.0))
}

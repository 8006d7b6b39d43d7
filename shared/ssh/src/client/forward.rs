//! `-L`: local ports whose connections leave from the target (RFC 4254 §7.2).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use russh::client::Msg;
use russh::{ChannelMsg, ChannelWriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::error::ConnectError;
use super::inner::{OpenChannel, TargetConn};
use super::queue::ByteQueue;

/// Local connections at a time.
const MAX_CONNECTIONS: usize = 512;
/// Bytes read from a local connection at a time.
const CHUNK: usize = 64 * 1024;
/// Bytes for a local connection that may wait while it is the only channel.
const PAUSE_AT: usize = 1024 * 1024;
/// The same while other channels are in use; beyond it the connection is closed alone.
const CLOSE_AT: usize = 64 * 1024 * 1024;
const PAUSE_LOOK: Duration = Duration::from_millis(100);

/// Why a forwarding does not work.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// Not `[bind:]port:host:port`.
    #[error("forwarding '{0}' is not [bind_address:]port:host:port")]
    Syntax(String),
    /// The local port cannot be had.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// One `-L`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalForward {
    bind: Vec<std::net::IpAddr>,
    port: u16,
    host: String,
    host_port: u16,
}

impl FromStr for LocalForward {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || ForwardError::Syntax(super::config::printable(text));
        let parts = split(text).ok_or_else(syntax)?;
        let (bind, port, host, host_port) = match parts.as_slice() {
            [port, host, host_port] => ("localhost", port, host, host_port),
            [bind, port, host, host_port] => (bind.as_str(), port, host, host_port),
            _ => return Err(syntax()),
        };
        let bind = match bind {
            "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            "" | "*" => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            address => vec![address.parse().map_err(|_| syntax())?],
        };
        if host.is_empty() || host.len() > 255 || host.chars().any(char::is_control) {
            return Err(syntax());
        }
        Ok(Self {
            bind,
            port: port.parse().map_err(|_| syntax())?,
            host: host.clone(),
            host_port: host_port.parse().ok().filter(|p| *p != 0).ok_or_else(syntax)?,
        })
    }
}

/// Splits at colons outside brackets.
fn split(text: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut bracket = false;
    for c in text.chars() {
        match (c, bracket) {
            ('[', false) => bracket = true,
            (']', true) => bracket = false,
            (':', false) => parts.push(String::new()),
            (c, _) => parts.last_mut()?.push(c),
        }
    }
    (!bracket).then_some(parts)
}

/// A forwarding whose ports are open.
#[derive(Debug)]
pub struct Listening {
    forward: LocalForward,
    listeners: Vec<TcpListener>,
}

impl LocalForward {
    /// Opens the local port: on every address it names, but one is enough where the machine lacks IPv6.
    pub async fn listen(self) -> Result<Listening, ForwardError> {
        let mut listeners = Vec::new();
        let mut failed = None;
        for ip in &self.bind {
            let address = SocketAddr::new(*ip, self.port);
            match TcpListener::bind(address).await {
                Ok(listener) => listeners.push(listener),
                Err(source) => {
                    let in_use = source.kind() == io::ErrorKind::AddrInUse;
                    // A port taken on IPv4 is an error; `*` of IPv4 takes IPv6's as well on some systems.
                    if in_use && ip.is_ipv4() {
                        return Err(ForwardError::Listen { address, source });
                    }
                    failed.get_or_insert(ForwardError::Listen { address, source });
                }
            }
        }
        match failed {
            Some(error) if listeners.is_empty() => Err(error),
            _ => Ok(Listening { forward: self, listeners }),
        }
    }
}

impl Listening {
    /// Addresses that are listened on.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until the connection to the target is gone, or this is dropped. `report` is told of connections
    /// that the target does not make.
    pub async fn run(
        self,
        conn: Arc<TargetConn>,
        report: impl Fn(&ConnectError) + Send + Sync + 'static,
    ) {
        let report: Report = Arc::new(report);
        let forward = Arc::new(self.forward);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut accepting = tokio::task::JoinSet::new();
        for listener in self.listeners {
            let served = Served {
                forward: Arc::clone(&forward),
                conn: Arc::clone(&conn),
                report: Arc::clone(&report),
            };
            accepting.spawn(accept(listener, served, Arc::clone(&places)));
        }
        accepting.join_all().await;
    }
}

type Report = Arc<dyn Fn(&ConnectError) + Send + Sync>;

/// What every connection of one forwarding shares.
#[derive(Clone)]
struct Served {
    forward: Arc<LocalForward>,
    conn: Arc<TargetConn>,
    report: Report,
}

async fn accept(listener: TcpListener, served: Served, places: Arc<Semaphore>) {
    let mut connections = tokio::task::JoinSet::new();
    while !served.conn.is_closed() {
        // Reaps what ended, so that the set holds only what runs.
        while connections.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept a connection to forward");
                tokio::time::sleep(PAUSE_LOOK).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("forwarding refused a connection: too many at a time");
            continue;
        };
        let served = served.clone();
        connections.spawn(async move {
            let _place = place;
            connection(stream, from, &served).await;
        });
    }
}

async fn connection(stream: TcpStream, from: SocketAddr, served: &Served) {
    // Latency only: the connection works without it.
    let _ = stream.set_nodelay(true);
    let from_ip = from.ip().to_string();
    let to = (served.forward.host.as_str(), served.forward.host_port);
    let (channel, open) = match served.conn.open_tcp(to, (&from_ip, from.port())).await {
        Ok(opened) => opened,
        Err(error) => return (served.report)(&error),
    };
    let (mut read, write) = channel.split();
    let (mut local_read, mut local_write) = stream.into_split();
    let write = Arc::new(write);
    let queue = Arc::new(ByteQueue::new());

    let upload = tokio::spawn({
        let write = Arc::clone(&write);
        async move { send(&mut local_read, &write).await }
    });
    let download = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move {
            while let Some(bytes) = queue.take().await {
                if local_write.write_all(&bytes).await.is_err() {
                    queue.break_off();
                    return;
                }
                queue.written(bytes.len());
            }
            // The other side may have gone first.
            let _ = local_write.shutdown().await;
        }
    });
    let mut finished = false;
    while let Some(message) = read.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                let goes_on = queue.push(data) && room(&queue, &open).await;
                if !goes_on {
                    break;
                }
            }
            ChannelMsg::Eof => queue.end(),
            ChannelMsg::Close => {
                finished = true;
                break;
            }
            _ => {}
        }
    }
    queue.end();
    upload.abort();
    if !finished {
        let _ = write.close().await;
    }
    // What the target sent before it closed still has to reach the local side.
    let _ = download.await;
}

async fn send(local: &mut tokio::net::tcp::OwnedReadHalf, write: &ChannelWriteHalf<Msg>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match local.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let bytes: Bytes = buffer.split().freeze();
                if write.data_bytes(bytes).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = write.eof().await;
}

/// Waits until more may be read from the channel; `false` when this connection must go, because it does
/// not read and others wait behind it.
async fn room(queue: &ByteQueue, open: &OpenChannel) -> bool {
    loop {
        let shared = open.open_channels() > 1;
        let len = queue.len();
        if queue.is_broken() || (shared && len > CLOSE_AT) {
            if len > CLOSE_AT {
                tracing::warn!("forwarded connection closed: it does not read and holds up others");
            }
            return false;
        }
        if shared || len <= PAUSE_AT {
            return true;
        }
        // Until it is drained, or it is time to look at the other channels again.
        let _ = tokio::time::timeout(PAUSE_LOOK, queue.below(PAUSE_AT)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_read_as_ssh_reads_them() {
        let plain: LocalForward = "8080:db.internal:5432".parse().unwrap();
        assert_eq!((plain.port, plain.host.as_str(), plain.host_port), (8080, "db.internal", 5432));
        assert!(plain.bind.iter().all(std::net::IpAddr::is_loopback));
        let any: LocalForward = "*:8080:[::1]:80".parse().unwrap();
        assert!(any.bind.iter().all(std::net::IpAddr::is_unspecified));
        assert_eq!(any.host, "::1");
        let six: LocalForward = "[::1]:8080:h:80".parse().unwrap();
        assert_eq!(six.bind, ["::1".parse::<std::net::IpAddr>().unwrap()]);
    }

    #[test]
    fn what_is_no_forward_is_refused() {
        for text in [
            "",
            "80",
            "80:h",
            "x:h:80",
            "80:h:0",
            "80:h:70000",
            "80::80",
            "name:80:h:80",
            "[::1:80:h:80",
            "80:h\n:80",
        ] {
            assert!(text.parse::<LocalForward>().is_err(), "{text:?}");
        }
    }
}

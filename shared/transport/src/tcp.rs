//! Sockets: dialling with a limit, and the options every connection gets.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("resolve {addr}")]
    Resolve {
        /// What was dialled.
        addr: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No address of it answered.
    #[error("connect to {addr}")]
    Connect {
        /// What was dialled.
        addr: String,
        /// Why the last one did not.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("connect to {addr}: no answer in {}", humane(*.limit))]
    TimedOut {
        /// What was dialled.
        addr: String,
        /// The limit.
        limit: Duration,
    },
}

fn humane(limit: Duration) -> String {
    format!("{} s", limit.as_secs_f32())
}

/// Dials `host:port`, every address of it in turn, all within `limit`.
pub async fn dial(addr: &str, limit: Duration) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + limit;
    let late = || DialError::TimedOut { addr: addr.to_owned(), limit };
    let resolved = timeout_at(deadline, tokio::net::lookup_host(addr))
        .await
        .map_err(|_| late())?
        .map_err(|source| DialError::Resolve { addr: addr.to_owned(), source })?;
    let addrs: Vec<SocketAddr> = resolved.collect();
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "no address");
    for (at, one) in addrs.iter().enumerate() {
        // An address that swallows packets must not use up the time of those behind it.
        let left = deadline.saturating_duration_since(Instant::now());
        let behind = u32::try_from(addrs.len() - at).unwrap_or(u32::MAX);
        match timeout_at(Instant::now() + left / behind, TcpStream::connect(one)).await {
            Ok(Ok(stream)) => {
                tune(&stream);
                return Ok(stream);
            }
            Ok(Err(err)) => last = err,
            Err(_) if behind == 1 => return Err(late()),
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(DialError::Connect { addr: addr.to_owned(), source: last })
}

/// No delay for small writes, and keep-alive so that a vanished peer is noticed.
pub fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keep = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keep);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refused_and_unresolved_are_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        dial(&addr, Duration::from_secs(5)).await.unwrap();
        drop(listener);
        assert!(matches!(
            dial(&addr, Duration::from_secs(5)).await,
            Err(DialError::Connect { .. })
        ));
        assert!(matches!(
            dial("no-port", Duration::from_secs(5)).await,
            Err(DialError::Resolve { .. })
        ));
    }
}

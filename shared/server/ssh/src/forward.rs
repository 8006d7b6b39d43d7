//! Connections that this host makes and takes for its clients.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// Ports below this are for root's programs.
const UNPRIVILEGED: u16 = 1024;

/// Connects as `-L` and `-D` ask.
pub(crate) async fn connect(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(limit, TcpStream::connect((host, port)))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    shared_transport::tune(&stream);
    Ok(stream)
}

/// Where `-R` listens: on loopback, whatever address the client names, as `GatewayPorts no` has it.
pub(crate) fn loopback(address: &str, port: u16) -> SocketAddr {
    let named: Option<IpAddr> = address.parse().ok();
    let ip: IpAddr = match named {
        Some(IpAddr::V6(Ipv6Addr::LOCALHOST)) => Ipv6Addr::LOCALHOST.into(),
        Some(IpAddr::V4(ip)) if ip.is_loopback() => ip.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, port)
}

/// Listens as `-R` asks.
pub(crate) async fn listen(addr: SocketAddr, login: &str) -> io::Result<TcpListener> {
    if (1..UNPRIVILEGED).contains(&addr.port()) && login != "root" {
        let why = format!("only root's programs listen on ports below {UNPRIVILEGED}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    TcpListener::bind(addr).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn listening_is_for_loopback_and_low_ports_are_for_root() {
        for (asked, bound) in [
            ("", "127.0.0.1:8080"),
            ("localhost", "127.0.0.1:8080"),
            ("0.0.0.0", "127.0.0.1:8080"),
            ("::", "127.0.0.1:8080"),
            ("*", "127.0.0.1:8080"),
            ("192.0.2.1", "127.0.0.1:8080"),
            ("127.0.0.2", "127.0.0.2:8080"),
            ("::1", "[::1]:8080"),
        ] {
            assert_eq!(loopback(asked, 8080).to_string(), bound, "{asked}");
        }
        let refused = listen(loopback("", 80), "joe").await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let any = listen(loopback("", 0), "joe").await.unwrap();
        assert!(any.local_addr().unwrap().port() >= UNPRIVILEGED);
    }
}

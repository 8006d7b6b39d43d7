//! Addresses: which are our own, and what a name stands for.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// What looking up a name may take.
const LOOKUP: Duration = Duration::from_secs(10);
/// Addresses of one name that are looked at.
const MAX_ADDRESSES: usize = 8;

/// Whether somebody who dials `addr` reaches `listener`.
pub(crate) fn is_listener(listener: SocketAddr, addr: SocketAddr) -> bool {
    if listener.port() != addr.port() {
        return false;
    }
    let (listening, dialled) = (listener.ip().to_canonical(), addr.ip().to_canonical());
    listening == dialled || (listening.is_unspecified() && is_local(dialled))
}

/// Whether an address belongs to this machine: only those can be bound.
fn is_local(addr: IpAddr) -> bool {
    addr.is_loopback() || addr.is_unspecified() || UdpSocket::bind((addr, 0)).is_ok()
}

/// The addresses a host stands for, IPv4 in IPv6 unwrapped, in the resolver's order.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host, port)))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let mut addrs: Vec<SocketAddr> = Vec::new();
    for addr in found {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        if !addrs.contains(&addr) && addrs.len() < MAX_ADDRESSES {
            addrs.push(addr);
        }
    }
    Ok(addrs)
}

/// Whether a host stands for anything.
pub(crate) async fn exists(host: &str, port: u16) -> bool {
    resolve(host, port).await.is_ok_and(|addrs| !addrs.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listeners_in_every_spelling() {
        let listener: SocketAddr = "0.0.0.0:3025".parse().unwrap();
        for own in [
            "127.0.0.1:3025",
            "127.8.9.1:3025",
            "0.0.0.0:3025",
            "[::ffff:127.0.0.1]:3025",
            "[::1]:3025",
        ] {
            assert!(is_listener(listener, own.parse().unwrap()), "{own}");
        }
        for other in ["127.0.0.1:22", "192.0.2.1:3025"] {
            assert!(!is_listener(listener, other.parse().unwrap()), "{other}");
        }
        assert!(!is_listener("10.0.0.1:22".parse().unwrap(), "10.0.0.2:22".parse().unwrap()));
    }

    #[tokio::test]
    async fn odd_spellings_of_loopback_are_loopback() {
        for host in ["2130706433", "0x7f000001", "127.1", "0177.0.0.1"] {
            if let Ok(addrs) = resolve(host, 22).await {
                assert!(addrs.iter().all(|addr| addr.ip().is_loopback()), "{host} is {addrs:?}");
            }
        }
    }
}

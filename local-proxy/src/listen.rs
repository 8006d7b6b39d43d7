//! Where to listen: loopback, unless the user asks for more in so many words.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted: a pool opens all of its own at once.
const BACKLOG: u32 = 1024;

/// Why nothing is listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Two places were named.
    #[error("either --port or --listen, not both")]
    Twice,
    /// An address that other machines reach.
    #[error(
        "--listen {0}: only loopback addresses are listened on, such as 127.0.0.1:{port}", port = .0.port()
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error("listen on {addr}")]
    Bind {
        /// Which.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where to listen, by `--port` and `--listen`; none where neither is given. Addresses that other machines reach are
/// for those who say `anywhere`.
pub fn listen_address(
    port: Option<u16>,
    listen: Option<SocketAddr>,
    anywhere: bool,
) -> Result<Option<SocketAddr>, ListenError> {
    match (port, listen) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(ListenError::Twice),
        (Some(port), None) => Ok(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
        (None, Some(addr)) if anywhere || addr.ip().is_loopback() => Ok(Some(addr)),
        (None, Some(addr)) => Err(ListenError::NotLoopback(addr)),
    }
}

/// Listens; answers where, for port 0 takes any.
pub fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let open = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    open().map_err(|source| ListenError::Bind { addr, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_listened_on_unasked() {
        assert!(listen_address(None, None, false).unwrap().is_none());
        let any = listen_address(Some(0), None, false).unwrap().unwrap();
        assert_eq!(any.to_string(), "127.0.0.1:0");
        let given =
            |text: &str, anywhere| listen_address(None, Some(text.parse().unwrap()), anywhere);
        assert!(given("[::1]:22", false).is_ok());
        for open in ["0.0.0.0:22", "192.0.2.1:22", "[::]:22", "[::ffff:192.0.2.1]:22"] {
            assert!(matches!(given(open, false), Err(ListenError::NotLoopback(_))), "{open}");
            assert!(given(open, true).is_ok());
        }
        let twice = listen_address(Some(1), Some("127.0.0.1:1".parse().unwrap()), true);
        assert!(matches!(twice, Err(ListenError::Twice)));
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let (_listener, bound) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let text = bind(bound).unwrap_err().to_string();
        assert_eq!(text, format!("listen on {bound}"));
    }
}

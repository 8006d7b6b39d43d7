//! Sockets, opened before anything else so that a taken port is the first thing said.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listen on {addr} ({key})")]
pub(crate) struct ListenError {
    /// The configuration's key.
    key: &'static str,
    /// The address.
    addr: SocketAddr,
    /// Why.
    #[source]
    source: std::io::Error,
}

/// A listener and where it really is.
pub(crate) async fn listen(
    key: &'static str,
    addr: SocketAddr,
) -> Result<(TcpListener, SocketAddr), ListenError> {
    let fault = |source| ListenError { key, addr, source };
    let listener = TcpListener::bind(addr).await.map_err(fault)?;
    let real = listener.local_addr().map_err(fault)?;
    Ok((listener, real))
}

/// Where this host reaches a listener of its own.
pub(crate) fn local(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// `host:port` out of a configured public address, with the port that is really listened on where it says none or 0.
pub(crate) fn with_real_port(public: &str, real: SocketAddr) -> String {
    match public.rsplit_once(':') {
        Some((host, port))
            if (!host.contains(':') || host.ends_with(']')) && port.parse::<u16>().is_ok() =>
        {
            if port.parse() == Ok(0u16) {
                format!("{host}:{}", real.port())
            } else {
                public.to_owned()
            }
        }
        _ if public.contains(':') && !public.starts_with('[') => {
            format!("[{public}]:{}", real.port())
        }
        _ => format!("{public}:{}", real.port()),
    }
}

/// The host of `host:port`.
pub(crate) fn host_of(addr: &str) -> &str {
    if let Some(rest) = addr.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    match addr.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let real: SocketAddr = "0.0.0.0:4444".parse().unwrap();
        assert_eq!(local(real).to_string(), "127.0.0.1:4444");
        assert_eq!(with_real_port("gate.example", real), "gate.example:4444");
        assert_eq!(with_real_port("gate.example:443", real), "gate.example:443");
        assert_eq!(with_real_port("::1", real), "[::1]:4444");
        assert_eq!(with_real_port("[::1]:1", real), "[::1]:1");
        assert_eq!(host_of("[::1]:1"), "::1");
        assert_eq!(host_of("gate.example:443"), "gate.example");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let (first, addr) =
            listen("auth_service.listen_addr", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let text = listen("auth_service.listen_addr", addr).await.unwrap_err().to_string();
        assert!(
            text.contains("auth_service.listen_addr") && text.contains(&addr.to_string()),
            "{text}"
        );
        drop(first);
    }
}

//! The subsystems a client may ask the proxy for: `proxy:host:port[@cluster]` and `proxysites`.

use shared_types::{ClusterName, HostName};

/// The longest subsystem name that is looked at.
const MAX_NAME: usize = 1024;

/// A subsystem of the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subsystem {
    /// A way to a target.
    Proxy(ProxyRequest),
    /// The clusters, as JSON.
    ProxySites,
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRequest {
    /// The host as the user typed it.
    pub host: HostName,
    /// `None` where the user left it to the server.
    pub port: Option<u16>,
    /// `None` for the local cluster.
    pub cluster: Option<ClusterName>,
}

/// Why a subsystem is none of ours. The text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a subsystem of the proxy.
    #[error("unknown subsystem {0:?}")]
    Unknown(String),
    /// Starts like a proxy request and is none.
    #[error("invalid format for proxy request: {0:?}, expected 'proxy:host:port@cluster'")]
    Format(String),
    /// The cluster itself, which has no SSH server.
    #[error("the auth service of cluster {0:?} has no SSH server")]
    ClusterItself(String),
}

impl Subsystem {
    /// Reads the name a client sent.
    pub fn parse(name: &str) -> Result<Self, RequestError> {
        if name == "proxysites" {
            return Ok(Self::ProxySites);
        }
        let shown = || name.chars().take(MAX_NAME).collect::<String>();
        let Some(rest) = name.strip_prefix("proxy:") else {
            return Err(RequestError::Unknown(shown()));
        };
        if name.len() > MAX_NAME {
            return Err(RequestError::Format(shown()));
        }
        ProxyRequest::parse(rest).map(Self::Proxy).map_err(|problem| match problem {
            Problem::Format => RequestError::Format(shown()),
            Problem::ClusterItself(cluster) => RequestError::ClusterItself(cluster.to_string()),
        })
    }
}

enum Problem {
    Format,
    ClusterItself(ClusterName),
}

impl ProxyRequest {
    fn parse(rest: &str) -> Result<Self, Problem> {
        let mut at = rest.split('@');
        let address = at.next().unwrap_or_default();
        // Old clients put a namespace, which is always `default`, before the cluster.
        let cluster = match (at.next(), at.next(), at.next()) {
            (None, ..) => None,
            (Some(cluster), None, _) | (Some("default"), Some(cluster), None) => {
                Some(cluster.parse::<ClusterName>().map_err(|_| Problem::Format)?)
            }
            _ => return Err(Problem::Format),
        };
        if address.is_empty() {
            return Err(cluster.map_or(Problem::Format, Problem::ClusterItself));
        }
        let (host, port) = split_port(address).ok_or(Problem::Format)?;
        let host = host.parse::<HostName>().map_err(|_| Problem::Format)?;
        let port = match port {
            "" => None,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse::<u16>().map_err(|_| Problem::Format)?).filter(|port| *port != 0)
            }
            _ => return Err(Problem::Format),
        };
        Ok(Self { host, port, cluster })
    }
}

/// `host:port`, `[v6]:port`, or, as OpenSSH's `%h:%p` makes it, `v6:port` without brackets.
fn split_port(address: &str) -> Option<(&str, &str)> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return Some((host, port.strip_prefix(':').or(port.is_empty().then_some(""))?));
    }
    let (host, port) = address.rsplit_once(':')?;
    if host.contains(':') {
        host.parse::<std::net::Ipv6Addr>().ok()?;
    }
    Some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proxy(name: &str) -> Option<(String, Option<u16>, Option<String>)> {
        match Subsystem::parse(name) {
            Ok(Subsystem::Proxy(request)) => Some((
                request.host.to_string(),
                request.port,
                request.cluster.map(|cluster| cluster.to_string()),
            )),
            _ => None,
        }
    }

    #[test]
    fn the_documented_forms() {
        let host = |name: &str, port, cluster: Option<&str>| {
            Some((name.to_owned(), port, cluster.map(str::to_owned)))
        };
        assert_eq!(proxy("proxy:web-1:22"), host("web-1", Some(22), None));
        assert_eq!(proxy("proxy:web-1:0"), host("web-1", None, None));
        assert_eq!(proxy("proxy:web-1:"), host("web-1", None, None));
        assert_eq!(
            proxy("proxy:10.0.0.7:3022@leaf.example.com"),
            host("10.0.0.7", Some(3022), Some("leaf.example.com"))
        );
        assert_eq!(proxy("proxy:web-1:22@default@leaf"), host("web-1", Some(22), Some("leaf")));
        assert_eq!(proxy("proxy:[::1]:22"), host("::1", Some(22), None));
        assert_eq!(proxy("proxy:::1:22"), host("::1", Some(22), None));
        assert_eq!(Subsystem::parse("proxysites"), Ok(Subsystem::ProxySites));
    }

    #[test]
    fn the_documented_refusal() {
        for bad in [
            "proxy:",
            "proxy:web-1",
            "proxy:web-1:ssh",
            "proxy:web-1:99999",
            "proxy:web-1:22@a@b",
            "proxy:a:b:c",
            "proxy:-oProxyCommand=x:22",
            "proxy:we b:22",
            "proxy:a\x1b[0m:22",
            "proxy:$(id):22",
            "proxy:web\n:22",
            "proxy:web-1:22@",
            "proxy:web-1:+22",
            "proxy:[web]:22",
        ] {
            let err = Subsystem::parse(bad).unwrap_err();
            assert_eq!(err, RequestError::Format(bad.to_owned()));
            let text = err.to_string();
            assert!(text.ends_with("expected 'proxy:host:port@cluster'"), "{text}");
            assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
        }
        assert!(matches!(Subsystem::parse("proxy:@leaf"), Err(RequestError::ClusterItself(_))));
        assert!(matches!(Subsystem::parse("sftp"), Err(RequestError::Unknown(_))));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_passes_is_harmless(name in "(proxy:)?[ -~\\n]{0,40}") {
            if let Ok(Subsystem::Proxy(request)) = Subsystem::parse(&name) {
                let host = request.host.to_string();
                prop_assert!(!host.starts_with('-'));
                prop_assert!(host.chars().all(|c| c.is_ascii_alphanumeric() || "._:-".contains(c)), "{}", host);
            }
        }
    }
}

//! ALPN names of the one TLS port, and the server names that say the same to what cannot set ALPN.

use shared_types::ClusterName;

/// HTTP/2; what the auth API speaks inside its own TLS.
pub const H2: &[u8] = b"h2";
/// HTTP/1.1; the web API.
pub const HTTP1: &[u8] = b"http/1.1";
/// The SSH proxy inside TLS.
pub const PROXY_SSH: &[u8] = b"teleport-proxy-ssh";
/// A proxy hands a client's connection on to the auth service, with the client's address in front.
pub const AUTH_HANDOVER: &[u8] = b"gatehouse-auth-handover";
/// An agent's tunnel to a proxy.
pub const REVERSE_TUNNEL: &[u8] = b"teleport-reversetunnel";
/// A proxy hands a client's connection on to an agent that it can dial, with the client's address in front.
pub const NODE_HANDOVER: &[u8] = b"gatehouse-node-handover";
/// What the auth API's name starts with: `teleport-auth@CLUSTER`.
pub const AUTH_PREFIX: &str = "teleport-auth@";

/// The name under which the proxy passes a connection on to the auth service of `cluster`.
/// Without one it is the proxy's own cluster: the first connection does not know the name yet.
pub fn auth(cluster: Option<&ClusterName>) -> Vec<u8> {
    match cluster {
        Some(cluster) => format!("{AUTH_PREFIX}{cluster}").into_bytes(),
        None => AUTH_PREFIX.as_bytes().to_vec(),
    }
}

/// What an offered name asks for, if it asks for the auth API: the cluster, empty for the proxy's own.
pub fn auth_cluster(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok()?.strip_prefix(AUTH_PREFIX)
}

/// The server name sent to an auth service: `HEX.teleport.cluster.local`. Nothing is checked by it; a proxy may route by it.
pub fn auth_server_name(cluster: Option<&ClusterName>) -> String {
    use std::fmt::Write as _;
    let Some(cluster) = cluster else { return "teleport.cluster.local".to_owned() };
    let mut hex = String::new();
    for byte in cluster.as_ref().to_ascii_lowercase().bytes() {
        let _ = write!(hex, "{byte:02x}");
    }
    // A label holds 63 octets.
    if hex.len() > 63 {
        "teleport.cluster.local".to_owned()
    } else {
        format!("{hex}.teleport.cluster.local")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_names() {
        let cluster: ClusterName = "example.com".parse().unwrap();
        assert_eq!(auth(Some(&cluster)), b"teleport-auth@example.com");
        assert_eq!(auth_cluster(&auth(Some(&cluster))), Some("example.com"));
        assert_eq!(auth_cluster(&auth(None)), Some(""));
        assert_eq!(auth_cluster(b"h2"), None);
        assert_eq!(auth_cluster(b"teleport-auth@\xff"), None);
        assert_eq!(
            auth_server_name(Some(&cluster)),
            "6578616d706c652e636f6d.teleport.cluster.local"
        );
    }
}

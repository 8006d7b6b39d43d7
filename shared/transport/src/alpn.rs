//! ALPN names of the one TLS port, and the server names that say the same to what cannot set ALPN.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
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

/// PostgreSQL and CockroachDB; their own TLS may come inside.
pub const POSTGRES: &[u8] = b"teleport-postgres";
/// MySQL and MariaDB; their own TLS may come inside.
pub const MYSQL: &[u8] = b"teleport-mysql";
/// MySQL, followed by the base64 of the version that the greeting is to name.
pub const MYSQL_PREFIX: &str = "teleport-mysql-";
/// Redis and Valkey.
pub const REDIS: &[u8] = b"teleport-redis";
/// DynamoDB.
pub const DYNAMODB: &[u8] = b"teleport-dynamodb";
/// The longest version of a MySQL server that a name may carry.
const LONGEST_VERSION: usize = 64;

/// What a client of a database speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// PostgreSQL's protocol.
    Postgres,
    /// MySQL's, with the server version that the client wants to be greeted with.
    Mysql {
        /// Printable text.
        version: Option<String>,
    },
    /// Redis's.
    Redis,
    /// DynamoDB's: JSON over HTTP.
    Dynamodb,
}

/// What an offered name asks for, if it asks for a database.
pub fn database(name: &[u8]) -> Option<Database> {
    match name {
        POSTGRES => Some(Database::Postgres),
        MYSQL => Some(Database::Mysql { version: None }),
        REDIS => Some(Database::Redis),
        DYNAMODB => Some(Database::Dynamodb),
        _ => {
            let version = std::str::from_utf8(name).ok()?.strip_prefix(MYSQL_PREFIX)?;
            Some(Database::Mysql { version: Some(mysql_version(version)?) })
        }
    }
}

/// The name that asks for a MySQL database and a greeting with `version`; without one where that is no such text.
pub fn mysql(version: Option<&str>) -> Vec<u8> {
    let fit = version.filter(|version| is_version(version.as_bytes()));
    match fit {
        Some(version) => format!("{MYSQL_PREFIX}{}", STANDARD_NO_PAD.encode(version)).into_bytes(),
        None => MYSQL.to_vec(),
    }
}

fn mysql_version(encoded: &str) -> Option<String> {
    let version = STANDARD_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?;
    is_version(&version).then(|| String::from_utf8(version).ok()).flatten()
}

/// It goes into a packet of text that ends with a zero byte, and onto terminals.
fn is_version(version: &[u8]) -> bool {
    (1..=LONGEST_VERSION).contains(&version.len()) && version.iter().all(u8::is_ascii_graphic)
}

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

    #[test]
    fn database_names() {
        assert_eq!(database(POSTGRES), Some(Database::Postgres));
        assert_eq!(database(REDIS), Some(Database::Redis));
        assert_eq!(database(DYNAMODB), Some(Database::Dynamodb));
        let of = |version: Option<&str>| Database::Mysql { version: version.map(str::to_owned) };
        for version in [None, Some("8.0.36"), Some("10.11.6-MariaDB-0+deb12u1")] {
            assert_eq!(database(&mysql(version)), Some(of(version)));
        }
        assert_eq!(mysql(Some("8.0.12")), b"teleport-mysql-OC4wLjEy");
        let padded = b"teleport-mysql-OC4wLjM=";
        assert_eq!(database(padded), Some(of(Some("8.0.3"))));
        assert_eq!(mysql(Some("8.0\0")), MYSQL, "no text of a greeting");
        let long = format!("{MYSQL_PREFIX}{}", STANDARD_NO_PAD.encode("8".repeat(65)));
        for other in
            [&b""[..], b"h2", b"teleport-postgres-ping", b"teleport-mysql-", b"teleport-mysql-!!"]
        {
            assert_eq!(database(other), None, "{other:?}");
        }
        assert_eq!(database(long.as_bytes()), None);
        assert_eq!(database(b"teleport-mysql-OAA"), None, "a zero byte");
    }
}

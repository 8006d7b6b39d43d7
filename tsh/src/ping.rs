//! `GET /webapi/ping`: what a proxy says of itself before anyone is logged in. Nothing secret is
//! sent, and nothing it says is trusted for more than finding the way.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use shared_cli::CliError;
use shared_transport::{dial, tls};
use shared_types::ClusterName;

/// Longest answer that is read, in bytes.
const LONGEST: usize = 256 * 1024;
/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is used of the ping document.
#[derive(Debug, Deserialize)]
pub struct Ping {
    /// The cluster's name.
    pub cluster_name: ClusterName,
    /// The proxy's version.
    #[serde(default)]
    pub server_version: String,
    /// The proxy's addresses.
    #[serde(default)]
    pub proxy: PingProxy,
}

/// Part of [`Ping`].
#[derive(Debug, Default, Deserialize)]
pub struct PingProxy {
    /// SSH addresses.
    #[serde(default)]
    pub ssh: PingSsh,
    /// Addresses for clients of databases.
    #[serde(default)]
    pub db: PingDb,
    /// Whether one port serves everything.
    #[serde(default)]
    pub tls_routing_enabled: bool,
}

/// Part of [`Ping`]: where the proxy has ports of their own for databases.
#[derive(Debug, Default, Deserialize)]
pub struct PingDb {
    /// Where it listens for PostgreSQL.
    #[serde(default)]
    pub postgres_listen_addr: String,
    /// Where users reach that.
    #[serde(default)]
    pub postgres_public_addr: String,
    /// Where it listens for MySQL.
    #[serde(default)]
    pub mysql_listen_addr: String,
    /// Where users reach that.
    #[serde(default)]
    pub mysql_public_addr: String,
}

/// Part of [`Ping`].
#[derive(Debug, Default, Deserialize)]
pub struct PingSsh {
    /// Where the SSH proxy listens.
    #[serde(default)]
    pub listen_addr: String,
    /// Where users reach it.
    #[serde(default)]
    pub ssh_public_addr: String,
}

impl Ping {
    /// The SSH proxy's port.
    pub fn ssh_port(&self) -> Option<u16> {
        [&self.proxy.ssh.ssh_public_addr, &self.proxy.ssh.listen_addr]
            .into_iter()
            .find_map(|addr| addr.rsplit(':').next()?.parse().ok())
    }
}

impl PingDb {
    /// Where clients of PostgreSQL connect, for users who know the proxy as `proxy`; empty where that is the web port.
    pub fn postgres(&self, proxy: &ProxyAddr) -> String {
        public(&self.postgres_public_addr, &self.postgres_listen_addr, proxy)
    }

    /// The same for MySQL; empty where there is no such port.
    pub fn mysql(&self, proxy: &ProxyAddr) -> String {
        public(&self.mysql_public_addr, &self.mysql_listen_addr, proxy)
    }
}

/// The public address; else the listener's port on the host that the user knows.
fn public(public: &str, listen: &str, proxy: &ProxyAddr) -> String {
    let port = |addr: &str| addr.rsplit(':').next()?.parse::<u16>().ok().filter(|port| *port > 0);
    match (port(public), port(listen)) {
        (Some(_), _) => public.to_owned(),
        (None, Some(port)) => proxy.join(port),
        (None, None) => String::new(),
    }
}

/// A proxy's web address; without a port, the usual ones are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAddr {
    /// Host name or address.
    pub host: String,
    /// Web port, if given.
    pub web_port: Option<u16>,
    /// SSH port, if given.
    pub ssh_port: Option<u16>,
}

impl std::str::FromStr for ProxyAddr {
    type Err = CliError;
    fn from_str(text: &str) -> Result<Self, CliError> {
        let wrong = || {
            CliError::usage(format!("{text:?} is no proxy address"))
                .hint("host, host:webport or host:webport,sshport")
        };
        let text = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
        let (address, ssh_port) = match text.split_once(',') {
            Some((address, port)) => (address, Some(port.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let (host, web_port) = match address.rsplit_once(':') {
            Some((host, _)) if host.contains(':') && !host.starts_with('[') => (address, None),
            Some((host, port)) => (host, Some(port.parse().map_err(|_| wrong())?)),
            None => (address, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host.parse::<shared_types::HostName>().map_err(|_| wrong())?;
        Ok(Self { host: host.to_owned(), web_port, ssh_port })
    }
}

impl ProxyAddr {
    /// `host:port` with brackets where the host is an IPv6 address.
    pub fn join(&self, port: u16) -> String {
        if self.host.contains(':') {
            format!("[{}]:{port}", self.host)
        } else {
            format!("{}:{port}", self.host)
        }
    }

    /// Finds the proxy; returns its web address and what it says of itself.
    pub async fn ping(&self, insecure: bool) -> Result<(String, Ping), CliError> {
        let ports: &[u16] = match &self.web_port {
            Some(port) => std::slice::from_ref(port),
            None => &[3080, 443],
        };
        let mut last = None;
        for port in ports {
            let addr = self.join(*port);
            match ping(&addr, &self.host, insecure).await {
                Ok(ping) => return Ok((addr, ping)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| CliError::new(format!("proxy {} does not answer", self.host))))
    }
}

async fn ping(addr: &str, host: &str, insecure: bool) -> Result<Ping, CliError> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        CliError::wrap(format!("proxy not available at proxy address {addr}"), error)
    };
    let mut config = if insecure {
        tls::accept_any_certificate()
    } else {
        tls::web_client_config(&[])
            .map_err(|error| CliError::wrap("load the system's certificates", &error))?
    };
    config.alpn_protocols = vec![shared_transport::alpn::HTTP1.to_vec()];
    let stream = dial(addr, PATIENCE).await.map_err(|error| failed(&error))?;
    let stream = tls::connect(Arc::new(config), host, stream, PATIENCE).await.map_err(|error| {
        failed(&error).hint("if the proxy's certificate is self-signed, --insecure skips this check; the login itself is verified end to end")
    })?;
    let exchange = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let task = tokio::spawn(connection);
        let request = http::Request::get("/webapi/ping")
            .header("host", addr)
            .header("user-agent", concat!("tsh/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(&error))?;
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        if !response.status().is_success() {
            return Err(CliError::new(format!("proxy {addr} answers {}", response.status())));
        }
        let body = Limited::new(response.into_body(), LONGEST)
            .collect()
            .await
            .map_err(|error| CliError::wrap(format!("proxy {addr}"), error.as_ref()))?
            .to_bytes();
        task.abort();
        serde_json::from_slice(&body)
            .map_err(|error| CliError::wrap(format!("{addr} does not answer like a proxy"), &error))
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(result) => result,
        Err(_) => Err(CliError::new(format!("proxy {addr} does not answer"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_for_databases() {
        let proxy: ProxyAddr = "p.example.com:443".parse().unwrap();
        let ping = PingDb {
            postgres_public_addr: "pg.example.com:5432".to_owned(),
            postgres_listen_addr: "0.0.0.0:5433".to_owned(),
            mysql_listen_addr: "[::]:3036".to_owned(),
            ..PingDb::default()
        };
        assert_eq!(ping.postgres(&proxy), "pg.example.com:5432");
        assert_eq!(ping.mysql(&proxy), "p.example.com:3036");
        assert_eq!(PingDb::default().mysql(&proxy), "");
    }

    #[test]
    fn addresses_as_users_write_them() {
        let parse = |text: &str| text.parse::<ProxyAddr>().unwrap();
        let all = parse("p.example.com:443,3023");
        assert_eq!(
            (all.host.as_str(), all.web_port, all.ssh_port),
            ("p.example.com", Some(443), Some(3023))
        );
        assert_eq!(parse("https://p.example.com/").web_port, None);
        assert_eq!(parse("[::1]:3080").join(3080), "[::1]:3080");
        assert_eq!(parse("::1").web_port, None);
        for wrong in ["", ":3080", "p:http", "-p:1", "a b", "p;x"] {
            assert!(wrong.parse::<ProxyAddr>().is_err(), "{wrong:?}");
        }
    }
}

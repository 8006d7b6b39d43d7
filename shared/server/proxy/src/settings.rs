//! What a proxy needs to know of its configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use shared_config::{ExecRecording, ProxyConfig};
use shared_types::HostId;

/// Settings of a proxy.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// State on disk: spools, the self-signed web certificate.
    pub data_dir: PathBuf,
    /// This host's id.
    pub host_id: HostId,
    /// This host's name.
    pub nodename: String,
    /// The addresses users are told.
    pub public: PublicAddrs,
    /// Certificate and key files for the web port; self-signed ones are made where there are none.
    pub https_keypairs: Vec<(PathBuf, PathBuf)>,
    /// Overrides the choice of ciphers on the SSH port.
    pub ssh_ciphers: Vec<String>,
    /// Addresses of the cluster's own services, which need the literal address in a role.
    pub cluster_addrs: Vec<SocketAddr>,
    /// The output of non-interactive commands goes through a bucket of so many bytes, refilled with so many in a
    /// second. `None` records all of it.
    pub exec_bucket: Option<(u64, u64)>,
    /// How long a session whose recording is not taken is stopped before it ends: by the auth service in mode
    /// `proxy-sync`, by a full spool in mode `proxy`.
    pub recording_wait: Duration,
    /// Bytes that recordings may take in the spool.
    pub spool_bytes: u64,
    /// Time limits.
    pub timeouts: Timeouts,
    /// The server version that clients of MySQL are greeted with on a port of its own, where it is not known yet which
    /// database they want.
    pub mysql_server_version: Option<String>,
    /// Connections at a time, on each port.
    pub max_connections: usize,
    /// Connections at a time from one address.
    pub max_connections_per_peer: usize,
}

/// The addresses users are told; empty where the listening address is meant.
#[derive(Debug, Clone, Default)]
pub struct PublicAddrs {
    /// `public_addr`: names and ports of the web port.
    pub web: Vec<String>,
    /// `ssh_public_addr`: names and ports of the SSH port.
    pub ssh: Vec<String>,
    /// `tunnel_public_addr`: names and ports of the port for tunnels.
    pub tunnel: Vec<String>,
    /// `postgres_public_addr`: names and ports of the port for PostgreSQL.
    pub postgres: Vec<String>,
    /// `mysql_public_addr`: names and ports of the port for MySQL.
    pub mysql: Vec<String>,
}

/// Time limits of the proxy.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// What a connection may take until it is authenticated.
    pub auth: Duration,
    /// What a TCP connection to a target may take.
    pub dial: Duration,
    /// What running sessions have at the end.
    pub drain: Duration,
    /// How often idle SSH clients are asked whether they are there.
    pub keepalive: Duration,
    /// How many such questions may stay unanswered.
    pub keepalive_max: usize,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            auth: Duration::from_secs(60),
            dial: Duration::from_secs(15),
            drain: Duration::from_secs(30),
            keepalive: Duration::from_secs(300),
            keepalive_max: 3,
        }
    }
}

impl ProxySettings {
    /// Settings with the documented defaults.
    pub fn new(data_dir: PathBuf, host_id: HostId, nodename: impl Into<String>) -> Self {
        Self {
            data_dir,
            host_id,
            nodename: nodename.into(),
            public: PublicAddrs::default(),
            https_keypairs: Vec::new(),
            ssh_ciphers: Vec::new(),
            cluster_addrs: Vec::new(),
            exec_bucket: Some((16 * 1024 * 1024, 64 * 1024)),
            recording_wait: Duration::from_secs(30),
            spool_bytes: 10 * 1024 * 1024 * 1024,
            timeouts: Timeouts::default(),
            mysql_server_version: None,
            max_connections: 15_000,
            max_connections_per_peer: 15_000,
        }
    }

    /// Settings out of a configuration file. `cluster_addrs` are the addresses of the cluster's other services.
    pub fn from_config(
        config: &ProxyConfig,
        data_dir: PathBuf,
        host_id: HostId,
        nodename: impl Into<String>,
        cluster_addrs: Vec<SocketAddr>,
    ) -> Self {
        Self {
            public: PublicAddrs {
                web: config.public_addr.clone(),
                ssh: config.ssh_public_addr.clone(),
                tunnel: config.tunnel_public_addr.clone(),
                postgres: config.postgres_public_addr.clone(),
                mysql: config.mysql_public_addr.clone(),
            },
            https_keypairs: config
                .https_keypairs
                .iter()
                .map(|pair| (pair.cert_file.clone(), pair.key_file.clone()))
                .collect(),
            ssh_ciphers: config.ssh_ciphers.clone().unwrap_or_default(),
            exec_bucket: match config.exec_recording {
                ExecRecording::Full => None,
                ExecRecording::Bucket { burst_bytes, bytes_per_second } => {
                    Some((burst_bytes, bytes_per_second))
                }
            },
            recording_wait: config.recording_wait.as_std(),
            spool_bytes: config.recording_spool_bytes,
            mysql_server_version: config.mysql_server_version.clone(),
            cluster_addrs,
            ..Self::new(data_dir, host_id, nodename)
        }
    }

    /// Where agents dial this proxy, whose web port is at `web`: the first public address, with that port where it names
    /// none.
    pub(crate) fn agents_dial(&self, web: SocketAddr) -> String {
        match self.public.web.first() {
            Some(addr) if host_of(addr) != addr && !addr.ends_with(']') => addr.clone(),
            Some(addr) if addr.contains(':') && !addr.starts_with('[') => {
                format!("[{addr}]:{}", web.port())
            }
            Some(addr) => format!("{addr}:{}", web.port()),
            None => web.to_string(),
        }
    }

    /// The names, without ports, under which users reach this proxy.
    pub(crate) fn host_names(&self) -> Vec<String> {
        let all =
            self.public.web.iter().chain(&self.public.ssh).map(|addr| host_of(addr).to_owned());
        let mut names: Vec<String> = Vec::new();
        for name in
            all.chain([self.nodename.clone(), "localhost".into(), "127.0.0.1".into(), "::1".into()])
        {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// The host of `host:port`, `[v6]:port` or `host`.
pub(crate) fn host_of(addr: &str) -> &str {
    if let Some(rest) = addr.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    match addr.rsplit_once(':') {
        Some((host, port))
            if !host.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            host
        }
        _ => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_addresses() {
        for (addr, host) in [
            ("proxy.example.com:3080", "proxy.example.com"),
            ("proxy.example.com", "proxy.example.com"),
            ("[::1]:3080", "::1"),
            ("::1", "::1"),
            ("10.0.0.1:3023", "10.0.0.1"),
        ] {
            assert_eq!(host_of(addr), host);
        }
    }

    #[test]
    fn agents_are_told_a_whole_address() {
        let mut settings = ProxySettings::new("/x".into(), HostId::random(), "n");
        let web = "10.0.0.1:3080".parse().unwrap();
        assert_eq!(settings.agents_dial(web), "10.0.0.1:3080");
        for (public, told) in [
            ("gate.test:443", "gate.test:443"),
            ("gate.test", "gate.test:3080"),
            ("[::1]:443", "[::1]:443"),
            ("[::1]", "[::1]:3080"),
            ("::1", "[::1]:3080"),
        ] {
            settings.public.web = vec![public.to_owned()];
            assert_eq!(settings.agents_dial(web), told);
        }
    }
}

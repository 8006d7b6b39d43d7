//! `teleport.yaml`, checked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use shared_types::{GoDuration, RecordingMode, SystemRole};

use crate::ConfigError;
use crate::check::Checker;
use crate::db_service::DbConfig;
use crate::places::is_blank;
use crate::sessions_uri::SessionsUri;
use crate::ssh_service::SshConfig;
use crate::{raw, yaml};

/// Largest file that is read, in bytes.
const LARGEST: u64 = 4 * 1024 * 1024;

/// The daemon's configuration.
#[derive(Debug, Clone)]
pub struct TeleportConfig {
    /// This host's name, as users see it; the operating system's when left out.
    pub nodename: Option<String>,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// Where the process id is written.
    pub pid_file: Option<PathBuf>,
    /// The token a service joins with.
    pub auth_token: Option<JoinToken>,
    /// Addresses of the auth service, `host:port`.
    pub auth_servers: Vec<String>,
    /// The proxy through which the auth service is reached, `host:port`, in place of its own address.
    pub proxy_server: Option<String>,
    /// The address or name under which others reach this host, where it is not the one they see.
    pub advertise_ip: Option<String>,
    /// Pins of the cluster's host authority.
    pub ca_pins: Vec<String>,
    /// Logs.
    pub log: LogConfig,
    /// Where metrics and health are served, if they are.
    pub diag_addr: Option<SocketAddr>,
    /// The auth service, if it runs here.
    pub auth: Option<AuthConfig>,
    /// The proxy service, if it runs here.
    pub proxy: Option<ProxyConfig>,
    /// The SSH service, if it runs here.
    pub ssh: Option<SshConfig>,
    /// The database service, if it runs here.
    pub db: Option<DbConfig>,
}

/// A join token: itself, or the file it is in.
#[derive(Clone, PartialEq, Eq)]
pub enum JoinToken {
    /// The token.
    Value(String),
    /// An absolute path.
    File(PathBuf),
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Where logs go and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `stderr`, `stdout` or a path.
    pub output: String,
    /// `debug`, `info`, `warn` or `error`.
    pub severity: String,
    /// Text or JSON.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// The auth service.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The cluster's name, fixed at the first start.
    pub cluster_name: Option<String>,
    /// Where the API listens.
    pub listen_addr: SocketAddr,
    /// Where others reach it.
    pub public_addr: Vec<String>,
    /// Tokens that never expire.
    pub tokens: Vec<StaticToken>,
    /// `session_recording`, when the file says so.
    pub session_recording: Option<RecordingMode>,
    /// How often recordings that nobody finishes are looked for.
    pub upload_completer_period: GoDuration,
    /// A session whose proxy has not been heard of for so long counts as ended.
    pub session_tracker_ttl: GoDuration,
    /// How long a recording that a proxy has on its disk is waited for, once a part of it came.
    pub upload_grace_period: GoDuration,
    /// Where finished recordings are kept; below the data directory when left out.
    pub audit_sessions_uri: Option<SessionsUri>,
    /// `proxy_checks_host_keys`, when the file says so.
    pub proxy_checks_host_keys: Option<bool>,
    /// `authentication.default_session_ttl`, when the file says so.
    pub default_session_ttl: Option<GoDuration>,
    /// `client_idle_timeout`, when the file says so.
    pub client_idle_timeout: Option<GoDuration>,
    /// `disconnect_expired_cert`, when the file says so.
    pub disconnect_expired_cert: Option<bool>,
    /// `keep_alive_interval`, when the file says so.
    pub keep_alive_interval: Option<GoDuration>,
    /// `keep_alive_count_max`, when the file says so.
    pub keep_alive_count_max: Option<u32>,
    /// `ssh_dial_timeout`, when the file says so.
    pub ssh_dial_timeout: Option<GoDuration>,
    /// `proxy_listener_mode`, when the file says so.
    pub proxy_listener_mode: Option<ListenerMode>,
    /// `routing_strategy`, when the file says so.
    pub routing_strategy: Option<RoutingStrategy>,
    /// `case_insensitive_routing`, when the file says so.
    pub case_insensitive_routing: Option<bool>,
}

/// Whether a proxy has a port for each protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerMode {
    /// A port for each.
    Separate,
    /// One for all.
    Multiplex,
}

/// Which of several nodes a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutingStrategy {
    /// None: the user has to say.
    UnambiguousMatch,
    /// The one that was heard of last.
    MostRecent,
}

/// One of `auth_service.tokens`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticToken {
    /// What may join with it.
    pub roles: Vec<SystemRole>,
    /// The token, or the file it is in.
    pub token: JoinToken,
}

/// The proxy service.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// The one TLS port.
    pub web_listen_addr: SocketAddr,
    /// The SSH port, where it has one of its own.
    pub ssh_listen_addr: Option<SocketAddr>,
    /// The port for agents' tunnels, where they have one of their own.
    pub tunnel_listen_addr: Option<SocketAddr>,
    /// Where agents reach the tunnel port.
    pub tunnel_public_addr: Vec<String>,
    /// Where users reach the web port: names, with or without a port.
    pub public_addr: Vec<String>,
    /// Where users reach the SSH port.
    pub ssh_public_addr: Vec<String>,
    /// The port for PostgreSQL, where it has one of its own.
    pub postgres_listen_addr: Option<SocketAddr>,
    /// Where users reach the port for PostgreSQL.
    pub postgres_public_addr: Vec<String>,
    /// The port for MySQL, where it has one of its own.
    pub mysql_listen_addr: Option<SocketAddr>,
    /// Where users reach the port for MySQL.
    pub mysql_public_addr: Vec<String>,
    /// The server version that clients of MySQL are greeted with before it is known which database they want.
    pub mysql_server_version: Option<String>,
    /// Web certificates.
    pub https_keypairs: Vec<Keypair>,
    /// Ciphers offered to every SSH client, in place of a choice by its version.
    pub ssh_ciphers: Option<Vec<String>>,
    /// How much output of commands without a terminal is recorded.
    pub exec_recording: ExecRecording,
    /// How long a session whose recording is not taken is stopped before it ends.
    pub recording_wait: GoDuration,
    /// What recordings may take on this disk.
    pub recording_spool_bytes: u64,
}

/// A web certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keypair {
    /// PEM file.
    pub key_file: PathBuf,
    /// PEM file.
    pub cert_file: PathBuf,
}

/// How much output of commands without a terminal is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecRecording {
    /// All of it.
    Full,
    /// A burst, then a rate; what is left out is a named gap.
    Bucket {
        /// Bytes recorded at once.
        burst_bytes: u64,
        /// Bytes per second after that.
        bytes_per_second: u64,
    },
}

impl From<raw::ExecRecording> for ExecRecording {
    fn from(exec: raw::ExecRecording) -> Self {
        if exec.full.is_some_and(|flag| flag.0) {
            return Self::Full;
        }
        Self::Bucket {
            burst_bytes: exec.burst_bytes.unwrap_or(16 * 1024 * 1024),
            bytes_per_second: exec.bytes_per_second.unwrap_or(64 * 1024),
        }
    }
}

impl TeleportConfig {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        use std::io::Read;
        let fault = |source| ConfigError::Open { path: path.to_path_buf(), source };
        let mut text = String::new();
        std::fs::File::open(path)
            .map_err(fault)?
            .take(LARGEST)
            .read_to_string(&mut text)
            .map_err(fault)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Checks a text; `name` is how messages call it.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        // An empty file is a file in which everything has its default.
        let file: raw::File = if is_blank(text) {
            raw::File::default()
        } else {
            yaml::read(text).map_err(|fault| ConfigError::Parse {
                name: name.to_owned(),
                line: fault.line,
                column: fault.column,
                message: fault.message,
            })?
        };
        Checker { name, text }.file(file)
    }

    /// Auth and proxy in one process, everything at its default.
    pub fn all_in_one(data_dir: &Path) -> Result<Self, ConfigError> {
        let config = Checker { name: "defaults", text: "" }.file(raw::File::default())?;
        Ok(Self { data_dir: data_dir.to_path_buf(), ..config })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_users_write_it() {
        let text = "auth_service:\n  session_recording: \"proxy\"\n  proxy_checks_host_keys: no\n  tokens: [\"proxy:/etc/token\"]\nssh_service:\n  enabled: no\n";
        let auth = TeleportConfig::parse(text, "t").unwrap().auth.unwrap();
        assert_eq!(auth.session_recording, Some(RecordingMode::Proxy));
        assert_eq!(auth.proxy_checks_host_keys, Some(false));
        assert_eq!(auth.tokens[0].token, JoinToken::File("/etc/token".into()));
        assert_eq!(auth.listen_addr.port(), 3025);
    }

    #[test]
    fn faults_name_place_key_and_what_was_expected() {
        for (text, parts) in [
            (
                "auth_service:\n  session_recoding: proxy\n",
                &["t.yaml:2:", "session_recoding", "session_recording"][..],
            ),
            ("auth_service:\n  enabled: maybe\n", &["t.yaml:2:", "maybe", "boolean"]),
            (
                "auth_service:\n  session_recording: proxi\n",
                &["auth_service.session_recording", "proxi", "node,proxy,off,node-sync,proxy-sync"],
            ),
            (
                "auth_service:\n  session_tracker_ttl: 10ms\n",
                &["t.yaml:2:", "session_tracker_ttl", "at least 1s"],
            ),
            ("teleport:\n  diag_addr: here\n", &["teleport.diag_addr", "ADDRESS:PORT"]),
            ("auth_service: [\n", &["t.yaml:"]),
            (
                "proxy_service:\n  web_listen_addr: here\n",
                &["proxy_service.web_listen_addr", "here", "ADDRESS:PORT"],
            ),
            ("auth_service:\n  enabled: no\nproxy_service:\n  enabled: no\n", &["neither"]),
            ("auth_service:\n  enabled: no\n", &["teleport.auth_server", "missing"]),
            (
                "auth_service:\n  tokens: [\"king:abc\"]\n",
                &["auth_service.tokens", "expected role"],
            ),
        ] {
            let shown = TeleportConfig::parse(text, "t.yaml").unwrap_err().to_string();
            for part in parts {
                assert!(shown.contains(part), "{part:?} is missing in {shown:?}");
            }
        }
    }
}

//! `teleport.yaml`, checked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use shared_types::{ClusterName, GoDuration, HostName, RecordingMode, SystemRole};

use crate::ConfigError;
use crate::places::{Places, is_blank};
use crate::sessions_uri::{SessionsUri, SessionsUriError};
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
    /// The SSH port.
    pub ssh_listen_addr: SocketAddr,
    /// Where users reach the web port: names, with or without a port.
    pub public_addr: Vec<String>,
    /// Where users reach the SSH port.
    pub ssh_public_addr: Vec<String>,
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

struct Checker<'a> {
    name: &'a str,
    text: &'a str,
}

impl Checker<'_> {
    fn fault(&self, key: &'static str, message: impl Into<String>) -> ConfigError {
        let (line, column) = Places::of(self.text).find(key).unwrap_or((1, 1));
        ConfigError::Value {
            name: self.name.to_owned(),
            line,
            column,
            key,
            message: message.into(),
        }
    }

    fn file(&self, mut file: raw::File) -> Result<TeleportConfig, ConfigError> {
        if let Some(version) =
            file.version.as_deref().filter(|version| !matches!(*version, "v1" | "v2" | "v3"))
        {
            return Err(
                self.fault("version", format!("{version:?} is not known; expected v1, v2 or v3"))
            );
        }
        for (key, service) in [
            ("ssh_service.enabled", &file.ssh_service),
            ("kubernetes_service.enabled", &file.kubernetes_service),
            ("app_service.enabled", &file.app_service),
            ("db_service.enabled", &file.db_service),
            ("windows_desktop_service.enabled", &file.windows_desktop_service),
            ("discovery_service.enabled", &file.discovery_service),
        ] {
            if service.enabled.is_some_and(|flag| flag.0) {
                return Err(
                    self.fault(key, "this service is not part of this version; expected no")
                );
            }
        }
        let storage = file.teleport.storage.take().unwrap_or_default();
        if storage.kind.as_deref().is_some_and(|kind| !matches!(kind, "sqlite" | "dir")) {
            return Err(self.fault("teleport.storage.type", "expected sqlite"));
        }
        let auth = match file.auth_service.enabled.is_none_or(|flag| flag.0) {
            true => Some(self.auth(file.auth_service, storage.audit_sessions_uri)?),
            false => None,
        };
        let proxy = match file.proxy_service.enabled.is_none_or(|flag| flag.0) {
            true => Some(self.proxy(
                file.proxy_service,
                file.teleport.ciphers.as_ref().map(|list| list.0.clone()),
            )?),
            false => None,
        };
        if auth.is_none() && proxy.is_none() {
            return Err(self.fault(
                "auth_service.enabled",
                "neither auth_service nor proxy_service is enabled; expected one of them",
            ));
        }
        let global = file.teleport;
        let token = match (global.auth_token, global.join_params) {
            (Some(_), Some(_)) => {
                return Err(self.fault(
                    "teleport.join_params",
                    "stands beside auth_token; expected one of them",
                ));
            }
            (Some(token), None) => Some(token),
            (None, Some(params)) => {
                if params.method.as_deref().is_some_and(|method| method != "token") {
                    return Err(self.fault("teleport.join_params.method", "expected token"));
                }
                params.token_name
            }
            (None, None) => None,
        };
        let mut auth_servers: Vec<String> =
            global.auth_servers.map(|list| list.0).unwrap_or_default();
        auth_servers.extend(global.auth_server);
        auth_servers.extend(global.proxy_server);
        if auth.is_none() && auth_servers.is_empty() {
            return Err(self.fault(
                "teleport.auth_server",
                "is missing; expected host:port of the auth service to join",
            ));
        }
        let diag_addr = match global.diag_addr.filter(|addr| !addr.is_empty()) {
            Some(addr) => Some(self.listen("teleport.diag_addr", Some(addr), 3000)?),
            None => None,
        };
        if global.shutdown_delay.is_some() {
            return Err(self.fault("teleport.shutdown_delay", "is not part of this version"));
        }
        Ok(TeleportConfig {
            nodename: global.nodename,
            data_dir: global.data_dir.unwrap_or_else(|| "/var/lib/teleport".into()).into(),
            pid_file: global.pid_file.map(PathBuf::from),
            auth_token: token.map(join_token),
            auth_servers: auth_servers.into_iter().map(|addr| with_port(&addr, 3025)).collect(),
            ca_pins: global.ca_pin.map(|list| list.0).unwrap_or_default(),
            log: self.log(global.log.unwrap_or_default())?,
            diag_addr,
            auth,
            proxy,
        })
    }

    fn log(&self, log: raw::Log) -> Result<LogConfig, ConfigError> {
        let severity = log.severity.unwrap_or_else(|| "INFO".into()).to_ascii_lowercase();
        let severity = match severity.as_str() {
            "debug" | "info" | "error" | "warn" => severity,
            "warning" => "warn".into(),
            other => {
                return Err(self.fault(
                    "teleport.log.severity",
                    format!("{other:?}; expected DEBUG, INFO, WARN or ERROR"),
                ));
            }
        };
        let format = match log.format.and_then(|format| format.output).as_deref() {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => {
                return Err(self.fault(
                    "teleport.log.format.output",
                    format!("{other:?}; expected text or json"),
                ));
            }
        };
        Ok(LogConfig { output: log.output.unwrap_or_else(|| "stderr".into()), severity, format })
    }

    fn auth(&self, auth: raw::Auth, sessions: Option<String>) -> Result<AuthConfig, ConfigError> {
        let mode = match auth.session_recording.as_deref() {
            None => None,
            Some(text) => Some(self.mode(text)?),
        };
        let authentication = auth.authentication.unwrap_or_default();
        if authentication.kind.as_deref().is_some_and(|kind| kind != "local") {
            return Err(self.fault("auth_service.authentication.type", "expected local"));
        }
        if authentication.second_factor.as_deref().is_some_and(|factor| factor != "off") {
            return Err(self.fault(
                "auth_service.authentication.second_factor",
                "second factors are not part of this version; expected off",
            ));
        }
        if authentication.local_auth.is_some_and(|flag| !flag.0) {
            return Err(self.fault("auth_service.authentication.local_auth", "expected yes"));
        }
        if auth
            .proxy_listener_mode
            .as_deref()
            .is_some_and(|mode| !matches!(mode, "separate" | "multiplex"))
        {
            return Err(
                self.fault("auth_service.proxy_listener_mode", "expected separate or multiplex")
            );
        }
        if let Some(Err(error)) = auth.cluster_name.as_deref().map(ClusterName::new) {
            return Err(self.fault(
                "auth_service.cluster_name",
                format!("{error}; expected a name such as example.com"),
            ));
        }
        let tokens = auth.tokens.map(|list| list.0).unwrap_or_default();
        Ok(AuthConfig {
            cluster_name: auth.cluster_name,
            listen_addr: self.listen("auth_service.listen_addr", auth.listen_addr, 3025)?,
            public_addr: self
                .public("auth_service.public_addr", auth.public_addr.map(|list| list.0))?,
            tokens: tokens.iter().map(|text| self.static_token(text)).collect::<Result<_, _>>()?,
            session_recording: mode,
            upload_completer_period: self.at_least_a_second(
                "auth_service.upload_completer_period",
                auth.upload_completer_period,
                GoDuration::from_secs(5 * 60),
            )?,
            session_tracker_ttl: self.at_least_a_second(
                "auth_service.session_tracker_ttl",
                auth.session_tracker_ttl,
                GoDuration::from_secs(30 * 60),
            )?,
            upload_grace_period: self.at_least_a_second(
                "auth_service.upload_grace_period",
                auth.upload_grace_period,
                GoDuration::from_hours(24),
            )?,
            audit_sessions_uri: self.sessions_uri(auth.audit_sessions_uri, sessions)?,
            proxy_checks_host_keys: auth.proxy_checks_host_keys.map(|flag| flag.0),
            default_session_ttl: self.duration(
                "auth_service.authentication.default_session_ttl",
                authentication.default_session_ttl,
            )?,
            client_idle_timeout: self
                .duration("auth_service.client_idle_timeout", auth.client_idle_timeout)?,
            disconnect_expired_cert: auth.disconnect_expired_cert.map(|flag| flag.0),
            keep_alive_interval: self
                .duration("auth_service.keep_alive_interval", auth.keep_alive_interval)?,
            keep_alive_count_max: auth.keep_alive_count_max,
            ssh_dial_timeout: self
                .duration("auth_service.ssh_dial_timeout", auth.ssh_dial_timeout)?,
        })
    }

    fn mode(&self, text: &str) -> Result<RecordingMode, ConfigError> {
        const KEY: &str = "auth_service.session_recording";
        text.parse().map_err(|_| {
            self.fault(
                KEY,
                format!(
                    "session recording mode must be one of node,proxy,off,node-sync,proxy-sync; got {text:?}"
                ),
            )
        })
    }

    /// It stands under `auth_service`, or where it is documented, under `teleport.storage`.
    fn sessions_uri(
        &self,
        here: Option<String>,
        in_storage: Option<String>,
    ) -> Result<Option<SessionsUri>, ConfigError> {
        const KEY: &str = "auth_service.audit_sessions_uri";
        const STORAGE_KEY: &str = "teleport.storage.audit_sessions_uri";
        let (key, text) = match (here, in_storage) {
            (Some(_), Some(_)) => {
                return Err(self.fault(KEY, "stands in teleport.storage too; expected one of them"));
            }
            (Some(text), None) => (KEY, text),
            (None, Some(text)) => (STORAGE_KEY, text),
            (None, None) => return Ok(None),
        };
        text.parse().map(Some).map_err(|error: SessionsUriError| self.fault(key, error.to_string()))
    }

    /// Addresses under which others reach a service: they stand in certificates, links and clients' files.
    fn public(
        &self,
        key: &'static str,
        addresses: Option<Vec<String>>,
    ) -> Result<Vec<String>, ConfigError> {
        let addresses = addresses.unwrap_or_default();
        match addresses.iter().find(|address| !is_public(address)) {
            None => Ok(addresses),
            Some(bad) => Err(self.fault(
                key,
                format!("{bad:?}; expected HOST or HOST:PORT, such as proxy.example.com:3080"),
            )),
        }
    }

    fn duration(
        &self,
        key: &'static str,
        text: Option<String>,
    ) -> Result<Option<GoDuration>, ConfigError> {
        match text {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                self.fault(key, format!("{text:?}; expected a duration such as 5m or 1h30m"))
            }),
        }
    }

    /// A duration that something is repeated or waited for by.
    fn at_least_a_second(
        &self,
        key: &'static str,
        text: Option<String>,
        default: GoDuration,
    ) -> Result<GoDuration, ConfigError> {
        let duration = self.duration(key, text)?.unwrap_or(default);
        if duration < GoDuration::from_secs(1) {
            return Err(self.fault(key, "is too short; expected at least 1s"));
        }
        Ok(duration)
    }

    fn static_token(&self, text: &str) -> Result<StaticToken, ConfigError> {
        const KEY: &str = "auth_service.tokens";
        let expected =
            || self.fault(KEY, "expected role,role:TOKEN, where TOKEN may be an absolute path");
        let (roles, token) = text.split_once(':').ok_or_else(expected)?;
        let known = [SystemRole::Auth, SystemRole::Proxy, SystemRole::Node];
        let roles = roles
            .split(',')
            .map(|word| {
                known
                    .into_iter()
                    .find(|role| role.to_string().eq_ignore_ascii_case(word.trim()))
                    .ok_or_else(expected)
            })
            .collect::<Result<_, _>>()?;
        if token.trim().is_empty() {
            return Err(expected());
        }
        Ok(StaticToken { roles, token: join_token(token.trim().to_owned()) })
    }

    fn proxy(
        &self,
        proxy: raw::Proxy,
        ciphers: Option<Vec<String>>,
    ) -> Result<ProxyConfig, ConfigError> {
        if proxy.tunnel_listen_addr.is_some() {
            return Err(self.fault(
                "proxy_service.tunnel_listen_addr",
                "reverse tunnels are not part of this version",
            ));
        }
        if proxy.acme.enabled.is_some_and(|flag| flag.0) {
            return Err(self.fault(
                "proxy_service.acme.enabled",
                "is not part of this version; expected no, and https_keypairs",
            ));
        }
        if proxy.https_keypairs_reload_interval.is_some_and(|every| !every.is_zero()) {
            return Err(self.fault(
                "proxy_service.https_keypairs_reload_interval",
                "is not part of this version; expected 0s",
            ));
        }
        let exec = proxy.exec_recording.unwrap_or_default();
        let exec_recording = if exec.full.is_some_and(|flag| flag.0) {
            ExecRecording::Full
        } else {
            ExecRecording::Bucket {
                burst_bytes: exec.burst_bytes.unwrap_or(16 * 1024 * 1024),
                bytes_per_second: exec.bytes_per_second.unwrap_or(64 * 1024),
            }
        };
        let keypairs = proxy.https_keypairs.unwrap_or_default();
        Ok(ProxyConfig {
            web_listen_addr: self.listen(
                "proxy_service.web_listen_addr",
                proxy.web_listen_addr,
                3080,
            )?,
            ssh_listen_addr: self.listen("proxy_service.listen_addr", proxy.listen_addr, 3023)?,
            public_addr: self
                .public("proxy_service.public_addr", proxy.public_addr.map(|list| list.0))?,
            ssh_public_addr: self.public(
                "proxy_service.ssh_public_addr",
                proxy.ssh_public_addr.map(|list| list.0),
            )?,
            https_keypairs: keypairs
                .into_iter()
                .map(|pair| Keypair {
                    key_file: pair.key_file.into(),
                    cert_file: pair.cert_file.into(),
                })
                .collect(),
            ssh_ciphers: proxy.ssh_ciphers.map(|list| list.0).or(ciphers),
            exec_recording,
            recording_wait: self.at_least_a_second(
                "proxy_service.recording_wait",
                proxy.recording_wait,
                GoDuration::from_secs(30),
            )?,
            recording_spool_bytes: proxy.recording_spool_bytes.unwrap_or(10 * 1024 * 1024 * 1024),
        })
    }

    /// An address to listen on; the port may be left out.
    fn listen(
        &self,
        key: &'static str,
        text: Option<String>,
        port: u16,
    ) -> Result<SocketAddr, ConfigError> {
        let text = text.unwrap_or_else(|| "0.0.0.0".into());
        let text = text.replace("localhost", "127.0.0.1");
        text.parse().or_else(|_| with_port(&text, port).parse()).map_err(|_| {
            self.fault(
                key,
                format!(
                    "{text:?}; expected ADDRESS:PORT with an IP address, such as 0.0.0.0:{port}"
                ),
            )
        })
    }
}

fn join_token(text: String) -> JoinToken {
    if text.starts_with('/') { JoinToken::File(text.into()) } else { JoinToken::Value(text) }
}

/// Adds the usual port where there is none.
fn with_port(addr: &str, port: u16) -> String {
    let has_port = match addr.rsplit_once(':') {
        Some((host, digits)) => {
            (!host.contains(':') || host.ends_with(']')) && digits.parse::<u16>().is_ok()
        }
        None => false,
    };
    if has_port {
        addr.to_owned()
    } else if addr.contains(':') && !addr.starts_with('[') {
        format!("[{addr}]:{port}")
    } else {
        format!("{addr}:{port}")
    }
}

/// A host, or a host and a port; an IPv6 address with a port stands in brackets.
fn is_public(address: &str) -> bool {
    let is_host = |host: &str| HostName::new(host).is_ok();
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    if let Some((host, rest)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return is_host(host) && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    match address.split_once(':') {
        Some((host, port)) if !port.contains(':') => is_host(host) && is_port(port),
        _ => is_host(address),
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

    #[test]
    fn ports_are_added_where_none_is() {
        assert_eq!(with_port("a.example", 3025), "a.example:3025");
        assert_eq!(with_port("a.example:1", 3025), "a.example:1");
        assert_eq!(with_port("::1", 3025), "[::1]:3025");
        assert_eq!(with_port("[::1]:1", 3025), "[::1]:1");
    }
}

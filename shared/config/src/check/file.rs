//! The file as a whole: which services run, and how they join.

use std::path::PathBuf;

use shared_types::HostName;
use shared_types::flex::Values;

use super::{Checker, Version, is_public, join_token, with_port};
use crate::teleport::{LogConfig, LogFormat, TeleportConfig};
use crate::{ConfigError, raw};

impl Checker<'_> {
    pub(crate) fn file(&self, mut file: raw::File) -> Result<TeleportConfig, ConfigError> {
        let version = self.version(file.version.as_deref())?;
        for (key, service) in [
            ("kubernetes_service.enabled", &file.kubernetes_service),
            ("app_service.enabled", &file.app_service),
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
        let mode = auth.as_ref().and_then(|auth| auth.proxy_listener_mode);
        let proxy = match file.proxy_service.enabled.is_none_or(|flag| flag.0) {
            true => Some(self.proxy(
                file.proxy_service,
                file.teleport.ciphers.as_ref().map(|list| list.0.clone()),
                version,
                mode,
            )?),
            false => None,
        };
        let ciphers = file.teleport.ciphers.as_ref().map(|list| list.0.clone());
        let ssh = self.ssh(file.ssh_service, ciphers)?;
        let db = self.db(file.db_service)?;
        if auth.is_none() && proxy.is_none() && ssh.is_none() && db.is_none() {
            return Err(self.fault(
                "auth_service.enabled",
                "neither auth_service nor proxy_service nor ssh_service nor db_service is enabled; expected one of \
                 them",
            ));
        }
        let global = file.teleport;
        let token = self.token(global.auth_token, global.join_params)?;
        let (auth_servers, proxy_server) =
            self.way(global.auth_server, global.auth_servers, global.proxy_server, version)?;
        if auth.is_none() && auth_servers.is_empty() {
            if proxy_server.is_none() {
                return Err(self.fault(
                    "teleport.auth_server",
                    "is missing; expected host:port of the auth service to join, or proxy_server",
                ));
            }
            if proxy.is_some() {
                return Err(self.fault(
                    "teleport.proxy_server",
                    "is for agents; a proxy_service joins through auth_server",
                ));
            }
        }
        let diag_addr = match global.diag_addr.filter(|addr| !addr.is_empty()) {
            Some(addr) => Some(self.listen("teleport.diag_addr", Some(addr), 3000)?),
            None => None,
        };
        if global.shutdown_delay.is_some() {
            return Err(self.fault("teleport.shutdown_delay", "is not part of this version"));
        }
        if let Some(Err(error)) = global.nodename.as_deref().map(HostName::new) {
            return Err(self.fault("teleport.nodename", error.to_string()));
        }
        Ok(TeleportConfig {
            nodename: global.nodename,
            data_dir: global.data_dir.unwrap_or_else(|| "/var/lib/teleport".into()).into(),
            pid_file: global.pid_file.map(PathBuf::from),
            auth_token: token.map(join_token),
            auth_servers,
            proxy_server,
            advertise_ip: self.advertise_ip(global.advertise_ip)?,
            ca_pins: global.ca_pin.map(|list| list.0).unwrap_or_default(),
            log: self.log(global.log.unwrap_or_default())?,
            diag_addr,
            auth,
            proxy,
            ssh,
            db,
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

    fn version(&self, text: Option<&str>) -> Result<Version, ConfigError> {
        match text {
            None | Some("v1") => Ok(Version::V1),
            Some("v2") => Ok(Version::V2),
            Some("v3") => Ok(Version::V3),
            Some(other) => {
                Err(self.fault("version", format!("{other:?} is not known; expected v1, v2 or v3")))
            }
        }
    }

    /// The token to join with; of `join_params` this release has the method `token`.
    fn token(
        &self,
        token: Option<String>,
        params: Option<raw::JoinParams>,
    ) -> Result<Option<String>, ConfigError> {
        let Some(params) = params else { return Ok(token) };
        if token.is_some() {
            return Err(self
                .fault("teleport.join_params", "stands beside auth_token; expected one of them"));
        }
        if params.method.as_deref().is_some_and(|method| method != "token") {
            return Err(self.fault("teleport.join_params.method", "expected token"));
        }
        match params.token_name {
            Some(name) => Ok(Some(name)),
            None => Err(self.fault(
                "teleport.join_params",
                "has no token_name; expected the token or the absolute path of its file",
            )),
        }
    }

    /// The way to the auth service: addresses of its own, or a proxy.
    fn way(
        &self,
        one: Option<String>,
        several: Option<Values>,
        proxy: Option<String>,
        version: Version,
    ) -> Result<(Vec<String>, Option<String>), ConfigError> {
        if several.is_some() && version == Version::V3 {
            return Err(self.fault(
                "teleport.auth_servers",
                "is for files of version v1 and v2; expected auth_server, or proxy_server",
            ));
        }
        if proxy.is_some() && (one.is_some() || several.is_some()) {
            return Err(self.fault(
                "teleport.proxy_server",
                "stands beside the address of the auth service; expected one of them",
            ));
        }
        let addrs = several.map(|list| list.0).unwrap_or_default().into_iter().chain(one);
        let addrs: Vec<String> = addrs.collect();
        for (key, addr) in addrs
            .iter()
            .map(|addr| ("teleport.auth_server", addr))
            .chain(proxy.iter().map(|addr| ("teleport.proxy_server", addr)))
        {
            if !is_public(addr) {
                return Err(self.fault(key, format!("{addr:?}; expected HOST or HOST:PORT")));
            }
        }
        let addrs = addrs.iter().map(|addr| with_port(addr, 3025)).collect();
        Ok((addrs, proxy.map(|addr| with_port(&addr, 3080))))
    }

    fn advertise_ip(&self, text: Option<String>) -> Result<Option<String>, ConfigError> {
        match text.as_deref().map(HostName::new) {
            Some(Err(error)) => Err(self.fault(
                "teleport.advertise_ip",
                format!("{error}; expected an address or a name without a port"),
            )),
            _ => Ok(text),
        }
    }
}

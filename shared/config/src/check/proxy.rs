//! `proxy_service`.

use std::net::SocketAddr;

use shared_types::GoDuration;

use super::{Checker, Version};
use crate::teleport::{Keypair, ListenerMode, ProxyConfig};
use crate::{ConfigError, raw};

impl Checker<'_> {
    pub(super) fn proxy(
        &self,
        proxy: raw::Proxy,
        ciphers: Option<Vec<String>>,
        version: Version,
        mode: Option<ListenerMode>,
    ) -> Result<ProxyConfig, ConfigError> {
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
        // Files of the first version have a port for each protocol; later ones have one for all, and others on demand.
        let separate = version == Version::V1 && mode != Some(ListenerMode::Multiplex);
        let keypairs = proxy.https_keypairs.unwrap_or_default();
        Ok(ProxyConfig {
            web_listen_addr: self.listen(
                "proxy_service.web_listen_addr",
                proxy.web_listen_addr,
                3080,
            )?,
            ssh_listen_addr: self.own_port(
                "proxy_service.listen_addr",
                proxy.listen_addr,
                3023,
                separate,
            )?,
            tunnel_listen_addr: self.own_port(
                "proxy_service.tunnel_listen_addr",
                proxy.tunnel_listen_addr,
                3024,
                separate,
            )?,
            tunnel_public_addr: self.public(
                "proxy_service.tunnel_public_addr",
                proxy.tunnel_public_addr.map(|list| list.0),
            )?,
            public_addr: self
                .public("proxy_service.public_addr", proxy.public_addr.map(|list| list.0))?,
            ssh_public_addr: self.public(
                "proxy_service.ssh_public_addr",
                proxy.ssh_public_addr.map(|list| list.0),
            )?,
            postgres_listen_addr: self.own_port(
                "proxy_service.postgres_listen_addr",
                proxy.postgres_listen_addr,
                5432,
                false,
            )?,
            postgres_public_addr: self.public(
                "proxy_service.postgres_public_addr",
                proxy.postgres_public_addr.map(|list| list.0),
            )?,
            mysql_listen_addr: self.own_port(
                "proxy_service.mysql_listen_addr",
                proxy.mysql_listen_addr,
                3036,
                separate,
            )?,
            mysql_public_addr: self.public(
                "proxy_service.mysql_public_addr",
                proxy.mysql_public_addr.map(|list| list.0),
            )?,
            mysql_server_version: self.mysql_version(proxy.mysql_server_version)?,
            https_keypairs: keypairs
                .into_iter()
                .map(|pair| Keypair {
                    key_file: pair.key_file.into(),
                    cert_file: pair.cert_file.into(),
                })
                .collect(),
            ssh_ciphers: proxy.ssh_ciphers.map(|list| list.0).or(ciphers),
            exec_recording: proxy.exec_recording.unwrap_or_default().into(),
            recording_wait: self.at_least_a_second(
                "proxy_service.recording_wait",
                proxy.recording_wait,
                GoDuration::from_secs(30),
            )?,
            recording_spool_bytes: proxy.recording_spool_bytes.unwrap_or(10 * 1024 * 1024 * 1024),
        })
    }

    /// A version goes into a packet of text, and from there to terminals.
    fn mysql_version(&self, version: Option<String>) -> Result<Option<String>, ConfigError> {
        let fit = |version: &String| {
            (1..=64).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match version {
            Some(version) if !fit(&version) => Err(self.fault(
                "proxy_service.mysql_server_version",
                "is no version; expected up to 64 printable characters without blanks, like 8.0.36",
            )),
            version => Ok(version),
        }
    }

    /// A port of one protocol's own: where the file names one, or where there is one for each anyway.
    fn own_port(
        &self,
        key: &'static str,
        text: Option<String>,
        port: u16,
        always: bool,
    ) -> Result<Option<SocketAddr>, ConfigError> {
        if text.is_none() && !always {
            return Ok(None);
        }
        self.listen(key, text, port).map(Some)
    }
}

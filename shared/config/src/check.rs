//! From `teleport.yaml` as it stands in the file to a configuration in which everything makes sense.

mod auth;
mod file;
mod proxy;

use std::net::SocketAddr;

use shared_types::{GoDuration, HostName};

use crate::ConfigError;
use crate::places::Places;
use crate::teleport::JoinToken;

/// Knows the text, so that a fault has a place.
pub(crate) struct Checker<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
}

/// `version:` of a file. One without is of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Version {
    V1,
    V2,
    V3,
}

impl Checker<'_> {
    pub(crate) fn fault(&self, key: &'static str, message: impl Into<String>) -> ConfigError {
        let (line, column) = Places::of(self.text).find(key).unwrap_or((1, 1));
        ConfigError::Value {
            name: self.name.to_owned(),
            line,
            column,
            key,
            message: message.into(),
        }
    }

    /// The same for something in a list: `path` says where it stands.
    pub(crate) fn fault_at(
        &self,
        path: &str,
        key: &'static str,
        message: impl Into<String>,
    ) -> ConfigError {
        let (line, column) = Places::of(self.text).find(path).unwrap_or((1, 1));
        ConfigError::Value {
            name: self.name.to_owned(),
            line,
            column,
            key,
            message: message.into(),
        }
    }

    /// Addresses under which others reach a service: they stand in certificates, links and clients' files.
    pub(crate) fn public(
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
    pub(crate) fn at_least_a_second(
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

    /// An address to listen on; the port may be left out.
    pub(crate) fn listen(
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
    fn ports_are_added_where_none_is() {
        assert_eq!(with_port("a.example", 3025), "a.example:3025");
        assert_eq!(with_port("a.example:1", 3025), "a.example:1");
        assert_eq!(with_port("::1", 3025), "[::1]:3025");
        assert_eq!(with_port("[::1]:1", 3025), "[::1]:1");
    }
}

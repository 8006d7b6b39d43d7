//! Databases: what they are and how they are reached, and which agents serve them.
//!
//! A `db` is written by an administrator, or stands in an agent's configuration. A `db_server` is what an agent says of
//! one that it serves; it lives as long as the agent is heard of.

mod protocol;
mod server;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::node::{MOST_LABELS, check_label, refuse};
use super::object::{Object, ResourceError, Spec};
use super::{CommandLabel, ResourceKind, host_of};
use crate::{HostName, Labels, NameError, flex};
pub use protocol::{DbProtocol, UnknownDbProtocol};
pub use server::{DatabaseServerSpec, DbHealth, HealthStatus};

/// A database; its name is that of the service users ask for.
pub type Database = Object<DatabaseSpec>;
/// A database that an agent serves; its name is that of the database. Several agents may serve one.
pub type DatabaseServer = Object<DatabaseServerSpec>;

/// Longest text of a field, in bytes.
const LONGEST: usize = 1024;
/// Longest bundle of certificates, in bytes.
const LONGEST_PEM: usize = 64 * 1024;

/// What of a database's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DbTlsMode {
    /// Who signed it, and its name.
    #[default]
    VerifyFull,
    /// Who signed it.
    VerifyCa,
    /// Nothing.
    Insecure,
}

/// How a database is met in TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseTls {
    /// What of its certificate is checked.
    pub mode: DbTlsMode,
    /// Whom to trust, PEM; the cluster's database authority where empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_cert: String,
    /// The name its certificate has to carry, where that is not the host of its address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_name: String,
    /// Whether whom the agent's system trusts counts too.
    #[serde(deserialize_with = "flex::bool", skip_serializing_if = "std::ops::Not::not")]
    pub trust_system_cert_pool: bool,
}

/// What is said of a MySQL server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MysqlOptions {
    /// The version that clients are greeted with before the server itself has been asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_version: String,
}

/// What is said of a database in a cloud. Signing in there is not done: what would need it is refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AwsOptions {
    /// Region, for the signature of requests.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// Account.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account_id: String,
}

/// What a database is and how it is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSpec {
    /// What it speaks.
    pub protocol: DbProtocol,
    /// Where it is: `HOST:PORT`, with or without a scheme before it.
    pub uri: String,
    /// Older place of [`DatabaseTls::ca_cert`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca_cert: String,
    /// How it is met in TLS.
    #[serde(default, deserialize_with = "flex::null_default")]
    pub tls: DatabaseTls,
    /// Labels whose values commands on the agent give.
    #[serde(
        default,
        deserialize_with = "flex::null_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub dynamic_labels: BTreeMap<String, CommandLabel>,
    /// What is said of a MySQL server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql: Option<MysqlOptions>,
    /// What is said of it in AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsOptions>,
    /// Not served yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcp: Option<Value>,
    /// Not served yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<Value>,
    /// Not served yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ad: Option<Value>,
    /// Not served yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oracle: Option<Value>,
    /// Not served yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_user: Option<Value>,
}

impl DatabaseSpec {
    /// A database at an address.
    pub fn new(protocol: DbProtocol, uri: impl Into<String>) -> Self {
        Self {
            protocol,
            uri: uri.into(),
            ca_cert: String::new(),
            tls: DatabaseTls::default(),
            dynamic_labels: BTreeMap::new(),
            mysql: None,
            aws: None,
            gcp: None,
            azure: None,
            ad: None,
            oracle: None,
            admin_user: None,
        }
    }

    /// Host and port of its address.
    pub fn address(&self) -> Option<(&str, u16)> {
        let (scheme, rest) = match self.uri.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, self.uri.as_str()),
        };
        if scheme.is_some_and(|scheme| !self.protocol.schemes().contains(&scheme)) {
            return None;
        }
        let rest = rest.split(['/', '?']).next().unwrap_or(rest);
        let host = host_of(rest);
        HostName::new(host).ok()?;
        let port = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((_, "")) => None,
            Some((_, after)) => Some(after.strip_prefix(':')?),
            None if host == rest => None,
            None => rest.rsplit_once(':').map(|(_, port)| port),
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port > 0)?,
            None if scheme == Some("http") => 80,
            None => self.protocol.default_port(),
        };
        Some((host, port))
    }

    /// Whom to trust of its certificate, PEM; the cluster's database authority where empty.
    pub fn trusted_pem(&self) -> &str {
        if self.tls.ca_cert.is_empty() { &self.ca_cert } else { &self.tls.ca_cert }
    }

    fn check_unserved(&self) -> Result<(), ResourceError> {
        let is_something = |value: &Option<Value>| match value {
            None | Some(Value::Null) => false,
            Some(Value::Object(map)) => !map.is_empty(),
            Some(_) => true,
        };
        for (field, value) in [
            ("spec.gcp", &self.gcp),
            ("spec.azure", &self.azure),
            ("spec.ad", &self.ad),
            ("spec.oracle", &self.oracle),
            ("spec.admin_user", &self.admin_user),
        ] {
            if is_something(value) {
                return refuse(field, "is not supported yet".to_owned());
            }
        }
        Ok(())
    }
}

impl Spec for DatabaseSpec {
    const KIND: ResourceKind = ResourceKind::Db;
    const VERSIONS: &'static [&'static str] = &["v3"];
    const DEFAULT_VERSION: &'static str = "v3";

    fn check_name(name: &str) -> Result<(), NameError> {
        crate::name::check_database(name)
    }

    fn check(&self) -> Result<(), ResourceError> {
        if self.uri.len() > LONGEST || self.address().is_none() {
            return refuse(
                "spec.uri",
                format!(
                    "expected HOST:PORT, such as db.example.com:{}",
                    self.protocol.default_port()
                ),
            );
        }
        let pems = [("spec.ca_cert", &self.ca_cert), ("spec.tls.ca_cert", &self.tls.ca_cert)];
        for (field, pem) in pems {
            if pem.len() > LONGEST_PEM || (!pem.is_empty() && !pem.contains("BEGIN CERTIFICATE")) {
                return refuse(field, "expected certificates in PEM".to_owned());
            }
        }
        let name = self.tls.server_name.as_str();
        if !name.is_empty() && HostName::new(name).is_err() {
            return refuse("spec.tls.server_name", "is no host name".to_owned());
        }
        if let Some(mysql) = &self.mysql {
            let version = &mysql.server_version;
            if version.len() > 64 || !version.chars().all(|c| c.is_ascii_graphic()) {
                return refuse("spec.mysql.server_version", "is no version".to_owned());
            }
        }
        if let Some(aws) = &self.aws {
            for (field, text) in [("region", &aws.region), ("account_id", &aws.account_id)] {
                let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
                if text.len() > 64 || !plain {
                    return refuse(&format!("spec.aws.{field}"), "is none".to_owned());
                }
            }
        }
        if self.dynamic_labels.len() > MOST_LABELS {
            return refuse("spec.dynamic_labels", format!("more than {MOST_LABELS}"));
        }
        for (key, label) in &self.dynamic_labels {
            check_label("spec.dynamic_labels", key, &label.result)?;
            if label.command.iter().map(String::len).sum::<usize>() > LONGEST {
                let why = format!("the command of {key:?} is too long");
                return refuse("spec.dynamic_labels", why);
            }
        }
        self.check_unserved()
    }

    fn check_object(object: &Database) -> Result<(), ResourceError> {
        let labels = &object.metadata.labels;
        if labels.len() > MOST_LABELS {
            return refuse("metadata.labels", format!("more than {MOST_LABELS}"));
        }
        if object.metadata.description.as_ref().is_some_and(|text| text.len() > LONGEST) {
            return refuse("metadata.description", format!("has more than {LONGEST} bytes"));
        }
        labels.iter().try_for_each(|(key, value)| check_label("metadata.labels", key, value))
    }
}

impl Database {
    /// Its labels: those that commands give, and over them the fixed ones.
    pub fn all_labels(&self) -> Labels {
        let commands = self.spec.dynamic_labels.iter();
        let mut labels: Labels =
            commands.map(|(key, label)| (key.clone(), label.result.clone())).collect();
        labels.extend(self.metadata.labels.clone());
        labels
    }

    /// Text for people, empty where there is none.
    pub fn description(&self) -> &str {
        self.metadata.description.as_deref().unwrap_or_default()
    }

    /// Whether each of `terms` stands somewhere in its name, description, protocol, address or labels, whatever the case.
    pub fn contains_all(&self, terms: &[String]) -> bool {
        let labels = self.all_labels();
        let texts: Vec<String> =
            [self.name(), self.description(), self.spec.protocol.as_str(), &self.spec.uri]
                .into_iter()
                .chain(labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]))
                .map(str::to_lowercase)
                .collect();
        terms.iter().all(|term| {
            let term = term.to_lowercase();
            texts.iter().any(|text| text.contains(&term))
        })
    }
}

#[cfg(test)]
mod tests;

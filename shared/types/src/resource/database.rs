//! Databases: what they are and how they are reached, and which agents serve them.
//!
//! A `db` is written by an administrator, or stands in an agent's configuration. A `db_server` is what an agent says of
//! one that it serves; it lives as long as the agent is heard of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::node::{MOST_LABELS, check_label, refuse};
use super::object::{Object, ResourceError, Spec};
use super::{CommandLabel, ResourceKind, host_of};
use crate::{HostId, HostName, Labels, NameError, flex};

/// A database; its name is that of the service users ask for.
pub type Database = Object<DatabaseSpec>;
/// A database that an agent serves; its name is that of the database. Several agents may serve one.
pub type DatabaseServer = Object<DatabaseServerSpec>;

/// Longest text of a field, in bytes.
const LONGEST: usize = 1024;
/// Longest bundle of certificates, in bytes.
const LONGEST_PEM: usize = 64 * 1024;

/// What a database speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DbProtocol {
    /// PostgreSQL.
    Postgres,
    /// CockroachDB, which speaks as PostgreSQL does.
    Cockroachdb,
    /// MySQL and MariaDB.
    Mysql,
    /// Redis and Valkey.
    Redis,
    /// DynamoDB.
    Dynamodb,
}

/// The text names no protocol that is served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("database protocol {0:?} is not supported yet; supported are {names}", names = supported())]
pub struct UnknownDbProtocol(String);

fn supported() -> String {
    DbProtocol::ALL.map(DbProtocol::as_str).join(", ")
}

impl DbProtocol {
    /// All of them.
    pub const ALL: [DbProtocol; 5] = [
        DbProtocol::Postgres,
        DbProtocol::Cockroachdb,
        DbProtocol::Mysql,
        DbProtocol::Redis,
        DbProtocol::Dynamodb,
    ];

    /// As resources and certificates write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DbProtocol::Postgres => "postgres",
            DbProtocol::Cockroachdb => "cockroachdb",
            DbProtocol::Mysql => "mysql",
            DbProtocol::Redis => "redis",
            DbProtocol::Dynamodb => "dynamodb",
        }
    }

    /// As people write it.
    #[must_use]
    pub fn display(self) -> &'static str {
        match self {
            DbProtocol::Postgres => "PostgreSQL",
            DbProtocol::Cockroachdb => "CockroachDB",
            DbProtocol::Mysql => "MySQL",
            DbProtocol::Redis => "Redis",
            DbProtocol::Dynamodb => "DynamoDB",
        }
    }

    /// The name by which a client asks a proxy for it inside TLS.
    #[must_use]
    pub fn alpn(self) -> &'static str {
        match self {
            DbProtocol::Postgres | DbProtocol::Cockroachdb => "teleport-postgres",
            DbProtocol::Mysql => "teleport-mysql",
            DbProtocol::Redis => "teleport-redis",
            DbProtocol::Dynamodb => "teleport-dynamodb",
        }
    }

    /// Whether a server holds several databases that a session chooses from, so that roles say which.
    #[must_use]
    pub fn has_names(self) -> bool {
        matches!(self, DbProtocol::Postgres | DbProtocol::Cockroachdb)
    }

    /// Where such a database listens that does not say so.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            DbProtocol::Postgres => 5432,
            DbProtocol::Cockroachdb => 26257,
            DbProtocol::Mysql => 3306,
            DbProtocol::Redis => 6379,
            DbProtocol::Dynamodb => 443,
        }
    }

    /// How addresses of it may begin.
    fn schemes(self) -> &'static [&'static str] {
        match self {
            DbProtocol::Postgres | DbProtocol::Cockroachdb => &["postgres", "postgresql"],
            DbProtocol::Mysql => &["mysql"],
            DbProtocol::Redis => &["redis", "rediss"],
            DbProtocol::Dynamodb => &["https", "http"],
        }
    }
}

impl std::fmt::Display for DbProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for DbProtocol {
    type Err = UnknownDbProtocol;
    fn from_str(text: &str) -> Result<Self, UnknownDbProtocol> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.as_str() == text)
            .ok_or_else(|| UnknownDbProtocol(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for DbProtocol {
    type Error = UnknownDbProtocol;
    fn try_from(text: String) -> Result<Self, UnknownDbProtocol> {
        text.parse()
    }
}

impl From<DbProtocol> for String {
    fn from(protocol: DbProtocol) -> String {
        protocol.as_str().to_owned()
    }
}

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

/// Whether a database answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// It takes connections.
    Healthy,
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// It does not.
    Unhealthy,
}

/// Whether a database answers, as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DbHealth {
    /// Whether it does.
    pub status: HealthStatus,
    /// Why it does not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A database that an agent serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseServerSpec {
    /// The agent.
    pub host_id: HostId,
    /// Name of the agent's host.
    pub hostname: String,
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Where the agent listens, `host:port`; empty for one that is reached through a tunnel only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub addr: String,
    /// Whether it is reached through the tunnel it holds to the proxies.
    #[serde(default, deserialize_with = "flex::bool", skip_serializing_if = "std::ops::Not::not")]
    pub use_tunnel: bool,
    /// The proxies it holds tunnels to.
    #[serde(
        default,
        deserialize_with = "flex::null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub proxy_ids: Vec<HostId>,
    /// The database.
    pub database: Database,
    /// Whether the database answers.
    #[serde(default)]
    pub health: DbHealth,
}

impl Spec for DatabaseServerSpec {
    const KIND: ResourceKind = ResourceKind::DbServer;
    const VERSIONS: &'static [&'static str] = &["v3"];
    const DEFAULT_VERSION: &'static str = "v3";

    fn check_name(name: &str) -> Result<(), NameError> {
        crate::name::check_database(name)
    }

    fn check(&self) -> Result<(), ResourceError> {
        if let Err(error) = HostName::new(self.hostname.as_str()) {
            return refuse("spec.hostname", error.to_string());
        }
        if !self.addr.is_empty() && !super::node::is_host_and_port(&self.addr) {
            return refuse("spec.addr", "expected HOST:PORT, such as 10.0.0.7:3022".to_owned());
        }
        if self.version.len() > 64 || !self.version.chars().all(|c| c.is_ascii_graphic()) {
            return refuse("spec.version", "is no version".to_owned());
        }
        if self.proxy_ids.len() > super::node::MOST_ADDRS {
            return refuse("spec.proxy_ids", "too many".to_owned());
        }
        if self.health.message.len() > LONGEST {
            return refuse("spec.health.message", format!("has more than {LONGEST} bytes"));
        }
        Ok(())
    }

    fn check_object(object: &DatabaseServer) -> Result<(), ResourceError> {
        if object.name() != object.spec.database.name() {
            return refuse("metadata.name", "expected the name of spec.database".to_owned());
        }
        Ok(())
    }
}

impl DatabaseServer {
    /// A database that a host serves, reached through its tunnel.
    pub fn of(host_id: HostId, hostname: impl Into<String>, database: Database) -> Self {
        let spec = DatabaseServerSpec {
            host_id,
            hostname: hostname.into(),
            version: String::new(),
            addr: String::new(),
            use_tunnel: true,
            proxy_ids: Vec::new(),
            health: DbHealth::default(),
            database,
        };
        Self::new(spec.database.name().to_owned(), spec)
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.spec.database
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Resource;

    fn read(spec: serde_json::Value) -> Result<Database, String> {
        let document =
            json!({"kind": "db", "version": "v3", "metadata": {"name": "pg"}, "spec": spec});
        serde_json::from_value(document).map_err(|error| error.to_string())
    }

    #[test]
    fn a_database_as_people_write_it() {
        let spec = json!({
            "protocol": "postgres", "uri": "pg.example.com:5432",
            "tls": {"mode": "verify-ca", "server_name": "other.example.com"},
            "dynamic_labels": {"role": {"command": ["true"], "period": "1m"}},
            "aws": {"region": "eu-1"}, "gcp": {}, "azure": null, "admin_user": {},
        });
        let database = read(spec).unwrap();
        assert_eq!(database.spec.address(), Some(("pg.example.com", 5432)));
        assert_eq!(database.spec.tls.mode, DbTlsMode::VerifyCa);
        assert_eq!(database.all_labels()["role"], "");
        let resource = Resource::from(database.clone());
        assert_eq!(Resource::from_json(resource.to_json()).unwrap(), resource);
        assert!(database.contains_all(&["EXAMPLE".to_owned(), "postgres".to_owned()]));
        assert!(!database.contains_all(&["mysql".to_owned()]));
    }

    #[test]
    fn addresses() {
        let address = |protocol, uri: &str| {
            DatabaseSpec::new(protocol, uri).address().map(|(host, port)| format!("{host} {port}"))
        };
        for (protocol, uri, expected) in [
            (DbProtocol::Postgres, "a:1", "a 1"),
            (DbProtocol::Postgres, "a", "a 5432"),
            (DbProtocol::Postgres, "[::1]:1", "::1 1"),
            (DbProtocol::Postgres, "[::1]", "::1 5432"),
            (DbProtocol::Postgres, "::1", "::1 5432"),
            (DbProtocol::Redis, "rediss://a:7?mode=standalone", "a 7"),
            (DbProtocol::Dynamodb, "http://127.0.0.1/", "127.0.0.1 80"),
            (DbProtocol::Dynamodb, "https://a", "a 443"),
            (DbProtocol::Mysql, "mysql://a:2", "a 2"),
        ] {
            assert_eq!(address(protocol, uri).as_deref(), Some(expected), "{uri}");
        }
        for (protocol, uri) in [
            (DbProtocol::Postgres, ""),
            (DbProtocol::Postgres, "a:0"),
            (DbProtocol::Postgres, "a:x"),
            (DbProtocol::Postgres, "a b:1"),
            (DbProtocol::Postgres, "joe@a:1"),
            (DbProtocol::Postgres, "mysql://a:1"),
            (DbProtocol::Postgres, "[::1]x"),
        ] {
            assert_eq!(address(protocol, uri), None, "{uri}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        for (spec, expected) in [
            (
                json!({"protocol": "mongodb", "uri": "a:1"}),
                "database protocol \"mongodb\" is not supported yet; supported are postgres, cockroachdb, mysql, redis, dynamodb",
            ),
            (
                json!({"protocol": "mysql", "uri": "a:0"}),
                "spec.uri: expected HOST:PORT, such as db.example.com:3306",
            ),
            (
                json!({"protocol": "mysql", "uri": "a", "gcp": {"project_id": "x"}}),
                "spec.gcp: is not supported yet",
            ),
            (
                json!({"protocol": "mysql", "uri": "a", "admin_user": {"name": "x"}}),
                "spec.admin_user: is not supported yet",
            ),
            (json!({"protocol": "mysql", "uri": "a", "ad": "x"}), "spec.ad: is not supported yet"),
            (
                json!({"protocol": "mysql", "uri": "a", "aws": {"redshift": {}}}),
                "unknown field `redshift`",
            ),
            (
                json!({"protocol": "mysql", "uri": "a", "tls": {"mode": "off"}}),
                "unknown variant `off`",
            ),
            (json!({"protocol": "mysql", "uri": "a", "tls": {"ca_cert": "x"}}), "spec.tls.ca_cert"),
            (
                json!({"protocol": "mysql", "uri": "a", "tls": {"server_name": "a b"}}),
                "spec.tls.server_name",
            ),
            (
                json!({"protocol": "mysql", "uri": "a", "mysql": {"server_version": "8\n"}}),
                "spec.mysql.server_version",
            ),
            (json!({"protocol": "mysql", "uri": "a", "frob": 1}), "unknown field `frob`"),
        ] {
            let error = read(spec.clone()).unwrap_err();
            assert!(error.contains(expected), "{spec}: {error}");
        }
        let named = |name: &str| {
            let mut database = Database::new(name, DatabaseSpec::new(DbProtocol::Redis, "a:1"));
            database.metadata.labels.insert("env".to_owned(), "dev".to_owned());
            database.check()
        };
        assert!(named("pg-1_a.b").is_ok());
        for name in ["", "-x", "a b", "a/b", "..", "a\n", "ä"] {
            assert!(named(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_server_is_named_as_its_database() {
        let database = Database::new("pg", DatabaseSpec::new(DbProtocol::Postgres, "a:1"));
        let server = DatabaseServer::of(HostId::random(), "agent-1", database);
        server.check().unwrap();
        let json = Resource::from(server.clone()).to_json();
        assert_eq!(Resource::from_json(json).unwrap(), Resource::from(server.clone()));
        let mut other = server.clone();
        other.metadata.name = "my".to_owned();
        assert!(other.check().is_err());
        let mut hostile = server;
        hostile.spec.hostname = "a;b".to_owned();
        assert!(hostile.check().is_err());
    }

    #[test]
    fn protocols() {
        for protocol in DbProtocol::ALL {
            assert_eq!(protocol.as_str().parse::<DbProtocol>().unwrap(), protocol);
        }
        assert!(DbProtocol::Postgres.has_names() && !DbProtocol::Mysql.has_names());
        assert_eq!(DbProtocol::Cockroachdb.alpn(), "teleport-postgres");
    }
}

//! `db_service` in `teleport.yaml`: as it stands in the file, and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;
use shared_types::flex::{Flag, Values};
use shared_types::resource::{
    AwsOptions, DatabaseSpec, DatabaseTls, DbTlsMode, LabelMap, MysqlOptions,
};
use shared_types::{Database, DbProtocol, GoDuration};

use crate::ConfigError;
use crate::check::Checker;
use crate::ssh_service::RawCommand;

/// Most databases in a file.
const MOST: usize = 10_000;
/// Most sets of labels by which databases are chosen.
const MOST_RESOURCES: usize = 256;
const DATABASES: &str = "db_service.databases";
const RESOURCES: &str = "db_service.resources";

/// The section as it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawDb {
    pub(crate) enabled: Option<Flag>,
    pub(crate) resources: Option<Vec<RawResource>>,
    pub(crate) databases: Option<Vec<RawDatabase>>,
    pub(crate) aws: Option<Vec<IgnoredAny>>,
    pub(crate) azure: Option<Vec<IgnoredAny>>,
    pub(crate) health_check_interval: Option<String>,
    pub(crate) recording_wait: Option<String>,
    pub(crate) recording_spool_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawResource {
    labels: BTreeMap<String, Values>,
}

/// A database as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDatabase {
    name: String,
    description: Option<String>,
    protocol: String,
    uri: String,
    static_labels: Option<BTreeMap<String, String>>,
    dynamic_labels: Option<Vec<RawCommand>>,
    tls: Option<RawTls>,
    ca_cert_file: Option<String>,
    mysql: Option<RawMysql>,
    aws: Option<RawAws>,
    gcp: Option<Unserved>,
    azure: Option<Unserved>,
    ad: Option<Unserved>,
    oracle: Option<Unserved>,
    admin_user: Option<Unserved>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawTls {
    mode: Option<String>,
    server_name: Option<String>,
    ca_cert_file: Option<String>,
    trust_system_cert_pool: Option<Flag>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawMysql {
    server_version: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawAws {
    region: Option<String>,
    account_id: Option<String>,
}

/// A section about something that is not built; empty it says nothing.
type Unserved = BTreeMap<String, IgnoredAny>;

/// The database service.
#[derive(Debug, Clone)]
pub struct DbConfig {
    /// The databases of the file.
    pub databases: Vec<StaticDatabase>,
    /// Which of the databases that administrators write are served: those whose labels one of these matches.
    pub resources: Vec<LabelMap>,
    /// How often it is looked whether each database takes connections.
    pub health_check_interval: GoDuration,
    /// How long a session whose statements are not taken by its recording or the audit log is stopped before it ends.
    pub recording_wait: GoDuration,
    /// What recordings may take on this disk.
    pub recording_spool_bytes: u64,
}

/// A database of the file.
#[derive(Debug, Clone)]
pub struct StaticDatabase {
    /// The database, without what stands in the file of authorities.
    pub database: Database,
    /// The file of those whom its certificate is checked by, PEM.
    pub ca_cert_file: Option<PathBuf>,
}

impl Checker<'_> {
    /// Checks the section; nothing where it is not enabled.
    pub(crate) fn db(&self, db: RawDb) -> Result<Option<DbConfig>, ConfigError> {
        if !db.enabled.is_some_and(|flag| flag.0) {
            return Ok(None);
        }
        for (key, list) in [("db_service.aws", &db.aws), ("db_service.azure", &db.azure)] {
            if list.as_ref().is_some_and(|list| !list.is_empty()) {
                return Err(self.fault(
                    key,
                    "databases of clouds are not looked for in this version; name them in databases",
                ));
            }
        }
        let databases = self.databases(db.databases.unwrap_or_default())?;
        let resources = db.resources.unwrap_or_default();
        if resources.len() > MOST_RESOURCES {
            return Err(self.fault(RESOURCES, format!("more than {MOST_RESOURCES}")));
        }
        for (at, resource) in resources.iter().enumerate() {
            if resource.labels.is_empty() {
                let path = format!("{RESOURCES}[{at}]");
                return Err(self.fault_at(
                    &path,
                    RESOURCES,
                    "has no labels; expected such as labels: {env: prod}, or {\"*\": \"*\"} for all",
                ));
            }
        }
        let second = |key, text, default| self.at_least_a_second(key, text, default);
        Ok(Some(DbConfig {
            databases,
            resources: resources.into_iter().map(|resource| resource.labels).collect(),
            health_check_interval: second(
                "db_service.health_check_interval",
                db.health_check_interval,
                GoDuration::from_secs(30),
            )?,
            recording_wait: second(
                "db_service.recording_wait",
                db.recording_wait,
                GoDuration::from_secs(30),
            )?,
            recording_spool_bytes: db.recording_spool_bytes.unwrap_or(10 * 1024 * 1024 * 1024),
        }))
    }

    fn databases(&self, databases: Vec<RawDatabase>) -> Result<Vec<StaticDatabase>, ConfigError> {
        if databases.len() > MOST {
            return Err(self.fault(DATABASES, format!("more than {MOST}")));
        }
        let mut names = BTreeSet::new();
        let mut checked = Vec::new();
        for (at, raw) in databases.into_iter().enumerate() {
            let path = format!("{DATABASES}[{at}]");
            let name = raw.name.clone();
            if !names.insert(name.clone()) {
                return Err(self.fault_at(&path, DATABASES, format!("{name:?} stands twice")));
            }
            checked.push(self.database(&path, raw)?);
        }
        Ok(checked)
    }

    fn database(&self, path: &str, raw: RawDatabase) -> Result<StaticDatabase, ConfigError> {
        let name = raw.name;
        let fault = |key: &str, what: String| {
            self.fault_at(&format!("{path}.{key}"), DATABASES, format!("{name:?}: {what}"))
        };
        let protocol: DbProtocol = raw
            .protocol
            .parse()
            .map_err(|error| fault("protocol", format!("protocol: {error}")))?;
        for (key, section) in [
            ("gcp", &raw.gcp),
            ("azure", &raw.azure),
            ("ad", &raw.ad),
            ("oracle", &raw.oracle),
            ("admin_user", &raw.admin_user),
        ] {
            if section.as_ref().is_some_and(|section| !section.is_empty()) {
                return Err(fault(key, format!("{key} is not supported yet")));
            }
        }
        let tls = raw.tls.unwrap_or_default();
        let mode = match tls.mode.as_deref() {
            None | Some("verify-full") => DbTlsMode::VerifyFull,
            Some("verify-ca") => DbTlsMode::VerifyCa,
            Some("insecure") => DbTlsMode::Insecure,
            Some(other) => {
                return Err(fault(
                    "tls.mode",
                    format!("tls.mode {other:?}; expected verify-full, verify-ca or insecure"),
                ));
            }
        };
        let mut spec = DatabaseSpec::new(protocol, raw.uri);
        spec.tls = DatabaseTls {
            mode,
            server_name: tls.server_name.unwrap_or_default(),
            trust_system_cert_pool: tls.trust_system_cert_pool.is_some_and(|flag| flag.0),
            ..DatabaseTls::default()
        };
        spec.mysql = raw
            .mysql
            .map(|mysql| MysqlOptions { server_version: mysql.server_version.unwrap_or_default() });
        spec.aws = raw.aws.map(|aws| AwsOptions {
            region: aws.region.unwrap_or_default(),
            account_id: aws.account_id.unwrap_or_default(),
        });
        spec.dynamic_labels = self.commands(DATABASES, raw.dynamic_labels.unwrap_or_default())?;
        let mut database = Database::new(name.as_str(), spec);
        database.metadata.description = raw.description;
        database.metadata.labels = self.labels(DATABASES, raw.static_labels.unwrap_or_default())?;
        database.check().map_err(|error| {
            let text = error.to_string();
            let key = if text.contains("spec.uri") { "uri" } else { "name" };
            fault(key, text)
        })?;
        let ca_cert_file = tls.ca_cert_file.or(raw.ca_cert_file).map(PathBuf::from);
        Ok(StaticDatabase { database, ca_cert_file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TeleportConfig;

    fn parse(section: &str) -> Result<Option<DbConfig>, String> {
        let text = format!("db_service:\n{section}");
        TeleportConfig::parse(&text, "t.yaml")
            .map(|config| config.db)
            .map_err(|err| err.to_string())
    }

    #[test]
    fn as_users_write_it() {
        assert!(parse("  enabled: no\n").unwrap().is_none());
        let db = parse("  enabled: yes\n").unwrap().unwrap();
        assert!(db.databases.is_empty() && db.resources.is_empty());
        let db = parse(
            "  enabled: yes\n  resources: [{labels: {env: [dev, test]}}, {labels: {\"*\": \"*\"}}]\n  aws: []\n  \
             databases:\n  - name: orders\n    description: Orders\n    protocol: postgres\n    uri: pg.test:5432\n    \
             static_labels: {env: prod}\n    dynamic_labels: [{name: up, command: uptime}]\n    tls: {mode: verify-ca, \
             server_name: x.test, ca_cert_file: /etc/ca.pem}\n    admin_user: {}\n  - {name: c, protocol: redis, \
             uri: \"rediss://r.test\"}\n",
        );
        let db = db.unwrap().unwrap();
        assert_eq!(db.resources.len(), 2);
        let orders = &db.databases[0];
        assert_eq!(orders.database.spec.protocol, DbProtocol::Postgres);
        assert_eq!(orders.database.spec.tls.mode, DbTlsMode::VerifyCa);
        assert_eq!(orders.database.metadata.labels["env"], "prod");
        assert_eq!(orders.database.spec.dynamic_labels["up"].command, ["uptime"]);
        assert_eq!(orders.ca_cert_file.as_deref(), Some("/etc/ca.pem".as_ref()));
        assert_eq!(db.databases[1].database.spec.address(), Some(("r.test", 6379)));
    }

    #[test]
    fn what_makes_no_sense_has_a_place() {
        for (entry, parts) in [
            (
                "{name: a, protocol: oracle, uri: \"a:1\"}",
                &["t.yaml:4:", "oracle", "supported are"][..],
            ),
            ("{name: a, protocol: mysql, uri: \"http://a\"}", &["t.yaml:4:", "HOST:PORT"]),
            (
                "{name: a, protocol: mysql, uri: \"a:1\", tls: {mode: yes}}",
                &["verify-full, verify-ca"],
            ),
            (
                "{name: a, protocol: mysql, uri: \"a:1\", gcp: {project_id: x}}",
                &["not supported yet"],
            ),
            ("{name: a, protocol: mysql, uri: \"a:1\", colour: red}", &["colour"]),
            ("{name: a b, protocol: mysql, uri: \"a:1\"}", &["a b"]),
            ("{name: a, uri: \"a:1\"}", &["protocol"]),
        ] {
            let shown = parse(&format!("  enabled: yes\n  databases:\n  - {entry}\n")).unwrap_err();
            for part in parts {
                assert!(shown.contains(part), "{part:?} is missing in {shown:?}");
            }
        }
        let one = "{name: a, protocol: mysql, uri: \"a:1\"}";
        let twice = parse(&format!("  enabled: yes\n  databases:\n  - {one}\n  - {one}\n"));
        assert!(twice.unwrap_err().contains("t.yaml:5:"));
        let all = parse("  enabled: yes\n  resources: [{labels: {}}]\n").unwrap_err();
        assert!(all.contains("has no labels"), "{all}");
        assert!(parse("  enabled: yes\n  aws: [{types: [rds]}]\n").unwrap_err().contains("clouds"));
    }
}

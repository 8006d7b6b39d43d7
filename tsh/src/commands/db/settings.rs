//! How a program of its own reaches a database through the proxy, and the files of other programs that say so.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;
use shared_cli::CliError;
use shared_config::{Profile, ProfileDir};
use shared_pki::DatabaseRoute;
use shared_types::DbProtocol;

use super::sections::{self, SectionError};
use crate::context::config_error;

/// libpq's service file, in the home folder.
const PG_SERVICE: &str = ".pg_service.conf";
/// MySQL's option file, in the home folder.
const MY_CNF: &str = ".my.cnf";
/// Held while files of other programs are changed, in the profile folder.
const LOCK: &str = "client-files.lock";

/// A database that the user is logged in to, as programs connect to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Settings {
    /// The database's name.
    pub(crate) name: String,
    /// The proxy's host.
    pub(crate) host: String,
    /// The proxy's port for this protocol.
    pub(crate) port: u16,
    /// The database user.
    pub(crate) user: String,
    /// The database on the server; may be empty.
    pub(crate) database: String,
    /// The cluster's host authority.
    pub(crate) ca: PathBuf,
    /// The certificate.
    pub(crate) cert: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// The section in other programs' files: `CLUSTER-DATABASE`.
    #[serde(skip)]
    pub(crate) section: String,
    /// What it speaks.
    #[serde(skip)]
    pub(crate) protocol: DbProtocol,
    /// Whether names in certificates are not checked.
    #[serde(skip)]
    pub(crate) insecure: bool,
}

/// Why programs cannot connect to the proxy by themselves, where they cannot.
pub(crate) fn local_proxy_reason(protocol: DbProtocol, profile: &Profile) -> Option<&'static str> {
    match protocol {
        DbProtocol::Postgres | DbProtocol::Cockroachdb => None,
        DbProtocol::Mysql if !profile.mysql_proxy_addr.is_empty() => None,
        DbProtocol::Mysql => Some("the proxy has no port for MySQL"),
        DbProtocol::Redis => Some("clients of Redis cannot say on the proxy's port what they want"),
        DbProtocol::Dynamodb => Some("requests to DynamoDB are signed with a password"),
    }
}

fn host_and_port(addr: &str) -> Option<(String, u16)> {
    let (host, port) = addr.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), port.parse().ok()?))
}

impl Settings {
    /// What the profile and the certificate's route say.
    pub(crate) fn new(
        dir: &ProfileDir,
        profile: &Profile,
        route: &DatabaseRoute,
        insecure: bool,
    ) -> Result<Self, CliError> {
        let protocol: DbProtocol =
            route.protocol.parse().map_err(|error| CliError::from_error(&error))?;
        let own = match protocol {
            DbProtocol::Mysql => &profile.mysql_proxy_addr,
            DbProtocol::Postgres | DbProtocol::Cockroachdb => &profile.postgres_proxy_addr,
            _ => &profile.web_proxy_addr,
        };
        let addr = if own.is_empty() { &profile.web_proxy_addr } else { own };
        let (host, port) = host_and_port(addr)
            .ok_or_else(|| CliError::new(format!("{addr:?} in the profile is no address")))?;
        let name = &route.service;
        Ok(Self {
            name: name.clone(),
            host,
            port,
            user: route.user.clone(),
            database: route.name.clone(),
            ca: dir.cas_path(profile),
            cert: dir.database_cert_path(profile, name).map_err(config_error)?,
            key: dir.database_key_path(profile, name).map_err(config_error)?,
            section: format!("{}-{name}", profile.cluster),
            protocol,
            insecure,
        })
    }

    /// Names and values as libpq takes them.
    fn postgres(&self) -> Vec<(&'static str, String)> {
        let mode = if self.insecure { "verify-ca" } else { "verify-full" };
        let mut values = vec![("host", self.host.clone()), ("port", self.port.to_string())];
        if !self.user.is_empty() {
            values.push(("user", self.user.clone()));
        }
        if !self.database.is_empty() {
            values.push(("dbname", self.database.clone()));
        }
        values.extend([
            ("sslmode", mode.to_owned()),
            ("sslrootcert", self.ca.display().to_string()),
            ("sslcert", self.cert.display().to_string()),
            ("sslkey", self.key.display().to_string()),
            ("gssencmode", "disable".to_owned()),
        ]);
        values
    }

    fn mysql(&self) -> Vec<(&'static str, String)> {
        let mode = if self.insecure { "VERIFY_CA" } else { "VERIFY_IDENTITY" };
        let mut values = vec![("host", self.host.clone()), ("port", self.port.to_string())];
        if !self.user.is_empty() {
            values.push(("user", self.user.clone()));
        }
        if !self.database.is_empty() {
            values.push(("database", self.database.clone()));
        }
        values.extend([
            ("ssl-mode", mode.to_owned()),
            ("ssl-ca", self.ca.display().to_string()),
            ("ssl-cert", self.cert.display().to_string()),
            ("ssl-key", self.key.display().to_string()),
        ]);
        values
    }

    /// What to set in a program's environment; none for protocols whose clients read nothing there.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        const NAMES: [(&str, &str); 9] = [
            ("host", "PGHOST"),
            ("port", "PGPORT"),
            ("user", "PGUSER"),
            ("dbname", "PGDATABASE"),
            ("sslmode", "PGSSLMODE"),
            ("sslrootcert", "PGSSLROOTCERT"),
            ("sslcert", "PGSSLCERT"),
            ("sslkey", "PGSSLKEY"),
            ("gssencmode", "PGGSSENCMODE"),
        ];
        match self.protocol {
            DbProtocol::Postgres | DbProtocol::Cockroachdb => self
                .postgres()
                .into_iter()
                .filter_map(|(key, value)| {
                    let (_, name) = NAMES.iter().find(|(known, _)| *known == key)?;
                    Some((*name, value))
                })
                .collect(),
            DbProtocol::Mysql => vec![("MYSQL_GROUP_SUFFIX", format!("_{}", self.section))],
            DbProtocol::Redis | DbProtocol::Dynamodb => Vec::new(),
        }
    }

    /// The program's file below the home folder, the section, and its settings; none where the program has no such file.
    fn file(&self) -> Option<(&'static str, String, Vec<String>)> {
        let lines = |values: Vec<(&str, String)>, quote: fn(&str) -> String| {
            values.iter().map(|(key, value)| format!("{key}={}", quote(value))).collect()
        };
        match self.protocol {
            DbProtocol::Postgres | DbProtocol::Cockroachdb => {
                let plain = str::to_owned;
                Some((PG_SERVICE, self.section.clone(), lines(self.postgres(), plain)))
            }
            DbProtocol::Mysql => {
                Some((MY_CNF, format!("client_{}", self.section), lines(self.mysql(), quote_mysql)))
            }
            DbProtocol::Redis | DbProtocol::Dynamodb => None,
        }
    }

    /// Writes the section; answers whether there is one for this protocol.
    pub(crate) fn save(&self, dir: &ProfileDir) -> Result<bool, CliError> {
        let (Some(home), Some((file, section, settings))) = (home(), self.file()) else {
            return Ok(false);
        };
        let _lock = lock(dir)?;
        sections::edit(&home.join(file), |text| Some(sections::put(text, &section, &settings)))
            .map_err(|error| section_error(&error))
    }
}

/// Removes a database's sections, whatever it speaks; those that name another certificate are somebody else's.
pub(crate) fn remove_sections(
    dir: &ProfileDir,
    profile: &Profile,
    database: &str,
) -> Result<(), CliError> {
    let Some(home) = home() else { return Ok(()) };
    let cert = dir.database_cert_path(profile, database).map_err(config_error)?;
    let section = format!("{}-{database}", profile.cluster);
    let cert = cert.display().to_string();
    let files = [
        (PG_SERVICE, section.clone(), cert.clone()),
        (MY_CNF, format!("client_{section}"), quote_mysql(&cert)),
    ];
    let _lock = lock(dir)?;
    for (file, section, mark) in files {
        sections::edit(&home.join(file), |text| sections::take(text, &section, &mark))
            .map_err(|error| section_error(&error))?;
    }
    Ok(())
}

/// As MySQL's option files want it: a backslash begins an escape there, and a hash a comment.
fn quote_mysql(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\");
    match escaped.contains(['#', '"', '\'', ' ']) {
        true => format!("\"{}\"", escaped.replace('"', "\\\"")),
        false => escaped,
    }
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

fn section_error(error: &SectionError) -> CliError {
    CliError::from_error(error)
}

/// Two of these programs must not change a file at once: each would lose what the other wrote.
fn lock(dir: &ProfileDir) -> Result<File, CliError> {
    let path: &Path = &dir.path().join(LOCK);
    let failed = |error| CliError::wrap(format!("lock {}", path.display()), &error);
    if !path.exists() {
        dir.write_secret(path, b"").map_err(config_error)?;
    }
    let file = File::open(path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        let mut profile = Profile::new(
            "gate.test:443".into(),
            "gate.test:443".into(),
            "joe".parse().unwrap(),
            "main".parse().unwrap(),
            true,
        );
        profile.mysql_proxy_addr = "gate.test:3036".to_owned();
        profile
    }

    fn settings(protocol: &str, insecure: bool) -> Settings {
        let route = DatabaseRoute {
            service: "web-db".to_owned(),
            protocol: protocol.to_owned(),
            user: "ali ce".to_owned(),
            name: "shop".to_owned(),
        };
        let dir = ProfileDir::at(Path::new("/h/.tsh"));
        Settings::new(&dir, &profile(), &route, insecure).unwrap()
    }

    #[test]
    fn the_service_file_as_libpq_reads_it() {
        let (file, section, lines) = settings("postgres", false).file().unwrap();
        assert_eq!((file, section.as_str()), (".pg_service.conf", "main-web-db"));
        assert_eq!(
            lines.join("\n"),
            "host=gate.test\nport=443\nuser=ali ce\ndbname=shop\nsslmode=verify-full\n\
             sslrootcert=/h/.tsh/keys/gate.test/cas/main.pem\n\
             sslcert=/h/.tsh/keys/gate.test/joe-db/main/web-db.crt\n\
             sslkey=/h/.tsh/keys/gate.test/joe-db/main/web-db.key\ngssencmode=disable"
        );
        let (_, _, lines) = settings("cockroachdb", true).file().unwrap();
        assert!(lines.contains(&"sslmode=verify-ca".to_owned()));
    }

    #[test]
    fn the_option_file_as_mysql_reads_it() {
        let (file, section, lines) = settings("mysql", false).file().unwrap();
        assert_eq!((file, section.as_str()), (".my.cnf", "client_main-web-db"));
        assert_eq!(
            lines.join("\n"),
            "host=gate.test\nport=3036\nuser=\"ali ce\"\ndatabase=shop\nssl-mode=VERIFY_IDENTITY\n\
             ssl-ca=/h/.tsh/keys/gate.test/cas/main.pem\n\
             ssl-cert=/h/.tsh/keys/gate.test/joe-db/main/web-db.crt\n\
             ssl-key=/h/.tsh/keys/gate.test/joe-db/main/web-db.key"
        );
        assert_eq!(quote_mysql(r"C:\k"), r"C:\\k");
        assert_eq!(quote_mysql(r#"a"#.repeat(2).as_str()), "aa");
        assert_eq!(quote_mysql("a#b\"c"), "\"a#b\\\"c\"");
        assert!(settings("redis", false).file().is_none());
    }

    #[test]
    fn the_environment_by_protocol() {
        let env = settings("postgres", false).environment();
        let names: Vec<&str> = env.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names.join(" "),
            "PGHOST PGPORT PGUSER PGDATABASE PGSSLMODE PGSSLROOTCERT PGSSLCERT PGSSLKEY PGGSSENCMODE"
        );
        let env = settings("mysql", false).environment();
        assert_eq!(env, [("MYSQL_GROUP_SUFFIX", "_main-web-db".to_owned())]);
    }

    #[test]
    fn who_needs_a_local_proxy() {
        let mut profile = profile();
        let needs = |protocol, profile: &Profile| local_proxy_reason(protocol, profile).is_some();
        assert!(!needs(DbProtocol::Postgres, &profile) && !needs(DbProtocol::Mysql, &profile));
        assert!(needs(DbProtocol::Redis, &profile) && needs(DbProtocol::Dynamodb, &profile));
        profile.mysql_proxy_addr.clear();
        assert!(needs(DbProtocol::Mysql, &profile));
    }
}

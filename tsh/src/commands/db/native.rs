//! The command lines of databases' own clients. No secret is among the arguments: there are none.

use std::path::Path;

use shared_api::paths::encode;
use shared_cli::CliError;
use shared_types::DbProtocol;

use super::settings::Settings;

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Native {
    /// The program.
    pub(crate) program: String,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// What is set in its environment where we start it.
    pub(crate) env: Vec<(&'static str, &'static str)>,
}

/// Where the client is to connect.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reach<'a> {
    /// To the proxy itself, with the certificate.
    Proxy(&'a Settings),
    /// To a tunnel on this machine.
    Tunnel(u16),
}

/// Whether a program is on the search path.
pub(crate) fn installed(program: &str) -> bool {
    let Some(paths) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// The client of a database, as `user` on the database `name` (which may be empty).
pub(crate) fn client(
    protocol: DbProtocol,
    user: &str,
    name: &str,
    reach: Reach<'_>,
    has: &dyn Fn(&str) -> bool,
) -> Result<Native, CliError> {
    Ok(match protocol {
        DbProtocol::Cockroachdb if has("cockroach") => cockroach(user, name, reach),
        DbProtocol::Postgres | DbProtocol::Cockroachdb => psql(user, name, reach),
        DbProtocol::Mysql => mysql(user, name, reach, has("mariadb")),
        DbProtocol::Redis => redis(name, reach),
        DbProtocol::Dynamodb => match reach {
            Reach::Tunnel(port) => {
                let endpoint = format!("http://localhost:{port}");
                native("aws", ["dynamodb", "list-tables", "--endpoint-url", &endpoint])
            }
            Reach::Proxy(_) => {
                return Err(CliError::new("DynamoDB has no client that connects by itself")
                    .hint("tsh proxy db --tunnel DB"));
            }
        },
    })
}

fn native<S: Into<String>>(program: &str, args: impl IntoIterator<Item = S>) -> Native {
    let args = args.into_iter().map(Into::into).collect();
    Native { program: program.to_owned(), args, env: Vec::new() }
}

/// A value in libpq's `key=value` form (PostgreSQL "Connection Strings").
fn conninfo(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@/".contains(&byte);
    if !value.is_empty() && value.bytes().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn postgres_url(user: &str, name: &str, host: &str, port: u16) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let mut url = format!("postgres://{}@{host}:{port}", encode(user));
    if !name.is_empty() {
        url.push('/');
        url.push_str(&encode(name));
    }
    url
}

fn psql(user: &str, name: &str, reach: Reach<'_>) -> Native {
    match reach {
        Reach::Tunnel(port) => {
            let mut native = native("psql", [postgres_url(user, name, "localhost", port)]);
            // What the caller's environment says is for other ways; the tunnel is encrypted behind the listener.
            native.env = vec![("PGSSLMODE", "disable"), ("PGGSSENCMODE", "disable")];
            native
        }
        Reach::Proxy(settings) => {
            let mut text = format!("service={}", conninfo(&settings.section));
            for (key, value) in [("user", user), ("dbname", name)] {
                if !value.is_empty() {
                    text.push_str(&format!(" {key}={}", conninfo(value)));
                }
            }
            native("psql", [text])
        }
    }
}

fn cockroach(user: &str, name: &str, reach: Reach<'_>) -> Native {
    let url = match reach {
        Reach::Tunnel(port) => postgres_url(user, name, "localhost", port) + "?sslmode=disable",
        Reach::Proxy(settings) => {
            let mode = if settings.insecure { "verify-ca" } else { "verify-full" };
            let file = |path: &Path| encode(&path.display().to_string());
            postgres_url(user, name, &settings.host, settings.port)
                + &format!(
                    "?sslmode={mode}&sslrootcert={}&sslcert={}&sslkey={}",
                    file(&settings.ca),
                    file(&settings.cert),
                    file(&settings.key)
                )
        }
    };
    native("cockroach", ["sql".to_owned(), "--url".to_owned(), url])
}

fn mysql(user: &str, name: &str, reach: Reach<'_>, mariadb: bool) -> Native {
    let mut args: Vec<String> = Vec::new();
    if let (Reach::Proxy(settings), false) = (reach, mariadb) {
        // MySQL takes this one only before all others.
        args.push(format!("--defaults-group-suffix=_{}", settings.section));
    }
    args.extend(["--user".to_owned(), user.to_owned()]);
    if !name.is_empty() {
        args.extend(["--database".to_owned(), name.to_owned()]);
    }
    let (host, port) = match reach {
        Reach::Tunnel(port) => ("localhost", port),
        Reach::Proxy(settings) => (settings.host.as_str(), settings.port),
    };
    let port = port.to_string();
    args.extend(["--port", &port, "--host", host, "--protocol", "TCP"].map(str::to_owned));
    if let (Reach::Proxy(settings), true) = (reach, mariadb) {
        for (flag, path) in [
            ("--ssl-key", &settings.key),
            ("--ssl-ca", &settings.ca),
            ("--ssl-cert", &settings.cert),
        ] {
            args.extend([flag.to_owned(), path.display().to_string()]);
        }
        args.push("--ssl-verify-server-cert".to_owned());
    }
    native(if mariadb { "mariadb" } else { "mysql" }, args)
}

fn redis(name: &str, reach: Reach<'_>) -> Native {
    let (host, port) = match reach {
        Reach::Tunnel(port) => ("localhost", port),
        Reach::Proxy(settings) => (settings.host.as_str(), settings.port),
    };
    let mut args = vec!["-h".to_owned(), host.to_owned(), "-p".to_owned(), port.to_string()];
    if let Reach::Proxy(settings) = reach {
        args.push("--tls".to_owned());
        for (flag, path) in
            [("--key", &settings.key), ("--cert", &settings.cert), ("--cacert", &settings.ca)]
        {
            args.extend([flag.to_owned(), path.display().to_string()]);
        }
        if settings.insecure {
            args.push("--insecure".to_owned());
        }
    }
    if !name.is_empty() {
        args.extend(["-n".to_owned(), name.to_owned()]);
    }
    native("redis-cli", args)
}

/// An argument as a shell reads it.
fn shell_word(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%,+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    match word.contains(['"', '\\', '$', '`', '!', '\'']) {
        false => format!("\"{word}\""),
        true => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

impl Native {
    /// As it would be typed.
    pub(crate) fn shown(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args);
        words.map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
    }

    /// The same client that runs one command and ends.
    pub(crate) fn with_command(mut self, protocol: DbProtocol, command: &str) -> Option<Self> {
        let flag = match protocol {
            DbProtocol::Postgres => "-c",
            DbProtocol::Cockroachdb if self.program == "psql" => "-c",
            DbProtocol::Cockroachdb | DbProtocol::Mysql => "-e",
            DbProtocol::Redis | DbProtocol::Dynamodb => return None,
        };
        self.args.extend([flag.to_owned(), command.to_owned()]);
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use shared_config::{Profile, ProfileDir};
    use shared_pki::DatabaseRoute;

    use super::*;

    fn settings(protocol: &str) -> Settings {
        let mut profile = Profile::new(
            "gate.test:443".into(),
            "gate.test:443".into(),
            "joe".parse().unwrap(),
            "main".parse().unwrap(),
            true,
        );
        profile.mysql_proxy_addr = "gate.test:3036".to_owned();
        let route = DatabaseRoute {
            service: "db".to_owned(),
            protocol: protocol.to_owned(),
            user: "alice".to_owned(),
            name: "shop".to_owned(),
        };
        Settings::new(&ProfileDir::at(Path::new("/h")), &profile, &route, false).unwrap()
    }

    fn shown(
        protocol: DbProtocol,
        user: &str,
        name: &str,
        reach: Reach<'_>,
        tools: &[&str],
    ) -> String {
        client(protocol, user, name, reach, &|tool| tools.contains(&tool)).unwrap().shown()
    }

    #[test]
    fn through_a_tunnel() {
        let tunnel = Reach::Tunnel(5000);
        for (protocol, tools, expected) in [
            (DbProtocol::Postgres, &[][..], "psql postgres://alice@localhost:5000/shop"),
            (DbProtocol::Cockroachdb, &[], "psql postgres://alice@localhost:5000/shop"),
            (
                DbProtocol::Cockroachdb,
                &["cockroach"],
                "cockroach sql --url \"postgres://alice@localhost:5000/shop?sslmode=disable\"",
            ),
            (
                DbProtocol::Mysql,
                &[],
                "mysql --user alice --database shop --port 5000 --host localhost --protocol TCP",
            ),
            (
                DbProtocol::Mysql,
                &["mariadb"],
                "mariadb --user alice --database shop --port 5000 --host localhost --protocol TCP",
            ),
            (DbProtocol::Redis, &[], "redis-cli -h localhost -p 5000 -n shop"),
            (
                DbProtocol::Dynamodb,
                &[],
                "aws dynamodb list-tables --endpoint-url http://localhost:5000",
            ),
        ] {
            assert_eq!(shown(protocol, "alice", "shop", tunnel, tools), expected);
        }
        assert_eq!(
            shown(DbProtocol::Postgres, "a@b c/d", "", tunnel, &[]),
            "psql postgres://a%40b%20c%2Fd@localhost:5000"
        );
    }

    #[test]
    fn straight_to_the_proxy() {
        let pg = settings("postgres");
        assert_eq!(
            shown(DbProtocol::Postgres, "alice", "shop", Reach::Proxy(&pg), &[]),
            "psql \"service=main-db user=alice dbname=shop\""
        );
        assert_eq!(
            shown(DbProtocol::Postgres, "o'brien x", "", Reach::Proxy(&pg), &[]),
            r"psql 'service=main-db user='\''o\'\''brien x'\'''"
        );
        let my = settings("mysql");
        assert_eq!(
            shown(DbProtocol::Mysql, "alice", "shop", Reach::Proxy(&my), &[]),
            "mysql --defaults-group-suffix=_main-db --user alice --database shop --port 3036 \
             --host gate.test --protocol TCP"
        );
        let folder = "/h/keys/gate.test";
        assert_eq!(
            shown(DbProtocol::Mysql, "alice", "", Reach::Proxy(&my), &["mariadb"]),
            format!(
                "mariadb --user alice --port 3036 --host gate.test --protocol TCP \
                 --ssl-key {folder}/joe-db/main/db.key --ssl-ca {folder}/cas/main.pem \
                 --ssl-cert {folder}/joe-db/main/db.crt --ssl-verify-server-cert"
            )
        );
        assert!(client(DbProtocol::Dynamodb, "a", "", Reach::Proxy(&pg), &|_| true).is_err());
    }

    #[test]
    fn one_command() {
        let psql = client(DbProtocol::Postgres, "a", "d", Reach::Tunnel(1), &|_| false).unwrap();
        let psql = psql.with_command(DbProtocol::Postgres, "select 1").unwrap();
        assert_eq!(psql.shown(), "psql postgres://a@localhost:1/d -c \"select 1\"");
        let redis = client(DbProtocol::Redis, "a", "", Reach::Tunnel(1), &|_| false).unwrap();
        assert!(redis.with_command(DbProtocol::Redis, "GET x").is_none());
    }
}

//! Certificates for database servers, in the files each kind of server reads, with the lines its configuration needs.
//!
//! The server's certificate is signed by the database authority, which agents trust; the authority that the server
//! has to trust is another, the one that signs what agents show as a user of the database.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use shared_api::{DatabaseCertFormat, DatabaseServerCertReply, DatabaseServerCertRequest};
use shared_cli::{CliError, printable};
use shared_pki::TlsKey;
use shared_types::GoDuration;

use super::files;
use crate::connect::Connection;

/// A kind of database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    /// PostgreSQL, MySQL or MariaDB.
    Any,
    Postgres,
    Mysql,
    Cockroachdb,
    Mongodb,
    Redis,
}

/// A file and what is in it.
type Written = (PathBuf, String);

impl Server {
    /// Makes a key, has it certified, and writes the files.
    pub(super) async fn sign(
        self,
        connection: &Connection,
        hosts: Vec<String>,
        ttl: Option<GoDuration>,
        out: &Path,
        overwrite: bool,
    ) -> Result<(), CliError> {
        let names = self.files(out);
        let names: Vec<&Path> = names.iter().map(PathBuf::as_path).collect();
        files::may_replace(&names, overwrite)?;
        let key = TlsKey::generate().map_err(|error| CliError::wrap("make a key", &error))?;
        let request = DatabaseServerCertRequest {
            hosts,
            public_key_pem: key.public().to_pem(),
            ttl_seconds: ttl.map(|ttl| ttl.as_std().as_secs()),
            format: match self {
                Self::Any | Self::Postgres | Self::Mysql | Self::Redis => DatabaseCertFormat::Db,
                Self::Cockroachdb => DatabaseCertFormat::Cockroachdb,
                Self::Mongodb => DatabaseCertFormat::Mongodb,
            },
        };
        let signed =
            connection.api.sign_database_server(&request).await.map_err(Connection::error)?;
        if self == Self::Cockroachdb {
            folder(out)?;
        }
        for (path, content) in self.contents(out, &key.to_pem(), &signed) {
            files::write(&path, content.as_bytes())?;
        }
        println!("Database credentials have been written to {}.", printable(&files::names(names)));
        println!("The certificate ends at {}.\n", signed.valid_until.format("%Y-%m-%d %H:%M UTC"));
        print!("{}", printable_lines(&self.instructions(out)));
        Ok(())
    }

    fn files(self, out: &Path) -> Vec<PathBuf> {
        match self {
            Self::Cockroachdb => ["node.key", "node.crt", "ca.crt", "ca-client.crt"]
                .map(|name| out.join(name))
                .into(),
            Self::Mongodb => [".crt", ".cas"].map(|ending| files::with_ending(out, ending)).into(),
            _ => [".key", ".crt", ".cas"].map(|ending| files::with_ending(out, ending)).into(),
        }
    }

    /// What each of [`Self::files`] holds.
    fn contents(self, out: &Path, key: &str, signed: &DatabaseServerCertReply) -> Vec<Written> {
        let line = |text: &str| format!("{}\n", text.trim_end());
        let certificate = line(&signed.certificate);
        let clients = line(&signed.client_authority);
        let contents = match self {
            Self::Cockroachdb => {
                vec![line(key), certificate, line(&signed.server_authority), clients]
            }
            Self::Mongodb => vec![certificate + &line(key), clients],
            _ => vec![line(key), certificate, clients],
        };
        self.files(out).into_iter().zip(contents).collect()
    }

    /// What to write into the server's configuration.
    fn instructions(self, out: &Path) -> String {
        let name = out
            .file_name()
            .map_or_else(|| "OUT".to_owned(), |name| name.to_string_lossy().into_owned());
        let at = |ending: &str| format!("/path/to/{name}{ending}");
        let (key, crt, cas) = (at(".key"), at(".crt"), at(".cas"));
        let postgres = format!(
            "PostgreSQL, in postgresql.conf:\n\n\
             ssl = on\n\
             ssl_cert_file = '{crt}'\n\
             ssl_key_file = '{key}'\n\
             ssl_ca_file = '{cas}'\n\n\
             and in pg_hba.conf, so that users come with a certificate and without a password:\n\n\
             hostssl all all ::/0      cert\n\
             hostssl all all 0.0.0.0/0 cert\n"
        );
        let mysql = format!(
            "MySQL and MariaDB, in my.cnf:\n\n\
             [mysqld]\n\
             require_secure_transport=ON\n\
             ssl-cert={crt}\n\
             ssl-key={key}\n\
             ssl-ca={cas}\n\n\
             and for each user, so that it comes with a certificate:\n\n\
             ALTER USER 'alice'@'%' REQUIRE SUBJECT '/CN=alice';\n"
        );
        let mut text = match self {
            Self::Any => format!("{postgres}\n{mysql}"),
            Self::Postgres => postgres,
            Self::Mysql => mysql,
            Self::Redis => format!(
                "Redis and Valkey, in redis.conf:\n\n\
                 tls-ca-cert-file {cas}\n\
                 tls-cert-file {crt}\n\
                 tls-key-file {key}\n\
                 tls-protocols \"TLSv1.2 TLSv1.3\"\n"
            ),
            Self::Mongodb => format!(
                "MongoDB, in mongod.conf:\n\n\
                 net:\n  tls:\n    mode: requireTLS\n    certificateKeyFile: {crt}\n    CAFile: {cas}\n"
            ),
            Self::Cockroachdb => format!(
                "CockroachDB. A client authority of your own beside the cluster's, for your root user:\n\n\
                 cockroach cert create-client-ca --certs-dir=/path/to/{name} --ca-key=ca-secrets/ca-client.key\n\
                 cockroach cert create-client root --certs-dir=/path/to/{name} --ca-key=ca-secrets/ca-client.key\n\n\
                 Then start each node with\n\n\
                 cockroach start --certs-dir=/path/to/{name} …\n"
            ),
        };
        let _ = writeln!(text, "\nThe server needs the new files before the certificate ends.");
        text
    }
}

/// The text with the names in it made harmless.
fn printable_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", printable(line))).collect()
}

/// Makes a folder that only its owner reads, unless it is there.
fn folder(path: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| CliError::wrap(format!("make the folder {}", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> DatabaseServerCertReply {
        DatabaseServerCertReply {
            certificate: "CERT\n".to_owned(),
            client_authority: "CLIENTS".to_owned(),
            server_authority: "SERVERS\n\n".to_owned(),
            valid_until: chrono::DateTime::UNIX_EPOCH,
        }
    }

    fn written(server: Server) -> Vec<(String, String)> {
        let contents = server.contents(Path::new("out/pg"), "KEY\n", &signed());
        contents.into_iter().map(|(path, content)| (path.display().to_string(), content)).collect()
    }

    #[test]
    fn each_server_gets_the_files_it_reads() {
        let file = |name: &str, content: &str| (name.to_owned(), content.to_owned());
        for server in [Server::Any, Server::Postgres, Server::Mysql, Server::Redis] {
            assert_eq!(
                written(server),
                [
                    file("out/pg.key", "KEY\n"),
                    file("out/pg.crt", "CERT\n"),
                    file("out/pg.cas", "CLIENTS\n")
                ]
            );
        }
        assert_eq!(
            written(Server::Mongodb),
            [file("out/pg.crt", "CERT\nKEY\n"), file("out/pg.cas", "CLIENTS\n")]
        );
        assert_eq!(
            written(Server::Cockroachdb),
            [
                file("out/pg/node.key", "KEY\n"),
                file("out/pg/node.crt", "CERT\n"),
                file("out/pg/ca.crt", "SERVERS\n"),
                file("out/pg/ca-client.crt", "CLIENTS\n"),
            ]
        );
    }

    #[test]
    fn the_lines_for_servers_name_the_files() {
        let text = |server: Server| server.instructions(Path::new("out/pg"));
        let any = text(Server::Any);
        for line in [
            "ssl = on",
            "ssl_cert_file = '/path/to/pg.crt'",
            "ssl_key_file = '/path/to/pg.key'",
            "ssl_ca_file = '/path/to/pg.cas'",
            "[mysqld]",
            "require_secure_transport=ON",
            "ssl-cert=/path/to/pg.crt",
            "ssl-key=/path/to/pg.key",
            "ssl-ca=/path/to/pg.cas",
        ] {
            assert!(any.lines().any(|found| found == line), "{line} in {any}");
        }
        assert!(
            !text(Server::Postgres).contains("mysqld") && !text(Server::Mysql).contains("ssl = on")
        );
        let redis = text(Server::Redis);
        for key in ["tls-ca-cert-file", "tls-cert-file", "tls-key-file", "tls-protocols"] {
            assert!(redis.contains(&format!("\n{key} ")), "{redis}");
        }
        assert!(text(Server::Mongodb).contains("    certificateKeyFile: /path/to/pg.crt\n"));
        assert!(text(Server::Cockroachdb).contains("cockroach start --certs-dir=/path/to/pg"));
    }
}

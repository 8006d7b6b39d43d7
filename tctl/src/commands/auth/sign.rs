//! `tctl auth sign`: which certificate, and who signs it.

use std::path::PathBuf;

use shared_api::{HostCertRequest, UserCertsRequest};
use shared_cli::{CliError, printable};
use shared_pki::{KeyPair, TlsKey, has_wildcard};
use shared_types::{GoDuration, UserName};

use super::database::Server;
use super::files;
use crate::connect::Connection;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SignFormat {
    /// Key and certificate as OpenSSH reads them
    Openssh,
    /// For PostgreSQL, MySQL and MariaDB servers
    Db,
    /// For a PostgreSQL server
    Postgres,
    /// For a MySQL or MariaDB server
    Mysql,
    /// For the nodes of CockroachDB
    Cockroachdb,
    /// For a MongoDB server
    Mongodb,
    /// For a Redis or Valkey server
    Redis,
}

impl SignFormat {
    /// The kind of database server it is for, if any.
    fn server(self) -> Option<Server> {
        Some(match self {
            Self::Openssh => return None,
            Self::Db => Server::Any,
            Self::Postgres => Server::Postgres,
            Self::Mysql => Server::Mysql,
            Self::Cockroachdb => Server::Cockroachdb,
            Self::Mongodb => Server::Mongodb,
            Self::Redis => Server::Redis,
        })
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct SignArgs {
    /// Host names and addresses of a host's or a database server's certificate, separated by commas
    #[arg(long, value_delimiter = ',', conflicts_with = "user")]
    host: Vec<String>,
    /// User of a user certificate
    #[arg(long)]
    user: Option<UserName>,
    /// Where the files go: OUT and OUT-cert.pub; for databases OUT.key, OUT.crt and OUT.cas, for MongoDB OUT.crt and
    /// OUT.cas, for CockroachDB the folder OUT
    #[arg(short = 'o', long)]
    out: PathBuf,
    /// What is written
    #[arg(long, value_enum, default_value = "openssh")]
    format: SignFormat,
    /// How long it is valid: 12h when left out; an OpenSSH host certificate without it has no end
    #[arg(long)]
    ttl: Option<GoDuration>,
    /// Replace existing files without asking
    #[arg(long)]
    overwrite: bool,
}

pub(super) async fn run(connection: &Connection, args: SignArgs) -> Result<(), CliError> {
    let hosts: Vec<String> = args
        .host
        .iter()
        .map(|host| host.trim().to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    match args.format.server() {
        None if args.user.is_none() && hosts.is_empty() => {
            Err(CliError::usage("--user or --host must be specified"))
        }
        None => openssh(connection, hosts, args).await,
        Some(_) if args.user.is_some() => {
            Err(CliError::usage("a database server's certificate is for hosts, not for a user")
                .hint("--host=NAME,ADDRESS in place of --user"))
        }
        Some(_) if hosts.is_empty() => {
            Err(CliError::usage("at least one hostname must be specified")
                .hint("--host=NAME,ADDRESS"))
        }
        Some(server) => server.sign(connection, hosts, args.ttl, &args.out, args.overwrite).await,
    }
}

async fn openssh(
    connection: &Connection,
    hosts: Vec<String>,
    args: SignArgs,
) -> Result<(), CliError> {
    let certificate_file = files::with_ending(&args.out, "-cert.pub");
    let files = [args.out.as_path(), certificate_file.as_path()];
    files::may_replace(&files, args.overwrite)?;
    for host in hosts.iter().filter(|host| has_wildcard(host)) {
        eprintln!(
            "WARNING: {}: OpenSSH before 10.3 does not match wildcards in host certificates and will refuse this name.",
            printable(host)
        );
    }
    let key = KeyPair::generate().map_err(|error| CliError::wrap("make a key", &error))?;
    let private =
        key.to_openssh_private_pem().map_err(|error| CliError::wrap("write the key", &error))?;
    let ttl_seconds = args.ttl.map(|ttl| ttl.as_std().as_secs());
    let certificate = match args.user {
        None => {
            let request = HostCertRequest { hosts, public_key: key.public_openssh(), ttl_seconds };
            connection.api.sign_host(&request).await.map_err(Connection::error)?.certificate
        }
        Some(user) => {
            // The API certifies both keys at once; the TLS half is not asked for here and is dropped.
            let tls =
                TlsKey::generate().map_err(|error| CliError::wrap("make a TLS key", &error))?;
            let request = UserCertsRequest {
                user: Some(user),
                ssh_public_key: key.public_openssh(),
                tls_public_key: tls.public().to_pem(),
                ttl_seconds: ttl_seconds.or(Some(12 * 3600)),
                database: None,
            };
            connection.api.sign_user(&request).await.map_err(Connection::error)?.ssh_cert
        }
    };
    files::write(&args.out, private.as_bytes())?;
    files::write(&certificate_file, format!("{}\n", certificate.trim_end()).as_bytes())?;
    println!("\nThe credentials have been written to {}", printable(&files::names(files)));
    Ok(())
}

//! `tctl auth`: export of authorities, signing of certificates.

use std::path::{Path, PathBuf};

use shared_api::{HostCertRequest, UserCertsRequest};
use shared_cli::{CliError, ExitCode, Prompter, printable};
use shared_pki::{KeyPair, TlsKey, has_wildcard};
use shared_types::{GoDuration, UserName};

use crate::connect::Connection;

/// Flags of `tctl auth`.
#[derive(Debug, clap::Args)]
pub struct AuthArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print the public half of an authority
    Export {
        /// user, host, tls-user, tls-host, recording; user and host when left out
        #[arg(long = "type")]
        kind: Option<String>,
    },
    /// Make a key and sign a certificate for it
    Sign(SignArgs),
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SignFormat {
    /// Key and certificate as OpenSSH reads them
    Openssh,
}

#[derive(Debug, clap::Args)]
struct SignArgs {
    /// Host names and addresses of a host certificate, separated by commas
    #[arg(long, value_delimiter = ',', conflicts_with = "user")]
    host: Vec<String>,
    /// User of a user certificate
    #[arg(long)]
    user: Option<UserName>,
    /// Where the files go: OUT and OUT-cert.pub
    #[arg(short = 'o', long)]
    out: PathBuf,
    /// What is written
    #[arg(long, value_enum, default_value = "openssh")]
    format: SignFormat,
    /// How long it is valid; a host certificate without it has no end
    #[arg(long)]
    ttl: Option<GoDuration>,
    /// Replace existing files without asking
    #[arg(long)]
    overwrite: bool,
}

/// Runs the verb.
pub async fn run(connection: &Connection, args: AuthArgs) -> Result<ExitCode, CliError> {
    match args.verb {
        Verb::Export { kind } => {
            let text = connection
                .api
                .export_authority(kind.as_deref())
                .await
                .map_err(Connection::error)?;
            println!("{}", text.trim_end());
        }
        Verb::Sign(args) => sign(connection, args).await?,
    }
    Ok(ExitCode::Done)
}

async fn sign(connection: &Connection, args: SignArgs) -> Result<(), CliError> {
    let hosts: Vec<String> = args
        .host
        .iter()
        .map(|host| host.trim().to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let SignFormat::Openssh = args.format;
    let files = [args.out.clone(), certificate_path(&args.out)];
    let names = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    if args.user.is_none() && hosts.is_empty() {
        return Err(CliError::usage("--user or --host must be specified"));
    }
    if !args.overwrite && files.iter().any(|file| file.exists()) {
        let sure = Prompter
            .confirm(&format!("Destination file(s) {names} exist. Overwrite?"))
            .map_err(|error| {
                CliError::from_error(&error).hint("--overwrite replaces them without asking")
            })?;
        if !sure {
            return Err(CliError::new(format!("not overwriting destination files {names}")));
        }
    }
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
            };
            connection.api.sign_user(&request).await.map_err(Connection::error)?.ssh_cert
        }
    };
    let [key_file, certificate_file] = &files;
    write(key_file, private.as_bytes())?;
    write(certificate_file, line(&certificate).as_bytes())?;
    println!("\nThe credentials have been written to {}", printable(&names));
    Ok(())
}

fn line(text: &str) -> String {
    format!("{}\n", text.trim_end())
}

/// `OUT-cert.pub`, where OpenSSH looks for a key's certificate.
fn certificate_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push("-cert.pub");
    PathBuf::from(name)
}

/// Writes beside and renames, so that a crash leaves the former file or the new one; owner only.
fn write(path: &Path, content: &[u8]) -> Result<(), CliError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", uuid::Uuid::new_v4()));
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        std::fs::remove_file(&temporary).ok();
        CliError::wrap(format!("write {}", path.display()), &error)
    })
}

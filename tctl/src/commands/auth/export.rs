//! `tctl auth export`: the public half of an authority, as text or as bytes.

use std::io::{IsTerminal, Write};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use shared_cli::CliError;

use crate::connect::Connection;

/// Flags of `tctl auth export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// user, host, openssh, tls-user, tls-host, db, db-client, recording; user and host when left out. With
    /// -der behind tls-user, tls-host, db or db-client: the certificate in DER
    #[arg(long = "type")]
    kind: Option<String>,
}

pub(super) async fn run(connection: &Connection, args: &ExportArgs) -> Result<(), CliError> {
    let (kind, der) = match args.kind.as_deref() {
        Some("windows") => (Some("tls-user"), true),
        Some(kind) => match kind.strip_suffix("-der") {
            Some(pem) => (Some(pem), true),
            None => (Some(kind), false),
        },
        None => (None, false),
    };
    let text = connection.api.export_authority(kind).await.map_err(Connection::error)?;
    if !der {
        println!("{}", text.trim_end());
        return Ok(());
    }
    let bytes = certificate(&text, kind.unwrap_or_default())?;
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        return Err(CliError::usage("DER is bytes, which a terminal does not show")
            .hint("write it to a file: … > ca.der"));
    }
    out.write_all(&bytes)?;
    out.flush()?;
    Ok(())
}

/// The one certificate in PEM text.
fn certificate(text: &str, kind: &str) -> Result<Vec<u8>, CliError> {
    let mut found = CertificateDer::pem_slice_iter(text.as_bytes());
    let one = match (found.next(), found.next()) {
        (Some(Ok(one)), None) => one,
        (Some(Ok(_)), Some(_)) => {
            return Err(CliError::new(format!(
                "the authority {kind:?} has more than one certificate, and a DER file holds one"
            ))
            .hint(format!("tctl auth export --type={kind}")));
        }
        _ => {
            return Err(CliError::usage(format!(
                "the authority {kind:?} has no certificate that could be written in DER"
            ))
            .hint(format!("tctl auth export --type={kind}")));
        }
    };
    Ok(one.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn der_is_of_one_certificate() {
        let pem = shared_pki::pem_encode("CERTIFICATE", b"abc");
        assert_eq!(certificate(&pem, "db").unwrap(), b"abc");
        assert!(certificate(&pem.repeat(2), "db").unwrap_err().message().contains("more than one"));
        assert!(
            certificate("cert-authority ssh-ed25519 AAAA", "user")
                .unwrap_err()
                .message()
                .contains("no certificate")
        );
    }
}

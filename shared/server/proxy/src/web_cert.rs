//! The certificate of the web port: configured, or made and kept in the data directory.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use shared_transport::{alpn, tls};

use crate::service::StartError;
use crate::settings::ProxySettings;

/// Ten years: nobody checks it but those who chose to.
const TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const CERT: &str = "webproxy_cert.pem";
const KEY: &str = "webproxy_key.pem";

/// The TLS of the web port.
pub(crate) fn server_config(settings: &ProxySettings) -> Result<Arc<ServerConfig>, StartError> {
    let names = [alpn::PROXY_SSH, alpn::H2, alpn::HTTP1];
    let mut pairs = Vec::new();
    for (cert, key) in &settings.https_keypairs {
        pairs.push(tls::load_keypair(cert, key).map_err(StartError::WebCertificate)?);
    }
    if pairs.is_empty() {
        pairs.push(self_signed(settings)?);
    }
    let Some((certs, key)) = pairs.first().map(|(certs, key)| (certs.clone(), key.clone_key()))
    else {
        return Err(StartError::NoWebCertificate);
    };
    let mut config =
        tls::server_config(certs, key, None, &names).map_err(StartError::WebCertificate)?;
    if pairs.len() > 1 {
        config.cert_resolver = Arc::new(ByName::new(config.crypto_provider(), pairs)?);
    }
    Ok(Arc::new(config))
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn self_signed(settings: &ProxySettings) -> Result<Pair, StartError> {
    let (cert, key) = (settings.data_dir.join(CERT), settings.data_dir.join(KEY));
    if !cert.exists() || !key.exists() {
        let made = shared_pki::web::self_signed(&settings.host_names(), chrono::Utc::now(), TTL)
            .map_err(StartError::MakeWebCertificate)?;
        write(&key, made.key_pem.as_bytes()).map_err(StartError::StoreWebCertificate)?;
        write(&cert, made.cert_pem.as_bytes()).map_err(StartError::StoreWebCertificate)?;
        tracing::info!(path = %cert.display(), "made a self-signed certificate for the web port");
    }
    tls::load_keypair(&cert, &key).map_err(StartError::WebCertificate)
}

/// Replaces a file as a whole, readable by us alone.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let made = path.with_extension("new");
    match fs::remove_file(&made) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&made)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&made, path)
}

/// Several certificates, chosen by the name a client asks for; the first where none fits.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ByName {
    fn new(provider: &CryptoProvider, pairs: Vec<Pair>) -> Result<Self, StartError> {
        pairs
            .into_iter()
            .map(|(certs, key)| {
                CertifiedKey::from_der(certs, key, provider).map(Arc::new).map_err(StartError::Tls)
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .is_ok_and(|cert| verify_server_name(&cert, name).is_ok())
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fits = name.and_then(|name| self.0.iter().find(|key| is_for(key, &name)));
        fits.or_else(|| self.0.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_self_signed_certificate_is_made_once_and_kept() {
        shared_transport::install_crypto();
        let dir = tempfile::tempdir().unwrap();
        let settings =
            ProxySettings::new(dir.path().to_owned(), shared_types::HostId::random(), "host");
        server_config(&settings).unwrap();
        let first = fs::read(dir.path().join(CERT)).unwrap();
        server_config(&settings).unwrap();
        assert_eq!(fs::read(dir.path().join(CERT)).unwrap(), first);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(dir.path().join(KEY)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_name_chooses_among_several() {
        shared_transport::install_crypto();
        let made = |name: &str| {
            let cert =
                shared_pki::web::self_signed(&[name.to_owned()], chrono::Utc::now(), TTL).unwrap();
            (
                tls::certs_from_pem(cert.cert_pem.as_bytes()).unwrap(),
                tls::key_from_pem(cert.key_pem.as_bytes()).unwrap(),
            )
        };
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let keys =
            ByName::new(&provider, vec![made("a.example.com"), made("b.example.com")]).unwrap();
        let b = ServerName::try_from("b.example.com").unwrap();
        assert!(!is_for(&keys.0[0], &b));
        assert!(is_for(&keys.0[1], &b));
    }
}

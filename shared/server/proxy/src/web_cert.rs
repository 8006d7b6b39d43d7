//! The certificate of the web port: configured, or made and kept in the data directory.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use shared_transport::{alpn, tls};

use crate::service::StartError;
use crate::settings::ProxySettings;

/// Two years: what makers of browsers allow at most, 825 days, less room to renew.
const TTL: Duration = Duration::from_secs(2 * 365 * 24 * 3600);
/// How long before its end a new one is made.
const AHEAD: chrono::TimeDelta = chrono::TimeDelta::days(60);
/// How soon one that could not be made is tried again.
const AGAIN: chrono::TimeDelta = chrono::TimeDelta::hours(1);
const CERT: &str = "webproxy_cert.pem";
const KEY: &str = "webproxy_key.pem";

/// The TLS of the web port.
pub(crate) fn server_config(
    shown: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, StartError> {
    let names = [alpn::PROXY_SSH, alpn::H2, alpn::HTTP1];
    tls::server_config_by(shown, None, &names).map(Arc::new).map_err(StartError::WebCertificate)
}

/// What the web port shows. Reads files, makes some, and blocks on that.
pub(crate) fn shown(settings: &ProxySettings) -> Result<Arc<dyn ResolvesServerCert>, StartError> {
    Ok(if settings.https_keypairs.is_empty() {
        Arc::new(SelfSigned::open(settings)?)
    } else {
        Arc::new(ByName::load(&settings.https_keypairs)?)
    })
}

/// One that we made ourselves, and make anew before it ends.
#[derive(Debug)]
struct SelfSigned {
    folder: PathBuf,
    names: Vec<String>,
    current: Arc<Mutex<Current>>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    /// When it is to be replaced.
    due: DateTime<Utc>,
}

impl SelfSigned {
    /// The one in the data directory, if it is good for a while; else a new one is put there.
    fn open(settings: &ProxySettings) -> Result<Self, StartError> {
        let (folder, names) = (settings.data_dir.clone(), settings.host_names());
        let mut current = match kept(&folder) {
            Some(kept) => kept?,
            None => made(&folder, &names)?,
        };
        if current.due <= Utc::now() {
            current = made(&folder, &names)?;
        }
        Ok(Self { folder, names, current: Arc::new(Mutex::new(current)) })
    }

    /// Replaces it beside the handshake, which shows the old one.
    fn renew(&self) {
        let (folder, names) = (self.folder.clone(), self.names.clone());
        let current = Arc::clone(&self.current);
        tokio::task::spawn_blocking(move || match made(&folder, &names) {
            Ok(new) => *lock(&current) = new,
            Err(err) => {
                let why = server_core::chain(&err);
                tracing::error!(error = %why, "could not renew the certificate of the web port");
            }
        });
    }
}

fn lock(current: &Mutex<Current>) -> MutexGuard<'_, Current> {
    current.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ResolvesServerCert for SelfSigned {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = lock(&self.current);
        if current.due <= Utc::now() {
            current.due = Utc::now() + AGAIN;
            self.renew();
        }
        Some(Arc::clone(&current.key))
    }
}

/// What is in the data directory, if anything is.
fn kept(folder: &Path) -> Option<Result<Current, StartError>> {
    let (cert, key) = (folder.join(CERT), folder.join(KEY));
    (cert.exists() && key.exists()).then(|| load(&cert, &key))
}

fn load(cert: &Path, key: &Path) -> Result<Current, StartError> {
    let (certs, key) = tls::load_keypair(cert, key).map_err(StartError::WebCertificate)?;
    let leaf = certs.first().ok_or(StartError::NoWebCertificate)?;
    let until = shared_pki::web::valid_until(leaf).map_err(StartError::MakeWebCertificate)?;
    let key = tls::certified_key(certs, key).map_err(StartError::WebCertificate)?;
    Ok(Current { key: Arc::new(key), due: until - AHEAD })
}

fn made(folder: &Path, names: &[String]) -> Result<Current, StartError> {
    let (cert, key) = (folder.join(CERT), folder.join(KEY));
    let made = shared_pki::web::self_signed(names, Utc::now(), TTL)
        .map_err(StartError::MakeWebCertificate)?;
    write(&key, made.key_pem.as_bytes()).map_err(StartError::StoreWebCertificate)?;
    write(&cert, made.cert_pem.as_bytes()).map_err(StartError::StoreWebCertificate)?;
    tracing::info!(path = %cert.display(), "made a self-signed certificate for the web port");
    load(&cert, &key)
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
    fn load(files: &[(PathBuf, PathBuf)]) -> Result<Self, StartError> {
        files
            .iter()
            .map(|(cert, key)| {
                let (certs, key) = tls::load_keypair(cert, key)?;
                tls::certified_key(certs, key).map(Arc::new)
            })
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(StartError::WebCertificate)
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
        server_config(shown(&settings).unwrap()).unwrap();
        let first = fs::read(dir.path().join(CERT)).unwrap();
        shown(&settings).unwrap();
        assert_eq!(fs::read(dir.path().join(CERT)).unwrap(), first);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(dir.path().join(KEY)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn the_self_signed_certificate_is_replaced_before_it_ends() {
        shared_transport::install_crypto();
        let dir = tempfile::tempdir().unwrap();
        let settings =
            ProxySettings::new(dir.path().to_owned(), shared_types::HostId::random(), "host");
        let read = || fs::read(dir.path().join(CERT)).unwrap();
        // At a start.
        let short = Duration::from_secs(24 * 3600);
        let old = shared_pki::web::self_signed(&["host".to_owned()], Utc::now(), short).unwrap();
        write(&dir.path().join(KEY), old.key_pem.as_bytes()).unwrap();
        write(&dir.path().join(CERT), old.cert_pem.as_bytes()).unwrap();
        let shown = SelfSigned::open(&settings).unwrap();
        let first = read();
        assert_ne!(first, old.cert_pem.as_bytes());
        assert!(lock(&shown.current).due > Utc::now() + chrono::TimeDelta::days(365));
        // And while it is shown.
        let key = Arc::clone(&lock(&shown.current).key);
        shown.renew();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while Arc::ptr_eq(&key, &lock(&shown.current).key) {
            assert!(std::time::Instant::now() < deadline, "it is not replaced");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_ne!(read(), first);
    }

    #[test]
    fn the_name_chooses_among_several() {
        shared_transport::install_crypto();
        let dir = tempfile::tempdir().unwrap();
        let made = |name: &str| {
            let (cert, key) = (dir.path().join(name), dir.path().join(format!("{name}.key")));
            let made = shared_pki::web::self_signed(&[name.to_owned()], Utc::now(), TTL).unwrap();
            write(&cert, made.cert_pem.as_bytes()).unwrap();
            write(&key, made.key_pem.as_bytes()).unwrap();
            (cert, key)
        };
        let keys = ByName::load(&[made("a.example.com"), made("b.example.com")]).unwrap();
        let b = ServerName::try_from("b.example.com").unwrap();
        assert!(!is_for(&keys.0[0], &b));
        assert!(is_for(&keys.0[1], &b));
    }
}

//! The proxy's host key and certificates on disk, so that a proxy that starts while the auth service is away can still
//! answer for itself and for the targets it was lately asked for.
//!
//! One file per first name; what else a certificate has to hold is checked when it is read. Nothing here is
//! authoritative: a file that is missing, damaged or of another key is asked for anew.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use shared_pki::KeyPair;
use shared_pki::ssh_key::Certificate;
use shared_types::HostName;

use super::host_keys::left;

/// The folder in the data directory.
const FOLDER: &str = "host-certs";
/// The key's file. No certificate's file is named so: they end otherwise.
const KEY: &str = "key";
/// Certificates kept.
const MOST: usize = 4096;
/// The longest first name that is kept; a file name has to hold it.
const LONGEST: usize = 200;

/// Why the key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyFileError {
    /// A step on a file failed.
    #[error("{step} {path}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key cannot be made or read.
    #[error("host key")]
    Key(#[from] shared_pki::PkiError),
}

/// The folder. Everything here blocks on the disk.
#[derive(Debug, Clone)]
pub(super) struct HostCerts {
    folder: PathBuf,
}

impl HostCerts {
    /// Opens the folder below `data_dir`, and takes away what is over. Gives the key, made at the first start.
    pub(super) fn open(data_dir: &Path) -> Result<(Self, KeyPair), HostKeyFileError> {
        let folder = data_dir.join(FOLDER);
        let fault = |step, path: &Path| {
            let path = path.to_owned();
            move |source| HostKeyFileError::Io { step, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(fault("create", &folder))?;
        let certs = Self { folder };
        let path = certs.folder.join(KEY);
        let key = match fs::read_to_string(&path) {
            Ok(pem) => KeyPair::from_openssh_pem(&pem)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate()?;
                let pem = key.to_openssh_private_pem()?;
                certs.write(&path, pem.as_bytes()).map_err(fault("write", &path))?;
                key
            }
            Err(source) => return Err(fault("read", &path)(source)),
        };
        certs.sweep();
        Ok((certs, key))
    }

    /// Where the certificate of these names is, if they can be a file's.
    fn path(&self, names: &[String]) -> Option<PathBuf> {
        let first = names.first().filter(|name| name.len() <= LONGEST)?;
        HostName::new(first.as_str()).ok()?;
        Some(self.folder.join(format!("{first}-cert.pub")))
    }

    /// The certificate of exactly these names over `key`, if one is there.
    pub(super) fn load(&self, names: &[String], key: &KeyPair) -> Option<Certificate> {
        let line = fs::read_to_string(self.path(names)?).ok()?;
        let certificate = shared_pki::parse_certificate_line(&line).ok()?;
        let fits = certificate.public_key() == key.public().key_data()
            && certificate.valid_principals() == names;
        fits.then_some(certificate)
    }

    /// Keeps a certificate, where there is room.
    pub(super) fn save(&self, names: &[String], line: &str) -> io::Result<()> {
        let Some(path) = self.path(names) else { return Ok(()) };
        if !path.exists() && fs::read_dir(&self.folder)?.count() > MOST {
            return Ok(());
        }
        self.write(&path, line.as_bytes())
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let fresh = self.folder.join(format!(".{}", uuid::Uuid::new_v4()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    }

    /// Removes certificates that have ended, and what a crash left.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let live = || {
                let line = fs::read_to_string(&path).unwrap_or_default();
                shared_pki::parse_certificate_line(&line).is_ok_and(|cert| !left(&cert).is_zero())
            };
            if name != KEY && (name.starts_with('.') || !live()) {
                // What stays is looked at again at the next start.
                fs::remove_file(&path).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::Utc;
    use shared_pki::{CaKind, CertAuthority, HostCertSpec};
    use shared_types::SystemRole;

    use super::*;

    fn signed(ca: &CertAuthority, key: &KeyPair, names: &[String], ttl: Duration) -> String {
        let spec = HostCertSpec {
            public_key: key.public().clone(),
            principals: names.to_vec(),
            role: SystemRole::Proxy,
            cluster: "main".parse().unwrap(),
            now: Utc::now(),
            ttl: Some(ttl),
        };
        ca.ssh_ca().unwrap().sign_host(spec).unwrap().to_openssh().unwrap()
    }

    #[test]
    fn the_key_stays_and_certificates_come_back_for_their_names_only() {
        let ca =
            CertAuthority::generate(CaKind::Host, &"main".parse().unwrap(), Utc::now()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (certs, key) = HostCerts::open(dir.path()).unwrap();
        let names = ["db-7".to_owned(), "proxy".to_owned()];
        let hour = Duration::from_secs(3600);
        certs.save(&names, &signed(&ca, &key, &names, hour)).unwrap();
        let short = ["short".to_owned()];
        certs.save(&short, &signed(&ca, &key, &short, Duration::from_secs(1))).unwrap();
        let hostile = ["../../etc/passwd".to_owned()];
        certs.save(&hostile, "x").unwrap();
        std::thread::sleep(Duration::from_millis(1100));

        let (again, same) = HostCerts::open(dir.path()).unwrap();
        assert_eq!(same.public_openssh(), key.public_openssh());
        assert!(again.load(&names, &key).is_some());
        assert!(again.load(&names[..1], &key).is_none(), "of other names");
        assert!(again.load(&names, &KeyPair::generate().unwrap()).is_none(), "of another key");
        assert!(again.load(&short, &key).is_none() && again.load(&hostile, &key).is_none());
        let mut left: Vec<_> = fs::read_dir(dir.path().join(FOLDER))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["db-7-cert.pub", "key"]);
        fs::write(dir.path().join(FOLDER).join("db-7-cert.pub"), "ssh-ed25519-cert").unwrap();
        assert!(again.load(&names, &key).is_none(), "damaged");
    }
}

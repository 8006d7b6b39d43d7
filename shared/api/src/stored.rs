//! What a login leaves in a profile, read back: keys, certificates, the cluster's host authority.

use shared_config::{Profile, ProfileDir, ProfileError};
use shared_pki::ssh_key::Certificate;
use shared_pki::{CaKind, Identity, KeyPair, PkiError, TrustedAuthority, parse_certificate_line};
use zeroize::Zeroizing;

use crate::{ClientConfig, ClientIdentity, Route};

/// Why a stored login cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoredLoginError {
    /// The profile's files.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A key is not readable.
    #[error("key in {path}")]
    Key {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: PkiError,
    },
    /// A certificate is not readable.
    #[error("certificate in {path}")]
    Certificate {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: shared_pki::verify::CertRefusal,
    },
}

/// A user's login on this machine.
#[derive(Debug)]
pub struct StoredLogin {
    /// The SSH key.
    pub ssh_key: KeyPair,
    /// Its certificate.
    pub ssh_cert: Certificate,
    /// Certificate and key for the auth API.
    pub tls: ClientIdentity,
    /// What the SSH certificate says; read, not verified: it is our own.
    pub identity: Identity,
    /// The cluster's host authority.
    pub authorities: Vec<TrustedAuthority>,
}

impl StoredLogin {
    /// Reads it; `None` when the profile has no keys.
    pub fn load(dir: &ProfileDir, profile: &Profile) -> Result<Option<Self>, StoredLoginError> {
        let (Some(key), Some(cert), Some(tls_key), Some(tls_cert)) = (
            dir.read_secret(&dir.ssh_key_path(profile))?,
            dir.read_secret(&dir.ssh_cert_path(profile))?,
            dir.read_secret(&dir.tls_key_path(profile))?,
            dir.read_secret(&dir.tls_cert_path(profile))?,
        ) else {
            return Ok(None);
        };
        let key_fault = |source| StoredLoginError::Key { path: dir.ssh_key_path(profile), source };
        let path = dir.ssh_cert_path(profile);
        let ssh_cert = parse_certificate_line(&cert)
            .map_err(|source| StoredLoginError::Certificate { path: path.clone(), source })?;
        let identity = Identity::from_ssh_cert(&ssh_cert)
            .map_err(|source| StoredLoginError::Key { path, source })?;
        Ok(Some(Self {
            ssh_key: KeyPair::from_openssh_pem(&key).map_err(key_fault)?,
            ssh_cert,
            tls: ClientIdentity {
                cert_pem: tls_cert.to_string(),
                key_pem: Zeroizing::new(tls_key.to_string()),
            },
            identity,
            authorities: stored_authorities(dir, profile)?,
        }))
    }

    /// What a client needs to speak as this user through the proxy.
    pub fn client_config(&self, profile: &Profile) -> ClientConfig {
        let route = Route::Proxy {
            addr: profile.web_proxy_addr.clone(),
            cluster: Some(profile.cluster.clone()),
        };
        ClientConfig::new(route, self.authorities.clone(), Some(self.tls.clone()))
    }
}

/// The host authority that a profile keeps: TLS certificates in `cas/`, SSH keys in `known_hosts`.
pub fn stored_authorities(
    dir: &ProfileDir,
    profile: &Profile,
) -> Result<Vec<TrustedAuthority>, StoredLoginError> {
    let Some(pem) = dir.read_secret(&dir.cas_path(profile))? else { return Ok(Vec::new()) };
    let known = dir.read_secret(&dir.known_hosts_path())?.unwrap_or_default();
    let cluster = profile.cluster.as_ref();
    let ssh_keys = known
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let ours = words.next() == Some("@cert-authority")
                && words.next().is_some_and(|names| names.split(',').any(|name| name == cluster));
            let (kind, key) = (words.next()?, words.next()?);
            ours.then(|| format!("{kind} {key}"))
        })
        .collect();
    Ok(vec![TrustedAuthority {
        kind: CaKind::Host,
        cluster: profile.cluster.clone(),
        ssh_keys,
        tls_certs: split_pem(&pem),
    }])
}

/// Each certificate of a PEM bundle as a text of its own.
fn split_pem(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    text.split_inclusive(END)
        .filter(|block| block.contains(END))
        .map(|block| format!("{}\n", block.trim()))
        .collect()
}

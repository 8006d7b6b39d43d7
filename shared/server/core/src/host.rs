//! The keys and certificates by which a service of this host is known to the rest of the cluster.

use chrono::{DateTime, Utc};
use zeroize::Zeroizing;

/// Keys and certificates of one system role of this host. They are renewed while the service runs, so that whoever
/// needs them follows a [`tokio::sync::watch`] of them.
#[derive(Clone)]
pub struct HostKeys {
    /// TLS certificate for both sides of a connection, PEM.
    pub tls_cert_pem: String,
    /// Its key, PEM, PKCS#8.
    pub tls_key_pem: Zeroizing<String>,
    /// SSH host certificate, OpenSSH text.
    pub ssh_cert: String,
    /// Its key, PEM in OpenSSH's form.
    pub ssh_key_pem: Zeroizing<String>,
    /// When the certificates end.
    pub valid_until: DateTime<Utc>,
}

impl std::fmt::Debug for HostKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostKeys").field("valid_until", &self.valid_until).finish_non_exhaustive()
    }
}

//! A self-signed certificate for the proxy's web listener, for clusters that have no other.

use crate::tls_ca::{alternative_name, serial, set_validity};
use crate::tls_key::TlsKey;
use crate::{PkiError, identity, pem_encode};
use chrono::{DateTime, Utc};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa};
use std::time::Duration;
use zeroize::Zeroizing;

/// A certificate with its key; the caller stores both, the key with mode 0600.
pub struct WebCert {
    /// The certificate in PEM.
    pub cert_pem: String,
    /// The private key as PKCS#8 in PEM.
    pub key_pem: Zeroizing<String>,
}

impl std::fmt::Debug for WebCert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebCert").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// Makes a certificate for the given DNS names and addresses, the first of which is its common name.
pub fn self_signed(
    names: &[String],
    now: DateTime<Utc>,
    ttl: Duration,
) -> Result<WebCert, PkiError> {
    let first = names.first().ok_or(PkiError::NoPrincipals)?;
    let key = TlsKey::generate()?;
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        names.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, first.as_str());
    params.distinguished_name = name;
    params.serial_number = Some(serial()?);
    // No key usage: OpenSSL takes a self-signed certificate as its own issuer only if it may sign certificates or
    // says nothing, and rustls refuses an authority as a server.
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    set_validity(&mut params, now, ttl)?;
    let certificate = params.self_signed(&key).map_err(PkiError::X509Sign)?;
    Ok(WebCert { cert_pem: pem_encode("CERTIFICATE", certificate.der()), key_pem: key.to_pem() })
}

/// When a certificate (DER) ends.
pub fn valid_until(der: &[u8]) -> Result<DateTime<Utc>, PkiError> {
    identity::read(der).map(|certificate| identity::not_after(&certificate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{HOUR, now};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    #[test]
    fn a_client_that_trusts_it_takes_it() {
        let names = ["proxy.example.com", "127.0.0.1", "::1"].map(str::to_owned);
        let web = self_signed(&names, now(), HOUR).unwrap();
        assert!(TlsKey::from_pem(&web.key_pem).is_ok());
        assert!(!format!("{web:?}").contains("PRIVATE"));
        let der = CertificateDer::from_pem_slice(web.cert_pem.as_bytes()).unwrap();
        assert_eq!(valid_until(&der).unwrap(), now() + HOUR);
        assert!(valid_until(b"nothing").is_err());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der.clone()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .unwrap();
        use rustls::client::danger::ServerCertVerifier as _;
        let moment = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(
            now().timestamp().unsigned_abs(),
        ));
        for name in names {
            let name = rustls_pki_types::ServerName::try_from(name).unwrap();
            verifier.verify_server_cert(&der, &[], &name, &[], moment).unwrap();
        }
        let other = rustls_pki_types::ServerName::try_from("other.example.com").unwrap();
        assert!(verifier.verify_server_cert(&der, &[], &other, &[], moment).is_err());
    }

    #[test]
    fn needs_names() {
        assert!(matches!(self_signed(&[], now(), HOUR), Err(PkiError::NoPrincipals)));
        assert!(matches!(self_signed(&["a b".to_owned()], now(), HOUR), Err(PkiError::Name(_))));
    }
}

//! Whom a database is believed by.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use server_core::ClusterState;
use shared_pki::CaKind;
use shared_types::Database;
use shared_types::resource::{DbProtocol, DbTlsMode};

use super::ConnectError;

/// Those whom this host's system trusts; read once.
fn system_roots() -> &'static [CertificateDer<'static>] {
    static ROOTS: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    ROOTS.get_or_init(shared_transport::tls::system_roots)
}

/// Reads what [`DatabaseVerifier::new`] would have to wait for, off the runtime's threads.
pub(super) async fn prepare(database: &Database) {
    if database.spec.tls.trust_system_cert_pool {
        let _ = tokio::task::spawn_blocking(|| system_roots().len()).await;
    }
}

/// Believes what a database's configuration says.
#[derive(Debug)]
pub(super) struct DatabaseVerifier {
    mode: DbTlsMode,
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl DatabaseVerifier {
    /// The authorities that the database names, or else the cluster's own authority for databases.
    pub(super) fn new(database: &Database, state: &ClusterState) -> Result<Self, ConnectError> {
        let tls = &database.spec.tls;
        let mut roots = RootCertStore::empty();
        match database.spec.trusted_pem() {
            "" => {
                let own = state.authority(CaKind::Db);
                let own = own.map(|authority| authority.tls_cert_ders()).unwrap_or_default();
                roots.add_parsable_certificates(own);
            }
            pem => {
                let certificates = shared_transport::tls::certs_from_pem(pem.as_bytes());
                let certificates =
                    certificates.map_err(|error| ConnectError::Trust(error.to_string()))?;
                roots.add_parsable_certificates(certificates);
            }
        }
        // AWS has certificates that everybody trusts.
        let is_aws = database.spec.protocol == DbProtocol::Dynamodb
            && database.spec.trusted_pem().is_empty();
        if tls.trust_system_cert_pool || is_aws {
            roots.add_parsable_certificates(system_roots().iter().cloned());
        }
        if roots.is_empty() && tls.mode != DbTlsMode::Insecure {
            return Err(ConnectError::Trust(
                "none can be read; set tls.ca_cert of the database".to_owned(),
            ));
        }
        let provider = match CryptoProvider::get_default() {
            Some(provider) => Arc::clone(provider),
            None => Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        };
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { mode: tls.mode, roots, algorithms })
    }
}

impl ServerCertVerifier for DatabaseVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.mode != DbTlsMode::Insecure {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let (roots, algorithms) = (&self.roots, self.algorithms.all);
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
            if self.mode == DbTlsMode::VerifyFull {
                verify_server_name(&certificate, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

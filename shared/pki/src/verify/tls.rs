//! TLS certificates of peers that come to us: users (user CA) and services (host CA).
//!
//! Which authority vouches decides how the subject is read: organisations are a user's roles under the user CA and a
//! service's system role under the host CA, so a user with a role named `Auth` never becomes the auth service.

use super::CertRefusal;
use crate::{CaKind, Identity, SKEW_SECONDS, TrustedAuthority, USAGE_DATABASE};
use chrono::{DateTime, Utc};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use shared_types::ClusterName;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
struct Anchor {
    kind: CaKind,
    cluster: ClusterName,
    chain: Arc<dyn ClientCertVerifier>,
}

/// Verifies peers' TLS certificates against a cluster's user and host authorities.
#[derive(Debug)]
pub struct TlsVerifier {
    anchors: Vec<Anchor>,
    subjects: Vec<DistinguishedName>,
}

impl TlsVerifier {
    /// Prepares the authorities; those of other kinds and those without a TLS certificate are left out.
    pub fn new(authorities: &[TrustedAuthority]) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut anchors = Vec::new();
        let mut subjects = Vec::new();
        for authority in authorities
            .iter()
            .filter(|authority| matches!(authority.kind, CaKind::User | CaKind::Host))
        {
            let roots = Arc::new(root_store(authority));
            if let Ok(chain) =
                WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()
            {
                subjects.extend(roots.subjects());
                anchors.push(Anchor {
                    kind: authority.kind,
                    cluster: authority.cluster.clone(),
                    chain,
                });
            }
        }
        Self { anchors, subjects }
    }

    /// Believes or refuses a peer's certificate. One that is limited to a use is not believed here: whoever serves that
    /// use asks for it.
    pub fn peer(&self, der: &[u8], now: DateTime<Utc>) -> Result<Identity, CertRefusal> {
        let identity = self.chain(&CertificateDer::from(der), &[], now)?;
        match identity.usage.is_empty() {
            true => Ok(identity),
            false => Err(CertRefusal::Usage),
        }
    }

    /// Believes or refuses a certificate of a user on the way to a database: it has to be limited to that use, and says
    /// which database.
    pub fn database_user(&self, der: &[u8], now: DateTime<Utc>) -> Result<Identity, CertRefusal> {
        let identity = self.chain(&CertificateDer::from(der), &[], now)?;
        match identity.usage.as_slice() {
            [usage] if usage == USAGE_DATABASE && identity.database.is_some() => Ok(identity),
            _ => Err(CertRefusal::Usage),
        }
    }

    fn chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: DateTime<Utc>,
    ) -> Result<Identity, CertRefusal> {
        let at = moment(leaf, now)?;
        let mut refusal = CertRefusal::UnknownAuthority;
        for anchor in &self.anchors {
            match anchor.chain.verify_client_cert(leaf, intermediates, at) {
                Ok(_) => return identity(leaf, anchor),
                // Every other authority answers that it did not sign; the one that did says more.
                Err(error) => match refused(&error) {
                    CertRefusal::UnknownAuthority => {}
                    told => refusal = told,
                },
            }
        }
        Err(refusal)
    }
}

fn identity(leaf: &CertificateDer<'_>, anchor: &Anchor) -> Result<Identity, CertRefusal> {
    let read = match anchor.kind {
        CaKind::User => Identity::from_tls_cert(leaf),
        _ => Identity::from_host_tls_cert(leaf),
    };
    let identity = read.map_err(|_| CertRefusal::Identity)?;
    if identity.cluster == anchor.cluster { Ok(identity) } else { Err(CertRefusal::WrongCluster) }
}

/// Believes or refuses the certificate a peer authenticated a TLS connection with. Whoever has many of them keeps a
/// [`TlsVerifier`].
pub fn tls_peer(
    der: &[u8],
    authorities: &[TrustedAuthority],
    now: DateTime<Utc>,
) -> Result<Identity, CertRefusal> {
    TlsVerifier::new(authorities).peer(der, now)
}

pub(super) fn root_store(authority: &TrustedAuthority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authority.tls_cert_ders());
    roots
}

/// The moment to verify at: now, or the certificate's beginning when that is not more than the skew away.
pub(super) fn moment(leaf: &[u8], now: DateTime<Utc>) -> Result<UnixTime, CertRefusal> {
    let Ok(([], certificate)) = x509_parser::parse_x509_certificate(leaf) else {
        return Err(CertRefusal::Malformed("encoding"));
    };
    let begin = certificate.validity().not_before.timestamp();
    let now = now.timestamp();
    let at = if begin > now && begin.saturating_sub(now) <= SKEW_SECONDS { begin } else { now };
    let at = u64::try_from(at).map_err(|_| CertRefusal::NotYetValid)?;
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(at)))
}

pub(super) fn refused(error: &Error) -> CertRefusal {
    let Error::InvalidCertificate(cause) = error else {
        return CertRefusal::Malformed("encoding");
    };
    match cause {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertRefusal::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertRefusal::NotYetValid
        }
        CertificateError::UnknownIssuer => CertRefusal::UnknownAuthority,
        CertificateError::BadSignature => CertRefusal::BadSignature,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            CertRefusal::Malformed("not for this side of a connection")
        }
        _ => CertRefusal::Malformed("chain"),
    }
}

/// What the peer of a handshake is told.
pub(super) fn alert(refusal: &CertRefusal) -> Error {
    Error::InvalidCertificate(match refusal {
        CertRefusal::Expired => CertificateError::Expired,
        CertRefusal::NotYetValid => CertificateError::NotValidYet,
        CertRefusal::UnknownAuthority => CertificateError::UnknownIssuer,
        CertRefusal::BadSignature => CertificateError::BadSignature,
        CertRefusal::Malformed(_) => CertificateError::BadEncoding,
        _ => CertificateError::ApplicationVerificationFailure,
    })
}

pub(super) fn time_of(now: UnixTime) -> DateTime<Utc> {
    i64::try_from(now.as_secs())
        .ok()
        .and_then(|now| DateTime::from_timestamp(now, 0))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// For rustls: takes clients without a certificate, and those whose certificate one of the authorities of
/// [`TlsVerifier`] vouches for. After the handshake the server asks [`ClientVerifier::verifier`] for the identity, and so
/// whether the certificate is for the use at hand; no certificate is no identity.
#[derive(Debug, Clone)]
pub struct ClientVerifier {
    verifier: Arc<TlsVerifier>,
}

impl ClientVerifier {
    /// Prepares the authorities.
    pub fn new(authorities: &[TrustedAuthority]) -> Arc<Self> {
        Arc::new(Self { verifier: Arc::new(TlsVerifier::new(authorities)) })
    }

    /// The verifier behind it.
    pub fn verifier(&self) -> &TlsVerifier {
        &self.verifier
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.verifier.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.verifier.chain(end_entity, intermediates, time_of(now)) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(refusal) => Err(alert(&refusal)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

pub(super) fn algorithms() -> rustls::crypto::WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}

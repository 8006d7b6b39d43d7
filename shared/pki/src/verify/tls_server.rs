//! TLS certificates of servers we go to: services of the cluster.
//!
//! Names in the certificate and the roots of the web do not count. A server is who the cluster's host CA says it is:
//! the right cluster and one of the wanted system roles in the subject.

use super::CertRefusal;
use super::tls::{alert, algorithms, moment, refused, root_store, time_of};
use crate::{CaKind, CaPin, Identity, TrustedAuthority};
use chrono::{DateTime, Utc};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use shared_types::{ClusterName, SystemRole};
use std::sync::Arc;

#[derive(Debug)]
enum Trust {
    /// The host authorities of a cluster.
    Authorities(Vec<(ClusterName, RootCertStore)>),
    /// Pins of host authorities, whose certificate the server sends along.
    Pins(Vec<CaPin>),
}

/// For rustls: takes a server only if the cluster's host CA vouches for it in one of the wanted roles.
#[derive(Debug)]
pub struct ServerVerifier {
    trust: Trust,
    roles: Vec<SystemRole>,
}

impl ServerVerifier {
    /// Trusts the host authorities among those given.
    pub fn new(authorities: &[TrustedAuthority], roles: &[SystemRole]) -> Arc<Self> {
        let hosts = authorities
            .iter()
            .filter(|authority| authority.kind == CaKind::Host)
            .map(|authority| (authority.cluster.clone(), root_store(authority)))
            .collect();
        Arc::new(Self { trust: Trust::Authorities(hosts), roles: roles.to_vec() })
    }

    /// Trusts whichever authority has one of the pins. The server has to send its authority's certificate behind its
    /// own.
    pub fn with_pins(pins: &[CaPin], roles: &[SystemRole]) -> Arc<Self> {
        Arc::new(Self { trust: Trust::Pins(pins.to_vec()), roles: roles.to_vec() })
    }

    /// Believes or refuses a server's certificate.
    pub fn peer(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: DateTime<Utc>,
    ) -> Result<Identity, CertRefusal> {
        let at = moment(leaf, now)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(|error| refused(&error))?;
        let check = |roots: &RootCertStore, intermediates: &[CertificateDer<'_>]| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                at,
                algorithms().all,
            )
            .map_err(|error| refused(&error))
        };
        let mut refusal = CertRefusal::UnknownAuthority;
        match &self.trust {
            Trust::Authorities(authorities) => {
                for (cluster, roots) in authorities {
                    match check(roots, others) {
                        Ok(()) => return self.identity(leaf, Some(cluster)),
                        Err(CertRefusal::UnknownAuthority) => {}
                        Err(told) => refusal = told,
                    }
                }
            }
            Trust::Pins(pins) => {
                let pinned =
                    others.iter().filter(|der| CaPin::of(der).is_ok_and(|pin| pins.contains(&pin)));
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(
                    pinned.map(|der| CertificateDer::from(der.to_vec())),
                );
                match check(&roots, &[]) {
                    Ok(()) => return self.identity(leaf, None),
                    Err(told) => refusal = told,
                }
            }
        }
        Err(refusal)
    }

    fn identity(
        &self,
        leaf: &CertificateDer<'_>,
        cluster: Option<&ClusterName>,
    ) -> Result<Identity, CertRefusal> {
        let identity = Identity::from_host_tls_cert(leaf).map_err(|_| CertRefusal::Identity)?;
        if cluster.is_some_and(|cluster| *cluster != identity.cluster) {
            return Err(CertRefusal::WrongCluster);
        }
        match identity.system_role {
            Some(role) if self.roles.contains(&role) => Ok(identity),
            found => Err(CertRefusal::WrongRole {
                expected: self.roles.first().map_or("none", |role| role.as_str()),
                found,
            }),
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.peer(end_entity, intermediates, time_of(now)) {
            Ok(_) => Ok(ServerCertVerified::assertion()),
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

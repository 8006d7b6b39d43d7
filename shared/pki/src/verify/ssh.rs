//! SSH certificates.
//!
//! ssh-key's own `validate_at` covers the signature, one list of authorities and the times. It knows neither which
//! kind of authority signed nor the type, the principals, the critical options or the signature's algorithm; all of
//! that is here.

use super::{CertRefusal, host_principal_matches};
use crate::extension::{self, X_TELEPORT_AUTHORITY, X_TELEPORT_ROLE};
use crate::identity::system_role;
use crate::ssh_ca::certifiable;
use crate::ssh_parse::parse_certificate;
use crate::{CaKind, Cidr, HostIdentity, Identity, SKEW_SECONDS, TrustedAuthority, ssh_key};
use chrono::{DateTime, Utc};
use shared_types::SystemRole;
use ssh_key::certificate::CertType;
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, Certificate, HashAlg};
use std::net::IpAddr;

/// What a host has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostRole {
    /// An SSH server.
    Node,
    /// A proxy of the cluster, which may see and record the session.
    Proxy,
    /// Either of the two.
    Any,
}

impl HostRole {
    fn as_str(self) -> &'static str {
        match self {
            HostRole::Node => "Node",
            HostRole::Proxy => "Proxy",
            HostRole::Any => "Node or Proxy",
        }
    }

    fn admits(self, role: SystemRole) -> bool {
        match self {
            HostRole::Node => role == SystemRole::Node,
            HostRole::Proxy => role == SystemRole::Proxy,
            HostRole::Any => matches!(role, SystemRole::Node | SystemRole::Proxy),
        }
    }
}

/// Verifies SSH certificates against a cluster's authorities at a moment.
#[derive(Debug, Clone, Copy)]
pub struct SshVerifier<'a> {
    /// Whom to trust. Only the kind that fits is asked: `user` for users, `host` for hosts.
    pub authorities: &'a [TrustedAuthority],
    /// The moment.
    pub now: DateTime<Utc>,
}

impl<'a> SshVerifier<'a> {
    /// A verifier for one moment.
    pub fn new(authorities: &'a [TrustedAuthority], now: DateTime<Utc>) -> Self {
        Self { authorities, now }
    }

    /// Believes or refuses a user's certificate for one login, from one address. Without a known address a
    /// certificate that is bound to addresses is refused.
    pub fn user(
        &self,
        cert: &Certificate,
        principal: &str,
        source: Option<IpAddr>,
    ) -> Result<Identity, CertRefusal> {
        let authority = self.common(cert, CertType::User, CaKind::User)?;
        if cert.key_id().is_empty() {
            return Err(CertRefusal::EmptyKeyId(fingerprint(cert)));
        }
        // The principals of our own making start with a dash and are no logins.
        let listed = cert.valid_principals().iter().any(|listed| listed == principal);
        if principal.is_empty() || principal.starts_with('-') || !listed {
            return Err(CertRefusal::Principal(principal.to_owned()));
        }
        for (name, value) in cert.critical_options().iter() {
            match name.as_str() {
                extension::SOURCE_ADDRESS => check_source(value, source)?,
                other => return Err(CertRefusal::UnknownCriticalOption(other.to_owned())),
            }
        }
        check_key(cert)?;
        Identity::from_ssh_cert_of(cert, authority.cluster.clone())
            .map_err(|_| CertRefusal::Identity)
    }

    /// Believes or refuses a host's certificate for the name or address that was dialled.
    pub fn host(
        &self,
        cert: &Certificate,
        principal: &str,
        expect: HostRole,
    ) -> Result<HostIdentity, CertRefusal> {
        let authority = self.common(cert, CertType::Host, CaKind::Host)?;
        if !cert.valid_principals().iter().any(|listed| host_principal_matches(listed, principal)) {
            return Err(CertRefusal::Principal(principal.to_owned()));
        }
        if let Some(name) = cert.critical_options().keys().next() {
            return Err(CertRefusal::UnknownCriticalOption(name.clone()));
        }
        check_key(cert)?;
        let named = cert.extensions().get(X_TELEPORT_AUTHORITY);
        if named.map(String::as_str) != Some(authority.cluster.as_str()) {
            return Err(CertRefusal::WrongCluster);
        }
        let found = cert.extensions().get(X_TELEPORT_ROLE).and_then(|role| system_role(role));
        match found {
            Some(role) if expect.admits(role) => {
                Ok(HostIdentity::new(cert, role, authority.cluster.clone()))
            }
            _ => Err(CertRefusal::WrongRole { expected: expect.as_str(), found }),
        }
    }

    /// As [`SshVerifier::user`], from the bytes of the certificate.
    pub fn user_blob(
        &self,
        blob: &[u8],
        principal: &str,
        source: Option<IpAddr>,
    ) -> Result<Identity, CertRefusal> {
        self.user(&parse_certificate(blob)?, principal, source)
    }

    /// As [`SshVerifier::host`], from the bytes of the certificate.
    pub fn host_blob(
        &self,
        blob: &[u8],
        principal: &str,
        expect: HostRole,
    ) -> Result<HostIdentity, CertRefusal> {
        self.host(&parse_certificate(blob)?, principal, expect)
    }

    /// Type, authority, signature, validity, and that there are principals at all.
    pub(super) fn common(
        &self,
        cert: &Certificate,
        cert_type: CertType,
        kind: CaKind,
    ) -> Result<&'a TrustedAuthority, CertRefusal> {
        if cert.cert_type() != cert_type {
            return Err(CertRefusal::WrongType {
                expected: type_name(cert_type),
                found: type_name(cert.cert_type()),
            });
        }
        if cert.signature_key().is_certificate() {
            return Err(CertRefusal::SignedByCertificate);
        }
        let authority = self.authority(cert.signature_key(), kind)?;
        check_signature(cert)?;
        let now = u64::try_from(self.now.timestamp()).map_err(|_| CertRefusal::NotYetValid)?;
        // Skew counts at the beginning only: a clock that is behind must not lengthen a certificate.
        if now.saturating_add(SKEW_SECONDS.unsigned_abs()) < cert.valid_after() {
            return Err(CertRefusal::NotYetValid);
        }
        if now >= cert.valid_before() {
            return Err(CertRefusal::Expired);
        }
        if cert.valid_principals().is_empty() {
            return Err(CertRefusal::EmptyPrincipals(fingerprint(cert)));
        }
        Ok(authority)
    }

    fn authority(
        &self,
        signing_key: &KeyData,
        kind: CaKind,
    ) -> Result<&'a TrustedAuthority, CertRefusal> {
        let mut other = None;
        for authority in self.authorities {
            if authority.ssh_public_keys().iter().any(|key| key.key_data() == signing_key) {
                if authority.kind == kind {
                    return Ok(authority);
                }
                other = Some(authority.kind);
            }
        }
        Err(other.map_or(CertRefusal::UnknownAuthority, CertRefusal::WrongAuthority))
    }
}

fn type_name(cert_type: CertType) -> &'static str {
    match cert_type {
        CertType::User => "user",
        CertType::Host => "host",
    }
}

fn fingerprint(cert: &Certificate) -> String {
    cert.public_key().fingerprint(HashAlg::Sha256).to_string()
}

fn check_signature(cert: &Certificate) -> Result<(), CertRefusal> {
    let by = cert.signature().algorithm();
    let fits = match cert.signature_key() {
        KeyData::Ed25519(_) => by == Algorithm::Ed25519,
        KeyData::Ecdsa(key) => by == Algorithm::Ecdsa { curve: key.curve() },
        // `ssh-rsa` is RSA with SHA-1, which proves nothing any more.
        KeyData::Rsa(_) => matches!(by, Algorithm::Rsa { hash: Some(_) }),
        _ => false,
    };
    if !fits || cert.verify_signature().is_err() {
        return Err(CertRefusal::BadSignature);
    }
    Ok(())
}

fn check_key(cert: &Certificate) -> Result<(), CertRefusal> {
    if certifiable(cert.public_key()) {
        Ok(())
    } else {
        Err(CertRefusal::UnsupportedKey(cert.algorithm().to_string()))
    }
}

/// The value is a comma-separated list of addresses and networks (PROTOCOL.certkeys); one that is not readable refuses
/// the certificate.
fn check_source(list: &str, source: Option<IpAddr>) -> Result<(), CertRefusal> {
    let networks: Vec<Cidr> = list
        .split(',')
        .map(|entry| entry.parse().map_err(|_| CertRefusal::SourceAddress))
        .collect::<Result<_, _>>()?;
    match source {
        Some(address) if networks.iter().any(|network| network.contains(address)) => Ok(()),
        _ => Err(CertRefusal::SourceAddress),
    }
}

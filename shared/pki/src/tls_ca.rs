//! X.509 authorities and what they sign: clients (users) and servers (services of the cluster).

use crate::database::{self, DatabaseRoute, DbClientSpec, DbServerSpec, USAGE_DATABASE};
use crate::der;
use crate::subject::{self, SubjectBuilder, replace_subject};
use crate::tls_key::{TlsKey, TlsPublicKey};
use crate::{CaKind, CaPin, PkiError, SKEW_SECONDS, pem_encode};
use chrono::{DateTime, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use shared_types::{ClusterName, HostId, Login, RoleName, SystemRole, Traits, UserName};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

/// How long authorities and, without a lifetime given, host certificates are valid.
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The name under which a cluster's auth service is reached inside TLS.
const CLUSTER_LOCAL: &str = "teleport.cluster.local";

/// A signed X.509 certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCert {
    der: Vec<u8>,
}

impl TlsCert {
    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate in PEM.
    pub fn pem(&self) -> String {
        pem_encode("CERTIFICATE", &self.der)
    }
}

/// A user, as the subject of a client certificate.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    /// The user.
    pub user: UserName,
    /// The user's roles.
    pub roles: Vec<RoleName>,
    /// The logins the user may ask for.
    pub logins: Vec<Login>,
    /// The user's traits.
    pub traits: Traits,
    /// The cluster that signs.
    pub cluster: ClusterName,
    /// What the certificate is limited to (`usage:kube`, …); empty means no limit.
    pub usage: Vec<String>,
    /// The address the user logged in from.
    pub login_ip: Option<IpAddr>,
    /// The only address the certificate may be used from.
    pub pinned_ip: Option<IpAddr>,
    /// The database the certificate is for and nothing else; it has that usage then.
    pub database: Option<DatabaseRoute>,
}

/// A service of the cluster, as the subject of a server certificate.
#[derive(Debug, Clone)]
pub struct HostTlsSpec {
    /// The host's id.
    pub host_id: HostId,
    /// What the host is.
    pub role: SystemRole,
    /// The cluster that signs.
    pub cluster: ClusterName,
    /// Further DNS names and addresses.
    pub names: Vec<String>,
}

/// An X.509 authority with its private key.
#[derive(Debug)]
pub struct TlsCa {
    kind: CaKind,
    key: TlsKey,
    der: Vec<u8>,
}

impl TlsCa {
    /// Makes a new authority.
    pub fn generate(
        kind: CaKind,
        cluster: &ClusterName,
        now: DateTime<Utc>,
    ) -> Result<Self, PkiError> {
        let key = TlsKey::generate()?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, cluster.as_str());
        name.push(DnType::CommonName, cluster.as_str());
        // A serial number attribute (2.5.4.5) of its own keeps the names of two authorities apart.
        let serial = serial()?;
        name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), hex::encode(serial.to_bytes()));
        params.distinguished_name = name;
        params.serial_number = Some(serial);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        set_validity(&mut params, now, TEN_YEARS)?;
        let der = params.self_signed(&key).map_err(PkiError::X509Sign)?.der().to_vec();
        Ok(Self { kind, key, der })
    }

    /// Puts a stored authority together; the key has to be the certificate's.
    pub fn from_pem(kind: CaKind, certificate: &str, key: &str) -> Result<Self, PkiError> {
        let key = TlsKey::from_pem(key)?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| PkiError::X509Read)?
            .to_vec();
        let (rest, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|_| PkiError::X509Read)?;
        if !rest.is_empty() || !parsed.is_ca() {
            return Err(PkiError::X509Read);
        }
        if parsed.public_key().raw != key.public().der() {
            return Err(PkiError::KeyMismatch);
        }
        Ok(Self { kind, key, der })
    }

    /// An authority whose certificate does not say so.
    #[cfg(test)]
    pub(crate) fn unchecked(kind: CaKind, key: TlsKey, der: Vec<u8>) -> Self {
        Self { kind, key, der }
    }

    /// The authority's certificate in DER.
    pub fn cert_der(&self) -> &[u8] {
        &self.der
    }

    /// The authority's certificate in PEM.
    pub fn cert_pem(&self) -> String {
        pem_encode("CERTIFICATE", &self.der)
    }

    /// The authority's private key.
    pub fn key(&self) -> &TlsKey {
        &self.key
    }

    /// The authority's pin.
    pub fn pin(&self) -> Result<CaPin, PkiError> {
        CaPin::of(&self.der)
    }

    /// Signs a user's client certificate; only the user CA does.
    pub fn sign_client(
        &self,
        identity: &TlsIdentity,
        key: &TlsPublicKey,
        now: DateTime<Utc>,
        ttl: Duration,
    ) -> Result<TlsCert, PkiError> {
        if self.kind != CaKind::User {
            return Err(PkiError::WrongAuthority(self.kind, "client"));
        }
        let mut subject = SubjectBuilder::default();
        for role in &identity.roles {
            subject.push(subject::ORGANIZATION, role.as_str());
        }
        let database = identity.database.iter().map(|_| USAGE_DATABASE);
        for usage in identity.usage.iter().map(String::as_str).chain(database) {
            subject.push(subject::ORGANIZATIONAL_UNIT, usage);
        }
        for login in &identity.logins {
            subject.push(subject::LOCALITY, login.as_str());
        }
        subject.push(subject::STREET, identity.cluster.as_str());
        if !identity.traits.is_empty() {
            subject.push(subject::POSTAL_CODE, &crate::extension::encode_traits(&identity.traits)?);
        }
        subject.push(subject::COMMON_NAME, identity.user.as_str());
        subject.push(subject::CLUSTER, identity.cluster.as_str());
        subject.push(subject::USER_TYPE, "local");
        if let Some(address) = identity.login_ip {
            subject.push(subject::LOGIN_IP, &address.to_string());
        }
        if let Some(address) = identity.pinned_ip {
            subject.push(subject::PINNED_IP, &address.to_string());
        }
        if let Some(route) = &identity.database {
            route.check()?;
            subject.push(subject::DB_SERVICE, &route.service);
            subject.push(subject::DB_PROTOCOL, &route.protocol);
            for (attribute, text) in
                [(subject::DB_USER, &route.user), (subject::DB_NAME, &route.name)]
            {
                if !text.is_empty() {
                    subject.push(attribute, text);
                }
            }
        }
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params, now, ttl)?;
        self.sign_leaf(params, &subject.finish(), key)
    }

    /// Signs a service's certificate, for both sides of a connection; only the host CA does. Without a lifetime it
    /// is valid for ten years.
    pub fn sign_server(
        &self,
        host: &HostTlsSpec,
        key: &TlsPublicKey,
        now: DateTime<Utc>,
        ttl: Option<Duration>,
    ) -> Result<TlsCert, PkiError> {
        if self.kind != CaKind::Host {
            return Err(PkiError::WrongAuthority(self.kind, "server"));
        }
        let name = format!("{}.{}", host.host_id, host.cluster);
        let mut subject = SubjectBuilder::default();
        subject.push(subject::ORGANIZATION, host.role.as_str());
        subject.push(subject::COMMON_NAME, &name);
        subject.push(subject::CLUSTER, host.cluster.as_str());

        let mut names = vec![name];
        if !host.role.is_agent() {
            names.push(CLUSTER_LOCAL.to_owned());
            names.push(format!("*.{CLUSTER_LOCAL}"));
        }
        for name in &host.names {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            names.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params, now, ttl.unwrap_or(TEN_YEARS))?;
        self.sign_leaf(params, &subject.finish(), key)
    }

    /// Signs what the cluster shows a database as one of its users; only the database client CA does.
    pub fn sign_db_client(
        &self,
        client: &DbClientSpec,
        key: &TlsPublicKey,
        now: DateTime<Utc>,
        ttl: Duration,
    ) -> Result<TlsCert, PkiError> {
        if self.kind != CaKind::DbClient {
            return Err(PkiError::WrongAuthority(self.kind, "database client"));
        }
        if !database::is_name(&client.user) {
            return Err(PkiError::Name(client.user.chars().take(64).collect()));
        }
        let mut subject = SubjectBuilder::default();
        subject.push(subject::COMMON_NAME, &client.user);
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params, now, ttl)?;
        self.sign_leaf(params, &subject.finish(), key)
    }

    /// Signs a database server's certificate; only the database CA does. It is for both sides of a connection, since
    /// the members of a database cluster show it to each other.
    pub fn sign_db_server(
        &self,
        server: &DbServerSpec,
        key: &TlsPublicKey,
        now: DateTime<Utc>,
        ttl: Duration,
    ) -> Result<TlsCert, PkiError> {
        if self.kind != CaKind::Db {
            return Err(PkiError::WrongAuthority(self.kind, "database server"));
        }
        let first = server.hosts.first().ok_or(PkiError::NoPrincipals)?;
        let mut subject = SubjectBuilder::default();
        if let Some(organization) = &server.organization {
            subject.push(subject::ORGANIZATION, organization.as_str());
        }
        subject.push(subject::COMMON_NAME, server.common_name.as_ref().unwrap_or(first));
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            server.hosts.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params, now, ttl)?;
        self.sign_leaf(params, &subject.finish(), key)
    }

    fn sign_leaf(
        &self,
        mut params: CertificateParams,
        subject: &[u8],
        key: &TlsPublicKey,
    ) -> Result<TlsCert, PkiError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);

        // rcgen writes everything but the subject, which it cannot repeat attributes in; then the key signs.
        let draft = Draft { key: &self.key, tbs: Mutex::new(Vec::new()) };
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(self.der.as_slice()), &draft)
            .map_err(PkiError::X509Sign)?;
        params.signed_by(&key.rcgen()?, &issuer).map_err(PkiError::X509Sign)?;
        let tbs = std::mem::take(
            &mut *draft.tbs.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let tbs = replace_subject(&tbs, subject).ok_or(PkiError::X509Read)?;

        let signature = self.key.sign(&tbs).map_err(PkiError::X509Sign)?;
        let mut bits = vec![0u8];
        bits.extend_from_slice(&signature);
        let mut content = tbs;
        content.extend_from_slice(&ECDSA_WITH_SHA256);
        der::push(&mut content, der::BIT_STRING, &bits);
        Ok(TlsCert { der: der::tlv(der::SEQUENCE, &content) })
    }
}

/// AlgorithmIdentifier ecdsa-with-SHA256 (RFC 5758 §3.2), the signature of every [`TlsKey`].
const ECDSA_WITH_SHA256: [u8; 12] =
    [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// Stands for the authority's key while the certificate is drafted, and keeps what would have been signed.
struct Draft<'a> {
    key: &'a TlsKey,
    tbs: Mutex<Vec<u8>>,
}

impl PublicKeyData for Draft<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.key.algorithm()
    }
}

impl SigningKey for Draft<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        *self.tbs.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = message.to_vec();
        Ok(Vec::new())
    }
}

/// A random positive serial number of 16 bytes.
pub(crate) fn serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = crate::keys::random::<16>()?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

pub(crate) fn alternative_name(name: &str) -> Result<SanType, PkiError> {
    let refused = || PkiError::Name(name.chars().take(64).collect());
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plain = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte))
        && !name.starts_with(['-', '.']);
    if !plain {
        return Err(refused());
    }
    Ok(SanType::DnsName(name.try_into().map_err(|_| refused())?))
}

/// From a minute before `now` for `ttl`.
pub(crate) fn set_validity(
    params: &mut CertificateParams,
    now: DateTime<Utc>,
    ttl: Duration,
) -> Result<(), PkiError> {
    let start = u64::try_from(now.timestamp().saturating_sub(SKEW_SECONDS))
        .map_err(|_| PkiError::Lifetime)?;
    let end = u64::try_from(now.timestamp())
        .ok()
        .and_then(|now| now.checked_add(ttl.as_secs()))
        .ok_or(PkiError::Lifetime)?;
    // The year 9999 is the last that X.509 can write.
    if ttl.as_secs() == 0 || end > 253_402_300_799 {
        return Err(PkiError::Lifetime);
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(start);
    params.not_after = epoch + Duration::from_secs(end);
    Ok(())
}

#[cfg(test)]
mod tests;

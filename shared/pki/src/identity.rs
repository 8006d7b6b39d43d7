//! What a certificate says about its holder.
//!
//! Reading is not believing: these functions trust the bytes. Whoever has a peer's certificate uses [`crate::verify`],
//! which calls them last. Used directly they serve a client that looks at its own certificate.

use crate::database::{DatabaseRoute, USAGE_DATABASE};
use crate::extension;
use crate::subject::{self, Subject};
use crate::{PkiError, ssh_key};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared_types::{ClusterName, HostId, Login, RoleName, SystemRole, Traits, UserName};
use ssh_key::Certificate;
use ssh_key::certificate::CertType;
use std::net::IpAddr;
use x509_parser::prelude::X509Certificate;

/// What an SSH certificate permits besides logging in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permits {
    /// A terminal.
    pub pty: bool,
    /// Port forwarding.
    pub port_forwarding: bool,
    /// Agent forwarding.
    pub agent_forwarding: bool,
    /// X11 forwarding.
    pub x11_forwarding: bool,
}

/// A user, or, with a system role, a service of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user; for a service, `HOSTID.CLUSTER`.
    pub user: UserName,
    /// The user's roles; a service has none.
    pub roles: Vec<RoleName>,
    /// The user's traits.
    pub traits: Traits,
    /// The logins in the certificate.
    pub logins: Vec<Login>,
    /// The cluster whose authority vouches for the holder.
    pub cluster: ClusterName,
    /// Where the user logged in from.
    pub login_ip: Option<IpAddr>,
    /// The only address the certificate may be used from (TLS; for SSH the verifier has checked it).
    pub pinned_ip: Option<IpAddr>,
    /// When the certificate ends; the last moment there is for one without an end.
    pub valid_until: DateTime<Utc>,
    /// Set only for certificates of the host CA: what the service is.
    pub system_role: Option<SystemRole>,
    /// The service's host.
    pub host_id: Option<HostId>,
    /// What the SSH certificate permits; nothing for TLS.
    pub permits: Permits,
    /// What the certificate is limited to (`usage:db`, …); empty means no limit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usage: Vec<String>,
    /// The database it is limited to, where that is its usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseRoute>,
}

impl Identity {
    /// Reads a user's SSH certificate.
    pub fn from_ssh_cert(cert: &Certificate) -> Result<Self, PkiError> {
        let cluster = cert
            .extensions()
            .get(extension::ROUTE_TO_CLUSTER)
            .ok_or(PkiError::Identity("cluster"))?;
        let cluster =
            ClusterName::new(cluster.as_str()).map_err(|_| PkiError::Identity("cluster"))?;
        Self::from_ssh_cert_of(cert, cluster)
    }

    /// Reads a user's SSH certificate that an authority of `cluster` signed.
    pub(crate) fn from_ssh_cert_of(
        cert: &Certificate,
        cluster: ClusterName,
    ) -> Result<Self, PkiError> {
        if cert.cert_type() != CertType::User {
            return Err(PkiError::Identity("type"));
        }
        let user = UserName::new(cert.key_id()).map_err(|_| PkiError::Identity("user name"))?;
        let extensions = cert.extensions();
        let roles = match extensions.get(extension::ROLES) {
            Some(text) => {
                extension::decode_roles(text).ok_or(PkiError::Identity("list of roles"))?
            }
            None => Vec::new(),
        };
        let traits = match extensions.get(extension::TRAITS) {
            Some(text) => {
                extension::decode_traits(text).ok_or(PkiError::Identity("list of traits"))?
            }
            None => Traits::new(),
        };
        let login_ip = match extensions.get(extension::LOGIN_IP) {
            Some(text) => Some(text.parse().map_err(|_| PkiError::Identity("login address"))?),
            None => None,
        };
        let logins = cert
            .valid_principals()
            .iter()
            .filter(|principal| !principal.starts_with(extension::INTERNAL_PRINCIPAL_PREFIX))
            .map(|principal| {
                Login::new(principal.as_str()).map_err(|_| PkiError::Identity("login"))
            })
            .collect::<Result<_, _>>()?;
        let permitted = |name| extensions.contains_key(name);
        Ok(Self {
            user,
            roles,
            traits,
            logins,
            cluster,
            login_ip,
            pinned_ip: None,
            valid_until: end_of(cert),
            system_role: None,
            host_id: None,
            permits: Permits {
                pty: permitted(extension::PERMIT_PTY),
                port_forwarding: permitted(extension::PERMIT_PORT_FORWARDING),
                agent_forwarding: permitted(extension::PERMIT_AGENT_FORWARDING),
                x11_forwarding: permitted(extension::PERMIT_X11_FORWARDING),
            },
            usage: Vec::new(),
            database: None,
        })
    }

    /// Reads a user's TLS certificate. Never sets a system role: organisations are roles here.
    pub fn from_tls_cert(der: &[u8]) -> Result<Self, PkiError> {
        let certificate = read(der)?;
        let subject = Subject::read(&certificate)?;
        let (user, cluster) = names(&subject)?;
        let roles = subject
            .all(subject::ORGANIZATION)
            .map(|role| RoleName::new(role).map_err(|_| PkiError::Identity("list of roles")))
            .collect::<Result<_, _>>()?;
        let logins = subject
            .all(subject::LOCALITY)
            .map(|login| Login::new(login).map_err(|_| PkiError::Identity("login")))
            .collect::<Result<_, _>>()?;
        let traits = match subject.one(subject::POSTAL_CODE, "list of traits")? {
            Some(text) => {
                extension::decode_traits(text).ok_or(PkiError::Identity("list of traits"))?
            }
            None => Traits::new(),
        };
        let usage: Vec<String> =
            subject.all(subject::ORGANIZATIONAL_UNIT).map(str::to_owned).collect();
        let database = database(&subject)?;
        if database.is_some() != usage.iter().any(|usage| usage == USAGE_DATABASE) {
            return Err(PkiError::Identity("usage"));
        }
        Ok(Self {
            user,
            roles,
            traits,
            logins,
            cluster,
            login_ip: address(&subject, subject::LOGIN_IP, "login address")?,
            pinned_ip: address(&subject, subject::PINNED_IP, "pinned address")?,
            valid_until: not_after(&certificate),
            system_role: None,
            host_id: None,
            permits: Permits::default(),
            usage,
            database,
        })
    }

    /// Reads a service's TLS certificate: exactly one organisation, a system role.
    pub fn from_host_tls_cert(der: &[u8]) -> Result<Self, PkiError> {
        let certificate = read(der)?;
        let subject = Subject::read(&certificate)?;
        let (user, cluster) = names(&subject)?;
        let role = subject
            .one(subject::ORGANIZATION, "system role")?
            .and_then(system_role)
            .ok_or(PkiError::Identity("system role"))?;
        if subject.all(subject::ORGANIZATIONAL_UNIT).next().is_some() {
            return Err(PkiError::Identity("usage"));
        }
        let host_id = host_id(user.as_str(), &cluster).ok_or(PkiError::Identity("host id"))?;
        Ok(Self {
            user,
            roles: Vec::new(),
            traits: Traits::new(),
            logins: Vec::new(),
            cluster,
            login_ip: None,
            pinned_ip: None,
            valid_until: not_after(&certificate),
            system_role: Some(role),
            host_id: Some(host_id),
            permits: Permits::default(),
            usage: Vec::new(),
            database: None,
        })
    }
}

/// A host, after its SSH certificate was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIdentity {
    /// What the host is.
    pub role: SystemRole,
    /// The cluster that vouches for it.
    pub cluster: ClusterName,
    /// The host's id, when it is among the principals.
    pub host_id: Option<HostId>,
    /// All names in the certificate.
    pub principals: Vec<String>,
    /// When the certificate ends.
    pub valid_until: DateTime<Utc>,
}

impl HostIdentity {
    pub(crate) fn new(cert: &Certificate, role: SystemRole, cluster: ClusterName) -> Self {
        let host_id = cert.valid_principals().iter().find_map(|name| host_id(name, &cluster));
        Self {
            role,
            cluster,
            host_id,
            principals: cert.valid_principals().to_vec(),
            valid_until: end_of(cert),
        }
    }
}

/// A system role exactly as certificates write it.
pub(crate) fn system_role(text: &str) -> Option<SystemRole> {
    SystemRole::ALL.into_iter().find(|role| role.as_str() == text)
}

fn host_id(name: &str, cluster: &ClusterName) -> Option<HostId> {
    let front = name.strip_suffix(cluster.as_str()).and_then(|front| front.strip_suffix('.'));
    front.unwrap_or(name).parse().ok()
}

fn end_of(cert: &Certificate) -> DateTime<Utc> {
    i64::try_from(cert.valid_before())
        .ok()
        .and_then(|end| DateTime::from_timestamp(end, 0))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

pub(crate) fn not_after(certificate: &X509Certificate<'_>) -> DateTime<Utc> {
    DateTime::from_timestamp(certificate.validity().not_after.timestamp(), 0)
        .unwrap_or(DateTime::<Utc>::MIN_UTC)
}

pub(crate) fn read(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(PkiError::X509Read),
    }
}

fn names(subject: &Subject) -> Result<(UserName, ClusterName), PkiError> {
    let user =
        subject.one(subject::COMMON_NAME, "user name")?.ok_or(PkiError::Identity("user name"))?;
    let cluster = subject.one(subject::CLUSTER, "cluster")?.ok_or(PkiError::Identity("cluster"))?;
    Ok((
        UserName::new(user).map_err(|_| PkiError::Identity("user name"))?,
        ClusterName::new(cluster).map_err(|_| PkiError::Identity("cluster"))?,
    ))
}

/// The database that a certificate is for: all of service, protocol, user and name, or nothing.
fn database(subject: &Subject) -> Result<Option<DatabaseRoute>, PkiError> {
    let one = |attribute, what| subject.one(attribute, what).map(|text| text.map(str::to_owned));
    let service = one(subject::DB_SERVICE, "database service")?;
    let protocol = one(subject::DB_PROTOCOL, "database protocol")?;
    let user = one(subject::DB_USER, "database user")?;
    let name = one(subject::DB_NAME, "database name")?;
    let Some(service) = service else {
        let rest = protocol.is_some() || user.is_some() || name.is_some();
        return if rest { Err(PkiError::Identity("database service")) } else { Ok(None) };
    };
    let route = DatabaseRoute {
        service,
        protocol: protocol.ok_or(PkiError::Identity("database protocol"))?,
        user: user.unwrap_or_default(),
        name: name.unwrap_or_default(),
    };
    route.check()?;
    Ok(Some(route))
}

fn address(
    subject: &Subject,
    attribute: subject::Attribute,
    what: &'static str,
) -> Result<Option<IpAddr>, PkiError> {
    match subject.one(attribute, what)? {
        Some(text) => text.parse().map(Some).map_err(|_| PkiError::Identity(what)),
        None => Ok(None),
    }
}

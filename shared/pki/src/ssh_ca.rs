//! SSH authorities and what they sign: user and host certificates (OpenSSH PROTOCOL.certkeys).

use crate::extension::{self, X_TELEPORT_AUTHORITY, X_TELEPORT_ROLE};
use crate::{CaKind, Cidr, KeyPair, PkiError, SKEW_SECONDS, ssh_key};
use chrono::{DateTime, Utc};
use shared_types::{ClusterName, HostId, Login, RoleName, SystemRole, Traits, UserName};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::public::KeyData;
use ssh_key::{Certificate, PublicKey};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// What OpenSSH reads at most.
const MAX_PRINCIPALS: usize = 256;
const NONCE: usize = 32;

/// What a user certificate shall say.
#[derive(Debug, Clone)]
pub struct UserCertSpec {
    /// The user's key.
    pub public_key: PublicKey,
    /// The user, who becomes the key id.
    pub user: UserName,
    /// The logins the user may use; may be empty, the certificate then opens no host.
    pub principals: Vec<Login>,
    /// The time of issue.
    pub now: DateTime<Utc>,
    /// How long from now.
    pub ttl: Duration,
    /// The user's roles.
    pub roles: Vec<RoleName>,
    /// The user's traits.
    pub traits: Traits,
    /// The cluster the certificate is routed to.
    pub cluster: ClusterName,
    /// Whether the holder may forward ports.
    pub permit_port_forwarding: bool,
    /// Whether the holder may forward an agent.
    pub permit_agent_forwarding: bool,
    /// Whether the holder may forward X11.
    pub permit_x11_forwarding: bool,
    /// The address the user logged in from.
    pub login_ip: Option<IpAddr>,
    /// The only networks the certificate may be used from; empty means any.
    pub source_addresses: Vec<Cidr>,
    /// Leaves the cluster's own extensions out, for very old servers.
    pub old_ssh_format: bool,
    /// Further extensions by name.
    pub extensions: BTreeMap<String, String>,
}

impl UserCertSpec {
    /// A certificate with nothing permitted but a terminal.
    pub fn new(
        public_key: PublicKey,
        user: UserName,
        principals: Vec<Login>,
        cluster: ClusterName,
        now: DateTime<Utc>,
        ttl: Duration,
    ) -> Self {
        Self {
            public_key,
            user,
            principals,
            now,
            ttl,
            roles: Vec::new(),
            traits: Traits::new(),
            cluster,
            permit_port_forwarding: false,
            permit_agent_forwarding: false,
            permit_x11_forwarding: false,
            login_ip: None,
            source_addresses: Vec::new(),
            old_ssh_format: false,
            extensions: BTreeMap::new(),
        }
    }
}

/// What a host certificate shall say.
#[derive(Debug, Clone)]
pub struct HostCertSpec {
    /// The host's key.
    pub public_key: PublicKey,
    /// The names and addresses clients may use for the host; never empty.
    pub principals: Vec<String>,
    /// What the host is.
    pub role: SystemRole,
    /// The cluster that signs.
    pub cluster: ClusterName,
    /// The time of issue.
    pub now: DateTime<Utc>,
    /// How long from now; `None` is for ever.
    pub ttl: Option<Duration>,
}

impl HostCertSpec {
    /// The principals of a service's own host: id and name with and without the cluster, the loopback names, then
    /// further names, without repetition.
    pub fn service_principals(
        host_id: HostId,
        name: &str,
        cluster: &ClusterName,
        further: &[String],
    ) -> Vec<String> {
        let mut all = vec![format!("{host_id}.{cluster}"), host_id.to_string()];
        if !name.is_empty() {
            all.push(format!("{name}.{cluster}"));
            all.push(name.to_owned());
        }
        all.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        all.extend(further.iter().cloned());
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|name| seen.insert(name.clone()));
        all
    }
}

/// Whether a host principal is a pattern, which OpenSSH before 10.3 takes for a plain name and never matches.
pub fn has_wildcard(principal: &str) -> bool {
    principal.contains(['*', '?'])
}

/// An SSH authority with its private key.
#[derive(Debug, Clone)]
pub struct SshCa {
    kind: CaKind,
    key: KeyPair,
}

impl SshCa {
    /// The authority of one kind with its key.
    pub fn new(kind: CaKind, key: KeyPair) -> Self {
        Self { kind, key }
    }

    /// What the authority vouches for.
    pub(crate) fn kind(&self) -> CaKind {
        self.kind
    }

    pub(crate) fn key(&self) -> &KeyPair {
        &self.key
    }

    /// The authority's public key.
    pub fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// Signs a user certificate; only the user CA does.
    pub fn sign_user(&self, spec: UserCertSpec) -> Result<Certificate, PkiError> {
        if self.kind != CaKind::User {
            return Err(PkiError::WrongAuthority(self.kind, "user"));
        }
        let ttl = Some(spec.ttl).filter(|ttl| ttl.as_secs() > 0).ok_or(PkiError::Lifetime)?;
        let mut cert =
            self.begin(&spec.public_key, spec.now, Some(ttl), CertType::User, spec.user.as_str())?;

        let mut principals: Vec<String> =
            spec.principals.iter().map(|login| login.as_str().to_owned()).collect();
        if principals.is_empty() {
            principals.push(format!(
                "{}{}",
                extension::NO_LOGIN_PRINCIPAL_PREFIX,
                uuid::Uuid::new_v4()
            ));
        }
        principals.push(extension::INTERNAL_JOIN_PRINCIPAL.to_owned());
        add_principals(&mut cert, &principals)?;

        if !spec.source_addresses.is_empty() {
            let list: Vec<String> = spec.source_addresses.iter().map(Cidr::to_string).collect();
            cert.critical_option(extension::SOURCE_ADDRESS, list.join(","))
                .map_err(PkiError::SshSign)?;
        }
        let mut extensions = spec.extensions;
        extensions.insert(extension::PERMIT_PTY.to_owned(), String::new());
        for (name, permitted) in [
            (extension::PERMIT_PORT_FORWARDING, spec.permit_port_forwarding),
            (extension::PERMIT_AGENT_FORWARDING, spec.permit_agent_forwarding),
            (extension::PERMIT_X11_FORWARDING, spec.permit_x11_forwarding),
        ] {
            extensions.remove(name);
            if permitted {
                extensions.insert(name.to_owned(), String::new());
            }
        }
        for name in
            [extension::ROLES, extension::TRAITS, extension::ROUTE_TO_CLUSTER, extension::LOGIN_IP]
        {
            extensions.remove(name);
        }
        if !spec.old_ssh_format {
            extensions.insert(extension::ROLES.to_owned(), extension::encode_roles(&spec.roles)?);
            extensions
                .insert(extension::TRAITS.to_owned(), extension::encode_traits(&spec.traits)?);
            extensions
                .insert(extension::ROUTE_TO_CLUSTER.to_owned(), spec.cluster.as_str().to_owned());
        }
        if let Some(address) = spec.login_ip {
            extensions.insert(extension::LOGIN_IP.to_owned(), address.to_string());
        }
        for (name, value) in extensions {
            cert.extension(name, value).map_err(PkiError::SshSign)?;
        }
        cert.sign(self.key.private()).map_err(PkiError::SshSign)
    }

    /// Signs a host certificate; only the host CA does.
    pub fn sign_host(&self, spec: HostCertSpec) -> Result<Certificate, PkiError> {
        if self.kind != CaKind::Host {
            return Err(PkiError::WrongAuthority(self.kind, "host"));
        }
        for principal in &spec.principals {
            check_host_principal(principal)?;
        }
        let mut cert = self.begin(&spec.public_key, spec.now, spec.ttl, CertType::Host, "")?;
        add_principals(&mut cert, &spec.principals)?;
        cert.extension(X_TELEPORT_AUTHORITY, spec.cluster.as_str()).map_err(PkiError::SshSign)?;
        cert.extension(X_TELEPORT_ROLE, spec.role.as_str()).map_err(PkiError::SshSign)?;
        cert.sign(self.key.private()).map_err(PkiError::SshSign)
    }

    pub(crate) fn begin(
        &self,
        key: &PublicKey,
        now: DateTime<Utc>,
        ttl: Option<Duration>,
        cert_type: CertType,
        key_id: &str,
    ) -> Result<Builder, PkiError> {
        if !certifiable(key.key_data()) {
            return Err(PkiError::UnsupportedKey(key.algorithm().to_string()));
        }
        // Whoever holds the authority's key needs no certificate, and nobody else may get one for it.
        if key.key_data() == self.public().key_data() {
            return Err(PkiError::UnsupportedKey("authority".to_owned()));
        }
        let start = u64::try_from(now.timestamp().saturating_sub(SKEW_SECONDS))
            .map_err(|_| PkiError::Lifetime)?;
        let end = match ttl {
            None => u64::MAX,
            Some(ttl) if ttl.as_secs() == 0 => return Err(PkiError::Lifetime),
            Some(ttl) => u64::try_from(now.timestamp())
                .ok()
                .and_then(|now| now.checked_add(ttl.as_secs()))
                .ok_or(PkiError::Lifetime)?,
        };
        let nonce = crate::keys::random::<NONCE>()?;
        let mut cert =
            Builder::new(nonce, key.key_data().clone(), start, end).map_err(PkiError::SshSign)?;
        cert.serial(0).map_err(PkiError::SshSign)?;
        cert.cert_type(cert_type).map_err(PkiError::SshSign)?;
        cert.key_id(key_id).map_err(PkiError::SshSign)?;
        Ok(cert)
    }
}

/// Keys that get certificates and whose certificates are taken: no DSA, no unknown kind, no certificate in place of
/// a key.
pub(crate) fn certifiable(key: &KeyData) -> bool {
    match key {
        KeyData::Ed25519(_)
        | KeyData::Ecdsa(_)
        | KeyData::SkEd25519(_)
        | KeyData::SkEcdsaSha2NistP256(_) => true,
        KeyData::Rsa(rsa) => rsa.key_size() >= 2048,
        _ => false,
    }
}

pub(crate) fn add_principals(cert: &mut Builder, principals: &[String]) -> Result<(), PkiError> {
    if principals.is_empty() {
        return Err(PkiError::NoPrincipals);
    }
    if principals.len() > MAX_PRINCIPALS {
        return Err(PkiError::TooManyPrincipals(MAX_PRINCIPALS));
    }
    for principal in principals {
        cert.valid_principal(principal).map_err(PkiError::SshSign)?;
    }
    Ok(())
}

/// Names, addresses and patterns of names. A pattern without a letter or digit would stand for every host.
fn check_host_principal(principal: &str) -> Result<(), PkiError> {
    let plain = !principal.is_empty()
        && principal.len() <= 255
        && !principal.starts_with('-')
        && principal.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:*?".contains(&byte))
        && principal
            .parse::<IpAddr>()
            .map_or_else(|_| principal.bytes().any(|byte| byte.is_ascii_alphanumeric()), |_| true);
    if plain { Ok(()) } else { Err(PkiError::Principal(principal.chars().take(64).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, NOW, host_spec, key_of, user_spec};

    #[test]
    fn user_certificates_as_documented() {
        let cert = Cluster::new().user_cert(user_spec());
        assert_eq!((cert.key_id(), cert.serial(), cert.cert_type()), ("joe", 0, CertType::User));
        assert_eq!(cert.valid_principals(), ["root", "ubuntu", "-teleport-internal-join"]);
        let now = NOW.unsigned_abs();
        assert_eq!((cert.valid_after(), cert.valid_before()), (now - 60, now + 3600));
        assert!(cert.critical_options().is_empty());
        let extensions: Vec<_> =
            cert.extensions().iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            extensions,
            [
                "login-ip=192.0.2.7",
                "permit-port-forwarding=",
                "permit-pty=",
                r#"teleport-roles={"version":"v1","roles":["access","editor"]}"#,
                "teleport-route-to-cluster=example.com",
                r#"teleport-traits={"team":["a","b"]}"#,
            ]
        );
    }

    #[test]
    fn further_extensions_do_not_override_known_ones() {
        let mut spec = user_spec();
        spec.extensions = [
            ("teleport-roles", "x"),
            ("permit-agent-forwarding", ""),
            ("login@example.com", "joe"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let cert = Cluster::new().user_cert(spec);
        assert!(cert.extensions()["teleport-roles"].contains("editor"));
        assert!(!cert.extensions().contains_key("permit-agent-forwarding"));
        assert_eq!(cert.extensions()["login@example.com"], "joe");
    }

    #[test]
    fn old_format_leaves_ours_out() {
        let mut spec = user_spec();
        spec.old_ssh_format = true;
        let cert = Cluster::new().user_cert(spec);
        assert!(cert.extensions().keys().all(|name| !name.starts_with("teleport-")));
    }

    #[test]
    fn host_certificates_as_documented() {
        let mut spec = host_spec(SystemRole::Node, &["a.example.com", "b.example.com", "1.2.3.4"]);
        spec.ttl = None;
        let cert = Cluster::new().host_cert(spec);
        assert_eq!((cert.key_id(), cert.serial(), cert.cert_type()), ("", 0, CertType::Host));
        assert_eq!(cert.valid_principals(), ["a.example.com", "b.example.com", "1.2.3.4"]);
        assert_eq!((cert.valid_after(), cert.valid_before()), (NOW.unsigned_abs() - 60, u64::MAX));
        assert!(cert.critical_options().is_empty());
        let extensions: Vec<_> =
            cert.extensions().iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(extensions, ["x-teleport-authority=example.com", "x-teleport-role=Node"]);
    }

    #[test]
    fn principals_of_services() {
        let id: HostId = "5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11".parse().unwrap();
        let cluster = ClusterName::new("c").unwrap();
        let all = HostCertSpec::service_principals(
            id,
            "n",
            &cluster,
            &["proxy.example.com".to_owned(), "localhost".to_owned()],
        );
        let (long, short) = (format!("{id}.c"), id.to_string());
        assert_eq!(
            all,
            [
                long.as_str(),
                &short,
                "n.c",
                "n",
                "localhost",
                "127.0.0.1",
                "::1",
                "proxy.example.com"
            ]
        );
    }

    #[test]
    fn refusals() {
        let cluster = Cluster::new();
        let (user, host) = (cluster.user.ssh_ca().unwrap(), cluster.host.ssh_ca().unwrap());
        assert!(matches!(
            host.sign_user(user_spec()),
            Err(PkiError::WrongAuthority(CaKind::Host, "user"))
        ));
        let spec = host_spec(SystemRole::Node, &["db"]);
        assert!(matches!(
            user.sign_host(spec),
            Err(PkiError::WrongAuthority(CaKind::User, "host"))
        ));
        assert!(matches!(
            host.sign_host(host_spec(SystemRole::Node, &[])),
            Err(PkiError::NoPrincipals)
        ));
        let long = "a".repeat(256);
        for bad in
            ["", "a b", "a,b", "a\nb", "-x", "*", "*.*", "?", "**", "ä", "a/b", "\u{1b}", &long]
        {
            assert!(
                matches!(
                    host.sign_host(host_spec(SystemRole::Node, &["db", bad])),
                    Err(PkiError::Principal(_))
                ),
                "{bad}"
            );
        }
        for good in
            ["*.example.com", "web-?", "::1", "fe80::1", "10.0.0.1", "a.example.com.", "A_b"]
        {
            assert!(host.sign_host(host_spec(SystemRole::Node, &[good])).is_ok(), "{good}");
        }
        let many: Vec<String> = (0..257).map(|number| format!("h{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(matches!(
            host.sign_host(host_spec(SystemRole::Node, &many)),
            Err(PkiError::TooManyPrincipals(256))
        ));
        for ttl in [Duration::ZERO, Duration::from_secs(u64::MAX)] {
            let mut spec = user_spec();
            spec.ttl = ttl;
            assert!(matches!(user.sign_user(spec), Err(PkiError::Lifetime)));
            let mut spec = host_spec(SystemRole::Node, &["db"]);
            spec.ttl = Some(ttl);
            assert!(matches!(host.sign_host(spec), Err(PkiError::Lifetime)));
        }
        // No certificate for the authority's own key, and none for a certificate in place of a key.
        let mut spec = user_spec();
        spec.public_key = key_of(&cluster.user).public().clone();
        assert!(matches!(user.sign_user(spec), Err(PkiError::UnsupportedKey(_))));
        let mut spec = user_spec();
        spec.public_key = PublicKey::new(KeyData::from(cluster.user_cert(user_spec())), "");
        assert!(matches!(user.sign_user(spec), Err(PkiError::UnsupportedKey(_))));
    }
}

//! What the cluster shows to SSH servers without an agent: certificates of the `openssh` authority.
//!
//! Such a certificate is made for one login on its way to one server, for a key that lives as long as the connection
//! is made. It says who logs in (the key id, for the server's log) and nothing that the cluster itself would take:
//! [`verify`](crate::verify) asks the user authority about users, never this one.

use crate::ssh_ca::add_principals;
use crate::{CaKind, Cidr, PkiError, SshCa, extension, ssh_key};
use chrono::{DateTime, Utc};
use shared_types::{Login, UserName};
use ssh_key::certificate::CertType;
use ssh_key::{Certificate, PublicKey};
use std::time::Duration;

/// What a certificate for a login on a server without an agent shall say.
#[derive(Debug, Clone)]
pub struct OpensshUserSpec {
    /// The key that logs in; the proxy's.
    pub public_key: PublicKey,
    /// The user, who becomes the key id.
    pub user: UserName,
    /// The one login it opens.
    pub login: Login,
    /// The time of issue.
    pub now: DateTime<Utc>,
    /// How long from now.
    pub ttl: Duration,
    /// Whether ports may be forwarded.
    pub permit_port_forwarding: bool,
    /// Whether an agent may be forwarded.
    pub permit_agent_forwarding: bool,
    /// The only networks it may be used from; empty means any.
    pub source_addresses: Vec<Cidr>,
}

impl SshCa {
    /// Signs a certificate for a login on a server without an agent; only the openssh CA does.
    pub fn sign_openssh_user(&self, spec: &OpensshUserSpec) -> Result<Certificate, PkiError> {
        if self.kind() != CaKind::Openssh {
            return Err(PkiError::WrongAuthority(self.kind(), "openssh user"));
        }
        let (key, ttl) = (&spec.public_key, Some(spec.ttl));
        let mut cert = self.begin(key, spec.now, ttl, CertType::User, spec.user.as_str())?;
        add_principals(&mut cert, &[spec.login.as_str().to_owned()])?;
        if !spec.source_addresses.is_empty() {
            let list: Vec<String> = spec.source_addresses.iter().map(Cidr::to_string).collect();
            cert.critical_option(extension::SOURCE_ADDRESS, list.join(","))
                .map_err(PkiError::SshSign)?;
        }
        for (name, permitted) in [
            (extension::PERMIT_AGENT_FORWARDING, spec.permit_agent_forwarding),
            (extension::PERMIT_PORT_FORWARDING, spec.permit_port_forwarding),
            (extension::PERMIT_PTY, true),
        ] {
            if permitted {
                cert.extension(name, "").map_err(PkiError::SshSign)?;
            }
        }
        cert.sign(self.key().private()).map_err(PkiError::SshSign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, NOW, cluster, now, some_key};
    use crate::verify::{CertRefusal, HostRole, SshVerifier};
    use crate::{CertAuthority, HostCertSpec, UserCertSpec};
    use shared_types::SystemRole;

    fn spec() -> OpensshUserSpec {
        OpensshUserSpec {
            public_key: some_key(),
            user: UserName::new("joe").unwrap(),
            login: Login::new("root").unwrap(),
            now: now(),
            ttl: Duration::from_secs(60),
            permit_port_forwarding: false,
            permit_agent_forwarding: true,
            source_addresses: vec!["10.0.0.1/32".parse().unwrap()],
        }
    }

    fn authority() -> CertAuthority {
        CertAuthority::generate(CaKind::Openssh, &cluster(), now()).unwrap()
    }

    #[test]
    fn one_login_for_a_minute_and_what_is_permitted() {
        let cert = authority().ssh_ca().unwrap().sign_openssh_user(&spec()).unwrap();
        assert_eq!((cert.key_id(), cert.cert_type()), ("joe", CertType::User));
        assert_eq!(cert.valid_principals(), ["root"]);
        let now = NOW.unsigned_abs();
        assert_eq!((cert.valid_after(), cert.valid_before()), (now - 60, now + 60));
        let names: Vec<&String> = cert.extensions().keys().collect();
        assert_eq!(names, ["permit-agent-forwarding", "permit-pty"]);
        let options: Vec<_> = cert.critical_options().iter().collect();
        assert_eq!(options, [(&"source-address".to_owned(), &"10.0.0.1/32".to_owned())]);
    }

    #[test]
    fn the_cluster_does_not_take_it_for_a_user_nor_for_a_host() {
        let (openssh, cluster) = (authority(), Cluster::new());
        let cert = openssh.ssh_ca().unwrap().sign_openssh_user(&spec()).unwrap();
        let source = Some("10.0.0.1".parse().unwrap());
        // Also where somebody put the authority among those that are trusted.
        let mut trusted = cluster.trusted.clone();
        let unknown = SshVerifier::new(&trusted, now()).user(&cert, "root", source).unwrap_err();
        assert!(matches!(unknown, CertRefusal::UnknownAuthority), "{unknown}");
        trusted.push(openssh.trusted());
        let verifier = SshVerifier::new(&trusted, now());
        let wrong = verifier.user(&cert, "root", source).unwrap_err();
        assert!(matches!(wrong, CertRefusal::WrongAuthority(CaKind::Openssh)), "{wrong}");
        assert!(verifier.host(&cert, "root", HostRole::Any).is_err());
    }

    #[test]
    fn each_authority_signs_its_own() {
        let (openssh, cluster) = (authority().ssh_ca().unwrap(), Cluster::new());
        for ca in [&cluster.user, &cluster.host] {
            let refused = ca.ssh_ca().unwrap().sign_openssh_user(&spec());
            assert!(matches!(refused, Err(PkiError::WrongAuthority(_, "openssh user"))));
        }
        let user: UserCertSpec = crate::testing::user_spec();
        let host: HostCertSpec = crate::testing::host_spec(SystemRole::Node, &["db"]);
        assert!(matches!(openssh.sign_user(user), Err(PkiError::WrongAuthority(..))));
        assert!(matches!(openssh.sign_host(host), Err(PkiError::WrongAuthority(..))));
        let mut none = spec();
        none.ttl = Duration::ZERO;
        assert!(matches!(openssh.sign_openssh_user(&none), Err(PkiError::Lifetime)));
    }
}

//! What the tests of this crate share: a cluster with both authorities, and certificates that no authority of ours
//! would sign.

use crate::ssh_key::certificate::{Builder, CertType};
use crate::ssh_key::{Certificate, PublicKey};
use crate::{
    CaKind, CertAuthority, HostCertSpec, HostTlsSpec, KeyPair, TlsIdentity, TrustedAuthority,
    UserCertSpec,
};
use chrono::{DateTime, Utc};
use shared_types::{ClusterName, HostId, Login, RoleName, SystemRole, UserName};
use std::time::Duration;

pub(crate) const NOW: i64 = 1_790_000_000;
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn now() -> DateTime<Utc> {
    at(0)
}

pub(crate) fn at(offset: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(NOW + offset, 0).unwrap()
}

pub(crate) fn cluster() -> ClusterName {
    ClusterName::new("example.com").unwrap()
}

pub(crate) struct Cluster {
    pub(crate) user: CertAuthority,
    pub(crate) host: CertAuthority,
    pub(crate) trusted: Vec<TrustedAuthority>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let user = CertAuthority::generate(CaKind::User, &cluster(), now()).unwrap();
        let host = CertAuthority::generate(CaKind::Host, &cluster(), now()).unwrap();
        let trusted = vec![host.trusted(), user.trusted()];
        Self { user, host, trusted }
    }

    pub(crate) fn user_cert(&self, spec: UserCertSpec) -> Certificate {
        self.user.ssh_ca().unwrap().sign_user(spec).unwrap()
    }

    pub(crate) fn host_cert(&self, spec: HostCertSpec) -> Certificate {
        self.host.ssh_ca().unwrap().sign_host(spec).unwrap()
    }
}

pub(crate) fn some_key() -> PublicKey {
    KeyPair::generate().unwrap().public().clone()
}

pub(crate) fn user_spec() -> UserCertSpec {
    let logins = vec![Login::new("root").unwrap(), Login::new("ubuntu").unwrap()];
    let mut spec = UserCertSpec::new(
        some_key(),
        UserName::new("joe").unwrap(),
        logins,
        cluster(),
        now(),
        HOUR,
    );
    spec.roles = vec![RoleName::new("access").unwrap(), RoleName::new("editor").unwrap()];
    spec.traits.insert("team".to_owned(), vec!["a".to_owned(), "b".to_owned()]);
    spec.login_ip = Some("192.0.2.7".parse().unwrap());
    spec.permit_port_forwarding = true;
    spec
}

pub(crate) fn host_spec(role: SystemRole, principals: &[&str]) -> HostCertSpec {
    let principals = principals.iter().map(|name| (*name).to_owned()).collect();
    HostCertSpec {
        public_key: some_key(),
        principals,
        role,
        cluster: cluster(),
        now: now(),
        ttl: Some(HOUR),
    }
}

/// A certificate as an attacker or a careless tool with some key would make it.
pub(crate) struct Forged<'a> {
    pub(crate) by: &'a KeyPair,
    pub(crate) cert_type: CertType,
    pub(crate) key: PublicKey,
    pub(crate) key_id: &'a str,
    pub(crate) principals: &'a [&'a str],
    pub(crate) valid: (u64, u64),
    pub(crate) options: &'a [(&'a str, &'a str)],
    pub(crate) extensions: &'a [(&'a str, &'a str)],
}

impl<'a> Forged<'a> {
    pub(crate) fn user(by: &'a KeyPair) -> Self {
        Self {
            by,
            cert_type: CertType::User,
            key: some_key(),
            key_id: "joe",
            principals: &["root"],
            valid: window(),
            options: &[],
            extensions: &[],
        }
    }

    pub(crate) fn host(by: &'a KeyPair) -> Self {
        let extensions = &[("x-teleport-authority", "example.com"), ("x-teleport-role", "Node")];
        Self {
            by,
            cert_type: CertType::Host,
            key: some_key(),
            key_id: "",
            principals: &["db"],
            valid: window(),
            options: &[],
            extensions,
        }
    }

    pub(crate) fn sign(self) -> Certificate {
        let mut cert =
            Builder::new([7u8; 16], self.key.key_data().clone(), self.valid.0, self.valid.1)
                .unwrap();
        cert.cert_type(self.cert_type).unwrap();
        cert.key_id(self.key_id).unwrap();
        if self.principals.is_empty() {
            cert.all_principals_valid().unwrap();
        }
        for principal in self.principals {
            cert.valid_principal(*principal).unwrap();
        }
        for (name, value) in self.options {
            cert.critical_option(*name, *value).unwrap();
        }
        for (name, value) in self.extensions {
            cert.extension(*name, *value).unwrap();
        }
        cert.sign(self.by.private()).unwrap()
    }
}

pub(crate) fn window() -> (u64, u64) {
    let now = u64::try_from(NOW).unwrap();
    (now - 60, now + 3600)
}

/// The private key of an authority, by the only way there is: its stored form.
pub(crate) fn key_of(authority: &CertAuthority) -> KeyPair {
    let stored = serde_json::to_value(authority).unwrap();
    KeyPair::from_openssh_pem(stored["ssh"][0]["private_key"].as_str().unwrap()).unwrap()
}

pub(crate) fn tls_identity() -> TlsIdentity {
    TlsIdentity {
        user: UserName::new("joe").unwrap(),
        roles: vec![RoleName::new("access").unwrap(), RoleName::new("editor").unwrap()],
        logins: vec![Login::new("root").unwrap(), Login::new("ubuntu").unwrap()],
        traits: [("team".to_owned(), vec!["ä \"b\"".to_owned()])].into(),
        cluster: cluster(),
        usage: Vec::new(),
        login_ip: Some("2001:db8::7".parse().unwrap()),
        pinned_ip: None,
        database: None,
    }
}

pub(crate) fn host_tls(role: SystemRole) -> HostTlsSpec {
    HostTlsSpec {
        host_id: HostId::random(),
        role,
        cluster: cluster(),
        names: vec!["127.0.0.1".to_owned(), "proxy.example.com".to_owned()],
    }
}

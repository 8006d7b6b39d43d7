//! A small cluster for the agent's tests: authorities, a user, hosts that can bind, and the requests a
//! proxy sends.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use russh::keys::signature::Signer;
use russh::keys::ssh_key::Signature;
use russh::keys::ssh_key::encoding::Encode;
use shared_pki::{CaKind, CertAuthority, HostCertSpec, KeyPair, TrustedAuthority, UserCertSpec};
use shared_types::SystemRole;

use super::key::AgentKey;
use crate::wire::{
    AuthMethod, Request, SSH_CONNECTION, SessionBind, UserAuthRequest, encode_userauth,
};

pub(crate) fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 3, 1, 12, 0, 0).unwrap()
}

pub(crate) struct Cluster {
    pub(crate) host_ca: CertAuthority,
    pub(crate) user_ca: CertAuthority,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let name = "main".parse().unwrap();
        Self {
            host_ca: CertAuthority::generate(CaKind::Host, &name, now()).unwrap(),
            user_ca: CertAuthority::generate(CaKind::User, &name, now()).unwrap(),
        }
    }

    pub(crate) fn trusted(&self) -> Vec<TrustedAuthority> {
        vec![self.host_ca.trusted(), self.user_ca.trusted()]
    }

    pub(crate) fn user_at(&self, now: DateTime<Utc>, logins: &[&str]) -> Arc<AgentKey> {
        let key = KeyPair::generate().unwrap();
        let mut spec = UserCertSpec::new(
            key.public().clone(),
            "joe".parse().unwrap(),
            logins.iter().map(|login| login.parse().unwrap()).collect(),
            "main".parse().unwrap(),
            now,
            Duration::from_secs(3600),
        );
        spec.permit_port_forwarding = true;
        spec.permit_agent_forwarding = true;
        let certificate = self.user_ca.ssh_ca().unwrap().sign_user(spec).unwrap();
        Arc::new(AgentKey::new(key.private().clone(), certificate, "teleport:joe").unwrap())
    }

    pub(crate) fn user(&self, logins: &[&str]) -> Arc<AgentKey> {
        self.user_at(now(), logins)
    }

    pub(crate) fn host(&self, name: &str, role: SystemRole) -> Host {
        Host::certified(&self.host_ca, name, role, now(), Some(Duration::from_secs(3600)))
    }
}

/// A host that can take part in a key exchange.
pub(crate) struct Host {
    pub(crate) key: KeyPair,
    pub(crate) blob: Vec<u8>,
}

impl Host {
    pub(crate) fn certified(
        ca: &CertAuthority,
        name: &str,
        role: SystemRole,
        now: DateTime<Utc>,
        ttl: Option<Duration>,
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        let spec = HostCertSpec {
            public_key: key.public().clone(),
            principals: vec![name.to_owned()],
            role,
            cluster: ca.cluster().clone(),
            now,
            ttl,
        };
        let blob = ca.ssh_ca().unwrap().sign_host(spec).unwrap().to_bytes().unwrap();
        Self { key, blob }
    }

    pub(crate) fn signature(&self, session_id: &[u8]) -> Vec<u8> {
        let signature: Signature = self.key.private().try_sign(session_id).unwrap();
        signature.encode_vec().unwrap()
    }

    pub(crate) fn bind(&self, session_id: &[u8], forwarding: bool) -> Vec<u8> {
        SessionBind {
            host_key: &self.blob,
            session_id,
            signature: &self.signature(session_id),
            forwarding,
        }
        .encode()
    }
}

/// The request to authenticate with `key`, as a proxy that follows the rules builds it.
pub(crate) fn userauth(
    key: &AgentKey,
    session_id: &[u8],
    user: &str,
    host: Option<&[u8]>,
) -> Vec<u8> {
    encode_userauth(&UserAuthRequest {
        session_id,
        user: user.as_bytes(),
        service: SSH_CONNECTION.as_bytes(),
        method: host.map_or(AuthMethod::PublicKey, AuthMethod::HostBound),
        algorithm: key.algorithm().as_bytes(),
        key: key.blob(),
    })
}

pub(crate) fn sign(key: &AgentKey, data: &[u8]) -> Vec<u8> {
    Request::encode_sign(key.blob(), data, 0)
}

//! What a hostile proxy can do with the agent that `tsh` lends it, against stock sshd: the attack that the
//! role check stops, with a control run in which it succeeds.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use russh::client;
use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_key::HashAlg;
use russh::keys::{Certificate, PublicKeyOrCertificate};
use shared_types::SystemRole;
use tokio::net::TcpStream;

use super::tests::{Sshd, current_user, host_with};
use crate::agent::test_support::{Cluster, Host};
use crate::agent::{AgentKey, AgentSession, EmbeddedAgent, Policy};
use crate::wire::{AuthMethod, Put, Reply, Request, SessionBind, UserAuthRequest, encode_userauth};

/// What the user typed.
const TYPED: &str = "db.example.com";
/// Where the proxy wants to go with it.
const COVETED: &str = "vault.example.com";

struct AnyHost;

impl client::Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// Has the agent sign with a bind that the proxy made itself.
struct Forger<'a> {
    agent: &'a mut AgentSession,
    bind_as: &'a Host,
    session_id: Vec<u8>,
    hostbound: Option<Vec<u8>>,
}

#[derive(Debug)]
struct NotSigned;

impl From<russh::SendError> for NotSigned {
    fn from(_: russh::SendError) -> Self {
        Self
    }
}

impl russh::Signer for Forger<'_> {
    type Error = NotSigned;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, NotSigned> {
        let bind = SessionBind {
            host_key: &self.bind_as.blob,
            session_id: &self.session_id,
            signature: &self.bind_as.signature(&self.session_id),
            forwarding: false,
        };
        let _ = self.agent.handle(&bind.encode(), Utc::now());
        let request = UserAuthRequest::parse(&to_sign).unwrap();
        let method = self.hostbound.as_deref().map_or(AuthMethod::PublicKey, AuthMethod::HostBound);
        let mut signed = encode_userauth(&UserAuthRequest { method, ..request.clone() });
        let asked = Request::encode_sign(request.key, &signed, 0);
        match self.agent.handle(&asked, Utc::now()).reply {
            Reply::Signature(blob) => {
                signed.put_string(&blob);
                Ok(signed)
            }
            _ => Err(NotSigned),
        }
    }
}

struct Scene {
    cluster: Cluster,
    key: Arc<AgentKey>,
    coveted: Sshd,
    coveted_host: Host,
}

async fn scene() -> Option<Scene> {
    let cluster = Cluster::new();
    let key = cluster.user_at(Utc::now(), &[&current_user()]);
    let coveted_host = host_with(&cluster, COVETED, SystemRole::Node);
    let coveted = Sshd::start(&cluster, &coveted_host, "").await?;
    Some(Scene { cluster, key, coveted, coveted_host })
}

impl Scene {
    fn agent(&self, change: impl FnOnce(Policy) -> Policy) -> Arc<EmbeddedAgent> {
        let login = current_user().parse().unwrap();
        let policy = Policy::new(TYPED.parse().unwrap(), login, self.cluster.trusted());
        EmbeddedAgent::new(Arc::clone(&self.key), change(policy))
    }

    /// Tries to log in to the coveted host with the user's agent; whether it worked.
    async fn attack(&self, agent: &Arc<EmbeddedAgent>, bind_as: &Host, hostbound: bool) -> bool {
        let stream = TcpStream::connect(("127.0.0.1", self.coveted.port)).await.unwrap();
        let config = Arc::new(client::Config {
            preferred: russh::Preferred {
                host_key_certificates: vec![russh::keys::Algorithm::Ed25519].into(),
                ..russh::Preferred::DEFAULT
            },
            ..client::Config::default()
        });
        let mut handle = client::connect_stream(config, stream, AnyHost).await.unwrap();
        let binding = handle.agent_session_binding().unwrap();
        let mut session = agent.channel().unwrap();
        let mut forger = Forger {
            agent: &mut session,
            bind_as,
            session_id: binding.session_id().to_vec(),
            hostbound: hostbound.then(|| binding.host_key().to_vec()),
        };
        let certificate: Certificate = self.key.certificate().clone();
        let login = current_user();
        let tried = handle.authenticate_certificate_with(login, certificate, None, &mut forger);
        let tried = tokio::time::timeout(Duration::from_secs(20), tried).await.unwrap();
        tried.is_ok_and(|result| result.success())
    }
}

#[tokio::test]
async fn a_bind_with_a_proxys_certificate_for_the_typed_name_opens_no_other_host() {
    let Some(scene) = scene().await else { return };
    let forged = host_with(&scene.cluster, TYPED, SystemRole::Proxy);
    let agent = scene.agent(|policy| policy);
    assert!(!scene.attack(&agent, &forged, false).await);
    assert!(agent.last_refusal().is_some());
    let agent = scene.agent(|policy| policy);
    assert!(!scene.attack(&agent, &forged, true).await);
}

/// The control run: the attack is real, and it is the role check that stops it.
#[tokio::test]
async fn control_run_without_the_role_check_the_proxy_is_in() {
    let Some(scene) = scene().await else { return };
    let forged = host_with(&scene.cluster, TYPED, SystemRole::Proxy);
    let agent = scene.agent(Policy::danger_skip_role_check);
    assert!(scene.attack(&agent, &forged, false).await);
    // A request that names the host stops the same attack even then.
    let agent = scene.agent(|p| p.danger_skip_role_check().plain_publickey(false));
    assert!(!scene.attack(&agent, &forged, false).await);
    let agent = scene.agent(|p| p.danger_skip_role_check().plain_publickey(false));
    assert!(!scene.attack(&agent, &forged, true).await);
}

/// An honest bind of the wrong host.
#[tokio::test]
async fn the_coveted_hosts_own_bind_is_for_the_wrong_name() {
    let Some(scene) = scene().await else { return };
    let agent = scene.agent(|policy| policy);
    assert!(!scene.attack(&agent, &scene.coveted_host, true).await);
    let login = current_user().parse().unwrap();
    let policy = Policy::new(COVETED.parse().unwrap(), login, scene.cluster.trusted());
    let meant = EmbeddedAgent::new(Arc::clone(&scene.key), policy);
    // And the same, had the user typed that name: both methods work.
    assert!(scene.attack(&meant, &scene.coveted_host, true).await);
    meant.note_session();
    assert!(scene.attack(&meant, &scene.coveted_host, false).await);
}

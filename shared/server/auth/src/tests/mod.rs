//! The service on a real store, and the API over real TLS.

mod accounts;
mod api;
mod databases;
mod endings;
mod joining;
mod locks;
mod matrix;
mod openssh;
mod recorded;
mod sealed;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Duration, Utc};
use shared_api::{InviteUserRequest, LoginReply, LoginRequest, Secret, SignupRequest};
use shared_pki::{Identity, KeyPair, Permits, TlsKey};
use shared_types::{HostId, Resource, ResourceKind, RoleName, SystemRole, Traits, UserName};

use crate::caller::Caller;
use crate::error::Result;
use crate::service::{AuthService, AuthSettings};

/// A good password.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A service on a folder of its own, with a clock that tests move.
pub(crate) struct Bed {
    pub(crate) service: Arc<AuthService>,
    ahead: Arc<AtomicI64>,
    _folder: Option<tempfile::TempDir>,
}

/// Keys of somebody who asks for certificates.
pub(crate) struct Keys {
    pub(crate) ssh: KeyPair,
    pub(crate) tls: TlsKey,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { ssh: KeyPair::generate().unwrap(), tls: TlsKey::generate().unwrap() }
    }
}

pub(crate) fn here() -> SocketAddr {
    "192.0.2.7:4000".parse().unwrap()
}

pub(crate) fn name<T: TryFrom<String>>(text: &str) -> T
where
    T::Error: std::fmt::Debug,
{
    T::try_from(text.to_owned()).unwrap()
}

fn host() -> HostId {
    static HOST: OnceLock<HostId> = OnceLock::new();
    *HOST.get_or_init(HostId::random)
}

pub(crate) fn settings(folder: &Path) -> AuthSettings {
    let mut settings = AuthSettings::new(folder.to_owned(), host(), "gate");
    settings.cluster_name = Some(name("example.test"));
    settings
}

impl Bed {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut bed = Self::open(settings(folder.path())).await;
        bed._folder = Some(folder);
        bed
    }

    pub(crate) async fn open(settings: AuthSettings) -> Self {
        shared_transport::install_crypto();
        let ahead = Arc::new(AtomicI64::new(0));
        let seconds = Arc::clone(&ahead);
        let clock: server_store::Clock =
            Arc::new(move || Utc::now() + Duration::seconds(seconds.load(Ordering::Relaxed)));
        let service = AuthService::open_with_clock(settings, clock).await.unwrap();
        Self { service, ahead, _folder: None }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.ahead.fetch_add(by.num_seconds(), Ordering::Relaxed);
    }

    pub(crate) fn admin(&self) -> Caller {
        self.system(SystemRole::Admin)
    }

    pub(crate) fn system(&self, role: SystemRole) -> Caller {
        let cluster = self.service.cluster().clone();
        let identity = Identity {
            user: name(&format!("{}.{cluster}", host())),
            roles: Vec::new(),
            traits: Traits::new(),
            logins: Vec::new(),
            cluster,
            login_ip: None,
            pinned_ip: None,
            valid_until: DateTime::<Utc>::MAX_UTC,
            system_role: Some(role),
            host_id: Some(host()),
            permits: Permits::default(),
            usage: Vec::new(),
            database: None,
        };
        Caller::service(identity, here())
    }

    /// A user with a password.
    pub(crate) async fn user(&self, user: &str, roles: &[&str], logins: &[&str]) {
        let roles: Vec<RoleName> = roles.iter().map(|role| name(role)).collect();
        let mut traits = Traits::new();
        traits
            .insert("logins".to_owned(), logins.iter().map(|login| (*login).to_owned()).collect());
        let ask = InviteUserRequest { user: name(user), roles, traits, ttl_seconds: None };
        let invited = self.service.invite_user(&self.admin(), ask).await.unwrap();
        let ask = SignupRequest { token: invited.token, password: Secret::new(PASSWORD) };
        self.service.signup(ask, here()).await.unwrap();
    }

    pub(crate) async fn login(
        &self,
        user: &str,
        password: &str,
        keys: &Keys,
    ) -> Result<LoginReply> {
        self.service.login(login_request(user, password, keys), here()).await
    }

    /// The caller that a fresh login makes.
    pub(crate) async fn caller(&self, user: &str) -> Caller {
        let reply = self.login(user, PASSWORD, &Keys::new()).await.unwrap();
        let der = shared_transport::tls::certs_from_pem(reply.tls_cert.as_bytes()).unwrap();
        self.service.caller(&der[0], here()).await.unwrap()
    }

    /// Where sessions are recorded.
    pub(crate) fn mode(&self) -> shared_types::RecordingMode {
        self.service.session_recording(&self.admin()).mode
    }

    /// Stores a role out of YAML-like JSON.
    pub(crate) async fn role(&self, name: &str, allow: serde_json::Value) {
        let document = serde_json::json!({"kind": "role", "version": "v7", "metadata": {"name": name}, "spec": {"allow": allow}});
        self.service.create_resource(&self.admin(), "role", document, true).await.unwrap();
    }

    pub(crate) async fn account(&self, user: &str) -> shared_types::User {
        match self.service.store().resource(ResourceKind::User, user).await.unwrap() {
            Some(Resource::User(user)) => user,
            other => panic!("{other:?}"),
        }
    }

    /// The types of the newest events, oldest first.
    pub(crate) async fn events(&self) -> Vec<String> {
        let now = self.service.now();
        let found = self
            .service
            .audit
            .search(now - Duration::days(400), now + Duration::days(1), &[], 1000)
            .await
            .unwrap();
        found
            .iter()
            .rev()
            .map(|event| format!("{} {}", event.metadata().event, event.metadata().code))
            .collect()
    }
}

pub(crate) fn login_request(user: &str, password: &str, keys: &Keys) -> LoginRequest {
    LoginRequest {
        user: name::<UserName>(user),
        password: Secret::new(password),
        ssh_public_key: keys.ssh.public_openssh(),
        tls_public_key: keys.tls.public().to_pem(),
        ttl_seconds: None,
    }
}

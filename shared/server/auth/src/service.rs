//! The service: what it holds, who a caller is, what a caller may.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use server_audit::{AuditError, AuditLog, QueryEngine};
use server_store::{Clock, RecordingStore, SessionsUri, SqliteBackend};
use shared_api::{ApiError, ClusterState};
use shared_authz::{RoleSet, Verb, WhereCtx};
use shared_events::AuditEvent;
use shared_pki::verify::{CertRefusal, TlsVerifier};
use shared_pki::{CaKind, CertAuthority};
use shared_types::resource::{AuthPreferenceSpec, NetworkingSpec, RecordingSpec};
use shared_types::{ClusterName, HostId, Resource, ResourceKind};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::limiter::Limiter;
use crate::login::Turns;
use crate::password::Passwords;
use crate::presence::Presence;
use crate::seals::Reading;
use crate::sessions::{Awake, Sessions};
use crate::state::{self, Store};
use crate::tokens::StaticToken;

/// Requests without a certificate that one address may send at once, and then per minute.
const ANONYMOUS: (u32, u32) = (480, 120);

/// Listings that read the audit log at a time, and how long others wait for their turn.
pub(crate) const READERS: usize = 4;
const READER_WAIT: Duration = Duration::from_secs(20);
/// How long requests whose connection is gone may go on at the end.
const LAST: Duration = Duration::from_secs(5);

/// What the auth service needs to know of the configuration.
#[derive(Clone)]
pub struct AuthSettings {
    /// Where state, log and recordings are.
    pub data_dir: PathBuf,
    /// The name for a new cluster; for one that exists it must be its name.
    pub cluster_name: Option<ClusterName>,
    /// This host.
    pub host_id: HostId,
    /// This host's name.
    pub node_name: String,
    /// Further names and addresses of the auth service.
    pub names: Vec<String>,
    /// `host:port` under which others reach it, as far as that is known.
    pub address: Option<String>,
    /// Where finished recordings are kept; below the data directory when left out.
    pub recordings_at: Option<SessionsUri>,
    /// A session whose proxy has not been heard of for so long counts as ended.
    pub tracker_ttl: Duration,
    /// How long a recording that a proxy has on its disk is waited for, once a part of it came.
    pub upload_grace: Duration,
    /// Join tokens of the configuration file.
    pub static_tokens: Vec<StaticToken>,
    /// `session_recording` and `proxy_checks_host_keys`, where the file sets them.
    pub recording: Option<RecordingSpec>,
    /// `authentication`, where the file sets it.
    pub auth_preference: Option<AuthPreferenceSpec>,
    /// Time-outs, where the file sets them.
    pub networking: Option<NetworkingSpec>,
}

impl AuthSettings {
    /// Settings with nothing set.
    pub fn new(data_dir: PathBuf, host_id: HostId, node_name: impl Into<String>) -> Self {
        Self {
            data_dir,
            cluster_name: None,
            host_id,
            node_name: node_name.into(),
            names: Vec::new(),
            address: None,
            recordings_at: None,
            tracker_ttl: Duration::from_secs(30 * 60),
            upload_grace: Duration::from_secs(24 * 3600),
            static_tokens: Vec::new(),
            recording: None,
            auth_preference: None,
            networking: None,
        }
    }
}

/// The auth service of a cluster.
pub struct AuthService {
    pub(crate) settings: AuthSettings,
    pub(crate) cluster: ClusterName,
    pub(crate) backend: Arc<SqliteBackend>,
    pub(crate) store: Store,
    pub(crate) audit: AuditLog,
    pub(crate) recordings: Arc<dyn RecordingStore>,
    pub(crate) queries: QueryEngine,
    pub(crate) user_ca: CertAuthority,
    pub(crate) host_ca: CertAuthority,
    pub(crate) recording_ca: CertAuthority,
    pub(crate) openssh_ca: CertAuthority,
    pub(crate) db_ca: CertAuthority,
    pub(crate) db_client_ca: CertAuthority,
    pub(crate) reading: Reading,
    pub(crate) verifier: TlsVerifier,
    pub(crate) state: watch::Sender<Arc<ClusterState>>,
    /// One change of roles or configurations at a time, so that the published state is the stored one.
    pub(crate) changes: tokio::sync::Mutex<()>,
    pub(crate) passwords: Passwords,
    pub(crate) turns: Turns,
    pub(crate) limiter: Limiter,
    pub(crate) sessions: Sessions,
    pub(crate) uploading: crate::uploads::Uploading,
    pub(crate) presence: Presence,
    pub(crate) visits: crate::visits::Visits,
    pub(crate) unfinished: crate::unfinished::Unfinished,
    /// One host at a time asks for its names.
    pub(crate) joins: tokio::sync::Mutex<()>,
    /// Since when proxies could say that their sessions run.
    pub(crate) awake: Awake,
    /// Readers of the audit log for listings; a listing may read weeks of it.
    pub(crate) readers: tokio::sync::Semaphore,
    /// Requests that change something; they end even when their caller has gone.
    pub(crate) running: TaskTracker,
    pub(crate) clock: Clock,
    pub(crate) proxy: OnceLock<String>,
}

impl std::fmt::Debug for AuthService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthService").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

pub(crate) fn anonymous_limiter() -> Limiter {
    Limiter::new(ANONYMOUS.0, ANONYMOUS.1)
}

// What the other modules of the service use.
impl AuthService {
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    pub(crate) fn user_authority(&self) -> &CertAuthority {
        &self.user_ca
    }

    pub(crate) fn host_authority(&self) -> &CertAuthority {
        &self.host_ca
    }

    pub(crate) fn static_tokens(&self) -> &[StaticToken] {
        &self.settings.static_tokens
    }

    pub(crate) fn node_name(&self) -> &str {
        &self.settings.node_name
    }

    /// Makes events durable. What was decided is not told before this.
    pub(crate) async fn record(&self, events: Vec<AuditEvent>) -> Result<()> {
        self.note_sessions(&events).await?;
        self.audit.append(events).await.map_err(|error| match error {
            AuditError::Slow => AuthError::unavailable("the audit log is busy"),
            other => AuthError::internal("write audit log", other),
        })
    }

    /// The newest events of one type, read by few at a time.
    pub(crate) async fn newest(
        &self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        kinds: &[&str],
        most: usize,
    ) -> Result<Vec<AuditEvent>> {
        let busy = || AuthError::unavailable("the audit log is busy");
        let turn = tokio::time::timeout(READER_WAIT, self.readers.acquire()).await;
        let _turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
        self.audit.search(from, to, kinds, most).await.map_err(AuthError::at("read audit log"))
    }

    /// Reads the stored state again and tells everybody who waits for it.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let authorities = [&self.user_ca, &self.host_ca, &self.db_ca, &self.db_client_ca];
        let next = read_state(&self.store, &self.cluster, &authorities).await?;
        self.state.send_modify(|current| {
            let revision = next_revision(current.revision, self.now());
            *current = Arc::new(ClusterState { revision, ..next });
        });
        Ok(())
    }
}

/// Grows with every change, and also over restarts.
pub(crate) fn next_revision(last: u64, now: DateTime<Utc>) -> u64 {
    (last + 1).max(u64::try_from(now.timestamp_millis()).unwrap_or(0))
}

/// The published part of what is stored, without a revision.
pub(crate) async fn read_state(
    store: &Store,
    cluster: &ClusterName,
    authorities: &[&CertAuthority],
) -> Result<ClusterState> {
    let mut state = ClusterState {
        revision: 0,
        cluster: cluster.clone(),
        authorities: authorities.iter().map(|authority| authority.trusted()).collect(),
        roles: Default::default(),
        users: Default::default(),
        locks: Vec::new(),
        recording: Default::default(),
        networking: Default::default(),
        auth_preference: Default::default(),
        databases: Vec::new(),
    };
    for resource in store.resources(ResourceKind::Role).await? {
        if let Resource::Role(role) = resource
            && let Some(name) = role.role_name()
        {
            state.roles.insert(name, role);
        }
    }
    for resource in store.resources(ResourceKind::User).await? {
        if let Resource::User(user) = resource
            && let Some(name) = user.user_name()
        {
            state.users.insert(name, (&user).into());
        }
    }
    for resource in store.resources(ResourceKind::Db).await? {
        if let Resource::Db(database) = resource {
            state.databases.push(database);
        }
    }
    for resource in store.resources(ResourceKind::Lock).await? {
        if let Resource::Lock(lock) = resource {
            state.locks.push(lock);
        }
    }
    for kind in ResourceKind::ALL {
        let Some(name) = kind.singleton() else { continue };
        match store.resource(kind, name).await? {
            Some(Resource::SessionRecordingConfig(config)) => state.recording = config,
            Some(Resource::ClusterNetworkingConfig(config)) => state.networking = config,
            Some(Resource::ClusterAuthPreference(config)) => state.auth_preference = config,
            _ => {}
        }
    }
    Ok(state)
}

// Who asks, and what may they.
impl AuthService {
    /// The caller behind a certificate, as of now.
    pub(crate) async fn caller(&self, certificate: &[u8], address: SocketAddr) -> Result<Caller> {
        let now = self.now();
        let identity = self.verifier.peer(certificate, now).map_err(|refusal| {
            let text = match refusal {
                CertRefusal::Expired => "the certificate has expired",
                CertRefusal::NotYetValid => "the certificate is not yet valid",
                _ => "the certificate is not accepted",
            };
            AuthError::Answer(ApiError::unauthenticated(text).with_hint("tsh login"))
        })?;
        if identity
            .pinned_ip
            .is_some_and(|pinned| pinned.to_canonical() != address.ip().to_canonical())
        {
            return Err(AuthError::unauthenticated("the certificate is not accepted"));
        }
        self.check_caller_lock(&identity, address).await?;
        if identity.system_role.is_some() {
            return Ok(Caller::service(identity, address));
        }
        match self.store.resource(ResourceKind::User, identity.user.as_str()).await? {
            Some(Resource::User(account))
                if !account.is_locked(now)
                    && !account.is_expired(now)
                    && account.spec.expires.is_none_or(|end| end > now) =>
            {
                Ok(Caller::user(identity, address, account))
            }
            _ => {
                Err(AuthError::unauthenticated("the account is locked or does not exist any more"))
            }
        }
    }

    /// Takes a turn for a request without a certificate.
    pub(crate) fn anonymous_turn(&self, address: IpAddr, now: Instant) -> Result<()> {
        self.limiter.take(address, now).map_err(|wait| {
            let seconds = wait.as_secs() + 1;
            AuthError::unavailable(format!(
                "too many requests from this address, try again in {seconds} s"
            ))
        })
    }

    /// Whether each of the caller's roles still exists. What a role denied that is gone is not known any more, so
    /// nothing is allowed without it.
    pub(crate) fn roles_exist(&self, caller: &Caller) -> bool {
        let state = self.current_state();
        caller.roles().into_iter().all(|role| state.roles.contains_key(role))
    }

    /// Whether a rule allows it for some resource of a kind; the administrator may everything.
    pub(crate) fn may_some(&self, caller: &Caller, resource: &str, verb: Verb) -> bool {
        caller.is_admin()
            || (caller.is_user()
                && self.roles_exist(caller)
                && self.role_set(caller).may_some(resource, verb))
    }

    /// The caller's roles as they are now.
    pub(crate) fn role_set(&self, caller: &Caller) -> RoleSet {
        let state = self.current_state();
        let roles =
            caller.roles().into_iter().filter_map(|role| state.roles.get(role).cloned()).collect();
        RoleSet::new(roles, &caller.traits(), caller.user_name())
    }

    /// Whether a rule allows it; the administrator may everything.
    pub(crate) fn allowed(
        &self,
        caller: &Caller,
        resource: &str,
        verb: Verb,
        about: &WhereCtx<'_>,
    ) -> bool {
        caller.is_admin()
            || (caller.is_user()
                && self.roles_exist(caller)
                && self.role_set(caller).check_rule(resource, verb, about).is_allowed())
    }

    /// Refuses unless a rule allows it, whatever the single resource.
    pub(crate) fn check(&self, caller: &Caller, resource: &str, verb: Verb) -> Result<()> {
        self.check_about(caller, resource, verb, &WhereCtx::none())
    }

    /// Refuses unless a rule allows it for this resource.
    pub(crate) fn check_about(
        &self,
        caller: &Caller,
        resource: &str,
        verb: Verb,
        about: &WhereCtx<'_>,
    ) -> Result<()> {
        if self.allowed(caller, resource, verb, about) {
            return Ok(());
        }
        tracing::info!(user = caller.name(), resource, %verb, "denied");
        Err(AuthError::denied(format!(
            "access denied to perform action \"{verb}\" on \"{resource}\""
        )))
    }
}

impl AuthService {
    /// The cluster.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// This host.
    pub fn host_id(&self) -> HostId {
        self.settings.host_id
    }

    /// The published state.
    pub fn current_state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.state.borrow())
    }

    /// The address of a proxy in the same process, for the links that users get.
    pub fn set_proxy_address(&self, address: String) {
        // Said once, after the listener is open.
        let _ = self.proxy.set(address);
        let mut proxies = self.presence.view().proxies.clone();
        proxies.extend(self.own_proxy());
        self.presence.set_proxies(proxies, self.now());
    }

    /// Writes what is in hand and closes the files.
    pub async fn close(&self) {
        self.running.close();
        if tokio::time::timeout(LAST, self.running.wait()).await.is_err() {
            tracing::warn!(requests = self.running.len(), "requests did not end in time");
        }
        self.keep_visits().await;
        self.audit.close().await;
        self.backend.close().await;
    }

    /// Where an authority is kept.
    pub(crate) fn authority_key(kind: CaKind) -> Result<server_store::Key> {
        state::folder(["authorities", kind.as_str()])
    }
}

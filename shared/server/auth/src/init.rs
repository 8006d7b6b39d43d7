//! Opening the service: the first start makes the cluster, every start applies the configuration file.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use server_audit::{AuditError, AuditLog, LogOptions, QueryEngine};
use server_store::{
    Backend, BackendError, Clock, Condition, RecordingError, SqliteBackend, StoreEnv,
    open_recordings, system_clock,
};
use shared_pki::verify::TlsVerifier;
use shared_pki::{CaKind, CertAuthority, PkiError};
use shared_types::{
    ClusterAuthPreference, ClusterName, ClusterNetworkingConfig, Metadata, Resource, ResourceKind,
    Role, SessionRecordingConfig,
};
use tokio::sync::watch;

use crate::error::{AuthError, Result};
use crate::password::{PasswordError, Passwords};
use crate::presence::{self, Presence, Served};
use crate::service::{
    AuthService, AuthSettings, READERS, anonymous_limiter, next_revision, read_state,
};
use crate::sessions::Awake;
use crate::state::{self, Store};
use crate::unfinished;

/// Who set a configuration.
pub(crate) const ORIGIN: &str = "teleport.dev/origin";
/// It stands in the configuration file.
pub(crate) const CONFIG_FILE: &str = "config-file";
/// Nobody set it.
pub(crate) const DEFAULTS: &str = "defaults";
/// An administrator set it.
pub(crate) const DYNAMIC: &str = "dynamic";

/// Why the auth service does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state cannot be opened.
    #[error("open cluster state")]
    Backend(#[source] BackendError),
    /// The state cannot be read or written.
    #[error("prepare cluster state")]
    State(#[source] AuthError),
    /// An authority cannot be made.
    #[error("make {kind} CA")]
    Authority {
        /// Which.
        kind: CaKind,
        /// Why.
        #[source]
        source: PkiError,
    },
    /// The configuration names another cluster than the data directory.
    #[error("auth_service.cluster_name is {asked:?}, but {} belongs to cluster {found:?}: the name is fixed at the first start", path.display())]
    ClusterName {
        /// In the configuration.
        asked: ClusterName,
        /// In the store.
        found: ClusterName,
        /// The data directory.
        path: PathBuf,
    },
    /// A new cluster has no usable name.
    #[error("{0:?} cannot be the name of a cluster: set auth_service.cluster_name")]
    NoClusterName(String),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The store of recordings cannot be opened.
    #[error(transparent)]
    Recordings(#[from] RecordingError),
    /// Hashing does not work.
    #[error(transparent)]
    Passwords(#[from] PasswordError),
}

impl AuthService {
    /// Opens the state below the data directory, which the caller has locked.
    pub async fn open(settings: AuthSettings) -> Result<Arc<Self>, OpenError> {
        Self::open_with_clock(settings, system_clock()).await
    }

    pub(crate) async fn open_with_clock(
        settings: AuthSettings,
        clock: Clock,
    ) -> Result<Arc<Self>, OpenError> {
        let path = settings.data_dir.join("backend/sqlite.db");
        let backend = SqliteBackend::open_with_clock(path, clock.clone())
            .await
            .map_err(OpenError::Backend)?;
        let backend = Arc::new(backend);
        let shared: Arc<dyn Backend> = backend.clone();
        let store = Store::new(shared);
        let now = clock();

        let cluster = cluster_name(&store, &settings).await?;
        let user_ca = authority(&store, CaKind::User, &cluster, now).await?;
        let host_ca = authority(&store, CaKind::Host, &cluster, now).await?;
        let recording_ca = authority(&store, CaKind::Recording, &cluster, now).await?;
        let openssh_ca = authority(&store, CaKind::Openssh, &cluster, now).await?;
        let db_ca = authority(&store, CaKind::Db, &cluster, now).await?;
        let db_client_ca = authority(&store, CaKind::DbClient, &cluster, now).await?;
        apply(&store, &settings).await.map_err(OpenError::State)?;

        let log = settings.data_dir.join("log").join(settings.host_id.to_string());
        let options = LogOptions { clock: clock.clone(), ..LogOptions::default() };
        let audit = AuditLog::open_with(log, &cluster, options).await?;
        for damage in audit.damage() {
            tracing::warn!(?damage, "audit log");
        }
        let place = settings.recordings_at.as_ref();
        let recordings = open_recordings(place, &settings.data_dir, &StoreEnv::process())?;
        let queries = QueryEngine::beside_current_program(audit.dir());

        let mut first = read_state(&store, &cluster, &[&user_ca, &host_ca, &db_ca, &db_client_ca])
            .await
            .map_err(OpenError::State)?;
        first.revision = next_revision(0, now);
        let verifier = TlsVerifier::new(&first.authorities);
        let (state, _) = watch::channel(Arc::new(first));
        let passwords = tokio::task::spawn_blocking(Passwords::new)
            .await
            .map_err(|error| PasswordError::Hash(error.to_string()))??;
        let nodes = store.resources(ResourceKind::Node).await.map_err(OpenError::State)?;
        let unfinished = unfinished::stored(&store, now).await.map_err(OpenError::State)?;
        let served = served(&store).await.map_err(OpenError::State)?;
        let service = Arc::new(Self {
            settings,
            cluster,
            backend,
            store,
            audit,
            recordings,
            queries,
            user_ca,
            host_ca,
            recording_ca,
            openssh_ca,
            db_ca,
            db_client_ca,
            reading: Default::default(),
            verifier,
            state,
            changes: tokio::sync::Mutex::default(),
            passwords,
            turns: Default::default(),
            limiter: anonymous_limiter(),
            sessions: Default::default(),
            uploading: Default::default(),
            presence: Presence::new(nodes, served, now),
            visits: Default::default(),
            unfinished,
            joins: tokio::sync::Mutex::default(),
            awake: Awake::new(now),
            readers: tokio::sync::Semaphore::new(READERS),
            running: Default::default(),
            clock,
            proxy: OnceLock::new(),
        });
        service.refresh_proxies().await.map_err(OpenError::State)?;
        presence::keep_swept(Arc::downgrade(&service));
        Ok(service)
    }
}

/// What hosts were serving.
async fn served(store: &Store) -> Result<Vec<Served>> {
    let folder = state::folder(["presence", "db"])?;
    Ok(store.list::<Served>(&folder).await?.into_iter().map(|stored| stored.value).collect())
}

async fn cluster_name(store: &Store, settings: &AuthSettings) -> Result<ClusterName, OpenError> {
    let key = state::folder(["cluster", "name"]).map_err(OpenError::State)?;
    let found = store.read::<ClusterName>(&key).await.map_err(OpenError::State)?;
    if let Some(found) = found {
        let found = found.value;
        return match &settings.cluster_name {
            Some(asked) if *asked != found => Err(OpenError::ClusterName {
                asked: asked.clone(),
                found,
                path: settings.data_dir.clone(),
            }),
            _ => Ok(found),
        };
    }
    let name = match &settings.cluster_name {
        Some(name) => name.clone(),
        None => ClusterName::new(settings.node_name.to_ascii_lowercase())
            .map_err(|_| OpenError::NoClusterName(settings.node_name.clone()))?,
    };
    let put = state::put(key, &name, None, Condition::Absent).map_err(OpenError::State)?;
    store.write(vec![put]).await.map_err(OpenError::Backend)?;
    tracing::info!(cluster = %name, "new cluster");
    Ok(name)
}

async fn authority(
    store: &Store,
    kind: CaKind,
    cluster: &ClusterName,
    now: DateTime<Utc>,
) -> Result<CertAuthority, OpenError> {
    let key = AuthService::authority_key(kind).map_err(OpenError::State)?;
    if let Some(found) = store.read::<CertAuthority>(&key).await.map_err(OpenError::State)? {
        return Ok(found.value);
    }
    let made = CertAuthority::generate(kind, cluster, now)
        .map_err(|source| OpenError::Authority { kind, source })?;
    let put = state::put(key, &made, None, Condition::Absent).map_err(OpenError::State)?;
    store.write(vec![put]).await.map_err(OpenError::Backend)?;
    tracing::info!(%kind, "new certificate authority");
    Ok(made)
}

/// Presets where they are missing, and the configurations: what the file says wins, what an administrator
/// set stays, and what the file said once and says no more goes back to its default.
async fn apply(store: &Store, settings: &AuthSettings) -> Result<()> {
    let mut ops = Vec::new();
    for role in Role::presets() {
        if store.resource(ResourceKind::Role, role.name()).await?.is_none() {
            ops.push(state::put_resource(&role.into(), Condition::Absent)?);
        }
    }
    let in_file = [
        settings
            .recording
            .clone()
            .map(|spec| Resource::from(SessionRecordingConfig { spec, ..Default::default() })),
        settings
            .auth_preference
            .clone()
            .map(|spec| Resource::from(ClusterAuthPreference { spec, ..Default::default() })),
        settings
            .networking
            .clone()
            .map(|spec| Resource::from(ClusterNetworkingConfig { spec, ..Default::default() })),
    ];
    let defaults = [
        Resource::from(SessionRecordingConfig::default()),
        Resource::from(ClusterAuthPreference::default()),
        Resource::from(ClusterNetworkingConfig::default()),
    ];
    for (in_file, default) in in_file.into_iter().zip(defaults) {
        let stored = store.resource(default.kind(), default.name()).await?;
        let wanted = match (in_file, &stored) {
            (Some(mut resource), _) => {
                set_origin(resource.metadata_mut(), CONFIG_FILE);
                resource
            }
            (None, Some(stored)) if origin(stored.metadata()) != CONFIG_FILE => continue,
            (None, _) => default_resource(default),
        };
        ops.push(state::put_resource(&wanted, Condition::Any)?);
    }
    if !ops.is_empty() {
        store.write(ops).await.map_err(AuthError::at("store presets"))?;
    }
    Ok(())
}

/// A configuration nobody set.
pub(crate) fn default_resource(mut resource: Resource) -> Resource {
    set_origin(resource.metadata_mut(), DEFAULTS);
    resource
}

/// The defaults of a kind of which there is one.
pub(crate) fn default_of(kind: ResourceKind) -> Option<Resource> {
    let resource: Resource = match kind {
        ResourceKind::SessionRecordingConfig => SessionRecordingConfig::default().into(),
        ResourceKind::ClusterAuthPreference => ClusterAuthPreference::default().into(),
        ResourceKind::ClusterNetworkingConfig => ClusterNetworkingConfig::default().into(),
        ResourceKind::Role
        | ResourceKind::User
        | ResourceKind::Token
        | ResourceKind::Lock
        | ResourceKind::Proxy
        | ResourceKind::Node
        | ResourceKind::Db
        | ResourceKind::DbServer => return None,
    };
    Some(default_resource(resource))
}

pub(crate) fn set_origin(metadata: &mut Metadata, origin: &str) {
    metadata.labels.insert(ORIGIN.to_owned(), origin.to_owned());
}

pub(crate) fn origin(metadata: &Metadata) -> &str {
    metadata.labels.get(ORIGIN).map_or(DYNAMIC, String::as_str)
}

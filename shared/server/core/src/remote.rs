//! The auth service across the network: [`Authority`] over the API, with the cluster's state in hand.
//!
//! The state is kept current by a request the auth service holds until something changed. While it is away, the last
//! state stands: sessions go on and new ones are decided by it. It is also kept on disk, for a start while it is away.
//! A proxy follows the cluster's nodes too. An auth service that answers that this host is locked ends everything that goes through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use shared_api::{
    Client, ClientError, ClusterState, CompleteUpload, DatabaseCertReply, DatabaseCertRequest,
    DbPresence, ErrorKind, NodeView, OpensshUserRequest, ProxyHostCertRequest, RecorderCertRequest,
    RenewSessions, pack_event,
};
use shared_events::AuditEvent;
use shared_types::resource::{Lock, LockSpec, LockSubject, LockTarget};
use shared_types::{DatabaseServer, HostId, Node, SessionId, SystemRole};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::authority::{Authority, AuthorityError, EmitError};
use crate::backoff::Backoff;
use crate::batches::Batches;
use crate::follow_nodes::NodeFollower;
use crate::kept::{KeptState, REFRESH};

/// An auth service in another process.
pub struct RemoteAuthority {
    client: Client,
    state: watch::Receiver<Arc<ClusterState>>,
    nodes: watch::Receiver<Arc<NodeView>>,
    /// What an agent is told of the cluster's proxies; a proxy follows the whole view.
    told: Option<watch::Sender<Arc<NodeView>>>,
    confirmed: Arc<Confirmed>,
    stop: CancellationToken,
}

/// When the auth service last vouched for the state, in milliseconds.
#[derive(Debug)]
struct Confirmed(AtomicI64);

impl Confirmed {
    fn new(at: DateTime<Utc>) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(at.timestamp_millis())))
    }

    fn now(&self) {
        self.0.store(Utc::now().timestamp_millis(), Ordering::Relaxed);
    }
}

impl RemoteAuthority {
    /// Fetches the state once, and then keeps it current until `shutdown`, or until this is dropped. While the auth
    /// service is away, starts from the state in `kept`, where there is one that is young enough. `host` is this host,
    /// and `role` what its certificate says it is; a proxy follows the nodes too.
    pub async fn connect(
        client: Client,
        host: HostId,
        role: SystemRole,
        kept: KeptState,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Self>, ClientError> {
        let (first, at) = match client.cluster_state(None).await {
            Ok(first) => {
                let first = Arc::new(first);
                keep(&kept, &first).await;
                (first, Utc::now())
            }
            Err(error) if error.is_transient() => match load(&kept).await {
                Some((state, at)) => (Arc::new(state), at),
                None => return Err(error),
            },
            Err(error) => return Err(error),
        };
        let confirmed = Confirmed::new(at);
        let (state, states) = watch::channel(first);
        let stop = shutdown.child_token();
        let (nodes, told) = if role == SystemRole::Proxy {
            let (follower, nodes) = NodeFollower::start(client.clone(), kept.clone()).await;
            let ended = stop.clone();
            tokio::spawn(async move {
                let _ = ended.run_until_cancelled(follower.run()).await;
            });
            (nodes, None)
        } else {
            let told = watch::Sender::default();
            (told.subscribe(), Some(told))
        };
        let (ended, client_of) = (stop.clone(), client.clone());
        let follower =
            Follower { client: client_of, host, kept, state, confirmed: Arc::clone(&confirmed) };
        tokio::spawn(async move {
            let _ = ended.run_until_cancelled(follower.run()).await;
        });
        Ok(Arc::new(Self { client, state: states, nodes, told, confirmed, stop }))
    }

    /// The client below, for what only a service itself asks for.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for RemoteAuthority {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The state to start from while the auth service is away. Says in the log what becomes of it.
async fn load(kept: &KeptState) -> Option<(ClusterState, DateTime<Utc>)> {
    let kept = kept.clone();
    let loaded = tokio::task::spawn_blocking(move || kept.load(Utc::now())).await.ok()?;
    match loaded {
        Ok((state, at)) => {
            tracing::warn!(
                of = %at,
                used_for_hours = crate::kept::MAX_AGE.as_secs() / 3600,
                "auth service is away, starting from the cluster state that was kept; locks and changes since are not known"
            );
            Some((state, at))
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "auth service is away, and there is no state to start from"
            );
            None
        }
    }
}

/// Keeps a state that the auth service has vouched for just now.
async fn keep(kept: &KeptState, state: &Arc<ClusterState>) {
    let (kept, state) = (kept.clone(), Arc::clone(state));
    let saved = tokio::task::spawn_blocking(move || kept.save(&state, Utc::now())).await;
    if let Ok(Err(error)) = saved {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the cluster state is not kept; without it this service cannot start while auth is away"
        );
    }
}

/// Keeps the state current.
struct Follower {
    client: Client,
    host: HostId,
    kept: KeptState,
    state: watch::Sender<Arc<ClusterState>>,
    confirmed: Arc<Confirmed>,
}

impl Follower {
    async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
        let mut away = false;
        let mut saved = Instant::now();
        loop {
            let after = self.state.borrow().revision;
            match self.client.cluster_state(Some(after)).await {
                Ok(next) => {
                    if std::mem::take(&mut away) {
                        tracing::info!("auth service is back");
                    }
                    backoff.reset();
                    let current = Arc::clone(&self.state.borrow());
                    if next.cluster != current.cluster {
                        tracing::error!(cluster = %next.cluster, "auth service answers for another cluster, its state is ignored");
                        tokio::time::sleep(backoff.next()).await;
                        continue;
                    }
                    self.confirmed.now();
                    let changed = next.revision != after;
                    if changed {
                        self.state.send_replace(Arc::new(next));
                    }
                    if changed || saved.elapsed() >= REFRESH {
                        saved = Instant::now();
                        let current = Arc::clone(&self.state.borrow());
                        keep(&self.kept, &current).await;
                    }
                    if !changed {
                        // Held and answered without news; a service that does not hold must not be asked in a loop.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                Err(err) => {
                    let wait = backoff.next();
                    if err.kind() == ErrorKind::Locked {
                        self.shut_out(&err);
                    } else if !std::mem::replace(&mut away, true) {
                        tracing::warn!(
                            error = &err as &dyn std::error::Error,
                            "auth service is away, the last known state stands"
                        );
                    }
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// The auth service takes nothing from this host any more, so nothing may go through it. It may have said so in an
    /// answer that did not arrive; then the lock is made here.
    fn shut_out(&self, err: &ClientError) {
        let subject = LockSubject { server: Some(self.host), ..LockSubject::default() };
        self.state.send_if_modified(|state| {
            if state.lock_on(&subject, Utc::now()).is_some() {
                return false;
            }
            tracing::error!(
                error = err as &dyn std::error::Error,
                "the auth service has locked this host, no session goes on"
            );
            let target = LockTarget { server_id: Some(self.host), ..LockTarget::default() };
            let lock = Lock::new("this-host", LockSpec { target, ..LockSpec::default() });
            let mut next = ClusterState::clone(state);
            next.locks.push(lock);
            // Whatever the auth service says next is news.
            next.revision = 0;
            *state = Arc::new(next);
            true
        });
    }
}

/// An answer is an answer; everything else is the service being away.
fn authority_error(err: ClientError) -> AuthorityError {
    match err {
        ClientError::Api(err) => err.into(),
        other if other.is_transient() => AuthorityError::Unavailable(other.to_string()),
        other => {
            AuthorityError::Refused(shared_api::ApiError::new(other.kind(), other.to_string()))
        }
    }
}

/// A batch is refused only when the service says that it is wrong. A proxy whose certificate ended or whose role is
/// missing keeps its events.
fn emit_error(err: ClientError) -> EmitError {
    match err {
        ClientError::Api(err) if err.kind == ErrorKind::BadRequest => {
            EmitError::Refused(err.message)
        }
        other => EmitError::Unavailable(other.to_string()),
    }
}

#[async_trait]
impl Authority for RemoteAuthority {
    fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.state.borrow())
    }

    fn watch(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.clone()
    }

    fn confirmed(&self) -> DateTime<Utc> {
        let millis = self.confirmed.0.load(Ordering::Relaxed);
        DateTime::from_timestamp_millis(millis).unwrap_or_default()
    }

    async fn sign_proxy_host(
        &self,
        principals: Vec<String>,
        public_key: &str,
    ) -> Result<String, AuthorityError> {
        let request = ProxyHostCertRequest { principals, public_key: public_key.to_owned() };
        Ok(self.client.sign_proxy_host(&request).await.map_err(authority_error)?.certificate)
    }

    async fn sign_openssh_user(
        &self,
        request: OpensshUserRequest,
    ) -> Result<String, AuthorityError> {
        Ok(self.client.sign_openssh_user(&request).await.map_err(authority_error)?.certificate)
    }

    async fn sign_database_client(
        &self,
        request: DatabaseCertRequest,
    ) -> Result<DatabaseCertReply, AuthorityError> {
        self.client.sign_database_client(&request).await.map_err(authority_error)
    }

    async fn certify_recorder(&self, public_key: &str) -> Result<String, AuthorityError> {
        let request = RecorderCertRequest { public_key: public_key.to_owned() };
        Ok(self.client.sign_recorder(&request).await.map_err(authority_error)?.certificate)
    }

    async fn emit(&self, events: Vec<AuditEvent>) -> Result<(), EmitError> {
        let mut batches = Batches::default();
        for event in events {
            let packed = pack_event(&event).len();
            batches.add(event, packed);
        }
        for batch in batches.into_batches() {
            self.client.emit(&batch).await.map_err(emit_error)?;
        }
        Ok(())
    }

    async fn upload_part(
        &self,
        upload: Uuid,
        session: &SessionId,
        part: u64,
        bytes: Bytes,
    ) -> Result<(), AuthorityError> {
        self.client.upload_part(upload, session, part, bytes).await.map_err(authority_error)
    }

    async fn complete_upload(
        &self,
        upload: Uuid,
        session: &SessionId,
        complete: CompleteUpload,
    ) -> Result<(), AuthorityError> {
        self.client.complete_upload(upload, session, &complete).await.map_err(authority_error)
    }

    async fn renew_sessions(&self, sessions: Vec<SessionId>) -> Result<Duration, AuthorityError> {
        let reply = self.client.renew_sessions(&RenewSessions { sessions }).await;
        Ok(Duration::from_millis(reply.map_err(authority_error)?.within_ms))
    }

    fn nodes(&self) -> Arc<NodeView> {
        Arc::clone(&self.nodes.borrow())
    }

    fn watch_nodes(&self) -> watch::Receiver<Arc<NodeView>> {
        self.nodes.clone()
    }

    async fn heartbeat(&self, node: Node) -> Result<Duration, AuthorityError> {
        let reply = self.client.heartbeat(&node).await.map_err(authority_error)?;
        Ok(Duration::from_secs(reply.again_seconds))
    }

    async fn withdraw(&self) -> Result<(), AuthorityError> {
        self.client.withdraw().await.map_err(authority_error)
    }

    async fn heartbeat_db(&self, servers: Vec<DatabaseServer>) -> Result<Duration, AuthorityError> {
        let served = DbPresence { servers };
        let reply = self.client.heartbeat_db(&served).await.map_err(authority_error)?;
        if let Some(told) = &self.told {
            told.send_if_modified(|view| {
                let changed = view.proxies != reply.proxies;
                if changed {
                    *view = Arc::new(NodeView { proxies: reply.proxies, ..NodeView::default() });
                }
                changed
            });
        }
        Ok(Duration::from_secs(reply.again_seconds))
    }

    async fn withdraw_db(&self) -> Result<(), AuthorityError> {
        self.client.withdraw_db().await.map_err(authority_error)
    }

    async fn export(&self, kind: Option<&str>) -> Result<String, AuthorityError> {
        self.client.export_authority(kind).await.map_err(authority_error)
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;

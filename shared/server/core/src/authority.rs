//! What a service asks of the auth service, be it in the same process or across the network.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use shared_api::{
    ApiError, ClusterState, CompleteUpload, DatabaseCertReply, DatabaseCertRequest, ErrorKind,
    NodeView, OpensshUserRequest,
};
use shared_events::AuditEvent;
use shared_types::{DatabaseServer, Node, SessionId};
use tokio::sync::watch;
use uuid::Uuid;

/// Why events did not become durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EmitError {
    /// The auth service is away; the same events may be sent again.
    #[error("auth service is unavailable: {0}")]
    Unavailable(String),
    /// The auth service does not take these events, now or later.
    #[error("auth service refused the events: {0}")]
    Refused(String),
    /// The spool's disk budget is used up.
    #[error("event spool is full ({limit} bytes)")]
    Full {
        /// The budget.
        limit: u64,
    },
    /// The spool's disk does not take more.
    #[error("write event spool: {0}")]
    Disk(String),
    /// The service is stopping.
    #[error("event spool is closed")]
    Closed,
}

/// Takes events and answers when they are durable.
#[async_trait]
pub trait EventSink: Send + Sync {
    /// On `Ok` every event survives a crash. Events get their type, time and id here where they have none.
    async fn emit(&self, events: Vec<AuditEvent>) -> Result<(), EmitError>;
}

/// Why the auth service did not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthorityError {
    /// It is away, or did not answer in time; ask again.
    #[error("auth service is unavailable: {0}")]
    Unavailable(String),
    /// It answered no.
    #[error("{0}")]
    Refused(ApiError),
}

impl AuthorityError {
    /// Whether asking again can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Refused(err) => err.kind.is_transient(),
        }
    }

    /// The kind of the answer.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Refused(err) => err.kind,
        }
    }
}

impl From<ApiError> for AuthorityError {
    fn from(err: ApiError) -> Self {
        match err.kind {
            ErrorKind::Unavailable => Self::Unavailable(err.message),
            _ => Self::Refused(err),
        }
    }
}

impl From<AuthorityError> for EmitError {
    fn from(err: AuthorityError) -> Self {
        if err.is_transient() {
            Self::Unavailable(err.to_string())
        } else {
            Self::Refused(err.to_string())
        }
    }
}

/// The auth service as other services see it.
#[async_trait]
pub trait Authority: Send + Sync + 'static {
    /// The state in hand; never waits.
    fn state(&self) -> Arc<ClusterState>;

    /// Tells of every newer state.
    fn watch(&self) -> watch::Receiver<Arc<ClusterState>>;

    /// When the auth service last vouched for the state in hand; now, where it is in the same process.
    fn confirmed(&self) -> DateTime<Utc> {
        Utc::now()
    }

    /// A short-lived host certificate of role Proxy for an inner server. Takes and gives OpenSSH text.
    async fn sign_proxy_host(
        &self,
        principals: Vec<String>,
        public_key: &str,
    ) -> Result<String, AuthorityError>;

    /// A certificate of a minute for one login on one node without an agent; only where the auth service finds that the
    /// user may log in there now. Gives OpenSSH text.
    async fn sign_openssh_user(
        &self,
        request: OpensshUserRequest,
    ) -> Result<String, AuthorityError>;

    /// A certificate by which this agent meets a database as one of its users; only where the auth service finds that
    /// the user whose certificate is shown may that now. Gives PEM.
    async fn sign_database_client(
        &self,
        request: DatabaseCertRequest,
    ) -> Result<DatabaseCertReply, AuthorityError>;

    /// A short-lived certificate for the key this service signs recordings with. Takes and gives OpenSSH text.
    async fn certify_recorder(&self, public_key: &str) -> Result<String, AuthorityError>;

    /// Makes events durable at the auth service. Repeats of a `uid` count once, so that sending again is safe.
    async fn emit(&self, events: Vec<AuditEvent>) -> Result<(), EmitError>;

    /// Stores one part of a recording (1, 2, …). The same part may be sent again.
    async fn upload_part(
        &self,
        upload: Uuid,
        session: &SessionId,
        part: u64,
        bytes: Bytes,
    ) -> Result<(), AuthorityError>;

    /// Makes the recording out of its parts; durable when answered. Repeats of a finished upload succeed.
    async fn complete_upload(
        &self,
        upload: Uuid,
        session: &SessionId,
        complete: CompleteUpload,
    ) -> Result<(), AuthorityError>;

    /// Says that these sessions run here, or that their recordings wait here. Answers within what time to say so again.
    async fn renew_sessions(&self, sessions: Vec<SessionId>) -> Result<Duration, AuthorityError>;

    /// The cluster's nodes as far as they are known here; never waits. Empty where they are not followed: only proxies
    /// need them. An agent for databases is told of the proxies alone.
    fn nodes(&self) -> Arc<NodeView>;

    /// Tells of every newer view of the nodes.
    fn watch_nodes(&self) -> watch::Receiver<Arc<NodeView>>;

    /// Says that this host's node is there, and how it is. Answers when to say so again.
    async fn heartbeat(&self, node: Node) -> Result<Duration, AuthorityError>;

    /// Says that this host's node goes.
    async fn withdraw(&self) -> Result<(), AuthorityError>;

    /// Says what databases this host serves, all of them. Answers when to say so again.
    async fn heartbeat_db(&self, servers: Vec<DatabaseServer>) -> Result<Duration, AuthorityError>;

    /// Says that this host serves no database any more.
    async fn withdraw_db(&self) -> Result<(), AuthorityError>;

    /// The text of `/webapi/auth/export?type=`; host and user where `None`.
    async fn export(&self, kind: Option<&str>) -> Result<String, AuthorityError>;
}

#[async_trait]
impl<A: Authority + ?Sized> EventSink for Arc<A> {
    async fn emit(&self, mut events: Vec<AuditEvent>) -> Result<(), EmitError> {
        let cluster = self.state().cluster.to_string();
        prepare(&mut events, &cluster);
        Authority::emit(self.as_ref(), events).await
    }
}

/// Fills what every event carries, and nothing that is there.
pub(crate) fn prepare(events: &mut [AuditEvent], cluster: &str) {
    let now = chrono::Utc::now();
    for event in events {
        event.prepare(now, cluster);
    }
}

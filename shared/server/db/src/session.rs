//! One client of one database: who it is, what it may do, where that is written down, and when it ends.
//!
//! What must stay true: the user's certificate was verified here before there is a [`Session`]; nothing is dialled
//! before [`Session::authorize`] has made `db.session.start` durable; a session that began has a `db.session.end`,
//! however it ends.

mod begin;
mod end;
mod events;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use server_core::access::{DbAccess, DbRequest, authorize_db, check_db};
use server_core::recorder::{Recorder, Window};
use server_core::ssh::running::Running;
use server_core::ssh::watch;
use server_core::{AccessRefused, ClusterState, Granted};
use shared_events::AuditEvent;
use shared_pki::{DatabaseRoute, Identity};
use shared_types::{Database, RecordingMode, SessionId};
use tokio_util::sync::CancellationToken;

use crate::audit::{Audit, AuditError, Parts};
use crate::connect::{ConnectError, Dialled};
use crate::relay::Watched;
use crate::service::DbService;
use begin::Beginning;

/// Why a session has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndKind {
    /// A lock, or an account, role or database that is not what it was.
    Revoked,
    /// The certificate has run out.
    Expired,
    /// Nothing was sent or received for too long.
    Idle,
    /// This service ends.
    Shutdown,
    /// It cannot be recorded any more, and must be.
    Recording,
}

/// Why a session has to end, with words for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndReason {
    /// Why.
    pub(crate) kind: EndKind,
    /// The same as the client may read it.
    pub(crate) text: String,
}

/// Who came, by what, to what.
pub(crate) struct Visitor {
    /// The user, out of the certificate, verified.
    pub(crate) identity: Identity,
    /// Where the certificate leads.
    pub(crate) route: DatabaseRoute,
    /// The certificate itself, DER.
    pub(crate) certificate: Bytes,
    /// The client's address.
    pub(crate) client: SocketAddr,
    /// The greeting a proxy has shown already (MySQL).
    pub(crate) greeted: Option<Bytes>,
    /// The database of that name.
    pub(crate) database: Arc<Database>,
}

/// A session that began.
struct Begun {
    at: DateTime<Utc>,
    user: String,
    name: String,
    mode: RecordingMode,
    recorder: Option<Arc<Recorder>>,
    window: Option<Arc<Window>>,
    parts: Arc<Parts>,
}

/// One client of one database.
pub(crate) struct Session {
    service: Arc<DbService>,
    visitor: Visitor,
    id: SessionId,
    audit: Audit,
    traffic: AtomicU64,
    begun: Mutex<Option<Begun>>,
    stop: CancellationToken,
    /// Listed among those that run, as long as it does.
    listed: Option<Running>,
}

impl Session {
    pub(crate) fn new(service: Arc<DbService>, visitor: Visitor, stop: CancellationToken) -> Self {
        Self {
            service,
            visitor,
            id: SessionId::random(),
            audit: Audit::default(),
            traffic: AtomicU64::new(0),
            begun: Mutex::default(),
            stop,
            listed: None,
        }
    }

    /// The user, out of a verified certificate.
    pub(crate) fn identity(&self) -> &Identity {
        &self.visitor.identity
    }

    /// Where the certificate leads.
    pub(crate) fn route(&self) -> &DatabaseRoute {
        &self.visitor.route
    }

    /// The database.
    pub(crate) fn database(&self) -> &Database {
        &self.visitor.database
    }

    pub(crate) fn shared_database(&self) -> &Arc<Database> {
        &self.visitor.database
    }

    /// The user's certificate, DER.
    pub(crate) fn certificate(&self) -> &Bytes {
        &self.visitor.certificate
    }

    /// The client's address.
    pub(crate) fn client(&self) -> SocketAddr {
        self.visitor.client
    }

    /// The MySQL greeting that a proxy has shown to the client, packet header and all; the client's answer to it is
    /// what the stream begins with. None where the engine greets.
    pub(crate) fn greeted(&self) -> Option<&Bytes> {
        self.visitor.greeted.as_ref()
    }

    /// The session's id.
    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// Where it is written down; of use once the session was authorized.
    pub(crate) fn audit(&self) -> Audit {
        self.audit.clone()
    }

    pub(crate) fn service(&self) -> &Arc<DbService> {
        &self.service
    }

    /// Counts bytes that came from either side: what the idle timeout goes by. [`relay`](crate::relay::relay) does so.
    pub(crate) fn moved(&self, bytes: usize) {
        self.traffic.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes so far.
    pub(crate) fn traffic(&self) -> u64 {
        self.traffic.load(Ordering::Relaxed)
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, Option<Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request<'a>(
        &'a self,
        database: &'a Database,
        user: &'a str,
        name: &'a str,
    ) -> DbRequest<'a> {
        DbRequest {
            identity: self.identity(),
            database,
            user,
            name,
            client: self.client().ip(),
            via: self.service.via(),
        }
    }

    /// Decides whether the user may come in as `user` to the database `name` (empty where the protocol knows none),
    /// writes `db.session.start` durably either way, and opens the recording. Once in a session; `user_agent` is what
    /// the client calls itself.
    pub(crate) async fn authorize(
        &mut self,
        user: &str,
        name: &str,
        user_agent: &str,
    ) -> Result<Granted<DbAccess>, AccessRefused> {
        let state = self.service.authority.state();
        let parts = Arc::new(self.parts(user, name));
        let beginning = Beginning::new(self, Arc::clone(&parts));
        let allowed = self.started(&parts, user_agent, None);
        let refused = |why: &str| self.started(&parts, user_agent, Some(why));
        let asked = self.request(self.database(), user, name);
        let granted = authorize_db(&state, &beginning, asked, allowed, refused).await;
        let opened = beginning.opened();
        match granted {
            Ok(granted) => {
                let begun = opened.into_begun(user, name, parts);
                self.audit.begin(
                    Arc::clone(&begun.parts),
                    begun.recorder.clone(),
                    Arc::clone(&self.service.queue),
                    self.is_strict(),
                    self.service.settings.recording_wait,
                );
                *self.begun() = Some(begun);
                self.listed = Some(self.service.sessions.begin(self.id));
                Ok(granted)
            }
            Err(refusal) => {
                let (user, db) = (self.identity().user.as_str(), self.database().name());
                tracing::info!(user, db, peer = %self.client(), why = %refusal, "database access refused");
                Err(refusal)
            }
        }
    }

    /// Decides as [`Session::authorize`] does and dials the database, to cancel what another connection runs there as
    /// `user` on the database `name`. Nothing is recorded and no event written: the request names a secret that only the client of that
    /// other session has read, and its session tells of the statement that ended.
    pub(crate) async fn dial_for_cancel(
        &self,
        user: &str,
        name: &str,
    ) -> Result<Dialled, CancelRefused> {
        if self.identity().valid_until <= Utc::now() {
            return Err(AccessRefused::Expired.into());
        }
        let state = self.service.authority.state();
        check_db(&state, &self.request(self.database(), user, name))?;
        Ok(self.dial_as(user.to_owned()).await?)
    }

    /// Whether the session ends where it cannot be recorded.
    fn is_strict(&self) -> bool {
        self.service.is_strict(self.identity())
    }

    /// Resolves when the session must end. May be dropped and asked again.
    pub(crate) async fn ended(&self) -> EndReason {
        let window = self.begun().as_ref().and_then(|begun| begun.window.clone());
        let traffic = || self.traffic();
        let revoked = |state: &ClusterState| self.revoked(state);
        let access = watch::Access {
            authority: self.service.authority.as_ref(),
            identity: self.identity(),
            revoked: &revoked,
            traffic: Some(&traffic),
        };
        let overdue = async {
            match &window {
                Some(window) => window.overdue().await,
                None => std::future::pending().await,
            }
        };
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(self.service.settings.drain).await;
        };
        let (kind, text) = tokio::select! {
            why = watch::ending(access) => match why {
                watch::Ending::Revoked(text) => (EndKind::Revoked, text),
                watch::Ending::Expired => (EndKind::Expired, "client certificate expired".to_owned()),
                watch::Ending::Idle(text) => (EndKind::Idle, text),
            },
            why = overdue => (EndKind::Recording, why),
            () = stopped => (EndKind::Shutdown, "the database service ends".to_owned()),
        };
        EndReason { kind, text }
    }

    /// Why the access would not be granted again, as the user may read it.
    fn revoked(&self, state: &ClusterState) -> Option<String> {
        let (user, name) = match self.begun().as_ref() {
            Some(begun) => (begun.user.clone(), begun.name.clone()),
            None => return None,
        };
        let Some(database) = self.service.catalog.same(&self.visitor.database) else {
            return Some("the database was removed or changed".to_owned());
        };
        let refusal = check_db(state, &self.request(&database, &user, &name)).err()?;
        Some(match refusal.is_of_the_user() {
            true => refusal.peer_text().into_owned(),
            false => "access was revoked".to_owned(),
        })
    }
}

impl Watched for Session {
    fn moved(&self, bytes: usize) {
        Session::moved(self, bytes);
    }

    fn traffic(&self) -> u64 {
        Session::traffic(self)
    }

    async fn happened(&self, events: &mut Vec<AuditEvent>) -> Result<(), AuditError> {
        self.audit.statement(events).await
    }

    async fn malformed(&self, payload: &[u8]) -> Result<(), AuditError> {
        self.audit.malformed(payload).await
    }

    async fn ended(&self) -> EndReason {
        Session::ended(self).await
    }
}

/// Why a cancel request goes nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CancelRefused {
    /// The access was refused.
    #[error("access refused: {0}")]
    Refused(#[from] AccessRefused),
    /// The database is not reached.
    #[error("connect to the database")]
    Connect(#[from] ConnectError),
}

//! The service: takes connections from proxies, finds out who comes and where to, and hands them to the engine of the
//! database's protocol.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use futures::FutureExt as _;
use server_core::db::Preamble;
use server_core::spool::EventQueue;
use server_core::ssh::options::options;
use server_core::ssh::running::RunningSessions;
use server_core::ssh::signer::RecordingSigner;
use server_core::tunnel::{AgentService, Arrival, ArrivedBy, BoxedStream};
use server_core::{Authority, EventSink, EventSpool, RecordingSpool, Via, chain};
use shared_authz::PatternError;
use shared_events::AuditEvent;
use shared_pki::Identity;
use shared_pki::verify::{CertRefusal, TlsVerifier};
use shared_types::{RecordingMode, Strictness};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::catalog::{Catalog, Listing};
use crate::connect::Certificates;
use crate::engine::engine;
use crate::health;
use crate::session::{Session, Visitor};
use crate::settings::DbServiceSettings;

/// Why a connection is dropped before there is a protocol to say so in: the proxy has checked the same, so that only a
/// proxy that is wrong or compromised gets here.
#[derive(Debug, thiserror::Error)]
enum Dropped {
    #[error("it did not come from a proxy")]
    NoProxy,
    #[error("no preamble")]
    Preamble(#[source] server_core::db::PreambleError),
    #[error("the user's certificate is refused: {0}")]
    Certificate(CertRefusal),
    #[error("the user's certificate names no database")]
    NoRoute,
    #[error("the database {0:?} is not served here")]
    NotServed(String),
}

/// Access to databases.
pub struct DbService {
    pub(crate) settings: DbServiceSettings,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) events: Arc<EventSpool>,
    pub(crate) recordings: Arc<RecordingSpool>,
    /// Events that nobody waits for one by one.
    pub(crate) queue: Arc<EventQueue>,
    /// Sessions that run.
    pub(crate) sessions: Arc<RunningSessions>,
    /// What recordings are signed with.
    pub(crate) signer: RecordingSigner,
    /// Certificates that databases are met with.
    pub(crate) certificates: Certificates,
    /// What is served.
    pub(crate) catalog: Arc<Catalog>,
    /// Connections that are served.
    served: TaskTracker,
    _background: DropGuard,
}

impl DbService {
    /// A service that lets users in by `authority`'s state. Needs a runtime; its background tasks end with it. Fails
    /// where a label pattern of the settings cannot be read.
    pub fn new(
        settings: DbServiceSettings,
        authority: Arc<dyn Authority>,
        events: Arc<EventSpool>,
        recordings: Arc<RecordingSpool>,
    ) -> Result<Self, PatternError> {
        let catalog = Arc::new(Catalog::new(settings.databases.clone(), &settings.resources)?);
        catalog.refresh(&authority.state());
        let (sessions, stop) = (Arc::new(RunningSessions::default()), CancellationToken::new());
        let renewing = {
            let (sessions, authority, recordings) =
                (Arc::clone(&sessions), Arc::clone(&authority), Arc::clone(&recordings));
            async move { sessions.keep_alive(authority.as_ref(), &recordings).await }
        };
        let following = follow(Arc::clone(&catalog), Arc::clone(&authority));
        let looking = look(Arc::clone(&catalog), settings.health);
        let stopped = stop.clone();
        tokio::spawn(async move {
            let all = async { tokio::join!(renewing, following, looking) };
            let _ = stopped.run_until_cancelled(all).await;
        });
        let sink: Arc<dyn EventSink> = Arc::<EventSpool>::clone(&events);
        Ok(Self {
            signer: RecordingSigner::start(Arc::clone(&authority)),
            queue: Arc::new(EventQueue::start(sink)),
            settings,
            authority,
            events,
            recordings,
            sessions,
            certificates: Certificates::default(),
            catalog,
            served: TaskTracker::new(),
            _background: stop.drop_guard(),
        })
    }

    /// What is served, and tells of every change.
    pub fn watch(&self) -> watch::Receiver<Arc<Listing>> {
        self.catalog.watch()
    }

    /// Waits until no connection is served any more. Called when no more come.
    pub async fn ended(&self) {
        self.served.close();
        self.served.wait().await;
    }

    /// Waits until every event that sessions have told of is durable.
    pub async fn flushed(&self) {
        self.queue.flushed().await;
    }

    /// This host, as what it decides by stands now.
    pub(crate) fn via(&self) -> Via {
        Via { server: self.settings.host_id, confirmed: self.authority.confirmed() }
    }

    /// How sessions are recorded now. A database has no agent of its own, so that `node` and `proxy` are the same.
    pub(crate) fn mode(&self) -> RecordingMode {
        self.authority.state().recording.spec.mode
    }

    /// Whether a user's sessions end where they cannot be recorded.
    pub(crate) fn is_strict(&self, identity: &Identity) -> bool {
        let of_roles = options(&self.authority.state(), identity).record_session_db;
        of_roles == Strictness::Strict || self.mode().is_sync()
    }

    /// Emits events; what cannot be made durable is told in the log with everything but its content.
    pub(crate) async fn emit(&self, events: Vec<AuditEvent>) {
        let kinds: Vec<_> = events.iter().map(AuditEvent::kind).collect();
        if let Err(err) = self.events.emit(events).await {
            tracing::error!(?kinds, error = %err, "audit events are lost");
        }
    }

    /// Finds out who comes, and where to.
    async fn visitor(
        &self,
        stream: &mut BoxedStream,
        arrival: &Arrival,
    ) -> Result<Visitor, Dropped> {
        if arrival.via == ArrivedBy::Direct {
            return Err(Dropped::NoProxy);
        }
        let preamble = Preamble::read(stream).await.map_err(Dropped::Preamble)?;
        let state = self.authority.state();
        let identity = TlsVerifier::new(&state.authorities)
            .database_user(&preamble.certificate, Utc::now())
            .map_err(Dropped::Certificate)?;
        let route = identity.database.clone().ok_or(Dropped::NoRoute)?;
        let database = self.catalog.get(&route.service);
        let database = database.ok_or_else(|| Dropped::NotServed(route.service.clone()))?;
        Ok(Visitor {
            identity,
            route,
            certificate: preamble.certificate,
            client: preamble.client,
            greeted: preamble.greeted,
            database,
        })
    }

    async fn serve(
        self: Arc<Self>,
        mut stream: BoxedStream,
        arrival: Arrival,
        stop: CancellationToken,
    ) {
        let visitor = match self.visitor(&mut stream, &arrival).await {
            Ok(visitor) => visitor,
            Err(error) => {
                let peer = arrival.client;
                tracing::warn!(%peer, error = chain(&error), "database connection dropped");
                return;
            }
        };
        let (peer, user, db) =
            (visitor.client, visitor.identity.user.clone(), visitor.route.service.clone());
        let protocol = visitor.database.spec.protocol;
        let mut session = Session::new(Arc::clone(&self), visitor, stop);
        // Whatever an engine stumbles over, its session ends as every other does.
        let served = AssertUnwindSafe(engine(protocol).serve(stream, &mut session)).catch_unwind();
        match served.await {
            Ok(Ok(())) => tracing::debug!(%peer, %user, db, "database session ended"),
            Err(_) => {
                tracing::error!(%peer, %user, db, "database session ended by a fault of ours")
            }
            Ok(Err(error)) => {
                tracing::info!(%peer, %user, db, error = chain(&error), "database session ended");
            }
        }
        session.finish().await;
    }
}

/// Keeps the catalog up to date.
async fn follow(catalog: Arc<Catalog>, authority: Arc<dyn Authority>) {
    let (mut states, mut labels) = (authority.watch(), catalog.labels());
    loop {
        let state = states.borrow_and_update().clone();
        catalog.refresh(&state);
        tokio::select! {
            changed = states.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
            }
            () = catalog.relabelled(&mut labels) => {}
        }
    }
}

/// Looks at the databases: all of them again and again, and new ones at once.
async fn look(catalog: Arc<Catalog>, period: std::time::Duration) {
    let mut listing = catalog.watch();
    loop {
        let databases: Vec<_> = {
            let listing = listing.borrow_and_update();
            listing.values().map(|listed| Arc::clone(&listed.database)).collect()
        };
        let looked_at: Vec<_> = databases.iter().map(|db| db.name().to_owned()).collect();
        let seen = health::look(databases).await;
        catalog.note(|database| seen.get(database.name()).cloned());
        let other = |listing: &Arc<Listing>| {
            !listing.keys().map(String::as_str).eq(looked_at.iter().map(String::as_str))
        };
        let _ = tokio::time::timeout(period, listing.wait_for(other)).await;
    }
}

#[async_trait]
impl AgentService for DbService {
    async fn connection(
        self: Arc<Self>,
        stream: BoxedStream,
        arrival: Arrival,
        stop: CancellationToken,
    ) {
        let served = self.served.token();
        self.serve(stream, arrival, stop).await;
        drop(served);
    }
}

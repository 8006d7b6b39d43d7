//! The database service of this process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use server_core::tunnel::{ConnType, LocalServices, Offered, TunnelStatus};
use server_core::{Authority, AuthorityError};
use server_db::{DbService, DbServiceSettings, Listing};
use shared_config::{DbConfig, StaticDatabase};
use shared_types::{Database, DatabaseServer, HostId, SystemRole};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::heartbeat::{Heartbeat, Presence};
use super::host::{AgentHost, Spools};
use super::{Agent, Direct, FLUSH};
use crate::services::RunError;

/// Where it keeps what waits to be sent.
const FOLDER: &str = "db";
/// Largest file of authorities.
const LARGEST_PEM: u64 = 64 * 1024;
/// How long it is waited, before the first word, for the first look at the databases.
const HEALTH: Duration = Duration::from_secs(2);
/// What sessions that are ended at the end of the drain have for their last words and their recordings.
const LAST: Duration = Duration::from_secs(5);

/// What the database service of a host is started with.
pub(crate) struct DbHost<'a> {
    pub(crate) host: AgentHost<'a>,
    pub(crate) db: &'a DbConfig,
    /// Where a proxy of this process looks.
    pub(crate) locals: &'a LocalServices,
}

/// A database service that runs.
pub(super) struct Serving {
    service: Arc<DbService>,
    offered: Option<Offered>,
    drain: Duration,
}

impl DbHost<'_> {
    /// Joins where it has to, and makes the service.
    pub(crate) async fn start(&self) -> Result<Agent, RunError> {
        let (host, hostname) = (&self.host, self.host.hostname()?);
        let member = host.member(SystemRole::Db, Vec::new()).await?;
        let authority = &member.authority;
        let (bytes, wait) = (self.db.recording_spool_bytes, self.db.recording_wait);
        let Spools { events, recordings } = host.spools(FOLDER, authority, bytes, wait).await?;
        let settings = DbServiceSettings {
            databases: self.databases()?,
            resources: self.db.resources.clone(),
            recording_wait: wait.as_std(),
            health: self.db.health_check_interval.as_std(),
            ..DbServiceSettings::new(host.host_id, hostname.clone())
        };
        let drain = settings.drain;
        let service = DbService::new(
            settings,
            Arc::clone(authority),
            Arc::clone(&events),
            Arc::clone(&recordings),
        );
        let service = Arc::new(service.map_err(RunError::DbResources)?);
        // A proxy of this process finds it here; others through tunnels.
        let offered = host
            .config
            .proxy
            .is_some()
            .then(|| self.locals.offer(host.host_id, ConnType::Db, Arc::clone(&service) as _));
        let pool = host.pool(&member, ConnType::Db, Arc::clone(&service) as _, drain + LAST);
        let presence = DbPresence {
            authority: Arc::clone(authority),
            host_id: host.host_id,
            hostname: hostname.to_string(),
            listing: service.watch(),
        };
        let heartbeat = Heartbeat::new(Box::new(presence), Some(pool.status()));
        let direct = Direct::Db(Serving { service, offered, drain });
        Ok(Agent { events, recordings, heartbeat, pool: Some(pool), direct })
    }

    /// The databases of the file, with whom their certificates are checked by.
    fn databases(&self) -> Result<Vec<Database>, RunError> {
        self.db.databases.iter().map(with_authorities).collect()
    }
}

fn with_authorities(written: &StaticDatabase) -> Result<Database, RunError> {
    let mut database = written.database.clone();
    let Some(path) = &written.ca_cert_file else { return Ok(database) };
    let fault = |source: std::io::Error| RunError::DbAuthorities {
        database: database.name().to_owned(),
        path: path.display().to_string(),
        source,
    };
    let size = std::fs::metadata(path).map_err(&fault)?.len();
    if size > LARGEST_PEM {
        let large = format!("is larger than {LARGEST_PEM} bytes");
        return Err(fault(std::io::Error::new(std::io::ErrorKind::FileTooLarge, large)));
    }
    let pem = std::fs::read_to_string(path).map_err(&fault)?;
    if let Err(error) = shared_transport::tls::certs_from_pem(pem.as_bytes()) {
        return Err(fault(std::io::Error::new(std::io::ErrorKind::InvalidData, error)));
    }
    database.spec.tls.ca_cert = pem;
    Ok(database)
}

impl Serving {
    /// Is found until `stop`, then lets sessions end, and what they did become durable.
    pub(super) async fn run(self, stop: CancellationToken) {
        stop.cancelled().await;
        drop(self.offered);
        let limit = self.drain + LAST;
        if tokio::time::timeout(limit, self.service.ended()).await.is_err() {
            tracing::warn!("database sessions did not end in time");
        }
        if tokio::time::timeout(FLUSH, self.service.flushed()).await.is_err() {
            tracing::error!("audit events of database sessions are lost: nobody took them");
        }
    }
}

/// What a host says of the databases it serves.
struct DbPresence {
    authority: Arc<dyn Authority>,
    host_id: HostId,
    hostname: String,
    listing: watch::Receiver<Arc<Listing>>,
}

impl DbPresence {
    fn servers(&mut self, tunnels: Option<&TunnelStatus>) -> Vec<DatabaseServer> {
        let listing = Arc::clone(&self.listing.borrow_and_update());
        let server = |listed: &server_db::Listed| {
            let database = Database::clone(&listed.database);
            let mut server = DatabaseServer::of(self.host_id, self.hostname.clone(), database);
            server.spec.version = env!("CARGO_PKG_VERSION").to_owned();
            server.spec.health = listed.health.clone();
            if let Some(tunnels) = tunnels {
                server.spec.proxy_ids = tunnels.proxies.iter().copied().collect();
            }
            server
        };
        listing.values().map(server).collect()
    }
}

#[async_trait]
impl Presence for DbPresence {
    fn what(&self) -> &'static str {
        "database service"
    }

    async fn settled(&mut self) {
        let looked_at = |listing: &Arc<Listing>| {
            listing.values().all(|listed| listed.health != Default::default())
        };
        let _ = tokio::time::timeout(HEALTH, self.listing.wait_for(looked_at)).await;
    }

    async fn tell(&mut self, tunnels: Option<&TunnelStatus>) -> Result<Duration, AuthorityError> {
        let servers = self.servers(tunnels);
        self.authority.heartbeat_db(servers).await
    }

    async fn changed(&mut self) {
        if self.listing.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn withdraw(&self) -> Result<(), AuthorityError> {
        self.authority.withdraw_db().await
    }
}

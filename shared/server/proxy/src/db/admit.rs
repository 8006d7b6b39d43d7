//! Who a client is, and which agents serve what it wants. Nothing here admits anybody to a database: that is for the
//! agent, which is given the certificate. Here is decided who gets as far as an agent.

use std::net::SocketAddr;
use std::sync::Arc;

use rand::seq::SliceRandom as _;
use server_core::access::{check_user, roles};
use server_core::ssh::Ends;
use server_core::ssh::events::{cut, not_admitted, user};
use server_core::ssh::limits;
use server_core::tunnel::{AgentService, ConnType};
use server_core::{AccessRefused, ClusterState, EventSink as _};
use shared_events::{
    AuditEvent, ConnectionMetadata, DatabaseMetadata, DatabaseSessionStart, Metadata,
    ServerMetadata, Status, codes,
};
use shared_pki::{DatabaseRoute, Identity};
use shared_transport::tunnel::TunnelStream;
use shared_types::resource::HealthStatus;
use shared_types::{DatabaseServer, DbProtocol};

use super::meet::Guest;
use super::{DbProxy, PER_USER, Refusal, Speaks, canonical};

/// A client that may be led to an agent.
pub(super) struct Admitted {
    pub(super) identity: Identity,
    /// The certificate that says so, DER.
    pub(super) certificate: bytes::Bytes,
    route: DatabaseRoute,
    /// The agents that serve the database, in no order.
    servers: Vec<Arc<DatabaseServer>>,
    /// Its place among the user's connections.
    pub(super) counted: limits::Connection,
}

/// The way to an agent.
pub(super) enum Agent {
    /// It is in this process.
    Here(Arc<dyn AgentService>),
    /// A stream to it.
    There(TunnelStream),
}

/// A refusal, and who was refused where that is known.
type Refused = Box<(Option<Identity>, Refusal)>;

impl Speaks {
    /// What is spoken to a database of a protocol.
    fn of(protocol: DbProtocol) -> Self {
        match protocol {
            DbProtocol::Postgres | DbProtocol::Cockroachdb => Self::Postgres,
            DbProtocol::Mysql => Self::Mysql,
            DbProtocol::Redis => Self::Redis,
            DbProtocol::Dynamodb => Self::Dynamodb,
        }
    }

    /// Its name in events.
    fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Dynamodb => "dynamodb",
        }
    }
}

impl DbProxy {
    /// Finds out who a client is, and what it may be led to.
    pub(super) fn admit(&self, guest: &Guest, peer: SocketAddr) -> Result<Admitted, Refused> {
        let nobody = |refusal| Box::new((None, refusal));
        if let Some(fault) = &guest.fault {
            return Err(nobody(fault.clone()));
        }
        let shown = guest.shown.as_ref().ok_or_else(|| nobody(Refusal::NoCertificate))?;
        let user = self.tls.user(shown);
        let identity = user.map_err(|refusal| nobody(Refusal::Certificate(refusal)))?;
        match self.admit_user(guest.speaks, &identity, peer) {
            Ok((route, servers, counted)) => {
                let certificate = bytes::Bytes::copy_from_slice(shown);
                Ok(Admitted { identity, certificate, route, servers, counted })
            }
            Err(refusal) => Err(Box::new((Some(identity), refusal))),
        }
    }

    fn admit_user(
        &self,
        speaks: Speaks,
        identity: &Identity,
        peer: SocketAddr,
    ) -> Result<(DatabaseRoute, Vec<Arc<DatabaseServer>>, limits::Connection), Refusal> {
        let state = self.authority.state();
        check_user(&state, identity, None, self.via()).map_err(Refusal::User)?;
        let elsewhere =
            |pinned: std::net::IpAddr| pinned.to_canonical() != peer.ip().to_canonical();
        if identity.pinned_ip.is_some_and(elsewhere) {
            return Err(Refusal::User(AccessRefused::OtherAddress));
        }
        // The verifier takes none without.
        let route = identity.database.clone().ok_or(Refusal::User(AccessRefused::NotAUser))?;
        let spoken = route.protocol.parse().ok().map(Speaks::of);
        if spoken != Some(speaks) {
            return Err(Refusal::OtherProtocol(cut(&route.protocol)));
        }
        let servers = self.servers(&state, identity, &route.service, speaks);
        if servers.is_empty() {
            return Err(Refusal::Unknown(route.service));
        }
        let counted = self.users.take(&identity.user, Some(PER_USER));
        Ok((route, servers, counted.ok_or(Refusal::TooMany(PER_USER))?))
    }

    /// The agents that serve a database which the user may see.
    fn servers(
        &self,
        state: &ClusterState,
        identity: &Identity,
        service: &str,
        speaks: Speaks,
    ) -> Vec<Arc<DatabaseServer>> {
        let (view, roles) = (self.authority.nodes(), roles(state, identity));
        view.database_servers(service)
            .iter()
            .filter(|server| Speaks::of(server.spec.database.spec.protocol) == speaks)
            .filter(|server| roles.reaches_database(&server.spec.database.all_labels()))
            .cloned()
            .collect()
    }

    /// Reaches one of the agents: at random, those first that find their database well.
    pub(super) async fn reach(&self, admitted: &Admitted, ends: Ends) -> Result<Agent, Refusal> {
        let mut servers: Vec<&DatabaseServer> =
            admitted.servers.iter().map(AsRef::as_ref).collect();
        servers.shuffle(&mut rand::rng());
        servers.sort_by_key(|server| server.spec.health.status == HealthStatus::Unhealthy);
        for server in servers {
            let host = server.spec.host_id;
            if let Some(service) = self.locals.get(host, ConnType::Db) {
                return Ok(Agent::Here(service));
            }
            match self.tunnels.dial_database(host, ends, self.settings.timeouts.dial).await {
                Ok(stream) => return Ok(Agent::There(stream)),
                Err(why) => {
                    let service = &admitted.route.service;
                    tracing::info!(%host, service, why, "agent of a database is not reached");
                }
            }
        }
        Err(Refusal::Offline(admitted.route.service.clone()))
    }

    /// A refusal in the log; and as an event, at most so many per address, where somebody showed a certificate.
    pub(super) async fn refused(
        &self,
        speaks: Speaks,
        identity: Option<&Identity>,
        refusal: &Refusal,
        ends: Ends,
    ) {
        let (peer, why) = (ends.peer, refusal.reason());
        let connection = ConnectionMetadata {
            remote_addr: canonical(peer).to_string(),
            local_addr: ends.local.map(|addr| addr.to_string()).unwrap_or_default(),
            proto: speaks.as_str().into(),
        };
        let event = match (identity, refusal) {
            (Some(identity), _) => {
                let user = identity.user.as_str();
                tracing::info!(%peer, user, why, "database access refused");
                self.refused_event(identity, refusal, &why, connection)
            }
            (None, Refusal::Certificate(_)) => {
                tracing::info!(%peer, why, "database client refused");
                not_admitted("", &why, connection, self.settings.host_id)
            }
            (None, _) => return tracing::debug!(%peer, why, "database client refused"),
        };
        if !self.failures.admit(peer.ip(), std::time::Instant::now()) {
            return;
        }
        if let Err(err) = self.events.emit(vec![event]).await {
            tracing::error!(error = %err, "audit event is lost");
        }
    }

    fn refused_event(
        &self,
        identity: &Identity,
        refusal: &Refusal,
        why: &str,
        connection: ConnectionMetadata,
    ) -> AuditEvent {
        let database = identity.database.as_ref().map(|route| DatabaseMetadata {
            db_service: route.service.clone(),
            db_protocol: route.protocol.clone(),
            db_user: route.user.clone(),
            db_name: route.name.clone(),
            ..DatabaseMetadata::default()
        });
        let database = database.unwrap_or_default();
        DatabaseSessionStart {
            metadata: Metadata {
                code: codes::DATABASE_SESSION_START_FAILURE.into(),
                ..Metadata::default()
            },
            user: user(identity, ""),
            server: ServerMetadata {
                namespace: "default".into(),
                server_id: self.settings.host_id.to_string(),
                server_version: env!("CARGO_PKG_VERSION").into(),
                ..ServerMetadata::default()
            },
            connection,
            status: Status {
                error: cut(why),
                message: cut(&refusal.to_string()),
                ..Status::default()
            },
            database,
            ..DatabaseSessionStart::default()
        }
        .into()
    }
}

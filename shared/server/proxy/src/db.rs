//! Databases: clients come with the user's database certificate, in TLS of ours or in that of their own protocol, and
//! are led to an agent that serves the database.
//!
//! What must stay true: nobody is led anywhere without a certificate that was verified and a user who is not shut out;
//! the agent gets the certificate and decides itself (docs/decisions/0010), so that nothing here admits anybody to a
//! database; a service that a user may not see is as if it were not there; refusals come in the client's protocol.
//!
//! Left to others: what users may do in a database, the audit log of it and its recording (`server-db`); what is spoken
//! in the protocols (`shared-wire`).

mod admit;
mod meet;
mod mysql;
mod pass;
mod postgres;
mod refusal;
mod tls;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use server_core::host::HostKeys;
use server_core::ssh::Ends;
use server_core::ssh::limits::PerUser;
use server_core::ssh::rate::RateLimit;
use server_core::tunnel::LocalServices;
use server_core::{Authority, EventSpool, Via};
use shared_transport::{Rewind, alpn};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::settings::ProxySettings;
use crate::startups::Startups;
use crate::tunnels::Tunnels;
use refusal::Refusal;
use tls::DbTls;

/// Connections at a time that have not reached an agent yet.
const STARTUPS: usize = 1024;
/// Connections of one user at a time, so that one cannot take the places of all.
const PER_USER: u64 = 5_000;

/// Where a client came in.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// On the TLS port, under the name of a database's protocol.
    Alpn {
        /// The name as the client offered it.
        name: Vec<u8>,
        /// What it asks for.
        wants: alpn::Database,
    },
    /// With PostgreSQL's own first packet.
    Postgres,
    /// On the port of MySQL.
    Mysql,
}

/// What is spoken by a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Postgres,
    Mysql,
    Redis,
    Dynamodb,
}

/// Who leads clients to databases.
pub(crate) struct DbProxy {
    settings: Arc<ProxySettings>,
    authority: Arc<dyn Authority>,
    events: Arc<EventSpool>,
    tunnels: Arc<Tunnels>,
    /// Agents in this process.
    locals: LocalServices,
    tls: DbTls,
    /// Places for connections that have not reached an agent yet.
    startups: Arc<Startups>,
    /// Connections by user.
    users: Arc<PerUser>,
    /// Refusals that become events.
    failures: RateLimit,
    /// Numbers for greetings.
    greeted: AtomicU32,
}

impl DbProxy {
    /// `keys` are this host's own of role Proxy; `web` chooses what the web port shows.
    pub(crate) fn new(
        settings: Arc<ProxySettings>,
        authority: Arc<dyn Authority>,
        events: Arc<EventSpool>,
        tunnels: Arc<Tunnels>,
        locals: LocalServices,
        keys: watch::Receiver<Arc<HostKeys>>,
        web: Arc<dyn rustls::server::ResolvesServerCert>,
    ) -> Self {
        let web = (!settings.https_keypairs.is_empty()).then_some(web);
        let tls = DbTls::new(Arc::clone(&authority), keys, web);
        Self {
            settings,
            authority,
            events,
            tunnels,
            locals,
            tls,
            startups: Arc::new(Startups::new(STARTUPS)),
            users: Arc::default(),
            failures: RateLimit::new(60, Duration::from_secs(60), 120),
            greeted: AtomicU32::new(1),
        }
    }

    /// Serves one connection, on which nothing was read but looked at, to its end. After `ending` it has the drain's
    /// time.
    pub(crate) async fn connection(
        &self,
        stream: Rewind<TcpStream>,
        entry: Entry,
        ends: Ends,
        ending: CancellationToken,
    ) {
        let peer = ends.peer;
        let stop = ending.child_token();
        let place = self.startups.enter(stop.clone());
        let opening =
            tokio::time::timeout(self.settings.timeouts.auth, self.open(stream, entry, ends));
        let ready = match stop.run_until_cancelled(opening).await {
            Some(Ok(Some(ready))) => ready,
            Some(Ok(None)) => return,
            Some(Err(_)) => {
                return tracing::debug!(%peer, "database client was too slow to say what it wants");
            }
            None => return tracing::debug!(%peer, "database client lost its place"),
        };
        drop(place);
        self.pass(ready, ends, ending).await;
    }

    /// This proxy, as what it decides by stands now.
    fn via(&self) -> Via {
        Via { server: self.settings.host_id, confirmed: self.authority.confirmed() }
    }

    /// From the first byte to an agent. A client that is refused has been told.
    async fn open(
        &self,
        stream: Rewind<TcpStream>,
        entry: Entry,
        ends: Ends,
    ) -> Option<pass::Ready> {
        let peer = ends.peer;
        let guest = match self.meet(stream, entry).await {
            Ok(guest) => guest,
            Err(err) => {
                let err: &dyn std::error::Error = &err;
                tracing::debug!(%peer, error = err, "database client left");
                return None;
            }
        };
        let (identity, refusal) = match self.admit(&guest, ends.peer) {
            Ok(admitted) => match self.reach(&admitted, ends).await {
                Ok(agent) => return Some(pass::Ready::new(guest, admitted, agent)),
                Err(refusal) => (Some(admitted.identity), refusal),
            },
            Err(refused) => *refused,
        };
        self.refused(guest.speaks, identity.as_ref(), &refusal, ends).await;
        guest.refuse(&refusal).await;
        None
    }
}

/// A client's address as certificates and events have it.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

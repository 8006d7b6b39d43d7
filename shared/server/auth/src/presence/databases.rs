//! Agents say which databases they serve.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use server_store::{Condition, Key};
use shared_api::{DbPresence, DbPresenceReply, HostDatabases, limits};
use shared_types::{DatabaseServer, HostId, Resource, SystemRole};

use super::known::{Life, Part};
use super::nodes::seen_from;
use super::{lasts, life};
use crate::caller::Caller;
use crate::error::{AuthError, Result, chain};
use crate::service::AuthService;
use crate::state;

/// What is kept of what a host serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Served {
    /// When its life is over.
    pub(super) ends: DateTime<Utc>,
    pub(super) databases: HostDatabases,
}

impl AuthService {
    /// An agent says which databases it serves: all of them, and of itself only.
    pub async fn heartbeat_db(
        &self,
        caller: &Caller,
        served: DbPresence,
    ) -> Result<DbPresenceReply> {
        let Some(host) = caller.host_id().filter(|_| caller.is_db()) else {
            return Err(AuthError::denied("access denied"));
        };
        let name = self.name_of(host, SystemRole::Db).await?;
        let mut servers = served.servers;
        check(host, &servers)?;
        for server in &mut servers {
            server.status = None;
            server.metadata.revision = None;
            server.metadata.expires = None;
            server.spec.hostname.clone_from(&name);
            server.spec.addr = seen_from(&server.spec.addr, caller.address());
            let database = &mut server.spec.database;
            database.status = None;
            database.metadata.revision = None;
            database.metadata.expires = None;
        }
        servers.sort_by(|a, b| a.name().cmp(b.name()));
        self.store_served(HostDatabases { host_id: host, servers }).await?;
        // It may have been put out meanwhile, and then it must not be there again.
        if let Err(locked) = self.check_host_lock(host) {
            self.forget_served(host).await?;
            return Err(locked);
        }
        let proxies = self.presence.view().proxies.clone();
        Ok(DbPresenceReply { again_seconds: limits::PRESENCE_AGAIN.as_secs(), proxies })
    }

    async fn store_served(&self, databases: HostDatabases) -> Result<()> {
        let (now, host) = (self.now(), databases.host_id);
        let view = self.presence.view();
        let before = view.databases_of(host);
        let others = view.databases.len() - before.servers.len();
        if others + databases.servers.len() > limits::MAX_SERVED {
            return Err(AuthError::unavailable(format!(
                "agents of the cluster serve {} databases, the most there can be",
                limits::MAX_SERVED
            )));
        }
        let ends = now + life();
        let stored = self.presence.stored(Part::Databases, host);
        let stored = if before == databases && lasts(Some(ends), stored, now) {
            stored
        } else {
            let kept = Served { ends, databases: databases.clone() };
            let put = state::put(served_key(host)?, &kept, Some(ends), Condition::Any)?;
            let written = self.store().write(vec![put]).await;
            written.map_err(|error| state::conflict("the list of databases", error))?;
            Some(ends)
        };
        self.presence.put_databases(databases, Life { ends: Some(ends), stored }, now);
        Ok(())
    }

    /// An agent serves no database any more.
    pub async fn withdraw_db(&self, caller: &Caller) -> Result<()> {
        let Some(host) = caller.host_id().filter(|_| caller.is_db()) else {
            return Err(AuthError::denied("access denied"));
        };
        self.forget_served(host).await
    }

    /// What a host serves is not there any more, until it says so again.
    pub(crate) async fn forget_served(&self, host: HostId) -> Result<()> {
        let gone = state::delete(served_key(host)?, Condition::Any);
        self.store().write(vec![gone]).await.map_err(AuthError::at("remove databases"))?;
        self.presence.remove(&[(Part::Databases, host)], self.now());
        Ok(())
    }

    /// Takes databases of this name, or those on the host of this id, away from their agents, until these say again that
    /// they serve them.
    pub(crate) async fn remove_database_servers(&self, name: &str, caller: &Caller) -> Result<()> {
        let view = self.presence.view();
        if let (true, Ok(host)) = (view.database_servers(name).is_empty(), name.parse::<HostId>()) {
            if host == self.host_id() {
                return Err(AuthError::bad_request(
                    "this agent runs in the auth service's own process; to end it, set db_service.enabled to no there",
                ));
            }
            return self.forget_served(host).await;
        }
        let hosts: Vec<HostId> =
            view.database_servers(name).iter().map(|server| server.spec.host_id).collect();
        for host in hosts {
            let mut left = view.databases_of(host);
            left.servers.retain(|server| server.name() != name);
            self.store_served(left).await?;
        }
        tracing::info!(by = caller.name(), database = name, "taken away from its agents");
        Ok(())
    }

    /// The databases that agents serve, as resources.
    pub(crate) fn database_servers(&self) -> Vec<Resource> {
        let view = self.presence.view();
        view.databases.iter().map(|server| self.database_server(server)).collect()
    }

    /// The first that is of this name, or on the host of this id.
    pub(crate) fn one_database_server(&self, name: &str) -> Option<Resource> {
        let view = self.presence.view();
        let named = view.database_servers(name).first();
        let host = name.parse::<HostId>().ok();
        let found = named
            .or_else(|| view.databases.iter().find(|server| Some(server.spec.host_id) == host));
        found.map(|server| self.database_server(server))
    }

    /// One of them, with when its life is over.
    fn database_server(&self, server: &DatabaseServer) -> Resource {
        let mut server = server.clone();
        server.metadata.expires = self.presence.ends(Part::Databases, server.spec.host_id);
        server.into()
    }
}

/// Refuses what is no list of what a host serves.
fn check(host: HostId, servers: &[DatabaseServer]) -> Result<()> {
    if servers.len() > limits::MAX_DATABASES {
        return Err(AuthError::bad_request(format!(
            "more than {} databases on one host",
            limits::MAX_DATABASES
        )));
    }
    let mut names = HashSet::new();
    for server in servers {
        if server.spec.host_id != host {
            return Err(AuthError::denied("an agent speaks of itself only"));
        }
        let checked = server.check().and_then(|()| server.database().check());
        checked.map_err(|error| AuthError::bad_request(chain(&error)))?;
        if !names.insert(server.name()) {
            return Err(AuthError::bad_request(format!("database {:?} twice", server.name())));
        }
    }
    Ok(())
}

/// Where it is kept what a host serves.
pub(crate) fn served_key(host: HostId) -> Result<Key> {
    let host = host.to_string();
    state::folder(["presence", "db", host.as_str()])
}

//! Databases: what users may know of them, and the certificates on the way to them.
//!
//! What must stay true: a user's certificate for a database is for that one only, and is signed only where the roles
//! admit it now; an agent gets a certificate only for a database that it serves, and only for a user who can show such a
//! certificate and whom this service finds allowed there now. What an agent thinks of it does not count.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::SubsecRound as _;
use server_core::AccessRefused;
use server_core::access::{Via, check_db_user};
use shared_api::{
    ApiError, DatabaseCertFormat, DatabaseCertReply, DatabaseCertRequest, DatabaseEntry,
    DatabaseServerCertReply, DatabaseServerCertRequest, DatabasesQuery, DatabasesReply, LoginReply,
    limits,
};
use shared_authz::{DbTarget, RoleSet, Verb};
use shared_events::AuditEvent;
use shared_pki::{DatabaseRoute, DbClientSpec, DbServerSpec, Identity, TlsIdentity, TlsPublicKey};
use shared_types::{Database, DatabaseServer, HostId, Labels};

use crate::caller::Caller;
use crate::certs::{Subject, sign_error, tls_key};
use crate::error::{AuthError, Result};
use crate::events;
use crate::nodes::Filter;
use crate::service::AuthService;

/// Life of a database server's certificate where none is wished for.
const SERVER_LIFE: Duration = Duration::from_secs(12 * 3600);
/// And the longest, in seconds: ten years.
const LONGEST_LIFE: u64 = 10 * 365 * 24 * 3600;

impl AuthService {
    /// The databases of which the caller may be some user.
    pub fn databases(&self, caller: &Caller, ask: &DatabasesQuery) -> Result<DatabasesReply> {
        let filter = Filter::parse(ask)?;
        self.sweep();
        let roles = caller.is_user().then(|| self.role_set(caller));
        let exist = self.roles_exist(caller);
        let view = self.presence.view();
        let mut items: BTreeMap<&str, DatabaseEntry> = BTreeMap::new();
        for server in &view.databases {
            let (database, labels) = (server.database(), server.database().all_labels());
            if !filter.takes(database, &labels) {
                continue;
            }
            let entry = match &roles {
                _ if caller.is_admin() => everybodys(server),
                Some(roles) if exist && roles.reaches_database(&labels) => {
                    of_roles(server, roles, &labels)
                }
                _ => continue,
            };
            items.entry(server.name()).and_modify(|first| also(first, &entry)).or_insert(entry);
        }
        Ok(DatabasesReply { items: items.into_values().collect() })
    }

    /// Signs a user's certificate for one database. The caller of this function records the event and only then answers.
    pub(crate) fn issue_database_user(
        &self,
        subject: Subject,
        route: DatabaseRoute,
        key: &TlsPublicKey,
        ttl_seconds: Option<u64>,
    ) -> Result<(LoginReply, AuditEvent)> {
        let roles = self.subject_roles(&subject)?;
        let route = self.admitted(&roles, route)?;
        let ttl = self.subject_life(&subject, &roles, ttl_seconds)?;
        let now = self.now();
        let logins = roles.logins();
        let identity = TlsIdentity {
            user: subject.user.clone(),
            roles: subject.roles.clone(),
            logins: logins.clone(),
            traits: subject.traits.clone(),
            cluster: self.cluster().clone(),
            usage: Vec::new(),
            login_ip: subject.address,
            pinned_ip: subject.address.filter(|_| roles.options().pin_source_ip),
            database: Some(route.clone()),
        };
        let signed = self
            .user_authority()
            .tls_ca()
            .and_then(|ca| ca.sign_client(&identity, key, now, ttl))
            .map_err(|error| sign_error("tls_public_key", error))?;
        let valid_until = now + chrono::Duration::from_std(ttl).unwrap_or_default();
        let event = events::cert_create(
            "user",
            shared_events::Identity {
                user: subject.user.to_string(),
                roles: subject.roles.iter().map(ToString::to_string).collect(),
                usage: vec![shared_pki::USAGE_DATABASE.to_owned()],
                logins: logins.iter().map(ToString::to_string).collect(),
                expires: valid_until.into(),
                route_to_cluster: self.cluster().to_string(),
                teleport_cluster: self.cluster().to_string(),
                traits: (&subject.traits).into(),
                client_ip: subject.address.map(|address| address.to_string()).unwrap_or_default(),
                route_to_database: Some(events::route(&route)),
                ..shared_events::Identity::default()
            },
        );
        let reply = LoginReply {
            username: subject.user,
            ssh_cert: String::new(),
            tls_cert: signed.pem(),
            authorities: self.current_state().authorities.clone(),
            cluster: self.cluster().clone(),
            valid_until,
        };
        Ok((reply, event))
    }

    /// The route, if roles admit it. What may not be seen is refused in the words of what is not there.
    fn admitted(&self, roles: &RoleSet, mut route: DatabaseRoute) -> Result<DatabaseRoute> {
        let missing = || {
            let shown: String = route.service.chars().take(128).collect();
            AuthError::Answer(
                ApiError::not_found(format!("database \"{shown}\" is not found"))
                    .with_hint("see those there are: tsh db ls"),
            )
        };
        let view = self.presence.view();
        // Agents may give one name different labels; the agent that is reached decides again by its own.
        let seen: Vec<&Database> = view
            .database_servers(&route.service)
            .iter()
            .map(|server| server.database())
            .filter(|database| roles.reaches_database(&database.all_labels()))
            .collect();
        let first = seen.first().ok_or_else(missing)?;
        if route.protocol.is_empty() {
            route.protocol = first.spec.protocol.to_string();
        }
        let mut refusal = None;
        for database in seen {
            let (labels, protocol) = (database.all_labels(), database.spec.protocol);
            if protocol.as_str() != route.protocol {
                continue;
            }
            if route.user.is_empty() {
                return Ok(route);
            }
            let target = DbTarget {
                service: database.name(),
                labels: &labels,
                protocol,
                user: &route.user,
                name: Some(route.name.as_str()).filter(|name| !name.is_empty()),
            };
            match roles.check_database(&target).into_result() {
                Ok(_) => return Ok(route),
                Err(reason) => refusal = refusal.or(Some(reason)),
            }
        }
        Err(match refusal {
            Some(reason) => AuthError::Answer(
                ApiError::denied(format!(
                    "access to database \"{}\" denied: {reason}",
                    route.service
                ))
                .with_hint("see whom you may be there: tsh db ls"),
            ),
            None => AuthError::bad_request(format!(
                "database \"{}\" does not speak {:?}",
                route.service, route.protocol
            )),
        })
    }

    /// A certificate by which an agent meets a database it serves, as one of its users.
    pub async fn sign_database_client(
        &self,
        caller: &Caller,
        ask: DatabaseCertRequest,
    ) -> Result<DatabaseCertReply> {
        let Some(host) = caller.host_id().filter(|_| caller.is_db()) else {
            return Err(AuthError::denied("access denied"));
        };
        let key = tls_key("public_key_pem", &ask.public_key_pem)?;
        let certificate = ask.user_certificate_der()?;
        let now = self.now();
        let identity = self.verifier.database_user(&certificate, now).map_err(|refusal| {
            tracing::warn!(%host, why = %refusal, "an agent shows a certificate that is not accepted");
            AuthError::denied(format!("certificate of the user: {refusal}"))
        })?;
        let server = match self.check_served(&identity, &ask, host) {
            Ok(server) => server,
            Err(refusal) => {
                let why = refusal.to_string();
                tracing::warn!(%host, service = ask.service, user = %identity.user, db_user = ask.db_user, why, "no certificate for a database");
                self.record(vec![events::refused(&identity, &why, caller.address())]).await?;
                return Err(AuthError::denied(refusal.peer_text()));
            }
        };
        let left = (identity.valid_until - now).to_std().unwrap_or_default();
        let spec = DbClientSpec { user: ask.db_user.clone() };
        let signed = self
            .db_client_ca
            .tls_ca()
            .and_then(|ca| ca.sign_db_client(&spec, &key, now, left))
            .map_err(|error| sign_error("db_user", error))?;
        self.record(vec![made(&identity, &server, &ask.db_user)]).await?;
        // Certificates count whole seconds.
        let whole = chrono::Duration::seconds(i64::try_from(left.as_secs()).unwrap_or(0));
        let valid_until = now.trunc_subsecs(0) + whole;
        Ok(DatabaseCertReply { certificate: signed.pem(), valid_until })
    }

    /// The database, if the host serves it and the user may be that user there now.
    fn check_served(
        &self,
        identity: &Identity,
        ask: &DatabaseCertRequest,
        host: HostId,
    ) -> Result<Arc<DatabaseServer>, AccessRefused> {
        let view = self.presence.view();
        // What is not there is refused in the words of what is not allowed.
        let unknown = || AccessRefused::Denied(shared_authz::DenyReason::NoDatabase);
        let servers = view.database_servers(&ask.service);
        let server =
            servers.iter().find(|server| server.spec.host_id == host).ok_or_else(unknown)?;
        let via = Via { server: host, confirmed: self.now() };
        check_db_user(&self.current_state(), identity, server.database(), &ask.db_user, via)?;
        Ok(Arc::clone(server))
    }

    /// `tctl auth sign --format=db` and its like: a certificate for a database server.
    pub fn sign_database_server(
        &self,
        caller: &Caller,
        ask: DatabaseServerCertRequest,
    ) -> Result<DatabaseServerCertReply> {
        self.check(caller, "database_certificate", Verb::Create)?;
        let key = tls_key("public_key_pem", &ask.public_key_pem)?;
        if ask.hosts.is_empty() {
            return Err(AuthError::bad_request("at least one hostname must be specified"));
        }
        if ask.hosts.len() > limits::MAX_PRINCIPALS {
            let most = limits::MAX_PRINCIPALS;
            return Err(AuthError::bad_request(format!("more than {most} hosts")));
        }
        let ttl = match ask.ttl_seconds {
            Some(seconds) if !(1..=LONGEST_LIFE).contains(&seconds) => {
                return Err(AuthError::bad_request("the ttl must be between 1s and 87600h"));
            }
            Some(seconds) => Duration::from_secs(seconds),
            None => SERVER_LIFE,
        };
        let cockroach = ask.format == DatabaseCertFormat::Cockroachdb;
        let mongo = ask.format == DatabaseCertFormat::Mongodb;
        let spec = DbServerSpec {
            hosts: ask.hosts,
            common_name: cockroach.then(|| "node".to_owned()),
            organization: mongo.then(|| self.cluster().clone()),
        };
        let now = self.now();
        let signed = self
            .db_ca
            .tls_ca()
            .and_then(|ca| ca.sign_db_server(&spec, &key, now, ttl))
            .map_err(|error| sign_error("hosts", error))?;
        tracing::info!(
            by = caller.name(),
            hosts = spec.hosts.join(","),
            "database certificate signed"
        );
        Ok(DatabaseServerCertReply {
            certificate: signed.pem(),
            client_authority: self.db_client_ca.trusted().tls_certs.concat(),
            server_authority: self.db_ca.trusted().tls_certs.concat(),
            valid_until: now + chrono::Duration::from_std(ttl).unwrap_or_default(),
        })
    }
}

/// As the administrator sees it, who is nobody's user.
fn everybodys(server: &DatabaseServer) -> DatabaseEntry {
    DatabaseEntry {
        database: server.database().clone(),
        servers: 1,
        health: server.spec.health.clone(),
        allowed_users: Vec::new(),
        denied_users: Vec::new(),
        allowed_names: Vec::new(),
        denied_names: Vec::new(),
    }
}

fn of_roles(server: &DatabaseServer, roles: &RoleSet, labels: &Labels) -> DatabaseEntry {
    let (users, names) = (roles.database_users(labels), roles.database_names(labels));
    DatabaseEntry {
        allowed_users: users.allowed,
        denied_users: users.denied,
        allowed_names: names.allowed,
        denied_names: names.denied,
        ..everybodys(server)
    }
}

/// Another agent serves it too. What is shown is that of the first.
fn also(first: &mut DatabaseEntry, other: &DatabaseEntry) {
    first.servers += 1;
    if other.health.status < first.health.status {
        first.health = other.health.clone();
    }
}

/// A certificate was made.
fn made(identity: &Identity, server: &DatabaseServer, db_user: &str) -> AuditEvent {
    let cluster = identity.cluster.to_string();
    let route = DatabaseRoute {
        service: server.name().to_owned(),
        protocol: server.database().spec.protocol.to_string(),
        user: db_user.to_owned(),
        name: String::new(),
    };
    let identity = shared_events::Identity {
        user: identity.user.to_string(),
        roles: identity.roles.iter().map(ToString::to_string).collect(),
        usage: vec![shared_pki::USAGE_DATABASE.to_owned()],
        expires: identity.valid_until.into(),
        route_to_cluster: cluster.clone(),
        teleport_cluster: cluster,
        traits: (&identity.traits).into(),
        route_to_database: Some(events::route(&route)),
        ..shared_events::Identity::default()
    };
    events::cert_create("db_client", identity)
}

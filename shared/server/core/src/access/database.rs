//! Users of databases.
//!
//! The certificate says to which database its holder is on the way, and no other one is opened by it. Which user and
//! which name are wanted is said by the client, and decided by the roles: what the certificate says of them is what the
//! client is filled in with.

use std::net::IpAddr;

use shared_api::ClusterState;
use shared_authz::{DbTarget, RuleId};
use shared_events::AuditEvent;
use shared_pki::Identity;
use shared_types::{Database, Labels};

use super::{AccessRefused, Granted, Via, check_roles_exist, check_user, grant, roles, unexpired};
use crate::authority::EventSink;

/// A user of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbAccess {
    /// The database's name as a resource.
    pub service: String,
    /// As whom.
    pub user: String,
    /// The database on the server; empty where there are none, or the server chooses.
    pub name: String,
    /// Where it is, as the resource says; nothing else is dialled.
    pub server: String,
}

/// What a user asks for.
#[derive(Debug, Clone, Copy)]
pub struct DbRequest<'a> {
    /// The user, out of a verified certificate that is for a database.
    pub identity: &'a Identity,
    /// The database.
    pub database: &'a Database,
    /// As whom.
    pub user: &'a str,
    /// The database on the server; empty where there are none.
    pub name: &'a str,
    /// Where the client is.
    pub client: IpAddr,
    /// The service through which it is asked for.
    pub via: Via,
}

/// Decides, and leaves nothing behind: for a look at an access that is in use, and for connections that carry no session
/// of their own.
pub fn check_db(
    state: &ClusterState,
    request: &DbRequest<'_>,
) -> Result<Vec<RuleId>, AccessRefused> {
    let pinned = request.identity.pinned_ip.map(|address| address.to_canonical());
    if pinned.is_some_and(|address| address != request.client.to_canonical()) {
        return Err(AccessRefused::OtherAddress);
    }
    decide(state, request.identity, request.database, request.user, Some(request.name), request.via)
}

/// Decides about a user of a database, whatever name on it will be wanted and wherever the client is: for who makes the
/// certificate by which the database is met.
pub fn check_db_user(
    state: &ClusterState,
    identity: &Identity,
    database: &Database,
    user: &str,
    via: Via,
) -> Result<Vec<RuleId>, AccessRefused> {
    decide(state, identity, database, user, None, via)
}

fn decide(
    state: &ClusterState,
    identity: &Identity,
    database: &Database,
    user: &str,
    name: Option<&str>,
    via: Via,
) -> Result<Vec<RuleId>, AccessRefused> {
    check_user(state, identity, None, via)?;
    let route = identity.database.as_ref().ok_or(AccessRefused::OtherDatabase)?;
    let protocol = database.spec.protocol;
    if route.service != database.name() || route.protocol != protocol.as_str() {
        return Err(AccessRefused::OtherDatabase);
    }
    check_roles_exist(state, identity)?;
    let labels = database.all_labels();
    let target = DbTarget { service: database.name(), labels: &labels, protocol, user, name };
    Ok(roles(state, identity).check_database(&target).into_result()?)
}

/// Whether a user may know of a database: some user of it is allowed.
pub fn sees_database(state: &ClusterState, identity: &Identity, labels: &Labels) -> bool {
    roles(state, identity).reaches_database(labels)
}

/// Decides, makes `allowed` durable, and grants, as [`super::authorize_ssh`] does.
pub async fn authorize_db(
    state: &ClusterState,
    sink: &dyn EventSink,
    request: DbRequest<'_>,
    allowed: AuditEvent,
    refused: impl FnOnce(&str) -> AuditEvent,
) -> Result<Granted<DbAccess>, AccessRefused> {
    let decision = unexpired(request.identity).and_then(|()| check_db(state, &request));
    let target = || DbAccess {
        service: request.database.name().to_owned(),
        user: request.user.to_owned(),
        name: request.name.to_owned(),
        server: request.database.spec.uri.clone(),
    };
    grant(sink, request.identity, decision, target, allowed, refused).await
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use shared_events::{AuthAttempt, SessionConnect};
    use shared_pki::DatabaseRoute;
    use shared_types::resource::{DatabaseSpec, Lock, LockSpec, LockTarget};
    use shared_types::{DbProtocol, HostId};

    use super::*;
    use crate::testing::{FakeAuthority, identity, state};

    fn scene() -> (ClusterState, Identity, Database) {
        let mut state = state();
        for role in state.roles.values_mut() {
            role.spec.allow.db_users = vec!["alice".to_owned()];
            role.spec.allow.db_names = vec!["app".to_owned()];
        }
        let route = DatabaseRoute {
            service: "pg".to_owned(),
            protocol: "postgres".to_owned(),
            user: "root".to_owned(),
            name: String::new(),
        };
        let who = Identity {
            usage: vec![shared_pki::USAGE_DATABASE.to_owned()],
            database: Some(route),
            ..identity()
        };
        let database = Database::new("pg", DatabaseSpec::new(DbProtocol::Postgres, "a:5432"));
        (state, who, database)
    }

    fn request<'a>(
        who: &'a Identity,
        database: &'a Database,
        user: &'a str,
        name: &'a str,
    ) -> DbRequest<'a> {
        let client = "192.0.2.9".parse().unwrap();
        let via = Via { server: HostId::random(), confirmed: Utc::now() };
        DbRequest { identity: who, database, user, name, client, via }
    }

    fn refused(why: &str) -> AuditEvent {
        let mut event = AuthAttempt::default();
        event.status.error = why.to_owned();
        event.into()
    }

    #[tokio::test]
    async fn granted_only_after_the_event_is_durable() {
        let (state, who, database) = scene();
        let sink = FakeAuthority::new();
        let asked = request(&who, &database, "alice", "app");
        let allowed = || SessionConnect::default().into();
        let granted = authorize_db(&state, &sink, asked, allowed(), refused).await.unwrap();
        assert_eq!(sink.kinds(), ["session.connect"]);
        assert!(!granted.rules().is_empty());
        let access = granted.redeem();
        assert_eq!((access.user.as_str(), access.server.as_str()), ("alice", "a:5432"));
        sink.set_away(true);
        let err = authorize_db(&state, &sink, asked, allowed(), refused).await.unwrap_err();
        assert!(matches!(err, AccessRefused::NotDurable(_)), "{err}");
    }

    #[tokio::test]
    async fn every_refusal_is_written_down() {
        let (state, good, pg) = scene();
        let mysql = Database::new("pg", DatabaseSpec::new(DbProtocol::Mysql, "a:1"));
        let other = Database::new("hr", pg.spec.clone());
        let cases = [
            (good.clone(), &pg, "bob", "app", "no role allows the database user \"bob\" there"),
            (good.clone(), &pg, "root", "app", "no role allows the database user \"root\" there"),
            (good.clone(), &pg, "alice", "hr", "no role allows the database name \"hr\" there"),
            (good.clone(), &pg, "alice", "", "no role allows the database name \"\" there"),
            (good.clone(), &other, "alice", "app", "certificate is for another database"),
            (good.clone(), &mysql, "alice", "app", "certificate is for another database"),
            (identity(), &pg, "alice", "app", "certificate is for another database"),
            (
                Identity { valid_until: Utc::now(), ..good.clone() },
                &pg,
                "alice",
                "app",
                "certificate has expired",
            ),
            (
                Identity { pinned_ip: Some("192.0.2.8".parse().unwrap()), ..good.clone() },
                &pg,
                "alice",
                "app",
                "certificate is not valid for the source address",
            ),
            (
                Identity { roles: vec!["gone".parse().unwrap()], ..good.clone() },
                &pg,
                "alice",
                "app",
                "role gone does not exist",
            ),
            (
                Identity { cluster: "other".parse().unwrap(), ..good.clone() },
                &pg,
                "alice",
                "app",
                "certificate is of another cluster",
            ),
            (
                Identity { user: "nobody".parse().unwrap(), ..good },
                &pg,
                "alice",
                "app",
                "the account is locked or does not exist any more",
            ),
        ];
        for (who, database, user, name, expected) in cases {
            let sink = FakeAuthority::new();
            let asked = request(&who, database, user, name);
            let allowed = SessionConnect::default().into();
            let err = authorize_db(&state, &sink, asked, allowed, refused).await.unwrap_err();
            assert_eq!(err.to_string(), expected);
            let [AuditEvent::AuthAttempt(event)] = &sink.events()[..] else { panic!("{expected}") };
            assert_eq!(event.status.error, expected);
            let typed = expected.starts_with("no role allows");
            assert_eq!(err.peer_text().contains("Confirm database user and name"), typed);
            assert!(
                !err.peer_text().contains("gone") && !err.peer_text().contains("another cluster")
            );
        }
    }

    #[test]
    fn a_lock_on_the_agent_or_the_user_stops() {
        let (mut state, who, database) = scene();
        let asked = request(&who, &database, "alice", "app");
        assert!(check_db(&state, &asked).is_ok());
        let target = LockTarget { server_id: Some(asked.via.server), ..LockTarget::default() };
        state.locks = vec![Lock::new("l", LockSpec { target, ..LockSpec::default() })];
        assert!(matches!(check_db(&state, &asked), Err(AccessRefused::Locked(_))));
        let target = LockTarget { user: Some(who.user.clone()), ..LockTarget::default() };
        state.locks = vec![Lock::new("l", LockSpec { target, ..LockSpec::default() })];
        assert!(matches!(check_db(&state, &asked), Err(AccessRefused::Locked(_))));
        assert!(sees_database(&state, &who, &Labels::new()));
    }
}

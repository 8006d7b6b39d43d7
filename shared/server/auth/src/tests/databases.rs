//! Databases: agents that serve them, users who see them, certificates on the way.

use chrono::Duration;
use serde_json::{Value, json};
use shared_api::{
    DatabaseCertFormat, DatabaseCertRequest, DatabaseServerCertRequest, DatabasesQuery, DbPresence,
    ErrorKind, LoginReply, UserCertsRequest,
};
use shared_pki::{CaKind, DatabaseRoute, Identity, TlsKey};
use shared_types::resource::{DatabaseSpec, HealthStatus};
use shared_types::{Database, DatabaseServer, DbProtocol, HostId, SystemRole};

use super::{Bed, Keys, PASSWORD, here};
use crate::caller::Caller;
use crate::error::Result;

/// A cluster in which this host's agent serves `pg` (prod), `hr` (prod) and `cache` (dev).
async fn bed() -> Bed {
    let bed = Bed::new().await;
    let allow =
        json!({"db_labels": {"env": "prod"}, "db_users": ["app", "ro"], "db_names": ["shop"]});
    bed.role("prod", allow).await;
    bed.role("dev", json!({"db_labels": {"env": "dev"}, "db_users": ["*"]})).await;
    bed.user("joe", &["prod"], &[]).await;
    bed.user("mia", &["dev"], &[]).await;
    serve(&bed, &agent(&bed), all(&bed)).await.unwrap();
    bed
}

fn agent(bed: &Bed) -> Caller {
    bed.system(SystemRole::Db)
}

fn server(bed: &Bed, name: &str, protocol: DbProtocol, env: &str) -> DatabaseServer {
    let mut database = Database::new(name, DatabaseSpec::new(protocol, "10.0.0.9"));
    database.metadata.labels.insert("env".to_owned(), env.to_owned());
    DatabaseServer::of(bed.service.host_id(), "gate", database)
}

fn all(bed: &Bed) -> Vec<DatabaseServer> {
    vec![
        server(bed, "pg", DbProtocol::Postgres, "prod"),
        server(bed, "hr", DbProtocol::Mysql, "prod"),
        server(bed, "cache", DbProtocol::Redis, "dev"),
    ]
}

async fn serve(bed: &Bed, caller: &Caller, servers: Vec<DatabaseServer>) -> Result<()> {
    bed.service.heartbeat_db(caller, DbPresence { servers }).await.map(drop)
}

fn services(bed: &Bed) -> Vec<String> {
    bed.service.presence.view().databases.iter().map(|server| server.name().to_owned()).collect()
}

fn route(service: &str, user: &str, name: &str) -> DatabaseRoute {
    let protocol = if service == "hr" { "mysql" } else { "postgres" };
    DatabaseRoute {
        service: service.to_owned(),
        protocol: protocol.to_owned(),
        user: user.to_owned(),
        name: name.to_owned(),
    }
}

async fn certify(bed: &Bed, user: &str, route: DatabaseRoute) -> Result<LoginReply> {
    let caller = bed.caller(user).await;
    let ask = UserCertsRequest {
        user: None,
        ssh_public_key: String::new(),
        tls_public_key: TlsKey::generate().unwrap().public().to_pem(),
        ttl_seconds: None,
        database: Some(route),
    };
    bed.service.user_certs(&caller, ask).await
}

fn der(pem: &str) -> Vec<u8> {
    shared_transport::tls::certs_from_pem(pem.as_bytes()).unwrap()[0].to_vec()
}

fn told<T: std::fmt::Debug>(outcome: Result<T>) -> (ErrorKind, String) {
    let answer = outcome.unwrap_err().into_answer();
    (answer.kind, answer.message)
}

fn sign_ask(certificate: &[u8], service: &str, user: &str) -> DatabaseCertRequest {
    let key = TlsKey::generate().unwrap();
    DatabaseCertRequest::new(key.public().to_pem(), certificate, service, user)
}

#[tokio::test]
async fn what_an_agent_serves_is_what_it_said_last() {
    let bed = bed().await;
    let agent = agent(&bed);
    assert_eq!(services(&bed), ["cache", "hr", "pg"]);
    let start = bed.service.presence.view().revision;
    serve(&bed, &agent, all(&bed)).await.unwrap();
    assert_eq!(bed.service.presence.view().revision, start, "nothing new");
    serve(&bed, &agent, vec![server(&bed, "pg", DbProtocol::Postgres, "dev")]).await.unwrap();
    assert_eq!(services(&bed), ["pg"]);
    // It is there as long as it says so, and no longer.
    bed.advance(Duration::minutes(9));
    serve(&bed, &agent, vec![server(&bed, "pg", DbProtocol::Postgres, "dev")]).await.unwrap();
    bed.advance(Duration::minutes(9));
    bed.service.sweep();
    assert_eq!(services(&bed), ["pg"]);
    bed.advance(Duration::minutes(2));
    bed.service.sweep();
    assert!(services(&bed).is_empty());
    serve(&bed, &agent, all(&bed)).await.unwrap();
    bed.service.withdraw_db(&agent).await.unwrap();
    assert!(services(&bed).is_empty());
}

#[tokio::test]
async fn an_agent_speaks_of_itself_and_in_its_role_only() {
    let bed = bed().await;
    let agent = agent(&bed);
    for role in [SystemRole::Node, SystemRole::Proxy, SystemRole::Auth, SystemRole::Admin] {
        let caller = bed.system(role);
        assert_eq!(told(serve(&bed, &caller, all(&bed)).await).0, ErrorKind::Denied, "{role}");
        assert_eq!(told(bed.service.withdraw_db(&caller).await).0, ErrorKind::Denied, "{role}");
        let ask = sign_ask(b"", "pg", "app");
        let signed = bed.service.sign_database_client(&caller, ask).await;
        assert_eq!(told(signed).0, ErrorKind::Denied, "{role}");
    }
    let mut foreign = server(&bed, "pg", DbProtocol::Postgres, "prod");
    foreign.spec.host_id = HostId::random();
    assert_eq!(told(serve(&bed, &agent, vec![foreign]).await).0, ErrorKind::Denied);
    let twice = vec![all(&bed).remove(0), all(&bed).remove(0)];
    assert_eq!(told(serve(&bed, &agent, twice).await).0, ErrorKind::BadRequest);
    let mut hostile = server(&bed, "pg", DbProtocol::Postgres, "prod");
    hostile.spec.database.metadata.name = "other".to_owned();
    assert_eq!(told(serve(&bed, &agent, vec![hostile]).await).0, ErrorKind::BadRequest);
    let many = (0..=shared_api::limits::MAX_DATABASES)
        .map(|n| server(&bed, &format!("d{n}"), DbProtocol::Redis, "x"))
        .collect();
    assert_eq!(told(serve(&bed, &agent, many).await).0, ErrorKind::BadRequest);
    assert_eq!(services(&bed), ["cache", "hr", "pg"], "what was said before stands");
    // Nor does it say what it is called.
    let mut named = server(&bed, "pg", DbProtocol::Postgres, "prod");
    named.spec.hostname = "bank".to_owned();
    serve(&bed, &agent, vec![named]).await.unwrap();
    assert_eq!(bed.service.presence.view().databases[0].spec.hostname, "gate");
}

#[tokio::test]
async fn what_is_served_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::open(super::settings(folder.path())).await;
    serve(&bed, &agent(&bed), all(&bed)).await.unwrap();
    let export = bed.service.export(Some("db")).unwrap();
    bed.service.close().await;
    drop(bed);
    let bed = Bed::open(super::settings(folder.path())).await;
    assert_eq!(services(&bed), ["cache", "hr", "pg"]);
    assert_eq!(bed.service.export(Some("db")).unwrap(), export);
    bed.advance(Duration::minutes(11));
    bed.service.sweep();
    assert!(services(&bed).is_empty());
}

#[tokio::test]
async fn users_see_the_databases_they_may_use() {
    let bed = bed().await;
    let listed = |user: &'static str, ask: DatabasesQuery| {
        let bed = &bed;
        async move {
            let caller = if user == "admin" { bed.admin() } else { bed.caller(user).await };
            bed.service.databases(&caller, &ask).unwrap().items
        }
    };
    let names = |items: Vec<shared_api::DatabaseEntry>| {
        items.iter().map(|item| item.database.name().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let all = DatabasesQuery::default;
    assert_eq!(names(listed("admin", all()).await), "cache hr pg");
    assert_eq!(names(listed("joe", all()).await), "hr pg");
    assert_eq!(names(listed("mia", all()).await), "cache");
    let query = DatabasesQuery { query: Some("hasPrefix(name, \"p\")".to_owned()), ..all() };
    assert_eq!(names(listed("joe", query).await), "pg");
    let query = DatabasesQuery { query: Some("name == \"pg\"".to_owned()), ..all() };
    assert_eq!(names(listed("mia", query).await), "", "a filter shows nothing more");
    let search = DatabasesQuery { search: Some("MYSQL".to_owned()), ..all() };
    assert_eq!(names(listed("joe", search).await), "hr");
    let labels = DatabasesQuery { labels: Some("env=dev".to_owned()), ..all() };
    assert_eq!(names(listed("joe", labels).await), "");
    let pg = listed("joe", all()).await.remove(1);
    assert_eq!(
        (pg.allowed_users, pg.allowed_names),
        (vec!["app".into(), "ro".into()], vec!["shop".to_owned()])
    );
    let cache = listed("mia", all()).await.remove(0);
    assert_eq!((cache.allowed_users, cache.servers), (vec!["*".to_owned()], 1));

    // A second agent: it counts, and the better health is shown.
    let other = shared_api::HostDatabases {
        host_id: HostId::random(),
        servers: vec![{
            let mut second = server(&bed, "pg", DbProtocol::Postgres, "prod");
            second.spec.health.status = HealthStatus::Healthy;
            second
        }],
    };
    let mut other = other;
    other.servers[0].spec.host_id = other.host_id;
    let changes = shared_api::NodeChanges { databases: vec![other], ..Default::default() };
    let both = bed.service.presence.view().after(changes);
    assert_eq!(both.database_servers("pg").len(), 2);
}

#[tokio::test]
async fn a_certificate_is_for_one_database_where_the_roles_admit() {
    let bed = bed().await;
    let reply = certify(&bed, "joe", route("pg", "app", "shop")).await.unwrap();
    assert!(reply.ssh_cert.is_empty());
    let events = bed.events().await;
    assert!(events.last().unwrap().starts_with("cert.create"), "{events:?}");
    let cert = der(&reply.tls_cert);
    let identity = bed.service.verifier.database_user(&cert, bed.service.now()).unwrap();
    assert_eq!(identity.database, Some(route("pg", "app", "shop")));
    let login = Identity::from_tls_cert(&der(&bed
        .login("joe", PASSWORD, &Keys::new())
        .await
        .unwrap()
        .tls_cert))
    .unwrap();
    assert!(identity.valid_until <= login.valid_until);
    // It opens nothing of the cluster.
    let refused = bed.service.caller(&cert, here()).await;
    assert_eq!(told(refused).0, ErrorKind::Unauthenticated);

    for (user, wish, kind, text) in [
        (
            "joe",
            route("pg", "root", "shop"),
            ErrorKind::Denied,
            "access to database \"pg\" denied: no role allows the database user \"root\" there",
        ),
        (
            "joe",
            route("pg", "app", "hr"),
            ErrorKind::Denied,
            "access to database \"pg\" denied: no role allows the database name \"hr\" there",
        ),
        (
            "joe",
            route("nothing", "app", ""),
            ErrorKind::NotFound,
            "database \"nothing\" is not found",
        ),
        ("mia", route("pg", "app", "shop"), ErrorKind::NotFound, "database \"pg\" is not found"),
        (
            "joe",
            DatabaseRoute { protocol: "redis".to_owned(), ..route("pg", "app", "") },
            ErrorKind::BadRequest,
            "database \"pg\" does not speak \"redis\"",
        ),
    ] {
        let outcome = certify(&bed, user, wish).await;
        assert_eq!(told(outcome), (kind, text.to_owned()));
    }
    // Names are for the protocols that have them, and what is not said is said later.
    assert!(certify(&bed, "joe", route("hr", "app", "anything")).await.is_ok());
    assert!(certify(&bed, "joe", route("pg", "", "")).await.is_ok());
    let silent = DatabaseRoute { protocol: String::new(), ..route("pg", "app", "") };
    let cert = der(&certify(&bed, "joe", silent).await.unwrap().tls_cert);
    let identity = bed.service.verifier.database_user(&cert, bed.service.now()).unwrap();
    assert_eq!(identity.database.unwrap().protocol, "postgres");
    // With a use of its own it does not make another.
    let plain = UserCertsRequest {
        user: None,
        ssh_public_key: String::new(),
        tls_public_key: TlsKey::generate().unwrap().public().to_pem(),
        ttl_seconds: None,
        database: None,
    };
    assert_eq!(
        told(bed.service.user_certs(&bed.caller("joe").await, plain).await).0,
        ErrorKind::BadRequest
    );
}

#[tokio::test]
async fn an_agent_meets_a_database_for_who_may_be_there_now() {
    let bed = bed().await;
    let agent = agent(&bed);
    let cert = der(&certify(&bed, "joe", route("pg", "app", "shop")).await.unwrap().tls_cert);
    let identity = bed.service.verifier.database_user(&cert, bed.service.now()).unwrap();
    let sign = |ask: DatabaseCertRequest| bed.service.sign_database_client(&agent, ask);
    let reply = sign(sign_ask(&cert, "pg", "app")).await.unwrap();
    let early = identity.valid_until - reply.valid_until;
    assert!((0..=1).contains(&early.num_seconds()), "{early}");
    let signed = der(&reply.certificate);
    let (_, read) = x509_parser::parse_x509_certificate(&signed).unwrap();
    assert_eq!(read.subject().to_string(), "CN=app");
    assert_eq!(read.validity().not_after.timestamp(), reply.valid_until.timestamp());
    // Another user that the roles allow, whatever the certificate was filled in with.
    assert!(sign(sign_ask(&cert, "pg", "ro")).await.is_ok());

    let login = bed.login("joe", PASSWORD, &Keys::new()).await.unwrap();
    for (certificate, service, user) in [
        (&cert, "pg", "root"),
        (&cert, "hr", "app"),
        (&cert, "cache", "app"),
        (&cert, "nothing", "app"),
        (&der(&login.tls_cert), "pg", "app"),
        (&b"garbage".to_vec(), "pg", "app"),
    ] {
        let outcome = sign(sign_ask(certificate, service, user)).await;
        assert_eq!(told(outcome).0, ErrorKind::Denied, "{service} {user}");
    }
    // What the host does not serve any more, what the roles do not allow any more, and who is locked.
    serve(&bed, &agent, Vec::new()).await.unwrap();
    assert_eq!(told(sign(sign_ask(&cert, "pg", "app")).await).0, ErrorKind::Denied);
    serve(&bed, &agent, all(&bed)).await.unwrap();
    bed.role("prod", json!({"db_labels": {"env": "prod"}, "db_users": ["ro"]})).await;
    assert_eq!(told(sign(sign_ask(&cert, "pg", "app")).await).0, ErrorKind::Denied);
    assert!(sign(sign_ask(&cert, "pg", "ro")).await.is_ok());
    let lock =
        json!({"kind": "lock", "metadata": {"name": "l"}, "spec": {"target": {"user": "joe"}}});
    bed.service.create_resource(&bed.admin(), "lock", lock, false).await.unwrap();
    assert_eq!(told(sign(sign_ask(&cert, "pg", "ro")).await).0, ErrorKind::Denied);
    bed.service.delete_resource(&bed.admin(), "lock", "l").await.unwrap();
    bed.advance(Duration::days(2));
    serve(&bed, &agent, all(&bed)).await.unwrap();
    let (kind, text) = told(sign(sign_ask(&cert, "pg", "ro")).await);
    assert_eq!(
        (kind, text.as_str()),
        (ErrorKind::Denied, "certificate of the user: cert has expired")
    );
}

#[tokio::test]
async fn a_database_server_gets_what_its_format_wants() {
    let bed = bed().await;
    let ask = |hosts: &[&str], format| DatabaseServerCertRequest {
        hosts: hosts.iter().map(ToString::to_string).collect(),
        public_key_pem: TlsKey::generate().unwrap().public().to_pem(),
        ttl_seconds: None,
        format,
    };
    let subject = |format| {
        let reply = bed
            .service
            .sign_database_server(&bed.admin(), ask(&["db.example.com", "10.0.0.9"], format))
            .unwrap();
        let client = bed.service.current_state().authority(CaKind::DbClient).unwrap().clone();
        assert_eq!(reply.client_authority, client.tls_certs.concat());
        let cert = der(&reply.certificate);
        let (_, read) = x509_parser::parse_x509_certificate(&cert).unwrap();
        read.subject().to_string()
    };
    assert_eq!(subject(DatabaseCertFormat::Db), "CN=db.example.com");
    assert_eq!(subject(DatabaseCertFormat::Cockroachdb), "CN=node");
    assert_eq!(subject(DatabaseCertFormat::Mongodb), "O=example.test, CN=db.example.com");
    let db = DatabaseCertFormat::Db;
    let outcome = bed.service.sign_database_server(&bed.admin(), ask(&[], db));
    assert_eq!(told(outcome).1, "at least one hostname must be specified");
    let outcome = bed.service.sign_database_server(&bed.admin(), ask(&["a b"], db));
    assert_eq!(told(outcome).0, ErrorKind::BadRequest);
    let zero = DatabaseServerCertRequest { ttl_seconds: Some(0), ..ask(&["a"], db) };
    assert_eq!(told(bed.service.sign_database_server(&bed.admin(), zero)).0, ErrorKind::BadRequest);
    let joe = bed.caller("joe").await;
    assert_eq!(told(bed.service.sign_database_server(&joe, ask(&["a"], db))).0, ErrorKind::Denied);
    for kind in ["db", "db-client"] {
        assert!(bed.service.export(Some(kind)).unwrap().starts_with("-----BEGIN CERTIFICATE"));
    }
}

fn document(name: &str, spec: Value) -> Value {
    json!({"kind": "db", "version": "v3", "metadata": {"name": name, "labels": {"env": "dev"}}, "spec": spec})
}

#[tokio::test]
async fn databases_are_written_as_documents_and_agents_hear_of_them() {
    let bed = bed().await;
    let (service, admin) = (&bed.service, bed.admin());
    let spec = || json!({"protocol": "postgres", "uri": "10.0.0.9:5432"});
    let before = service.current_state().revision;
    service.create_resource(&admin, "db", document("pg-2", spec()), false).await.unwrap();
    let state = service.current_state();
    assert!(state.revision > before && state.databases.len() == 1);
    assert_eq!(state.databases[0].name(), "pg-2");
    let again = service.create_resource(&admin, "db", document("pg-2", spec()), false).await;
    assert_eq!(told(again).0, ErrorKind::AlreadyExists);
    let moved = json!({"protocol": "postgres", "uri": "10.0.0.10:5432"});
    service.create_resource(&admin, "db", document("pg-2", moved), true).await.unwrap();
    assert_eq!(service.current_state().databases[0].spec.uri, "10.0.0.10:5432");
    let commands = json!({"protocol": "postgres", "uri": "a", "dynamic_labels": {"x": {"command": ["id"], "period": "1m"}}});
    let refused = service.create_resource(&admin, "db", document("evil", commands), false).await;
    assert_eq!(told(refused).0, ErrorKind::BadRequest);
    service.delete_resource(&admin, "db", "pg-2").await.unwrap();
    assert!(service.current_state().databases.is_empty());
    let events = bed.events().await;
    let told_of: Vec<&str> = events.iter().filter_map(|event| event.strip_prefix("db.")).collect();
    assert_eq!(told_of, ["create TDB03I", "update TDB04I", "delete TDB05I"]);
    let mia = bed.caller("mia").await;
    let refused = service.create_resource(&mia, "db", document("x", spec()), false).await;
    assert_eq!(told(refused).0, ErrorKind::Denied);
}

#[tokio::test]
async fn servers_are_listed_and_taken_away_and_agents_put_out() {
    let bed = bed().await;
    let (service, admin) = (&bed.service, bed.admin());
    let listed = service.list_resources(&admin, "db_servers").await.unwrap().items;
    assert_eq!(listed.len(), 3);
    assert!(listed[0]["metadata"]["expires"].is_string());
    let pg = service.read_resource(&admin, "db_server", "pg").await.unwrap();
    assert_eq!(pg["spec"]["database"]["spec"]["protocol"], "postgres");
    let written = service.create_resource(&admin, "db_server", pg, true).await;
    assert_eq!(told(written).0, ErrorKind::BadRequest);
    service.delete_resource(&admin, "db_server", "pg").await.unwrap();
    assert_eq!(services(&bed), ["cache", "hr"]);
    assert_eq!(
        told(service.delete_resource(&admin, "db_server", "pg").await).0,
        ErrorKind::NotFound
    );
    serve(&bed, &agent(&bed), all(&bed)).await.unwrap();
    assert_eq!(services(&bed), ["cache", "hr", "pg"]);
    let own = service.host_id().to_string();
    let refused = told(service.delete_resource(&admin, "db_server", &own).await);
    assert_eq!(refused.0, ErrorKind::BadRequest, "{}", refused.1);
    assert_eq!(services(&bed).len(), 3);
}

use serde_json::json;

use super::*;
use crate::{HostId, Resource};

fn read(spec: serde_json::Value) -> Result<Database, String> {
    let document = json!({"kind": "db", "version": "v3", "metadata": {"name": "pg"}, "spec": spec});
    serde_json::from_value(document).map_err(|error| error.to_string())
}

#[test]
fn a_database_as_people_write_it() {
    let spec = json!({
        "protocol": "postgres", "uri": "pg.example.com:5432",
        "tls": {"mode": "verify-ca", "server_name": "other.example.com"},
        "dynamic_labels": {"role": {"command": ["true"], "period": "1m"}},
        "aws": {"region": "eu-1"}, "gcp": {}, "azure": null, "admin_user": {},
    });
    let database = read(spec).unwrap();
    assert_eq!(database.spec.address(), Some(("pg.example.com", 5432)));
    assert_eq!(database.spec.tls.mode, DbTlsMode::VerifyCa);
    assert_eq!(database.all_labels()["role"], "");
    let resource = Resource::from(database.clone());
    assert_eq!(Resource::from_json(resource.to_json()).unwrap(), resource);
    assert!(database.contains_all(&["EXAMPLE".to_owned(), "postgres".to_owned()]));
    assert!(!database.contains_all(&["mysql".to_owned()]));
}

#[test]
fn addresses() {
    let address = |protocol, uri: &str| {
        DatabaseSpec::new(protocol, uri).address().map(|(host, port)| format!("{host} {port}"))
    };
    for (protocol, uri, expected) in [
        (DbProtocol::Postgres, "a:1", "a 1"),
        (DbProtocol::Postgres, "a", "a 5432"),
        (DbProtocol::Postgres, "[::1]:1", "::1 1"),
        (DbProtocol::Postgres, "[::1]", "::1 5432"),
        (DbProtocol::Postgres, "::1", "::1 5432"),
        (DbProtocol::Redis, "rediss://a:7?mode=standalone", "a 7"),
        (DbProtocol::Dynamodb, "http://127.0.0.1/", "127.0.0.1 80"),
        (DbProtocol::Dynamodb, "https://a", "a 443"),
        (DbProtocol::Mysql, "mysql://a:2", "a 2"),
    ] {
        assert_eq!(address(protocol, uri).as_deref(), Some(expected), "{uri}");
    }
    for (protocol, uri) in [
        (DbProtocol::Postgres, ""),
        (DbProtocol::Postgres, "a:0"),
        (DbProtocol::Postgres, "a:x"),
        (DbProtocol::Postgres, "a b:1"),
        (DbProtocol::Postgres, "joe@a:1"),
        (DbProtocol::Postgres, "mysql://a:1"),
        (DbProtocol::Postgres, "[::1]x"),
    ] {
        assert_eq!(address(protocol, uri), None, "{uri}");
    }
}

#[test]
fn what_cannot_be_served_is_refused() {
    for (spec, expected) in [
        (
            json!({"protocol": "mongodb", "uri": "a:1"}),
            "database protocol \"mongodb\" is not supported yet; supported are postgres, cockroachdb, mysql, redis, dynamodb",
        ),
        (
            json!({"protocol": "mysql", "uri": "a:0"}),
            "spec.uri: expected HOST:PORT, such as db.example.com:3306",
        ),
        (
            json!({"protocol": "mysql", "uri": "a", "gcp": {"project_id": "x"}}),
            "spec.gcp: is not supported yet",
        ),
        (
            json!({"protocol": "mysql", "uri": "a", "admin_user": {"name": "x"}}),
            "spec.admin_user: is not supported yet",
        ),
        (json!({"protocol": "mysql", "uri": "a", "ad": "x"}), "spec.ad: is not supported yet"),
        (
            json!({"protocol": "mysql", "uri": "a", "aws": {"redshift": {}}}),
            "unknown field `redshift`",
        ),
        (json!({"protocol": "mysql", "uri": "a", "tls": {"mode": "off"}}), "unknown variant `off`"),
        (json!({"protocol": "mysql", "uri": "a", "tls": {"ca_cert": "x"}}), "spec.tls.ca_cert"),
        (
            json!({"protocol": "mysql", "uri": "a", "tls": {"server_name": "a b"}}),
            "spec.tls.server_name",
        ),
        (
            json!({"protocol": "mysql", "uri": "a", "mysql": {"server_version": "8\n"}}),
            "spec.mysql.server_version",
        ),
        (json!({"protocol": "mysql", "uri": "a", "frob": 1}), "unknown field `frob`"),
    ] {
        let error = read(spec.clone()).unwrap_err();
        assert!(error.contains(expected), "{spec}: {error}");
    }
    let named = |name: &str| {
        let mut database = Database::new(name, DatabaseSpec::new(DbProtocol::Redis, "a:1"));
        database.metadata.labels.insert("env".to_owned(), "dev".to_owned());
        database.check()
    };
    assert!(named("pg-1_a.b").is_ok());
    for name in ["", "-x", "a b", "a/b", "..", "a\n", "ä"] {
        assert!(named(name).is_err(), "{name:?}");
    }
}

#[test]
fn a_server_is_named_as_its_database() {
    let database = Database::new("pg", DatabaseSpec::new(DbProtocol::Postgres, "a:1"));
    let server = DatabaseServer::of(HostId::random(), "agent-1", database);
    server.check().unwrap();
    let json = Resource::from(server.clone()).to_json();
    assert_eq!(Resource::from_json(json).unwrap(), Resource::from(server.clone()));
    let mut other = server.clone();
    other.metadata.name = "my".to_owned();
    assert!(other.check().is_err());
    let mut hostile = server;
    hostile.spec.hostname = "a;b".to_owned();
    assert!(hostile.check().is_err());
}

#[test]
fn protocols() {
    for protocol in DbProtocol::ALL {
        assert_eq!(protocol.as_str().parse::<DbProtocol>().unwrap(), protocol);
    }
    assert!(DbProtocol::Postgres.has_names() && !DbProtocol::Mysql.has_names());
    assert_eq!(DbProtocol::Cockroachdb.alpn(), "teleport-postgres");
}

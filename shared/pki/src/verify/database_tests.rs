//! Certificates about databases: good for one use, and of one authority each.

use super::{CertRefusal, TlsVerifier};
use crate::subject::{self, Subject};
use crate::testing::{Cluster, HOUR, cluster, host_tls, now, tls_identity};
use crate::{
    CaKind, CertAuthority, DatabaseRoute, DbClientSpec, DbServerSpec, PkiError, TlsIdentity,
    TlsKey, USAGE_DATABASE,
};
use shared_types::SystemRole;

fn route() -> DatabaseRoute {
    DatabaseRoute {
        service: "pg-1".to_owned(),
        protocol: "postgres".to_owned(),
        user: "alice \u{e4}".to_owned(),
        name: "app".to_owned(),
    }
}

fn key() -> TlsKey {
    TlsKey::generate().unwrap()
}

fn signed(cluster: &Cluster, identity: &TlsIdentity) -> Vec<u8> {
    let ca = cluster.user.tls_ca().unwrap();
    ca.sign_client(identity, &key().public(), now(), HOUR).unwrap().der().to_vec()
}

#[test]
fn a_route_is_read_back_and_opens_nothing_else() {
    let cluster = Cluster::new();
    let verifier = TlsVerifier::new(&cluster.trusted);
    let routed = signed(&cluster, &TlsIdentity { database: Some(route()), ..tls_identity() });
    let identity = verifier.database_user(&routed, now()).unwrap();
    assert_eq!(identity.database, Some(route()));
    assert_eq!(identity.usage, [USAGE_DATABASE]);
    assert_eq!(identity.roles, tls_identity().roles);
    assert_eq!(verifier.peer(&routed, now()), Err(CertRefusal::Usage));
    let partial = DatabaseRoute { user: String::new(), name: String::new(), ..route() };
    let der = signed(&cluster, &TlsIdentity { database: Some(partial.clone()), ..tls_identity() });
    assert_eq!(verifier.database_user(&der, now()).unwrap().database, Some(partial));

    // A certificate for anything is not one for a database, nor is one for something else, nor a service's.
    let plain = signed(&cluster, &tls_identity());
    assert!(verifier.peer(&plain, now()).unwrap().database.is_none());
    assert_eq!(verifier.database_user(&plain, now()), Err(CertRefusal::Usage));
    let kube = TlsIdentity { usage: vec!["usage:kube".to_owned()], ..tls_identity() };
    let der = signed(&cluster, &kube);
    assert_eq!(verifier.peer(&der, now()), Err(CertRefusal::Usage));
    assert_eq!(verifier.database_user(&der, now()), Err(CertRefusal::Usage));
    let ca = cluster.host.tls_ca().unwrap();
    let host = ca.sign_server(&host_tls(SystemRole::Proxy), &key().public(), now(), None).unwrap();
    assert_eq!(verifier.database_user(host.der(), now()), Err(CertRefusal::Usage));

    // With two uses it is neither's, and the use alone says no database.
    let both = TlsIdentity { database: Some(route()), ..kube };
    let der = signed(&cluster, &both);
    assert_eq!(verifier.database_user(&der, now()), Err(CertRefusal::Usage));
    let empty = TlsIdentity { usage: vec![USAGE_DATABASE.to_owned()], ..tls_identity() };
    let der = signed(&cluster, &empty);
    assert_eq!(verifier.database_user(&der, now()), Err(CertRefusal::Identity));
}

#[test]
fn a_route_is_plain() {
    let cluster = Cluster::new();
    let ca = cluster.user.tls_ca().unwrap();
    for bad in [
        DatabaseRoute { service: String::new(), ..route() },
        DatabaseRoute { service: "a/b".to_owned(), ..route() },
        DatabaseRoute { protocol: "a b".to_owned(), ..route() },
        DatabaseRoute { user: "a\0b".to_owned(), ..route() },
        DatabaseRoute { name: "a".repeat(257), ..route() },
    ] {
        let identity = TlsIdentity { database: Some(bad), ..tls_identity() };
        let error = ca.sign_client(&identity, &key().public(), now(), HOUR).unwrap_err();
        assert!(matches!(error, PkiError::Identity(_)), "{error}");
    }
}

#[test]
fn each_authority_signs_its_own() {
    let make = |kind| CertAuthority::generate(kind, &cluster(), now()).unwrap();
    let (db, client) = (make(CaKind::Db), make(CaKind::DbClient));
    let spec = DbClientSpec { user: "alice".to_owned() };
    let sign = |ca: &CertAuthority, spec: &DbClientSpec| {
        ca.tls_ca().unwrap().sign_db_client(spec, &key().public(), now(), HOUR)
    };
    let cert = sign(&client, &spec).unwrap();
    let (_, read) = x509_parser::parse_x509_certificate(cert.der()).unwrap();
    let subject = Subject::read(&read).unwrap();
    assert_eq!(subject.all(subject::COMMON_NAME).collect::<Vec<_>>(), ["alice"]);
    assert_eq!(read.subject().iter_attributes().count(), 1);
    let usage = read.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    for wrong in [&db, &make(CaKind::User), &make(CaKind::Host)] {
        assert!(matches!(sign(wrong, &spec), Err(PkiError::WrongAuthority(..))));
    }
    for user in ["", "a\nb"] {
        let spec = DbClientSpec { user: user.to_owned() };
        assert!(matches!(sign(&client, &spec), Err(PkiError::Name(_))), "{user:?}");
    }

    let server = DbServerSpec {
        hosts: vec!["db.example.com".to_owned(), "10.0.0.7".to_owned()],
        common_name: None,
        organization: Some(cluster()),
    };
    let sign = |ca: &CertAuthority, spec: &DbServerSpec| {
        ca.tls_ca().unwrap().sign_db_server(spec, &key().public(), now(), HOUR)
    };
    let cert = sign(&db, &server).unwrap();
    let (_, read) = x509_parser::parse_x509_certificate(cert.der()).unwrap();
    let subject = Subject::read(&read).unwrap();
    assert_eq!(subject.all(subject::COMMON_NAME).collect::<Vec<_>>(), ["db.example.com"]);
    assert_eq!(subject.all(subject::ORGANIZATION).collect::<Vec<_>>(), ["example.com"]);
    assert_eq!(read.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
    assert!(matches!(sign(&client, &server), Err(PkiError::WrongAuthority(..))));
    let none = DbServerSpec { hosts: Vec::new(), ..server.clone() };
    assert!(matches!(sign(&db, &none), Err(PkiError::NoPrincipals)));
    let node = DbServerSpec { common_name: Some("node".to_owned()), organization: None, ..server };
    let cert = sign(&db, &node).unwrap();
    let (_, read) = x509_parser::parse_x509_certificate(cert.der()).unwrap();
    let subject = Subject::read(&read).unwrap();
    assert_eq!(subject.all(subject::COMMON_NAME).collect::<Vec<_>>(), ["node"]);

    // Neither vouches for a peer of the cluster.
    let trusted = [db.trusted(), client.trusted()];
    assert_eq!(
        TlsVerifier::new(&trusted).peer(cert.der(), now()),
        Err(CertRefusal::UnknownAuthority)
    );
}

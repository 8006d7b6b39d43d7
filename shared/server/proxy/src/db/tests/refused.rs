//! Who is not led to a database, and how they read it.

use shared_transport::alpn;
use shared_types::resource::{Lock, LockSpec, LockTarget};
use shared_types::{DbProtocol, HostId};
use shared_wire::postgres::{Cancel, SSL_REQUEST};
use tokio::io::AsyncWriteExt as _;

use super::support::{Pair, World, comes, long_ago, rest, route, server, startup, text};
use super::{mysql_greeting, protocols, ssl_request};
use crate::test_support::Cluster;

/// What a PostgreSQL client reads.
async fn told(world: &World, pair: Option<&Pair>) -> String {
    let mut client = world.client(alpn::POSTGRES, pair).await;
    client.write_all(&startup()).await.unwrap();
    text(&rest(&mut client).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_led_on_who_may_not_be() {
    let world = World::start().await;
    let (echo, _offered) = world.local("shop", DbProtocol::Postgres);
    let here = world.cluster.recorder;
    world.register(vec![
        server(here, "shop", DbProtocol::Postgres, "dev"),
        server(here, "vault", DbProtocol::Postgres, "prod"),
        server(HostId::random(), "away", DbProtocol::Postgres, "dev"),
        server(here, "cache", DbProtocol::Redis, "dev"),
    ]);
    let postgres = |service: &str| world.joe(service, DbProtocol::Postgres);
    let stranger = Cluster::new();
    let of = |by: &Cluster, from| {
        world.signed_from(by, from, |joe| joe.database = Some(route("shop", DbProtocol::Postgres)))
    };
    let pinned = world.signed(&world.cluster, |joe| {
        joe.database = Some(route("shop", DbProtocol::Postgres));
        joe.pinned_ip = Some("192.0.2.7".parse().unwrap());
    });
    let plain = world.signed(&world.cluster, |_| {});
    let nobody = world.signed(&world.cluster, |joe| {
        joe.user = "ann".parse().unwrap();
        joe.database = Some(route("shop", DbProtocol::Postgres));
    });
    let cases = [
        (None, "28000", "a client certificate is needed"),
        (Some(of(&stranger, chrono::Utc::now())), "28000", "not one of this cluster's users"),
        (Some(of(&world.cluster, long_ago())), "28000", "the certificate has expired"),
        (Some(plain), "28000", "not for a database"),
        (Some(pinned), "28000", "not valid for the source address"),
        (Some(nobody), "28000", "the account is locked or does not exist any more"),
        (Some(world.joe("shop", DbProtocol::Mysql)), "28000", "speaks mysql"),
        (Some(postgres("nowhere")), "3D000", "does not exist or your roles do not admit you"),
        (Some(postgres("vault")), "3D000", "does not exist or your roles do not admit you"),
        (Some(postgres("cache")), "3D000", "does not exist or your roles do not admit you"),
        (Some(postgres("away")), "08001", "no agent that serves database"),
    ];
    for (pair, code, words) in &cases {
        let said = told(&world, pair.as_ref()).await;
        assert!(said.starts_with('E') && said.contains(&format!("C{code}\0")), "{words}: {said:?}");
        assert!(said.contains(words), "{said:?}");
    }
    // What may not be seen is not told apart from what is not there.
    let hidden = told(&world, Some(&postgres("vault"))).await;
    let unknown = told(&world, Some(&postgres("quiet"))).await;
    assert_eq!(hidden.replace("vault", "quiet"), unknown);
    assert!(echo.told().is_empty());

    let target = LockTarget { user: Some("joe".parse().unwrap()), ..LockTarget::default() };
    let lock = Lock::new("l", LockSpec { target, ..LockSpec::default() });
    world.cluster.change(|state| state.locks.push(lock));
    let said = told(&world, Some(&postgres("shop"))).await;
    assert!(said.contains("lock targeting User:\"joe\" is in force"), "{said:?}");
    assert!(echo.told().is_empty());

    // Somebody who can be named is in the audit log; who shows a bad certificate as an attempt.
    let starts = world.cluster.wait_for("db.session.start", 10).await;
    let unknown = starts.iter().find(|event| event["db_service"] == "nowhere").unwrap();
    assert_eq!(unknown["code"], "TDB00W");
    assert_eq!((&unknown["user"], &unknown["success"]), (&"joe".into(), &false.into()));
    assert_eq!(
        (&unknown["db_user"], &unknown["db_protocol"]),
        (&"alice".into(), &"postgres".into())
    );
    let attempts = world.cluster.wait_for("auth", 3).await;
    assert!(attempts.iter().any(|event| event["error"] == "cert has expired"), "{attempts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_read_in_every_protocol() {
    let world = World::start().await;
    for (protocol, name, first) in protocols() {
        for (pair, words) in [
            (Some(world.joe("nowhere", protocol)), "does not exist"),
            // MySQL's clients are greeted then; that is below.
            (None, "a client certificate is needed"),
        ] {
            if protocol == DbProtocol::Mysql && pair.is_none() {
                continue;
            }
            let mut client = world.client(name, pair.as_ref()).await;
            if protocol != DbProtocol::Mysql {
                client.write_all(&first).await.unwrap();
            }
            let said = rest(&mut client).await;
            let shown = text(&said);
            assert!(shown.contains(words), "{protocol}: {shown:?}");
            match protocol {
                DbProtocol::Mysql => assert_eq!(said[3..5], [0, 0xff]),
                DbProtocol::Redis => assert!(shown.starts_with('-') && shown.ends_with("\r\n")),
                DbProtocol::Dynamodb => assert!(shown.starts_with("HTTP/1.1 400 "), "{shown}"),
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeted_mysql_client_reads_the_answer_to_its_login() {
    let world = World::start().await;
    let login = [&[40, 0, 0, 1, 0, 0x82, 0, 0][..], &[0; 36]].concat();
    // Without TLS.
    let mut client: server_core::tunnel::BoxedStream = Box::new(world.dial(world.mysql).await);
    mysql_greeting(&mut client).await;
    client.write_all(&login).await.unwrap();
    let said = rest(&mut client).await;
    assert_eq!(said[3..13], *b"\x02\xff\x15\x04#28000", "{}", text(&said));
    assert!(text(&said).contains("a client certificate is needed"));
    // With TLS, and a certificate for something that is not there.
    let mut client: server_core::tunnel::BoxedStream = Box::new(world.dial(world.mysql).await);
    mysql_greeting(&mut client).await;
    client.write_all(&ssl_request()).await.unwrap();
    let joe = world.joe("nowhere", DbProtocol::Mysql);
    let mut client = world.in_tls(client, b"", Some(&joe)).await.unwrap();
    let mut login = login;
    login[3] = 2;
    client.write_all(&login).await.unwrap();
    let said = rest(&mut client).await;
    assert_eq!(said[3..13], *b"\x03\xff\x19\x04#42000", "{}", text(&said));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_encryption_are_made_once_and_hide_nothing() {
    let world = World::start().await;
    let (echo, _offered) = world.local("shop", DbProtocol::Postgres);
    let joe = world.joe("shop", DbProtocol::Postgres);
    let mut client = world.client(alpn::POSTGRES, Some(&joe)).await;
    client.write_all(&SSL_REQUEST).await.unwrap();
    comes(&mut client, b"N").await;
    client.write_all(&SSL_REQUEST).await.unwrap();
    let said = text(&rest(&mut client).await);
    assert!(
        said.contains("C08P01\0") && said.contains("received more than one SSLRequest"),
        "{said:?}"
    );

    // What is sent together with the request would be taken for encrypted.
    let mut client: server_core::tunnel::BoxedStream = Box::new(world.dial(world.web).await);
    client.write_all(&[&SSL_REQUEST[..], &startup()].concat()).await.unwrap();
    let said = text(&rest(&mut client).await);
    assert!(said.contains("unencrypted data after SSL request"), "{said:?}");

    // Requests to cancel are never answered, and nobody is reached by one without a certificate.
    let cancel = Cancel { pid: 7, secret: vec![1; 4] }.to_bytes();
    let mut client: server_core::tunnel::BoxedStream = Box::new(world.dial(world.postgres).await);
    client.write_all(&cancel).await.unwrap();
    assert!(rest(&mut client).await.is_empty());
    assert!(echo.told().is_empty());
}

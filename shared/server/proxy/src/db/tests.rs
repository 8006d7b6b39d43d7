//! Clients as programs make them, against a proxy whose agents send everything back.

mod hostile;
mod refused;
mod support;

use std::time::Duration;

use server_core::tunnel::ArrivedBy;
use shared_transport::alpn;
use shared_types::resource::{Lock, LockSpec, LockTarget};
use shared_types::{DbProtocol, HostId, SystemRole};
use shared_wire::mysql::Greeting;
use shared_wire::postgres::{Cancel, GSSENC_REQUEST, SSL_REQUEST};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use support::{World, comes, echoed, rest, server, startup};

/// The names of protocols, what they are asked for with, and what a client says first.
fn protocols() -> [(DbProtocol, &'static [u8], Vec<u8>); 4] {
    [
        (DbProtocol::Postgres, alpn::POSTGRES, startup()),
        (DbProtocol::Mysql, alpn::MYSQL, b"\x01\0\0\x01x".to_vec()),
        (DbProtocol::Redis, alpn::REDIS, b"*1\r\n$4\r\nPING\r\n".to_vec()),
        (DbProtocol::Dynamodb, alpn::DYNAMODB, b"POST / HTTP/1.1\r\n\r\n".to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_in_the_same_process_gets_the_connection_and_the_certificate() {
    let world = World::start().await;
    for (protocol, name, first) in protocols() {
        let (echo, _offered) = world.local("shop", protocol);
        let joe = world.joe("shop", protocol);
        let mut client = world.client(name, Some(&joe)).await;
        echoed(&mut client, &first).await;
        echoed(&mut client, &vec![7; 300_000]).await;
        let (arrival, preamble) = echo.told().remove(0);
        assert_eq!(arrival.via, ArrivedBy::Local);
        assert!(preamble.client.ip().is_loopback() && arrival.client == preamble.client);
        assert_eq!(preamble.certificate, joe.0.as_ref());
        assert_eq!(preamble.greeted, None);
        client.shutdown().await.unwrap();
        assert!(rest(&mut client).await.is_empty());
    }
    assert!(world.cluster.seen("db.session.start").is_empty(), "that is for agents to tell");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_behind_a_tunnel_is_reached_by_its_role() {
    let world = World::start().await;
    let host = HostId::random();
    // The same host also runs an SSH service, with a tunnel of its own.
    let (node, _node) = world.tunnelled(host, SystemRole::Node).await;
    let (db, agent) = world.tunnelled(host, SystemRole::Db).await;
    for (protocol, name, first) in protocols() {
        world.register(vec![server(host, "shop", protocol, "dev")]);
        let joe = world.joe("shop", protocol);
        let mut client = world.client(name, Some(&joe)).await;
        echoed(&mut client, &first).await;
        let bulk = vec![7; 3_000_000];
        let (mut read, mut write) = tokio::io::split(client);
        let sending = tokio::spawn(async move {
            write.write_all(&bulk).await.unwrap();
            write.flush().await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut back = Vec::new();
        read.read_to_end(&mut back).await.unwrap();
        assert_eq!(back.len(), 3_000_000);
        sending.await.unwrap();
        let (arrival, preamble) = db.told().pop().unwrap();
        assert_eq!(arrival.via, ArrivedBy::Tunnel);
        assert_eq!(preamble.certificate, joe.0.as_ref());
        assert_eq!(arrival.client, preamble.client);
    }
    assert!(node.told().is_empty());

    // A proxy that is locked out ends what runs through it, whatever the agent knows of that.
    let joe = world.joe("shop", DbProtocol::Dynamodb);
    let mut client = world.client(alpn::DYNAMODB, Some(&joe)).await;
    echoed(&mut client, b"POST / HTTP/1.1\r\n\r\n").await;
    let target = LockTarget { server_id: Some(world.cluster.recorder), ..LockTarget::default() };
    let lock = Lock::new("l", LockSpec { target, ..LockSpec::default() });
    world.cluster.change(|state| state.locks.push(lock));
    rest(&mut client).await;
    world.cluster.change(|state| state.locks.clear());

    drop(agent);
    let deadline = std::time::Instant::now() + support::LIMIT;
    loop {
        let joe = world.joe("shop", DbProtocol::Dynamodb);
        let mut client = world.client(alpn::DYNAMODB, Some(&joe)).await;
        client.write_all(b"POST / HTTP/1.1\r\n\r\n").await.unwrap();
        let said = support::text(&rest(&mut client).await);
        if said.starts_with("HTTP/1.1 503") {
            assert!(said.contains("no agent that serves database"), "{said}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{said}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(node.told().is_empty(), "the SSH service is not asked for databases");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_one_agent_is_gone_the_next_one_is_tried() {
    let world = World::start().await;
    let (echo, _offered) = world.local("shop", DbProtocol::Postgres);
    let gone = || server(HostId::random(), "shop", DbProtocol::Postgres, "dev");
    let here = server(world.cluster.recorder, "shop", DbProtocol::Postgres, "dev");
    world.register(vec![gone(), here, gone(), gone()]);
    let joe = world.joe("shop", DbProtocol::Postgres);
    for _ in 0..8 {
        let mut client = world.client(alpn::POSTGRES, Some(&joe)).await;
        echoed(&mut client, &startup()).await;
    }
    assert_eq!(echo.told().len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_clients_bring_their_own_tls_wherever_they_come() {
    let world = World::start().await;
    let (echo, _offered) = world.local("shop", DbProtocol::Postgres);
    let joe = world.joe("shop", DbProtocol::Postgres);
    for way in 0..3 {
        let mut stream: server_core::tunnel::BoxedStream = match way {
            0 => Box::new(world.dial(world.web).await),
            1 => Box::new(world.dial(world.postgres).await),
            _ => world.client(alpn::POSTGRES, None).await,
        };
        stream.write_all(&GSSENC_REQUEST).await.unwrap();
        comes(&mut stream, b"N").await;
        stream.write_all(&SSL_REQUEST).await.unwrap();
        comes(&mut stream, b"S").await;
        let mut client = world.in_tls(stream, b"", Some(&joe)).await.unwrap();
        echoed(&mut client, &startup()).await;
    }
    // Inside TLS of ours with the certificate there is no other, and the start-up follows.
    let mut client = world.client(alpn::POSTGRES, Some(&joe)).await;
    for request in [SSL_REQUEST, GSSENC_REQUEST] {
        client.write_all(&request).await.unwrap();
        comes(&mut client, b"N").await;
    }
    echoed(&mut client, &startup()).await;
    // A wish to cancel goes the same way.
    let mut client = world.client(alpn::POSTGRES, Some(&joe)).await;
    echoed(&mut client, &Cancel { pid: 7, secret: vec![1; 4] }.to_bytes()).await;
    assert_eq!(echo.told().len(), 5);
    assert!(echo.told().iter().all(|(_, told)| told.certificate == joe.0.as_ref()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_clients_are_greeted_where_their_certificate_is_not_known_yet() {
    let world = World::start().await;
    let (echo, _offered) = world.local("shop", DbProtocol::Mysql);
    let joe = world.joe("shop", DbProtocol::Mysql);
    for (way, version) in [(0, "8.0.0-Teleport"), (1, "8.0.0-Teleport"), (2, "8.0.36")] {
        let mut stream: server_core::tunnel::BoxedStream = match way {
            0 => Box::new(world.dial(world.mysql).await),
            1 => world.client(alpn::MYSQL, None).await,
            _ => world.client(&alpn::mysql(Some(version)), None).await,
        };
        let greeting = mysql_greeting(&mut stream).await;
        assert_eq!(Greeting::parse(&greeting[4..]).unwrap().version, version);
        stream.write_all(&ssl_request()).await.unwrap();
        let mut client = world.in_tls(stream, b"", Some(&joe)).await.unwrap();
        echoed(&mut client, b"\x05\0\0\x02login").await;
        let (_, told) = echo.told().pop().unwrap();
        assert_eq!(told.greeted.as_deref(), Some(greeting.as_slice()));
    }
}

/// A greeting, header and all.
async fn mysql_greeting(stream: &mut server_core::tunnel::BoxedStream) -> Vec<u8> {
    let mut packet = vec![0; 4];
    tokio::time::timeout(support::LIMIT, stream.read_exact(&mut packet)).await.unwrap().unwrap();
    let length = usize::from(packet[0]) | usize::from(packet[1]) << 8;
    packet.resize(4 + length, 0);
    stream.read_exact(&mut packet[4..]).await.unwrap();
    packet
}

/// What a MySQL client asks for TLS with.
fn ssl_request() -> Vec<u8> {
    let capabilities: u32 = (1 << 9) | (1 << 11) | (1 << 15) | (1 << 19);
    let mut packet = vec![32, 0, 0, 1];
    packet.extend_from_slice(&capabilities.to_le_bytes());
    packet.resize(36, 0);
    packet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_name_chooses_the_certificate_where_an_administrator_gave_one() {
    let made = shared_pki::web::self_signed(
        &["gate.test".to_owned()],
        chrono::Utc::now(),
        Duration::from_secs(3600),
    )
    .unwrap();
    let world = World::start_with(|settings, dir| {
        let (cert, key) = (dir.join("web.pem"), dir.join("web.key"));
        std::fs::write(&cert, &made.cert_pem).unwrap();
        std::fs::write(&key, made.key_pem.as_bytes()).unwrap();
        settings.https_keypairs = vec![(cert, key)];
    })
    .await;
    let web = shared_transport::tls::certs_from_pem(made.cert_pem.as_bytes()).unwrap().remove(0);
    for (name, is_web) in [("gate.test", true), ("6d61696e.teleport.cluster.local", false)] {
        let mut config = shared_transport::tls::accept_any_certificate();
        config.alpn_protocols = vec![alpn::REDIS.to_vec()];
        let stream = world.dial(world.web).await;
        let tls = shared_transport::tls::connect(config.into(), name, stream, support::LIMIT);
        let tls = tls.await.unwrap();
        let shown = &tls.get_ref().1.peer_certificates().unwrap()[0];
        assert_eq!(*shown == web, is_web, "{name}");
    }
    assert!(world.dir.path().exists());
}

//! Clients that send rubbish, or take their time.

use std::time::{Duration, Instant};

use shared_types::DbProtocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::protocols;
use super::support::{LIMIT, World, echoed, rest, startup};

/// Bytes that nobody means.
fn garbage() -> Vec<Vec<u8>> {
    vec![
        vec![0; 64],
        vec![0xff; 4096],
        b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        b"\x16\x03\x01\xff\xff".repeat(100),
        (0..=255).cycle().take(70_000).collect(),
        b"\0\0\0\x08\x04\xd2\x16\x2f".repeat(3),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_under_every_name_reaches_nobody() {
    let world =
        World::start_with(|settings, _| settings.timeouts.auth = Duration::from_secs(3)).await;
    let (echo, _offered) = world.local("shop", DbProtocol::Postgres);
    for (protocol, name, _) in protocols() {
        for bytes in garbage() {
            let mut client = world.client(name, None).await;
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
            let said = rest(&mut client).await;
            assert!(said.len() < 4096, "{protocol}: {} bytes", said.len());
        }
    }
    for port in [world.postgres, world.mysql, world.web] {
        for bytes in garbage() {
            let mut client = world.dial(port).await;
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
            let mut said = Vec::new();
            let read = client.read_to_end(&mut said);
            let _ = tokio::time::timeout(LIMIT, read).await.expect("it stays open");
            assert!(said.len() < 4096);
        }
    }
    assert!(echo.told().is_empty());
    // And the next one is served.
    let joe = world.joe("shop", DbProtocol::Postgres);
    let mut client = world.client(shared_transport::alpn::POSTGRES, Some(&joe)).await;
    echoed(&mut client, &startup()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_beginnings_come_to_an_end() {
    let world =
        World::start_with(|settings, _| settings.timeouts.auth = Duration::from_secs(1)).await;
    let (echo, _offered) = world.local("shop", DbProtocol::Postgres);
    let joe = world.joe("shop", DbProtocol::Postgres);
    let begun = Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    // Silent on the ports, silent behind TLS, and silent in the middle of a first packet.
    for port in [world.postgres, world.mysql] {
        let mut client = world.dial(port).await;
        waiting.spawn(async move {
            let mut said = Vec::new();
            let _ = client.read_to_end(&mut said).await;
        });
    }
    for (pair, first) in [(None, &b""[..]), (Some(&joe), b""), (Some(&joe), &startup()[..9])] {
        let mut client = world.client(shared_transport::alpn::POSTGRES, pair).await;
        client.write_all(first).await.unwrap();
        client.flush().await.unwrap();
        waiting.spawn(async move { drop(rest(&mut client).await) });
    }
    let all = async { while waiting.join_next().await.is_some() {} };
    tokio::time::timeout(LIMIT, all).await.expect("they stay");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(echo.told().is_empty());
}

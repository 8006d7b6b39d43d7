//! A client that does not keep to the protocol, and a database server that does not. Neither harms more than its session.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use shared_testkit::{Cluster, DbResource, memory, run};
use shared_wire::postgres::{AUTHENTICATION_OK, First, SSL_REQUEST, first};

use super::load::{Client, query};
use super::{SHOP, Shop};

#[test]
fn what_is_not_the_protocol_is_refused_and_told_of() -> Result<()> {
    let Some(shop) = Shop::new("pg-odd")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    for bad in [
        &b"\0\0\0\x08\x04\xd2\x16\x2f"[..],
        b"Q\xff\xff\xff\xff",
        b"Q\0\0\0\x0cno end!!",
        b"@@@@@@@@",
    ] {
        let mut client = Client::connect(tunnel.port, "postgres")?;
        client.query("select 'good'")?;
        client
            .stream
            .write_all(&[&query("select 'last'")[..], bad, &query("select 'never'")].concat())?;
        let mut refused = client.until_ready();
        if refused.is_ok() {
            refused = client.until_ready();
        }
        let refused = refused.err().context("it was served")?.to_string();
        assert!(refused.starts_with("08P01 malformed packet"), "{refused}");
    }
    let sql = "select sid from db_session_malformed_packet order by event_time";
    let sids = shop.stage.audited(sql, |sids| sids.len() >= 4)?;
    for sid in sids {
        shop.tells(&sid, &["query select 'good'", "query select 'last'"])?;
    }
    let served = run(&mut tunnel.psql("select 'served'"), "", 60)?.ok();
    assert_eq!(served.text(), "served\n");
    Ok(())
}

#[test]
fn refusals_before_a_session_are_readable() -> Result<()> {
    let Some(shop) = Shop::new("pg-refused")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let failing = |user: &str, database: &str| -> Result<String> {
        let mut psql = tunnel.psql("select 1");
        let outcome = run(psql.env("PGUSER", user).args(["-d", database]), "", 60)?;
        ensure!(outcome.code == 2, "{outcome:?}");
        Ok(outcome.stderr)
    };
    let missing = failing("alice", "nowhere")?;
    assert!(missing.contains("FATAL:  database \"nowhere\" does not exist"), "{missing}");
    let stranger = failing("mallory", "postgres")?;
    assert!(stranger.contains("mallory"), "{stranger}");
    let replica = failing("alice", "dbname=postgres replication=database")?;
    assert!(replica.contains("replication connections are not supported"), "{replica}");
    Ok(())
}

/// Does what the database's name says to whoever comes.
struct Hostile {
    port: u16,
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

impl Hostile {
    fn start(cluster: &Cluster, folder: &std::path::Path) -> Result<Self> {
        let out = folder.join("hostile");
        let _signed = cluster.tctl_ok([
            "auth",
            "sign",
            "--format=db",
            "--host=localhost",
            &format!("--out={}", out.display()),
        ])?;
        let certificates = CertificateDer::pem_file_iter(out.with_extension("crt"))?
            .collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(out.with_extension("key"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let config = Arc::clone(&config);
                // Whoever is let down goes away, which is an error here.
                std::thread::spawn(move || drop(serve(stream, config)));
            }
        });
        Ok(Self { port })
    }
}

fn serve(mut stream: TcpStream, config: Arc<ServerConfig>) -> Result<()> {
    let mut request = [0; 8];
    stream.read_exact(&mut request)?;
    ensure!(request == SSL_REQUEST);
    stream.write_all(b"S")?;
    let mut tls = StreamOwned::new(ServerConnection::new(config)?, stream);
    let (mut bytes, mut chunk) = (Vec::new(), [0; 1024]);
    let startup = loop {
        let count = tls.read(&mut chunk)?;
        ensure!(count > 0);
        bytes.extend_from_slice(&chunk[..count]);
        if let Some((First::Startup(startup), _)) = first(&bytes)? {
            break startup;
        }
    };
    misbehave(&mut tls, &startup.database)
}

const READY: &[u8] = b"Z\0\0\0\x05I";

fn misbehave(tls: &mut Tls, how: &str) -> Result<()> {
    let opened = [&AUTHENTICATION_OK[..], READY].concat();
    match how {
        "password" => tls.write_all(b"R\0\0\0\x08\0\0\0\x03")?,
        "early" => tls.write_all(READY)?,
        "noise" => tls.write_all(&[0xa5; 4096])?,
        "settings" => loop {
            tls.write_all(b"S\0\0\0\x0ba\0bcde\0")?;
        },
        "length" => {
            tls.write_all(&opened)?;
            tls.read_exact(&mut [0; 5])?;
            tls.write_all(b"D\xff\xff\xff\xff")?;
        }
        "late" => {
            tls.write_all(&opened)?;
            tls.read_exact(&mut [0; 5])?;
            tls.write_all(&AUTHENTICATION_OK)?;
        }
        "rows" => {
            tls.write_all(&opened)?;
            tls.read_exact(&mut [0; 5])?;
            let row = [&b"D\0\x01\0\x09\0\x01\0\0\xff\xff"[..], &[b'x'; 0xffff]].concat();
            loop {
                tls.write_all(&row)?;
            }
        }
        _ => tls.write_all(&opened)?,
    }
    // Until the other side has had enough.
    while tls.read(&mut [0; 1024])? > 0 {}
    Ok(())
}

#[test]
fn a_hostile_database_harms_its_own_session_only() -> Result<()> {
    let Some(shop) = Shop::new("pg-hostile")? else { return Ok(()) };
    let hostile = Hostile::start(&shop.stage.cluster, shop.stage.scratch.path())?;
    let uri = format!("localhost:{}", hostile.port);
    shop.stage.serve(&DbResource { name: "hostile", protocol: "postgres", uri, spec: "" })?;
    let (good, bad) = (shop.tunnel()?, shop.stage.tunnel("hostile", "alice", "kind")?);
    let mut neighbour = Client::connect(good.port, "postgres")?;
    for (how, text) in [
        ("password", "asks for a password"),
        ("early", "wrong order"),
        ("noise", "unknown"),
        ("settings", "too much"),
        ("length", "4294967295 bytes"),
        ("late", "middle of a session"),
    ] {
        let outcome =
            Client::connect(bad.port, how).and_then(|mut client| client.query("select 1"));
        let error = outcome.err().with_context(|| how.to_owned())?.to_string();
        assert!(error.contains(text), "{how}: {error}");
        assert_eq!(neighbour.query("select 'unharmed'")?, ["SELECT 1"]);
    }
    let daemon = shop.stage.cluster.auth.id();
    let before = memory::resident(daemon)?;
    let mut endless = Client::connect(bad.port, "rows")?;
    endless.stream.write_all(&query("select 1"))?;
    // Rows are read for a while, and then not.
    let mut chunk = vec![0; 1 << 16];
    for _ in 0..2000 {
        ensure!(endless.stream.read(&mut chunk)? > 0);
    }
    std::thread::sleep(Duration::from_secs(2));
    let grown = memory::resident(daemon)?.saturating_sub(before);
    assert!(grown < 24 << 10, "the daemon has grown by {grown} KiB");
    assert_eq!(neighbour.query("select 'unharmed'")?, ["SELECT 1"]);
    drop(endless);
    drop(neighbour);
    let sql = format!("select sid from db_session_end where db_service = '{SHOP}'");
    let sids = shop.stage.audited(&sql, |sids| sids.len() == 1)?;
    assert_eq!(shop.recorded(&sids[0])?.0, ["query select 'unharmed'"; 7]);
    Ok(())
}

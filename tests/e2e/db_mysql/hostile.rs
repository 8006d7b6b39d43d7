//! A database server that does not keep to the protocol harms its own session and nothing else.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shared_testkit::{DbResource, Tls, TlsServer, memory};
use shared_wire::mysql::{Greeting, HEADER, Login, SSL_REQUEST, packet, read_header, ssl_request};

use super::raw::Client;
use super::{SHOP, Shop};
use crate::db_told::ended;

const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];

/// Does what the database's name says to whoever comes.
fn serve(mut tls: Tls) -> Result<()> {
    let greeting = Greeting::plain("8.0.36", 1, [9; 20]).with_tls();
    tls.sock.write_all(&greeting.packet())?;
    let mut request = [0; HEADER + SSL_REQUEST];
    tls.sock.read_exact(&mut request)?;
    ensure!(ssl_request(&request[HEADER..])?);
    let mut header = [0; HEADER];
    tls.read_exact(&mut header)?;
    let mut payload = vec![0; read_header(header).0];
    tls.read_exact(&mut payload)?;
    misbehave(&mut tls, &Login::parse(&payload)?.database)?;
    // Until the other side has had enough.
    while tls.read(&mut [0; 1024])? > 0 {}
    Ok(())
}

fn misbehave(tls: &mut Tls, how: &str) -> Result<()> {
    match how {
        "password" => return Ok(tls.write_all(&packet(3, b"\xfeclient_ed25519\0salt"))?),
        "noise" => return Ok(tls.write_all(&[0xa5; 4096])?),
        "steps" => {
            for _ in 0..100 {
                tls.write_all(&packet(3, &[1, 3]))?;
            }
            return Ok(());
        }
        "early" => return Ok(tls.write_all(&[packet(3, OK), packet(1, OK)].concat())?),
        _ => tls.write_all(&packet(3, OK))?,
    }
    // A query's header and first byte.
    tls.read_exact(&mut [0; 5])?;
    let columns = [packet(1, &[1]), packet(2, b"\x03def"), packet(3, EOF)].concat();
    match how {
        "file" => tls.write_all(&packet(1, b"\xfb/etc/shadow"))?,
        "short" => tls.write_all(&packet(1, &[0]))?,
        "columns" => tls.write_all(&packet(1, &[0xfe]))?,
        "end" => tls.write_all(&[&columns[..], &packet(4, &[0xfe])].concat())?,
        "rows" => {
            tls.write_all(&columns)?;
            let row = packet(4, &[b'x'; 0xffff]);
            loop {
                tls.write_all(&row)?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[test]
fn a_hostile_database_harms_its_own_session_only() -> Result<()> {
    let Some(shop) = Shop::new("my-hostile")? else { return Ok(()) };
    let hostile = TlsServer::start(&shop.stage.cluster, shop.stage.scratch.path(), serve)?;
    shop.stage.serve(&DbResource {
        name: "hostile",
        protocol: "mysql",
        uri: hostile.uri(),
        spec: "",
    })?;
    let (good, bad) = (shop.tunnel()?, shop.stage.tunnel("hostile", "alice", "")?);
    let mut neighbour = Client::connect(good.port, "alice", "test")?;
    for (how, text) in [
        ("password", "it asks for client_ed25519"),
        ("noise", "bytes in a handshake"),
        ("steps", "does not end"),
        ("early", "answer to nothing"),
        ("file", "which the client has not allowed"),
        ("short", "from the database: OK packet"),
        ("columns", "number of columns"),
        ("end", "end of rows or columns"),
    ] {
        let outcome = Client::connect(bad.port, "alice", how).and_then(|mut client| {
            client.send(3, b"select 1")?;
            client.until_eof()?;
            client.until_eof()
        });
        let error = outcome.err().with_context(|| how.to_owned())?.to_string();
        assert!(error.contains(text), "{how}: {error}");
        assert_eq!(neighbour.value("select 'unharmed'")?, "unharmed");
    }
    let daemon = shop.stage.cluster.auth.id();
    let before = memory::resident(daemon)?;
    let mut endless = Client::connect(bad.port, "alice", "rows")?;
    endless.send(3, b"select 1")?;
    // Rows are read for a while, and then not.
    let mut chunk = vec![0; 1 << 16];
    for _ in 0..2000 {
        ensure!(endless.stream.read(&mut chunk)? > 0);
    }
    std::thread::sleep(Duration::from_secs(2));
    let grown = memory::resident(daemon)?.saturating_sub(before);
    assert!(grown < 24 << 10, "the daemon has grown by {grown} KiB");
    assert_eq!(neighbour.value("select 'unharmed'")?, "unharmed");
    drop(endless);
    neighbour.send(1, b"")?;
    let sids = ended(&shop.stage, SHOP, 1)?;
    shop.tells(&sids[0], &["query select 'unharmed'"; 9])?;
    Ok(())
}

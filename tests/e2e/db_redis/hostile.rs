//! A server that does not keep to the protocol harms its own session and nothing else.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Result, ensure};
use shared_testkit::{DbResource, Tls, TlsServer, memory};

use super::Cache;
use super::raw::Raw;

/// Does what the first command asks for.
fn serve(mut tls: Tls) -> Result<()> {
    let mut chunk = [0; 1024];
    let count = tls.read(&mut chunk)?;
    let asked = String::from_utf8_lossy(&chunk[..count]).into_owned();
    let how = |name: &str| asked.contains(name);
    if how("noise") {
        tls.write_all(&[0xa5; 4096])?;
    } else if how("elements") {
        tls.write_all(
            b"*2\r\n*9223372036854775807\r\n*9223372036854775807\r\n*9223372036854775807\r\n",
        )?;
    } else if how("header") {
        tls.write_all(&[b"$".as_slice(), &[b'1'; 4096]].concat())?;
    } else if how("deep") {
        loop {
            tls.write_all(&b"*1\r\n".repeat(10_000))?;
        }
    } else if how("length") {
        tls.write_all(b"$9223372036854775807\r\n")?;
        loop {
            tls.write_all(&[b'x'; 65536])?;
        }
    } else if how("unasked") {
        loop {
            tls.write_all(&b"+OK\r\n".repeat(10_000))?;
        }
    } else {
        tls.write_all(b"+OK\r\n")?;
    }
    while tls.read(&mut chunk)? > 0 {}
    Ok(())
}

#[test]
fn a_hostile_server_harms_its_own_session_only() -> Result<()> {
    let Some(cache) = Cache::new("redis-hostile")? else { return Ok(()) };
    let server = TlsServer::start(&cache.stage.cluster, cache.stage.scratch.path(), serve)?;
    cache.stage.serve(&DbResource {
        name: "hostile",
        protocol: "redis",
        uri: server.uri(),
        spec: "",
    })?;
    let (good, bad) = (cache.tunnel("default")?, cache.stage.tunnel("hostile", "default", "")?);
    let mut neighbour = Raw::connect(good.port)?;
    for how in ["noise", "elements", "header"] {
        let mut client = Raw::connect(bad.port)?;
        client.send(format!("ECHO {how}\r\n").as_bytes())?;
        let told = client.rest()?;
        let wanted = "-ERR Protocol error: the database answers no Redis protocol: ";
        // Where the client stands in the middle of a reply, nothing more can be said.
        assert!(told.contains(wanted) || how != "noise", "{how}: {told:?}");
        neighbour.send(b"ECHO unharmed\r\n")?;
        neighbour.until("unharmed\r\n")?;
    }
    let daemon = cache.stage.cluster.auth.id();
    let before = memory::resident(daemon)?;
    for how in ["deep", "length", "unasked"] {
        let mut client = Raw::connect(bad.port)?;
        client.send(format!("ECHO {how}\r\n").as_bytes())?;
        let mut chunk = vec![0; 1 << 16];
        for _ in 0..500 {
            ensure!(client.0.read(&mut chunk)? > 0);
        }
        // And now it reads nothing.
        std::thread::sleep(Duration::from_secs(1));
        let grown = memory::resident(daemon)?.saturating_sub(before);
        assert!(grown < 24 << 10, "{how}: the daemon has grown by {grown} KiB");
        neighbour.send(b"ECHO unharmed\r\n")?;
        neighbour.until("unharmed\r\n")?;
    }
    Ok(())
}

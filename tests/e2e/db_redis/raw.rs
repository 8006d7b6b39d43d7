//! Bytes as no client library sends them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shared_testkit::{memory, until};

use super::Cache;
use crate::db_told::ended;

/// A bare connection.
pub(super) struct Raw(pub(super) TcpStream);

impl Raw {
    pub(super) fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self(stream))
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.write_all(bytes)?)
    }

    /// Reads until this has come, and returns all of it.
    pub(super) fn until(&mut self, end: &str) -> Result<String> {
        let mut all = String::new();
        let mut chunk = [0; 4096];
        while !all.ends_with(end) {
            let count = self.0.read(&mut chunk).with_context(|| all.clone())?;
            ensure!(count > 0, "closed after {all:?}");
            all += &String::from_utf8_lossy(&chunk[..count]);
        }
        Ok(all)
    }

    /// Everything up to the end of the connection.
    pub(super) fn rest(&mut self) -> Result<String> {
        let mut all = Vec::new();
        self.0.read_to_end(&mut all)?;
        Ok(String::from_utf8_lossy(&all).into_owned())
    }
}

#[test]
fn what_is_not_the_protocol_is_refused_and_told_of() -> Result<()> {
    let Some(cache) = Cache::new("redis-odd")? else { return Ok(()) };
    let tunnel = cache.tunnel("default")?;
    // The last two are what a server would read as two commands where we read one.
    for bad in [
        "*1\r\n:1\r\n",
        "*99999999999\r\n",
        "GET \"a",
        "*1\r\n$4\r\nPINGxx*1\r\n$8\r\nFLUSHALL\r\n",
        "*1\rx$8\r\nFLUSHALL\r\n",
    ] {
        let mut client = Raw::connect(tunnel.port)?;
        client.send(
            format!("SET good 1\r\n*1\r\n$4\r\nPING\r\n{bad}\r\nSET never 1\r\n").as_bytes(),
        )?;
        let answers = client.rest()?;
        assert!(
            answers.starts_with("+OK\r\n+PONG\r\n-ERR Protocol error: "),
            "{bad:?}: {answers:?}"
        );
    }
    let sids = ended(&cache.stage, super::CACHE, 5)?;
    for sid in &sids {
        cache.tells(sid, &["SET good 1", "PING"])?;
    }
    let sql = "select sid from db_session_malformed_packet";
    cache.stage.audited(sql, |sids| sids.len() == 5)?;
    assert_eq!(cache.redis.ask(&["EXISTS", "never", "good"])?, "1");
    Ok(())
}

#[test]
fn refusals_keep_their_place_in_a_pipeline() -> Result<()> {
    let Some(cache) = Cache::new("redis-order")? else { return Ok(()) };
    let tunnel = cache.tunnel("default")?;
    let mut client = Raw::connect(tunnel.port)?;
    client.send(b"ECHO 1\r\nBLPOP nothing 0.5\r\nSYNC\r\nECHO 2\r\nAUTH bob x\r\nSUBSCRIBE a b\r\nREPLCONF x\r\nPING\r\n")?;
    let wanted = "$1\r\n1\r\n*-1\r\n-NOPERM replication";
    let all = client.until("$4\r\npong\r\n$0\r\n\r\n")?;
    assert!(all.starts_with(wanted), "{all:?}");
    let places: Vec<Option<usize>> = [
        "-NOPERM repl",
        "$1\r\n2\r\n",
        "-NOPERM this session",
        "$1\r\na\r\n:1",
        "$1\r\nb\r\n:2",
        "-NOPERM repl",
    ]
    .iter()
    .enumerate()
    .map(|(at, text)| if at == 5 { all.rfind(text) } else { all.find(text) })
    .collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {all:?}");
    Ok(())
}

#[test]
fn a_client_that_does_not_read_costs_no_memory() -> Result<()> {
    let Some(cache) = Cache::new("redis-slow")? else { return Ok(()) };
    let tunnel = cache.tunnel("default")?;
    let mut client = Raw::connect(tunnel.port)?;
    client.send(
        format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n{}\r\n", "v".repeat(1_000_000))
            .as_bytes(),
    )?;
    client.until("+OK\r\n")?;
    let daemon = cache.stage.cluster.auth.id();
    let before = memory::resident(daemon)?;
    for _ in 0..200 {
        client.send(b"GET k\r\n")?;
    }
    std::thread::sleep(Duration::from_secs(3));
    let grown = memory::resident(daemon)?.saturating_sub(before);
    assert!(grown < 24 << 10, "the daemon has grown by {grown} KiB");
    let mut left = 200 * (1_000_000 + "$1000000\r\n\r\n".len());
    let mut chunk = vec![0; 1 << 16];
    while left > 0 {
        let count = client.0.read(&mut chunk)?;
        ensure!(count > 0 && count <= left);
        left -= count;
    }
    Ok(())
}

#[test]
fn whoever_dies_ends_the_session_on_both_sides() -> Result<()> {
    let Some(mut cache) = Cache::new("redis-dies")? else { return Ok(()) };
    let tunnel = cache.tunnel("default")?;
    let mut client = Raw::connect(tunnel.port)?;
    client.send(b"CLIENT SETNAME mine\r\nBLPOP nothing 0\r\n")?;
    client.until("+OK\r\n")?;
    drop(client);
    ended(&cache.stage, super::CACHE, 1)?;
    until("the server to see it", 10, || {
        let clients = cache.redis.ask(&["CLIENT", "LIST"]).ok()?;
        (!clients.contains("name=mine")).then_some(())
    })?;
    let mut client = Raw::connect(tunnel.port)?;
    client.send(b"ECHO 1\r\nBLPOP nothing 0\r\n")?;
    client.until("1\r\n")?;
    cache.redis.process.kill()?;
    let last = client.rest()?;
    assert!(
        last.is_empty() || last == "-ERR the database has closed the connection\r\n",
        "{last:?}"
    );
    ended(&cache.stage, super::CACHE, 2)?;
    let mut client = Raw::connect(tunnel.port)?;
    client.send(b"PING\r\n")?;
    let refused = client.rest()?;
    assert!(refused.starts_with("-ERR could not connect to the database"), "{refused:?}");
    Ok(())
}

#[test]
fn hundreds_of_connections_in_parallel() -> Result<()> {
    let Some(cache) = Cache::new("redis-many")? else { return Ok(()) };
    let tunnel = cache.tunnel("default")?;
    let mut clients = (0..300).map(|_| Raw::connect(tunnel.port)).collect::<Result<Vec<_>>>()?;
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("ECHO c{number}\r\n").as_bytes())?;
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.until(&format!("c{number}\r\n"))?;
    }
    drop(clients);
    ended(&cache.stage, super::CACHE, 300)?;
    Ok(())
}

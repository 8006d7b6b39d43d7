//! Many connections at a time, and a client that does not read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shared_testkit::{DbAgent, DbOptions, memory, run};
use shared_wire::postgres::{Backend, Frames, Startup, backend};

use super::Shop;
use crate::support::alone;

/// A client that speaks the protocol and no more.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    frames: Frames,
    rest: Vec<u8>,
}

impl Client {
    /// Comes in as alice; the error is what the server said.
    pub(super) fn connect(port: u16, database: &str) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut this = Self { stream, frames: Frames::backend(4096), rest: Vec::new() };
        let settings = vec![("application_name".to_owned(), "raw".to_owned())];
        let startup =
            Startup { minor: 0, user: "alice".into(), database: database.into(), settings };
        this.stream.write_all(&startup.to_bytes())?;
        this.until_ready()?;
        Ok(this)
    }

    pub(super) fn query(&mut self, sql: &str) -> Result<Vec<String>> {
        self.stream.write_all(&query(sql))?;
        self.until_ready()
    }

    /// What commands ended meanwhile.
    pub(super) fn until_ready(&mut self) -> Result<Vec<String>> {
        let (mut done, mut chunk) = (Vec::new(), vec![0; 16 << 10]);
        loop {
            let mut at = 0;
            while let Some(message) = self.frames.next(&self.rest, &mut at)? {
                match backend(&message).context("malformed")? {
                    Backend::Complete(tag) => {
                        done.push(String::from_utf8_lossy(tag.0).into_owned())
                    }
                    Backend::Error(error) => anyhow::bail!(
                        "{} {}",
                        String::from_utf8_lossy(error.code),
                        String::from_utf8_lossy(error.message)
                    ),
                    Backend::Ready(_) => {
                        self.rest.drain(..at);
                        return Ok(done);
                    }
                    _ => {}
                }
            }
            let count = self.stream.read(&mut chunk)?;
            ensure!(count > 0, "the connection was closed");
            self.rest = chunk[..count].to_vec();
        }
    }
}

/// `Query`.
pub(super) fn query(sql: &str) -> Vec<u8> {
    let length = u32::try_from(sql.len() + 5).unwrap_or_default();
    [b"Q", &length.to_be_bytes()[..], sql.as_bytes(), &[0]].concat()
}

#[test]
fn a_thousand_connections_are_served_in_parallel() -> Result<()> {
    const CLIENTS: usize = 1000;
    let _alone = alone();
    let options = DbOptions { agent: DbAgent::Tunnel, ..DbOptions::default() };
    let Some(shop) = Shop::with("pg-thousand", &options)? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let open = AtomicUsize::new(0);
    let begun = Instant::now();
    let clients: Vec<Client> = std::thread::scope(|scope| {
        let worker = || -> Result<Vec<Client>> {
            let mut clients = Vec::new();
            while open.fetch_add(1, Ordering::Relaxed) < CLIENTS {
                clients.push(Client::connect(tunnel.port, "postgres")?);
            }
            Ok(clients)
        };
        let workers: Vec<_> = (0..16).map(|_| scope.spawn(worker)).collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?);
        joined.collect::<Result<Vec<_>>>().map(|all| all.into_iter().flatten().collect())
    })?;
    eprintln!("{CLIENTS} connections in {:.1} s", begun.elapsed().as_secs_f64());
    let count =
        shop.postgres.sql("select count(*) from pg_stat_activity where usename = 'alice'")?;
    assert_eq!(count, CLIENTS.to_string());
    for mut client in clients {
        assert_eq!(client.query("select 1")?, ["SELECT 1"]);
    }
    let sql = "select cast(count(*) as varchar) from db_session_end";
    shop.stage.audited(sql, |count| count == [CLIENTS.to_string()])?;
    let sql = "select cast(count(*) as varchar) from db_session_query where db_query = 'select 1'";
    assert_eq!(shop.stage.audited(sql, |count| !count.is_empty())?, [CLIENTS.to_string()]);
    Ok(())
}

#[test]
fn a_slow_reader_grows_no_memory() -> Result<()> {
    let options = DbOptions { agent: DbAgent::Tunnel, ..DbOptions::default() };
    let Some(shop) = Shop::with("pg-slow", &options)? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut client = Client::connect(tunnel.port, "postgres")?;
    // The way is as wide as it gets before it is measured.
    let _wide =
        run(&mut tunnel.psql("select repeat('x', 1000000) from generate_series(1, 50)"), "", 60)?
            .ok();
    let agent = shop.stage.agent.as_ref().context("agent")?.id();
    let programs =
        [("proxy", shop.stage.cluster.auth.id()), ("agent", agent), ("tsh", tunnel.process.id())];
    let before: Vec<u64> =
        programs.iter().map(|(_, id)| memory::resident(*id)).collect::<Result<_>>()?;
    client.stream.write_all(&query("select repeat('x', 1000000) from generate_series(1, 1000)"))?;
    std::thread::sleep(Duration::from_secs(4));
    for ((name, id), before) in programs.iter().zip(&before) {
        let grown = memory::resident(*id)?.saturating_sub(*before);
        assert!(grown < 16 << 10, "{name} has grown by {grown} KiB");
    }
    let mut peaks = Vec::new();
    for (name, id) in programs {
        memory::reset_peak(id)?;
        peaks.push((name, id, memory::resident(id)?));
    }
    assert_eq!(client.until_ready()?, ["SELECT 1000"], "everything arrives in the end");
    for (name, id, before) in peaks {
        let grown = memory::peak(id)?.saturating_sub(before);
        assert!(grown < 24 << 10, "{name} has grown by {grown} KiB");
    }
    Ok(())
}

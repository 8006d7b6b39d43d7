//! Packets as no client library sends them, and those that few do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use shared_testkit::process::command as program;
use shared_testkit::run;
use shared_wire::mysql::{Failure, Greeting, HEADER, Login, capability, packet, read_header};

use super::{SHOP, Shop};
use crate::db_told::ended;

/// What the client can do: no files, no attributes, and results that end with an EOF.
const ASKED: u64 = capability::PLAIN & !capability::LOCAL_FILES & !capability::CONNECT_ATTRS;

/// A bare connection.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) greeting: Greeting,
}

impl Client {
    /// Comes in as this user to this database; the error is what was read instead.
    pub(super) fn connect(port: u16, user: &str, database: &str) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        let greeting = Greeting::plain("", 0, [1; 20]);
        let mut client = Self { stream, greeting };
        let greeted = client.read()?;
        client.greeting = Greeting::parse(&greeted)?;
        let login = Login {
            capabilities: client.greeting.capabilities & ASKED,
            max_packet: 1 << 30,
            charset: 45,
            user: user.to_owned(),
            auth: vec![7; 20],
            database: database.to_owned(),
            plugin: "mysql_native_password".to_owned(),
            attributes: Vec::new(),
        };
        client.stream.write_all(&packet(1, &login.payload()))?;
        client.read()?;
        Ok(client)
    }

    /// The payload of the next packet; an error packet is an error.
    pub(super) fn read(&mut self) -> Result<Vec<u8>> {
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header)?;
        let mut payload = vec![0; read_header(header).0];
        self.stream.read_exact(&mut payload)?;
        if payload.first() == Some(&0xff) {
            bail!("{}", Failure::parse(&payload)?);
        }
        Ok(payload)
    }

    pub(super) fn send(&mut self, opcode: u8, body: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(&command(opcode, body))?)
    }

    /// Sends a command and reads one packet.
    pub(super) fn ask(&mut self, opcode: u8, body: &[u8]) -> Result<Vec<u8>> {
        self.send(opcode, body)?;
        self.read()
    }

    /// Reads packets up to an EOF; how many there were.
    pub(super) fn until_eof(&mut self) -> Result<usize> {
        let mut count = 0;
        while !matches!(self.read()?.as_slice(), [0xfe, rest @ ..] if rest.len() < 8) {
            count += 1;
        }
        Ok(count)
    }

    /// The only value of a query's only row.
    pub(super) fn value(&mut self, sql: &str) -> Result<String> {
        ensure!(self.ask(3, sql.as_bytes())? == [1]);
        self.until_eof()?;
        let row = self.read()?;
        self.until_eof()?;
        Ok(String::from_utf8_lossy(row.get(1..).unwrap_or_default()).into_owned())
    }

    /// What is said instead of an answer, and that the connection ends with it.
    pub(super) fn refused(&mut self) -> Result<String> {
        let refused = loop {
            if let Err(refused) = self.read() {
                break refused.to_string();
            }
        };
        ensure!(self.stream.read(&mut [0; 1])? == 0, "it goes on after {refused}");
        Ok(refused)
    }
}

pub(super) fn command(opcode: u8, body: &[u8]) -> Vec<u8> {
    packet(0, &[&[opcode], body].concat())
}

#[test]
fn what_is_not_the_protocol_is_refused_and_told_of() -> Result<()> {
    let Some(shop) = Shop::new("my-odd")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut sids = Vec::new();
    // The third is what a server would take for an answer to nothing, the last for the next part of a query.
    for bad in [
        command(0x77, b""),
        packet(0, b""),
        packet(5, b"\x03select 'never'"),
        command(0x17, &[9]),
        packet(1, b"x"),
    ] {
        let mut client = Client::connect(tunnel.port, "alice", "test")?;
        assert_eq!(client.value("select 'good'")?, "good");
        client
            .stream
            .write_all(&[command(3, b"do 'last'"), bad, command(3, b"do 'never'")].concat())?;
        let refused = client.refused()?;
        assert!(refused.starts_with("1835 (HY000): malformed packet: "), "{refused}");
        sids = ended(&shop.stage, SHOP, sids.len() + 1)?;
    }
    let sql = "select sid from db_session_malformed_packet order by event_time";
    assert_eq!(shop.stage.audited(sql, |told| told.len() >= sids.len())?, sids);
    for sid in sids {
        shop.tells(&sid, &["query select 'good'", "query do 'last'"])?;
    }
    Ok(())
}

#[test]
fn another_user_and_replication_are_not_passed_on() -> Result<()> {
    let Some(shop) = Shop::new("my-refused")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    for (opcode, body, name) in [
        (0x11, &b"root\0\0\0"[..], "COM_CHANGE_USER"),
        (0x12, &[0; 10], "COM_BINLOG_DUMP"),
        (0x15, &[0; 18], "COM_REGISTER_SLAVE"),
    ] {
        let mut client = Client::connect(tunnel.port, "alice", "test")?;
        client.send(opcode, body)?;
        assert_eq!(client.refused()?, format!("1235 (42000): {name} is not supported"));
        shop.wait_connected("0")?;
    }
    Ok(())
}

#[test]
fn prepared_statements_in_all_their_ways() -> Result<()> {
    let Some(shop) = Shop::new("my-binary")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut client = Client::connect(tunnel.port, "alice", "test")?;
    assert!(client.greeting.version.contains("MariaDB"), "{}", client.greeting.version);
    // Neither compression nor TLS, which is around it already.
    assert_eq!(client.greeting.capabilities & (1 << 5 | capability::SSL), 0);
    client.ask(3, b"create table t (a int, b longtext)")?;
    let id = |prepared: &[u8]| prepared[1..5].to_vec();
    let insert = id(&client.ask(0x16, b"insert into t values (?, ?)")?);
    client.until_eof()?;
    let head = |id: &[u8], cursor: u8| [id, &[cursor, 1, 0, 0, 0]].concat();
    let types = [&[1, 3, 0, 0xfd, 0][..]].concat();
    let row = |number: u8| [&[0][..], &types, &[number, 0, 0, 0, 2, b'h', b'i']].concat();
    client.ask(0x17, &[head(&insert, 0), row(7)].concat())?;
    // Types of before, and no text.
    client.ask(0x17, &[head(&insert, 0), vec![0b10, 0, 8, 0, 0, 0]].concat())?;
    for part in [&b"long "[..], b"text"] {
        client.send(0x18, &[&insert[..], &[1, 0], part].concat())?;
    }
    client.ask(0x17, &[&head(&insert, 0)[..], &[0], &types, &[9, 0, 0, 0]].concat())?;
    client.ask(0x1a, &insert)?;
    client.send(0x19, &insert)?;
    let select = id(&client.ask(0x16, b"select a from t order by a")?);
    client.until_eof()?;
    client.ask(0x17, &head(&select, 1))?;
    client.until_eof()?;
    let mut rows = 0;
    for _ in 0..2 {
        client.send(0x1c, &[&select[..], &[2, 0, 0, 0]].concat())?;
        rows += client.until_eof()?;
    }
    assert_eq!(rows, 3);
    let unknown = client.ask(0x17, &head(&[99, 0, 0, 0], 0)).unwrap_err().to_string();
    assert!(unknown.starts_with("1243 "), "{unknown}");
    assert_eq!(client.value("select group_concat(a, b order by a) from t")?, "7hi,9long text");
    client.send(0x01, b"")?;
    let (one, two) = (insert[0], select[0]);
    let wanted = [
        "query create table t (a int, b longtext)".to_owned(),
        "prepare insert into t values (?, ?)".to_owned(),
        format!("execute {one}: 7,hi"),
        format!("execute {one}: 8,NULL"),
        format!("send {one}.1: 5 bytes"),
        format!("send {one}.1: 4 bytes"),
        format!("execute {one}: 9,<long data: 9 bytes>"),
        format!("reset {one}"),
        format!("close {one}"),
        "prepare select a from t order by a".to_owned(),
        format!("execute {two}: "),
        format!("fetch {two}: 2"),
        format!("fetch {two}: 2"),
        "execute 99: <unknown>".to_owned(),
        "query select group_concat(a, b order by a) from t".to_owned(),
    ];
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let heard = shop.tells(&shop.session()?, &wanted)?;
    let (affected, error) =
        (heard[..4].join(","), heard.iter().find(|line| line.starts_with("ERROR")));
    assert_eq!(affected, "0,0,1,1");
    assert!(error.is_some_and(|error| {
        error.starts_with("ERROR 1243 (HY000): Unknown prepared statement handler")
    }));
    Ok(())
}

#[test]
fn a_query_of_several_packets_passes_and_is_named_as_cut() -> Result<()> {
    let Some(shop) = Shop::new("my-long")? else { return Ok(()) };
    let tunnel = shop.tunnel()?;
    let mut client = Client::connect(tunnel.port, "alice", "test")?;
    let sql = format!("select length('{}')", "x".repeat(40 << 20));
    assert_eq!(client.value(&sql)?, (40 << 20).to_string());
    // And an answer as long, whose row begins as the end of rows does.
    let rows = "select repeat('y', 17 << 20), 1 union select repeat('z', 17 << 20), 2";
    assert_eq!(client.ask(3, rows.as_bytes())?, [2]);
    client.until_eof()?;
    for _ in 0..2 {
        assert_eq!(
            (client.read()?.len(), client.read()?.len()),
            (0xff_ffff, (17 << 20) + 9 + 2 - 0xff_ffff)
        );
    }
    client.until_eof()?;
    client.send(0x01, b"")?;
    let sid = shop.session()?;
    let (said, heard) = shop.recorded(&sid)?;
    let sum = run(&mut program("sha256sum", shop.stage.scratch.path()), &sql, 60)?.ok().text();
    let mark = format!("… [cut: {} bytes, sha256 {}]", sql.len(), &sum[..64]);
    assert!(
        said[0].starts_with("query select length('xxx") && said[0].ends_with(&mark),
        "{}",
        said[0].len()
    );
    assert_eq!(
        (said[1].as_str(), heard),
        (format!("query {rows}").as_str(), vec!["1".to_owned(), "2".to_owned()])
    );
    Ok(())
}

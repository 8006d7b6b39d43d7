//! DynamoDB through the whole chain, by real clients: requests go on with the agent's identity, and each of them is in
//! the audit log and in the recording, in order, with its status.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use shared_testkit::process::command;
use shared_testkit::{
    DbOptions, DbResource, DbStage, DbTunnel, DynamoDb, Tls, TlsServer, memory, run,
};

use crate::db_told::{ended, logged, recorded, text};

/// The service's name.
const TABLES: &str = "tables";
/// The agent's AWS identity.
const AGENT: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AGENTSKEY71"), ("AWS_SECRET_ACCESS_KEY", "agents-secret-72")];

fn stage(name: &str) -> Result<DbStage> {
    let mut options = DbOptions::default();
    options.cluster.env.extend(AGENT.map(|(name, value)| (name.to_owned(), value.to_owned())));
    DbStage::with(name, &options)
}

/// A DynamoDB Local behind a cluster.
fn tables(name: &str) -> Result<Option<(DbStage, DynamoDb, DbTunnel)>> {
    let Some(server) = DynamoDb::start()? else { return Ok(None) };
    let stage = stage(name)?;
    stage.serve(&DbResource {
        name: TABLES,
        protocol: "dynamodb",
        uri: server.uri(),
        spec: "  aws:\n    region: eu-west-1\n",
    })?;
    let tunnel = stage.tunnel(TABLES, "reader", "")?;
    Ok(Some((stage, server, tunnel)))
}

/// `target status body`.
fn line(event: &Value) -> Option<String> {
    let told = text(event, "event") == "db.session.dynamodb.request";
    told.then(|| {
        let operation = text(event, "target").rsplit('.').next().unwrap_or_default();
        let code = if text(event, "code") == "TDY01E" { " E" } else { "" };
        format!("{operation} {}{code} {}", event["status_code"], event["body"])
    })
}

/// Recording and audit log tell of these requests and no others.
fn tells(stage: &DbStage, sid: &str, wanted: &[&str]) -> Result<()> {
    let said: Vec<String> = recorded(stage, sid)?.iter().filter_map(line).collect();
    assert_eq!(said, wanted, "the recording");
    let logged = logged(stage, sid, "db.session.dynamodb", wanted.len())?;
    let logged: Vec<String> = logged.iter().filter_map(line).collect();
    assert_eq!(logged, wanted, "the audit log");
    Ok(())
}

/// What boto3 does in `dynamodb_boto3.py`.
#[test]
fn boto3_is_told_of() -> Result<()> {
    let python = command("python3", std::path::Path::new("/"));
    if !crate::db_postgres::imports(python, "boto3")? {
        return Ok(());
    }
    let Some((stage, server, tunnel)) = tables("dynamodb")? else { return Ok(()) };
    let mut client = command("python3", stage.scratch.path());
    client
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/dynamodb_boto3.py"))
        .arg(tunnel.port.to_string());
    let outcome = run(&mut client, "", 180)?.ok();
    assert_eq!(outcome.text(), "done\n", "{}", outcome.stderr);
    let sids = ended(&stage, TABLES, 1)?;
    let [sid] = sids.as_slice() else { anyhow::bail!("sessions: {sids:?}") };
    let events = recorded(&stage, sid)?;
    let said: Vec<String> = events.iter().filter_map(line).collect();
    let wanted = [
        r#"ListTables 200 {}"#,
        r#"CreateTable 200 {"AttributeDefinitions""#,
        r#"PutItem 200 {"Item":{"id":{"S":"1"},"n":{"N":"42"}},"TableName":"things"}"#,
        r#"GetItem 200 {"Key":{"id":{"S":"1"}},"TableName":"things"}"#,
        r#"PutItem 200 {"_cut":"{\"TableName\""#,
        r#"GetItem 200 {"Key":{"id":{"S":"big"}},"TableName":"things"}"#,
        r#"GetItem 400 E {"Key":{"id":{"S":"1"}},"TableName":"missing"}"#,
    ];
    for (said, wanted) in said.iter().zip(wanted) {
        assert!(said.starts_with(wanted), "{wanted}: {said}");
    }
    let batches = said.iter().filter(|said| said.starts_with("BatchWriteItem 200 ")).count();
    assert_eq!((batches, said.len()), (40, wanted.len() + 40 + 1), "{said:#?}");
    assert!(said[said.len() - 1].starts_with("Scan 200 "), "{said:#?}");
    let all: Vec<&str> = said.iter().map(String::as_str).collect();
    tells(&stage, sid, &all)?;
    // The items are those of the agent's key and region: the client's are others.
    let mut direct = command("aws", stage.scratch.path());
    direct.envs(AGENT).args(["--region", "eu-west-1", "--endpoint-url", &server.uri()]);
    direct.args(["dynamodb", "list-tables", "--output", "text"]);
    if shared_testkit::process::installed("aws")? {
        assert_eq!(run(&mut direct, "", 60)?.ok().text().trim(), "TABLENAMES\tthings");
    }
    let shown = stage.joe.run(["play", "--format=text", sid])?.ok().text();
    assert!(shown.contains("GetItem") && shown.contains("HTTP 400"), "{shown}");
    Ok(())
}

/// A request as no library sends it; the reply up to the end of the connection.
fn raw(port: u16, request: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request)?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    Ok(String::from_utf8_lossy(&all).into_owned())
}

fn post(body: &str) -> Vec<u8> {
    format!(
        "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB_20120810.ListTables\r\nContent-Type: application/x-amz-json-1.0\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn refusals_are_errors_of_aws() -> Result<()> {
    let Some((stage, mut server, tunnel)) = tables("dynamodb-refused")? else { return Ok(()) };
    let too_long = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{";
    let refused = raw(tunnel.port, too_long.as_bytes())?;
    assert!(
        refused.starts_with("HTTP/1.1 413 ") && refused.contains("the request is longer than"),
        "{refused}"
    );
    let served = raw(tunnel.port, &post("{}"))?;
    assert!(served.starts_with("HTTP/1.1 200 OK"), "{served}");
    server.process.kill()?;
    let refused = raw(tunnel.port, &post("{}"))?;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains(r#""message":"could not connect to the database"#), "{refused}");
    let sids = ended(&stage, TABLES, 3)?;
    tells(&stage, &sids[0], &[" 413 E null"])?;
    tells(&stage, &sids[1], &["ListTables 200 {}"])?;
    tells(&stage, &sids[2], &[])?;
    Ok(())
}

/// Does what the body of the first request asks for.
fn serve(mut tls: Tls) -> Result<()> {
    let mut chunk = [0; 4096];
    let mut asked = String::new();
    while !asked.contains('}') {
        let count = tls.read(&mut chunk)?;
        ensure!(count > 0);
        asked += &String::from_utf8_lossy(&chunk[..count]);
    }
    if asked.contains("noise") {
        tls.write_all(&[0xa5; 4096])?;
    } else if asked.contains("head") {
        tls.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            tls.write_all(b"X-More: x\r\n")?;
        }
    } else if asked.contains("endless") {
        tls.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            tls.write_all(&[b"10000\r\n".as_slice(), &[b'x'; 65536], b"\r\n"].concat())?;
        }
    } else if asked.contains("identity") {
        let reply = asked.replace(['"', '\\'], "'").replace("\r\n", "|");
        let reply = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reply}",
            reply.len()
        );
        tls.write_all(reply.as_bytes())?;
    }
    Ok(())
}

#[test]
fn a_hostile_server_harms_its_own_session_only() -> Result<()> {
    let stage = stage("dynamodb-hostile")?;
    let server = TlsServer::start(&stage.cluster, stage.scratch.path(), serve)?;
    stage.serve(&DbResource { name: TABLES, protocol: "dynamodb", uri: server.uri(), spec: "" })?;
    let tunnel = stage.tunnel(TABLES, "reader", "")?;
    for how in ["noise", "head"] {
        let reply = raw(tunnel.port, &post(&format!("{{\"how\":\"{how}\"}}")))?;
        assert!(reply.starts_with("HTTP/1.1 502 "), "{how}: {reply}");
        assert!(reply.contains("the database gave no answer"), "{how}: {reply}");
    }
    // The client's identity stays here, and the agent's secret as well.
    let theirs = "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Security-Token: clients-token\r\nConnection: close\r\nAuthorization: \
                  AWS4-HMAC-SHA256 Credential=CLIENTSKEY/20260101/eu-north-1/dynamodb/aws4_request, SignedHeaders=host, Signature=00\r\n\
                  Content-Length: 18\r\n\r\n{\"how\":\"identity\"}";
    let seen = raw(tunnel.port, theirs.as_bytes())?;
    assert!(
        seen.contains("Credential=AGENTSKEY71/") && seen.contains("/eu-north-1/dynamodb/"),
        "{seen}"
    );
    assert!(
        !seen.contains("clients-token")
            && !seen.contains("CLIENTSKEY")
            && !seen.contains("agents-secret"),
        "{seen}"
    );
    let daemon = stage.cluster.auth.id();
    let before = memory::resident(daemon)?;
    let mut stream = TcpStream::connect(("127.0.0.1", tunnel.port))?;
    stream.write_all(&post("{\"how\":\"endless\"}"))?;
    let mut chunk = vec![0; 1 << 16];
    for _ in 0..1000 {
        ensure!(stream.read(&mut chunk)? > 0);
    }
    std::thread::sleep(Duration::from_secs(1));
    let grown = memory::resident(daemon)?.saturating_sub(before);
    assert!(grown < 24 << 10, "the daemon has grown by {grown} KiB");
    drop(stream);
    let sids = ended(&stage, TABLES, 4)?;
    tells(&stage, &sids[0], &[r#"ListTables 502 E {"how":"noise"}"#])?;
    tells(&stage, &sids[3], &[r#"ListTables 200 {"how":"endless"}"#])?;
    Ok(())
}

//! Those who speak no database's protocol, or take their time, on every way to a database; and a host that is no proxy
//! and says that it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::sign::SingleCertAndKey;
use serde_json::Value;
use server_core::db::Preamble;
use shared_api::client::Confirm;
use shared_api::{Client, ClientConfig, JoinRequest, Route, Secret, Timeouts, fetch_authorities};
use shared_pki::{KeyPair, TlsKey};
use shared_testkit::{ClusterOptions, DbAgent, DbOptions, DbResource, DbStage, memory, until};
use shared_transport::tunnel::{ConnType, DialRequest, Tunnel};
use shared_transport::{Rewind, alpn, tls};
use shared_types::{HostId, SystemRole};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::limits::runtime;

/// What a client that says nothing useful has at most, and some for a busy machine.
const STAYS: Duration = Duration::from_secs(90);
/// What the daemon may keep of those who have gone, in KiB.
const KEPT: u64 = 64 * 1024;
/// The databases, what they speak, and the name by which that is asked for.
const DATABASES: [(&str, &str, &[u8]); 4] = [
    ("pg", "postgres", alpn::POSTGRES),
    ("my", "mysql", alpn::MYSQL),
    ("rd", "redis", alpn::REDIS),
    ("dy", "dynamodb", alpn::DYNAMODB),
];

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A certificate of joe's for a database.
type Shown = Arc<SingleCertAndKey>;

fn stage(name: &str, agent: DbAgent) -> Result<DbStage> {
    let ports = "  postgres_listen_addr: 127.0.0.1:0\n  mysql_listen_addr: 127.0.0.1:0\n";
    let cluster = ClusterOptions { proxy_extra: ports.to_owned(), ..ClusterOptions::default() };
    let options = DbOptions { agent, cluster, ..DbOptions::default() };
    let stage = DbStage::with(name, &options)?;
    for (name, protocol, _) in DATABASES {
        // Nobody listens there.
        stage.serve(&DbResource { name, protocol, uri: "127.0.0.1:9".to_owned(), spec: "" })?;
    }
    Ok(stage)
}

/// Joe's certificate for a database, as `tsh db login` leaves it.
fn shown(stage: &DbStage, service: &str) -> Result<Shown> {
    let _login = stage.joe.run(["db", "login", "--db-user=alice", "--db-name=shop", service])?.ok();
    let text = stage.joe.run(["db", "config", "--format=json", service])?.ok().text();
    let config: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let file = |key: &str| std::path::PathBuf::from(config[key].as_str().unwrap_or_default());
    let (certs, key) = tls::load_keypair(&file("cert"), &file("key"))?;
    Ok(Arc::new(tls::certified_key(certs, key)?.into()))
}

/// A connection under a database's name, with a certificate or without.
async fn under(stage_web: &str, name: &[u8], shown: Option<&Shown>) -> Result<Box<dyn Io>> {
    let mut config = tls::accept_any_certificate();
    config.alpn_protocols = vec![name.to_vec()];
    if let Some(shown) = shown {
        config.client_auth_cert_resolver = Arc::<SingleCertAndKey>::clone(shown);
    }
    let stream = TcpStream::connect(stage_web).await?;
    let stream = tls::connect(Arc::new(config), "teleport.cluster.local", stream, STAYS).await?;
    Ok(Box::new(stream))
}

/// What comes until the other side ends it.
async fn rest(stream: &mut dyn Io) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let read = tokio::time::timeout(STAYS, stream.read_to_end(&mut all)).await;
    // An end without a word of TLS is one, too.
    let _ = read.context("the connection does not end")?;
    Ok(all)
}

/// A start-up of PostgreSQL as alice, who wants `shop`.
fn startup() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0alice\0database\0shop\0\0";
    let length = u32::try_from(body.len() + 4).unwrap_or_default();
    [&length.to_be_bytes()[..], body].concat()
}

/// A client that behaves gets an answer in its protocol, soon.
async fn is_served(web: &str, shown: &Shown) -> Result<()> {
    let begun = Instant::now();
    let mut client = under(web, alpn::POSTGRES, Some(shown)).await?;
    client.write_all(&startup()).await?;
    let said = rest(&mut *client).await?;
    ensure!(said.first() == Some(&b'E'), "{}", String::from_utf8_lossy(&said));
    ensure!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    Ok(())
}

fn garbage() -> Vec<Vec<u8>> {
    let mut noise: u32 = 7;
    let mut random = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.to_be_bytes()[0]
    };
    vec![
        vec![0; 64],
        vec![0xff; 70_000],
        b"\x16\x03\x01\xff\xff".repeat(400),
        b"\0\0\0\x08\x04\xd2\x16\x2f".repeat(3),
        b"*2147483647\r\n$2147483647\r\n".repeat(9),
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        [&startup()[..], &[b'Q', 0xff, 0xff, 0xff, 0xff]].concat(),
        b"\xff\xff\xff\x00".repeat(1000),
        std::iter::repeat_with(&mut random).take(100_000).collect(),
        std::iter::repeat_with(&mut random).take(33).collect(),
    ]
}

/// Sends something, and waits for the end.
async fn throw(mut stream: Box<dyn Io>, bytes: &[u8]) -> Result<()> {
    // The other side may have had enough before its end.
    if stream.write_all(bytes).await.is_ok() {
        let _ = stream.shutdown().await;
    }
    let said = rest(&mut *stream).await?;
    ensure!(said.len() < 64 * 1024, "{} bytes in answer to garbage", said.len());
    Ok(())
}

#[test]
fn garbage_on_every_way_to_a_database_harms_nothing() -> Result<()> {
    let stage = stage("db-garbage", DbAgent::SameProcess)?;
    let certificates: Vec<Shown> =
        DATABASES.iter().map(|(name, ..)| shown(&stage, name)).collect::<Result<_>>()?;
    let daemon = stage.cluster.auth.id();
    let address = |name: &str| stage.cluster.address(name).to_owned();
    let (web, ports) = (address("web"), [address("postgres"), address("mysql"), address("web")]);
    let runtime = runtime()?;
    runtime.block_on(is_served(&web, &certificates[0]))?;
    let before = memory::resident(daemon)?;
    runtime.block_on(async {
        for bytes in garbage() {
            for ((_, _, name), certificate) in DATABASES.iter().zip(&certificates) {
                // In front of the proxy's checks, and behind them, where the agent reads it.
                throw(under(&web, name, None).await?, &bytes).await?;
                throw(under(&web, name, Some(certificate)).await?, &bytes).await?;
            }
            for port in &ports {
                throw(Box::new(TcpStream::connect(port).await?), &bytes).await?;
            }
        }
        is_served(&web, &certificates[0]).await
    })?;
    let after = memory::resident(daemon)?;
    ensure!(after < before + KEPT, "{before} KiB before, {after} KiB after");
    Ok(())
}

/// Behaves like somebody on a very bad line: `opening`, and then a byte every second.
async fn drip(stream: Result<Box<dyn Io>>, opening: Vec<u8>) -> Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream?);
    let writing = tokio::spawn(async move {
        let mut next = writer.write_all(&opening).await;
        while next.is_ok() && writer.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            next = writer.write_all(&[0]).await;
        }
    });
    let mut said = vec![0; 4096];
    let ended = tokio::time::timeout(STAYS, async {
        while matches!(reader.read(&mut said).await, Ok(1..)) {}
    });
    let ended = ended.await;
    writing.abort();
    ended.context("it is still served")
}

#[test]
fn slow_clients_keep_nobody_out_and_come_to_an_end() -> Result<()> {
    const OF_EACH: usize = 60;
    let stage = stage("db-slow", DbAgent::SameProcess)?;
    let certificate = shown(&stage, "pg")?;
    let address = |name: &str| stage.cluster.address(name).to_owned();
    let (web, postgres, mysql) = (address("web"), address("postgres"), address("mysql"));
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut crowd = JoinSet::new();
        for _ in 0..OF_EACH {
            for (port, opening) in [
                (&postgres, &b""[..]),
                (&postgres, b"\0\0\0\x08\x04\xd2\x16\x2f\x16\x03\x01\x02\0"),
                (&mysql, b"\x20\0\0\x01"),
                (&web, b"\0\0\0\x08\x04\xd2"),
            ] {
                let (port, opening) = (port.clone(), opening.to_vec());
                crowd.spawn(async move {
                    let stream = TcpStream::connect(port).await?;
                    drip(Ok(Box::new(stream)), opening).await
                });
            }
            for (_, _, name) in DATABASES {
                let (web, opening) = (web.clone(), vec![0, 0, 1, 0]);
                crowd.spawn(async move { drip(under(&web, name, None).await, opening).await });
            }
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        for _ in 0..5 {
            is_served(&web, &certificate).await?;
        }
        while let Some(ended) = crowd.join_next().await {
            ended??;
        }
        is_served(&web, &certificate).await
    })
}

/// A host of the cluster that is no proxy. It stands where the agent looks for one.
struct Impostor {
    address: String,
    /// Tunnels that agents wanted of it.
    wanted: Arc<AtomicUsize>,
    /// Those in which it could ask for something.
    believed: Arc<AtomicUsize>,
}

impl Impostor {
    /// Joins as a node; passes on what is for others, and takes tunnels for itself.
    async fn start(stage: &DbStage, certificate: Vec<u8>) -> Result<Self> {
        let _token = stage.cluster.tctl_ok([
            "tokens",
            "add",
            "--type=node",
            "--value=impostors-token-of-tests",
        ])?;
        let route = Route::Direct { addr: stage.cluster.address("auth").to_owned() };
        let pins = [stage.cluster.ca_pin()?];
        let known = fetch_authorities(&route, Timeouts::default(), Confirm::Pins(&pins)).await?;
        let (ssh_key, tls_key) = (KeyPair::generate()?, TlsKey::generate()?);
        let nobody = Client::new(ClientConfig::new(route, known.authorities, None))?;
        let joined = nobody
            .join(&JoinRequest {
                token: Secret::new("impostors-token-of-tests"),
                host_id: HostId::random(),
                node_name: "impostor".into(),
                role: SystemRole::Node,
                ssh_public_key: ssh_key.public_openssh(),
                tls_public_key: tls_key.public().to_pem(),
                additional_principals: vec!["localhost".into()],
                public_addr: None,
            })
            .await?;
        let certs = tls::certs_from_pem(joined.tls_cert.as_bytes())?;
        let clients = Some(tls::danger_any_client_certificate());
        let config =
            tls::server_config(certs, tls_key.to_rustls(), clients, &[alpn::REVERSE_TUNNEL])?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let this = Self {
            address: format!("localhost:{}", listener.local_addr()?.port()),
            wanted: Arc::default(),
            believed: Arc::default(),
        };
        let (wanted, believed) = (Arc::clone(&this.wanted), Arc::clone(&this.believed));
        let (web, config) = (stage.cluster.address("web").to_owned(), Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (web, config, certificate) =
                    (web.clone(), Arc::clone(&config), certificate.clone());
                let (wanted, believed) = (Arc::clone(&wanted), Arc::clone(&believed));
                tokio::spawn(async move {
                    let mut stream = Rewind::new(stream);
                    let hello = shared_transport::client_hello(&mut stream, STAYS).await?;
                    if !hello.alpn.iter().any(|name| name == alpn::REVERSE_TUNNEL) {
                        let mut web = TcpStream::connect(web).await?;
                        tokio::io::copy_bidirectional(&mut stream, &mut web).await?;
                        return anyhow::Ok(());
                    }
                    wanted.fetch_add(1, Ordering::SeqCst);
                    let stream = tls::accept(config, stream, STAYS).await?;
                    forge(stream, certificate).await?;
                    believed.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                });
            }
        });
        Ok(this)
    }
}

/// Asks an agent for a database in somebody's name.
async fn forge<S>(stream: S, certificate: Vec<u8>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (tunnel, driver) = Tunnel::accept(stream).await?;
    tokio::spawn(driver.run());
    tunnel.tell_proxies(&[]).await?;
    let client = "192.0.2.7:7".parse()?;
    let request = DialRequest {
        address: DialRequest::LOCAL_DB.to_owned(),
        server_id: "any.example.test".to_owned(),
        conn_type: ConnType::Db,
        teleport_version: "1".to_owned(),
        client_src_addr: client,
        client_dst_addr: None,
    };
    // Whatever the answer is: it was heard.
    if let Ok(mut stream) = tunnel.dial(&request, STAYS).await {
        Preamble { client, certificate: certificate.into(), greeted: None }
            .write(&mut stream)
            .await?;
    }
    Ok(())
}

#[test]
fn a_host_that_is_no_proxy_is_not_believed_whatever_it_says() -> Result<()> {
    let stage = stage("db-impostor", DbAgent::SameProcess)?;
    let _shown = shown(&stage, "pg")?;
    let der = {
        let text = stage.joe.run(["db", "config", "--format=json", "pg"])?.ok().text();
        let config: Value = serde_json::from_str(&text)?;
        let pem = std::fs::read(config["cert"].as_str().unwrap_or_default())?;
        tls::certs_from_pem(&pem)?.remove(0).to_vec()
    };
    let runtime = runtime()?;
    let impostor = runtime.block_on(Impostor::start(&stage, der))?;
    let join = format!("proxy_server: {}", impostor.address);
    let agent = crate::db_ways::agent(&stage, "misled", &join)?;
    // It has joined: the way to the auth service leads through the impostor, who cannot read it.
    until("the agent to turn away", 60, || {
        let wanted = impostor.wanted.load(Ordering::SeqCst) > 0;
        (wanted && agent.log().contains("no tunnel to the proxy")).then_some(())
    })
    .with_context(|| agent.log())?;
    // And it is reached: by the true proxy, of which the auth service told it.
    until("the tunnel to the true proxy", 60, || {
        agent.log().contains("tunnel::pool::link: tunnel to the proxy").then_some(())
    })
    .with_context(|| agent.log())?;
    ensure!(impostor.believed.load(Ordering::SeqCst) == 0, "an impostor was believed");
    Ok(())
}

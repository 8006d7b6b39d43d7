//! Those who say nothing, a byte a second, or nonsense, on every listener and under every name of the TLS ports.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use shared_testkit::until;
use shared_transport::tls;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Held, KEPT_KIB, MORE_KIB, SWING, allow_descriptors, diagnosed, long, sound};
use crate::limits::runtime;
use crate::support::Stage;

/// Handshake and head of a request together, and some for a busy machine.
const HTTP: Duration = Duration::from_secs(40);
/// What an SSH client has to get in, and some; also what is no SSH may be taken for some that is slow.
const LOGIN: Duration = Duration::from_secs(75);

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A way to behave.
#[derive(Clone)]
struct Manner {
    name: String,
    address: String,
    /// TLS first, with this name in ALPN, if any.
    tls: Option<Option<Vec<u8>>>,
    opening: Vec<u8>,
    /// Sent again every second.
    drip: &'static [u8],
    /// When the daemon has to have ended it.
    limit: Duration,
}

impl Manner {
    async fn connect(&self) -> Result<Option<Box<dyn Io>>> {
        let stream = TcpStream::connect(&self.address).await?;
        let Some(alpn) = &self.tls else { return Ok(Some(Box::new(stream))) };
        let mut config = tls::accept_any_certificate();
        config.alpn_protocols = alpn.iter().cloned().collect();
        let limit = Duration::from_secs(30);
        // A name that is not known may be refused in the handshake.
        let stream = tls::connect(Arc::new(config), "localhost", stream, limit).await;
        Ok(stream.ok().map(|stream| Box::new(stream) as Box<dyn Io>))
    }

    /// Behaves so, until the other side ends it.
    async fn behave(self) -> Result<()> {
        let begun = Instant::now();
        let Some(stream) = self.connect().await.with_context(|| self.name.clone())? else {
            return Ok(());
        };
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (opening, drip) = (self.opening.clone(), self.drip);
        let writing = tokio::spawn(async move {
            // The other side may have ended it already.
            if writer.write_all(&opening).await.is_err() {
                return;
            }
            while !drip.is_empty() && writer.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if writer.write_all(drip).await.is_err() {
                    return;
                }
            }
            writer.flush().await.ok();
            std::future::pending::<()>().await;
        });
        let mut said = vec![0; 4096];
        let ended = tokio::time::timeout(self.limit, async {
            while matches!(reader.read(&mut said).await, Ok(1..)) {}
        });
        let ended = ended.await;
        writing.abort();
        ensure!(ended.is_ok(), "{} is still served after {:?}", self.name, begun.elapsed());
        Ok(())
    }
}

/// Lets each behave, `times` times at once, while `meanwhile` runs; all have to be ended in time.
fn crowd(manners: &[Manner], times: usize, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let runtime = runtime()?;
    let mut crowd = JoinSet::new();
    for manner in manners {
        for _ in 0..times {
            let manner = manner.clone();
            crowd.spawn_on(manner.behave(), runtime.handle());
        }
    }
    std::thread::sleep(SWING);
    meanwhile()?;
    runtime.block_on(async {
        while let Some(ended) = crowd.join_next().await {
            ended??;
        }
        Ok(())
    })
}

/// The ports, and the names of TLS that are known there and elsewhere.
struct Doors {
    web: String,
    ssh: String,
    auth: String,
    diag: String,
}

impl Doors {
    fn of(stage: &Stage, diag: u16) -> Self {
        let address = |name: &str| stage.cluster.address(name).to_owned();
        Self {
            web: address("web"),
            ssh: address("ssh"),
            auth: address("auth"),
            diag: format!("127.0.0.1:{diag}"),
        }
    }

    fn names() -> Vec<Option<Vec<u8>>> {
        let known = [
            "h2",
            "http/1.1",
            "teleport-proxy-ssh",
            "teleport-proxy-ssh-grpc",
            "teleport-reversetunnel",
            "teleport-reversetunnelv2",
            "teleport-auth@",
            "teleport-auth@example.test",
            "teleport-auth@other.test",
            "gatehouse-auth-handover",
            "gatehouse-node-handover",
            "acme-tls/1",
            "\u{1b}[31mnobody",
        ];
        let long = vec![b'x'; 255];
        let known = known.iter().map(|name| Some(name.as_bytes().to_vec()));
        known.chain([None, Some(long)]).collect()
    }
}

fn shown(alpn: Option<&[u8]>) -> String {
    alpn.map_or("none".to_owned(), |name| {
        String::from_utf8_lossy(name)
            .chars()
            .take(40)
            .collect::<String>()
            .escape_debug()
            .to_string()
    })
}

/// Bytes without a pattern, the same every time.
fn noise(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Slow at TLS and HTTP.
fn slow_at_the_web(doors: &Doors) -> Vec<Manner> {
    let head = b"GET /webapi/find HTTP/1.1\r\nHost: localhost\r\n".to_vec();
    let post = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n")
            .into_bytes()
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let inside: Vec<(&str, Vec<u8>, &'static [u8])> = vec![
        ("nothing", Vec::new(), b""),
        ("a byte a second", b"G".to_vec(), b"E"),
        ("half an HTTP/2 preface", preface[..16].to_vec(), b""),
        ("a head without an end", head.clone(), b"X: y\r\n"),
        ("a body a byte a second", post("/webapi/find"), b"x"),
        ("a login a byte a second", post("/v1/login"), b"x"),
    ];
    let mut manners = Vec::new();
    let mut add = |name: &str, address: &str, tls, opening: &[u8], drip| {
        manners.push(Manner {
            name: name.to_owned(),
            address: address.to_owned(),
            tls,
            opening: opening.to_vec(),
            drip,
            limit: HTTP,
        });
    };
    for (port, address) in [("web", &doors.web), ("auth", &doors.auth)] {
        let hello = b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03";
        add(&format!("{port}: silent"), address, None, b"", b"");
        add(&format!("{port}: a hello a byte a second"), address, None, hello, b"x");
        for alpn in [None, Some(b"h2".to_vec()), Some(b"teleport-auth@".to_vec())] {
            for (name, opening, drip) in &inside {
                let name = format!("{port}, {}: {name}", shown(alpn.as_deref()));
                add(&name, address, Some(alpn.clone()), opening, drip);
            }
        }
    }
    add("diag: silent", &doors.diag, None, b"", b"");
    add("diag: a head a byte a second", &doors.diag, None, &head, b"x");
    manners
}

#[test]
fn slow_clients_of_tls_and_http_are_let_go() -> Result<()> {
    let _alone = crate::support::alone();
    allow_descriptors()?;
    let (mut stage, diag) = diagnosed("slow-web")?;
    let manners = slow_at_the_web(&Doors::of(&stage, diag));
    let times = if long() { 40 } else { 8 };
    sound(&mut stage)?;
    let before = Held::by(&stage.cluster.auth)?;
    crowd(&manners, times, || sound(&mut stage))?;
    before.comes_back(&stage.cluster.auth, MORE_KIB)?;
    sound(&mut stage)
}

/// Slow at SSH, on its port and in TLS.
fn slow_at_ssh(doors: &Doors) -> Vec<Manner> {
    let openings: [(&str, &[u8], &'static [u8]); 4] = [
        ("nothing", b"", b""),
        ("an identification a byte a second", b"SSH-2.0-", b"x"),
        ("no key exchange", b"SSH-2.0-x\r\n", b""),
        ("a packet a byte a second", b"SSH-2.0-x\r\n\x00\x00\x40\x00\x04", b"x"),
    ];
    let tls = || Some(Some(b"teleport-proxy-ssh".to_vec()));
    let ways = [("ssh", &doors.ssh, None), ("web", &doors.web, None), ("TLS", &doors.web, tls())];
    let manner = |(way, address, tls): &(&str, &String, Option<Option<Vec<u8>>>),
                  (name, opening, drip): &(&str, &[u8], &'static [u8])| Manner {
        name: format!("{way}: {name}"),
        address: (*address).clone(),
        tls: tls.clone(),
        opening: opening.to_vec(),
        drip,
        limit: LOGIN,
    };
    ways.iter().flat_map(|way| openings.iter().map(|opening| manner(way, opening))).collect()
}

#[test]
fn idlers_before_a_login_make_room_for_those_who_log_in() -> Result<()> {
    let _alone = crate::support::alone();
    allow_descriptors()?;
    let (mut stage, diag) = diagnosed("slow-ssh")?;
    let manners = slow_at_ssh(&Doors::of(&stage, diag));
    sound(&mut stage)?;
    let before = Held::by(&stage.cluster.auth)?;
    // More than there are places before a login.
    let times = 1500 / manners.len();
    if long() {
        crowd(&manners, times, || sound(&mut stage))?;
    } else {
        at_the_door(&mut stage, &manners, times)?;
    }
    let after = before.comes_back(&stage.cluster.auth, KEPT_KIB)?;
    // As many again find what those left.
    at_the_door(&mut stage, &manners, times)?;
    after.comes_back(&stage.cluster.auth, MORE_KIB)?;
    sound(&mut stage)
}

/// A crowd that stays while others log in, and then leaves.
fn at_the_door(stage: &mut Stage, manners: &[Manner], times: usize) -> Result<()> {
    let runtime = runtime()?;
    for manner in manners {
        for _ in 0..times {
            runtime.spawn(manner.clone().behave());
        }
    }
    let full = || Held::by(&stage.cluster.auth).ok().filter(|now| now.descriptors > 900);
    until("the crowd at the door", 30, full)?;
    for _ in 0..3 {
        sound(stage)?;
    }
    runtime.shutdown_background();
    Ok(())
}

/// Nonsense, and a first packet far too large.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let ssh = |length: u32| {
        let packet = [&length.to_be_bytes()[..], &noise(64)].concat();
        [b"SSH-2.0-x\r\n".as_slice(), &packet].concat()
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frame = |length: [u8; 3], kind: u8| {
        [&preface[..], &length, &[kind, 4, 0, 0, 0, 1], &noise(2048)].concat()
    };
    vec![
        ("noise", noise(4096)),
        ("a mebibyte of noise", noise(1 << 20)),
        ("a mebibyte of zeros", vec![0; 1 << 20]),
        ("a line without an end", vec![b'A'; 256 * 1024]),
        ("an SSH packet of four gigabytes", ssh(u32::MAX)),
        ("an SSH packet of no length", ssh(0)),
        ("a frame of 16 MiB", frame([0xff, 0xff, 0xff], 1)),
        ("a head that is no head", frame([0, 4, 0], 1)),
        ("settings of the wrong size", frame([0, 0, 5], 4)),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("a record of 64 KiB", [b"\x16\x03\x01\xff\xff".as_slice(), &noise(65_535)].concat()),
        ("a request head of 1 MiB", [b"GET /".as_slice(), &[b'a'; 1 << 20]].concat()),
        ("an address", b"192.0.2.1:1\n\x16\x03\x01".to_vec()),
        ("a proxy's preamble", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec()),
    ]
}

#[test]
fn nonsense_under_every_name_is_let_go() -> Result<()> {
    let _alone = crate::support::alone();
    allow_descriptors()?;
    let (mut stage, diag) = diagnosed("nonsense")?;
    let doors = Doors::of(&stage, diag);
    let mut manners = Vec::new();
    let mut add = |name: String, address: &str, tls, opening: &[u8]| {
        let address = address.to_owned();
        manners.push(Manner {
            name,
            address,
            tls,
            opening: opening.to_vec(),
            drip: b"",
            limit: LOGIN,
        });
    };
    for (what, bytes) in nonsense() {
        for (port, address) in
            [("web", &doors.web), ("ssh", &doors.ssh), ("auth", &doors.auth), ("diag", &doors.diag)]
        {
            add(format!("{port}: {what}"), address, None, &bytes);
        }
        for (port, address) in [("web", &doors.web), ("auth", &doors.auth)] {
            for alpn in Doors::names() {
                let name = format!("{port}, {}: {what}", shown(alpn.as_deref()));
                add(name, address, Some(alpn), &bytes);
            }
        }
    }
    sound(&mut stage)?;
    let before = Held::by(&stage.cluster.auth)?;
    let mut outcome = crowd(&manners, 1, || sound(&mut stage));
    if long() {
        for _ in 0..5 {
            outcome = outcome.and_then(|()| crowd(&manners, 2, || sound(&mut stage)));
        }
    }
    outcome?;
    before.comes_back(&stage.cluster.auth, MORE_KIB)?;
    if stage.cluster.auth.log().contains("nobody\u{1b}") {
        bail!("a client's bytes reach the log as they are");
    }
    sound(&mut stage)
}

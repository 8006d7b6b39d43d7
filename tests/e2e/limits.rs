//! Clients that do not play by the rules, on the real SSH port. Each is got rid of in bounded time and with bounded
//! memory, none gets in, and the proxy goes on serving.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use russh::client::{self, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_key::encoding::Encode as _;
use russh::keys::ssh_key::{Certificate, HashAlg, Signature};
use russh::{ChannelId, ChannelOpenFailure};
use shared_pki::{KeyPair, parse_certificate_line};
use shared_ssh::wire::{Put, UserAuthRequest, encode_userauth};
use shared_testkit::{Home, run, until};
use tokio::time::timeout;

use crate::hostile::agent::{AnyHost, client_config};
use crate::support::Stage;

/// What the proxy gives a client to get in, and some.
const PATIENCE: Duration = Duration::from_secs(90);
/// What a test waits for an answer.
const ANSWER: Duration = Duration::from_secs(15);

/// Reads until the proxy closes; what it said.
fn until_closed(stream: &mut TcpStream) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = Vec::new();
    match stream.take(1024 * 1024).read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => bail!("the proxy does not close: {error}"),
    }
    ensure!(said.len() < 64 * 1024, "the proxy said {} bytes", said.len());
    Ok(said)
}

pub(crate) fn still_serves(stage: &mut Stage) -> Result<()> {
    let echoed = run(&mut stage.tsh_ssh(&[], &["echo", "still"]), "", 60)?.ok();
    ensure!(echoed.text() == "still\n", "{}", echoed.text());
    ensure!(stage.cluster.auth.running(), "the daemon ended");
    Ok(())
}

#[test]
fn clients_that_do_not_speak_ssh_are_let_go() -> Result<()> {
    let mut stage = Stage::new("raw")?;
    let address = stage.cluster.address("ssh").to_owned();
    let web = stage.cluster.address("web").to_owned();
    let connect = || TcpStream::connect(&address);
    let packet =
        |length: u32| [b"SSH-2.0-x\r\n".as_slice(), &length.to_be_bytes(), &[0x5a; 64]].concat();
    let noise: Vec<u8> = (0..4096_u32)
        .map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 24).unwrap_or(0))
        .collect();
    let openings: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("one byte", b"S".to_vec()),
        ("noise", noise),
        ("a request of the web", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("version 1", b"SSH-1.5-old\r\n".to_vec()),
        ("a line of 10000 bytes", [b"SSH-2.0-".as_slice(), &[b'A'; 10_000], b"\r\n"].concat()),
        (
            "a line of 10000 bytes without an end",
            [b"SSH-2.0-".as_slice(), &[b'A'; 10_000]].concat(),
        ),
        (
            "a thousand lines before it",
            [b"hello\r\n".repeat(1000), b"SSH-2.0-x\r\n".to_vec()].concat(),
        ),
        ("a control character in it", b"SSH-2.0-\x1b]0;x\x07\0\r\n".to_vec()),
        ("a packet of no length", packet(0)),
        ("a packet of four gigabytes", packet(u32::MAX)),
        ("a packet that is not whole", packet(30_000)),
    ];
    let mut open = Vec::new();
    for (name, opening) in openings {
        for mut stream in [connect()?, TcpStream::connect(&web)?] {
            // The proxy may have closed already.
            stream.write_all(&opening).ok();
            open.push((name, stream));
        }
    }
    let silent = (0..100).map(|_| connect()).collect::<Result<Vec<_>, _>>()?;

    // A byte at a time, for ever: busy, but never in.
    let slow = connect()?;
    let mut typing = slow.try_clone()?;
    let typist = std::thread::spawn(move || {
        let begun = Instant::now();
        for byte in b"SSH-2.0-slow\r\n".iter().chain([0_u8].iter().cycle()) {
            if typing.write_all(std::slice::from_ref(byte)).is_err() || begun.elapsed() > PATIENCE {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    // A line without end, as fast as it is taken.
    let mut flood = connect()?;
    let flooder = std::thread::spawn(move || {
        flood.set_write_timeout(Some(PATIENCE)).ok();
        let mut taken = 0_usize;
        flood.write_all(b"SSH-2.0-").ok();
        while taken < 256 * 1024 * 1024 && flood.write_all(&[b'A'; 65_536]).is_ok() {
            taken += 65_536;
        }
        taken
    });

    // Others are served meanwhile.
    still_serves(&mut stage)?;
    for (name, mut stream) in open {
        until_closed(&mut stream).context(name)?;
    }
    for mut stream in silent {
        let said = until_closed(&mut stream).context("silent clients")?;
        assert!(said.starts_with(b"SSH-2.0-"), "a client that waits hears nothing");
    }
    let mut slow = slow;
    until_closed(&mut slow).context("a slow client")?;
    drop(slow);
    typist.join().ok();
    let taken = flooder.join().unwrap_or(usize::MAX);
    assert!(taken < 64 * 1024 * 1024, "{taken} bytes of an identification were taken");
    still_serves(&mut stage)
}

/// Keeps what the proxy says about refused channels.
struct Listener(Arc<Mutex<Vec<String>>>);

impl client::Handler for Listener {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }

    async fn channel_open_failure(
        &mut self,
        _: ChannelId,
        _: ChannelOpenFailure,
        description: &str,
        _: &str,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(description.to_owned());
        Ok(())
    }
}

pub(crate) fn certificate(home: &Home) -> Result<Certificate> {
    Ok(parse_certificate_line(&std::fs::read_to_string(home.ssh_certificate())?)?)
}

pub(crate) fn key(home: &Home) -> Result<KeyPair> {
    Ok(KeyPair::from_openssh_pem(&std::fs::read_to_string(home.ssh_key())?)?)
}

fn signature(key: &KeyPair, data: &[u8]) -> Result<Vec<u8>> {
    let signature: Signature = key.private().try_sign(data)?;
    Ok(signature.encode_vec()?)
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

#[test]
fn other_channels_are_refused_by_name() -> Result<()> {
    let mut stage = Stage::new("channels")?;
    let (certificate, key) =
        (certificate(&stage.joe)?, Arc::new(key(&stage.joe)?.private().clone()));
    let (address, login, target) =
        (stage.cluster.address("ssh").to_owned(), stage.login.clone(), stage.sshd.port);
    let refused = |result: Result<russh::Channel<client::Msg>, russh::Error>| match result {
        Err(russh::Error::ChannelOpenFailure(_)) => Ok(()),
        Err(error) => Err(anyhow::anyhow!(error)),
        Ok(_) => Err(anyhow::anyhow!("the channel was opened")),
    };
    runtime()?.block_on(async {
        let said = Arc::new(Mutex::new(Vec::new()));
        let stream = tokio::net::TcpStream::connect(&address).await?;
        let mut handle =
            client::connect_stream(client_config(), stream, Listener(Arc::clone(&said))).await?;
        let accepted = handle.authenticate_openssh_cert(login, key, certificate).await?;
        ensure!(accepted.success(), "the honest login");
        let tcp = handle.channel_open_direct_tcpip("127.0.0.1", u32::from(target), "127.0.0.1", 1);
        refused(timeout(ANSWER, tcp).await?).context("direct-tcpip")?;
        refused(timeout(ANSWER, handle.channel_open_x11("127.0.0.1", 1)).await?).context("x11")?;
        let socket = handle.channel_open_direct_streamlocal("/run/docker.sock");
        refused(timeout(ANSWER, socket).await?).context("direct-streamlocal")?;
        // The texts are handed over after the refusals.
        let wanted = ["direct-tcpip", "x11", "direct-streamlocal@openssh.com"]
            .map(|name| format!("unknown channel type: {name}"));
        let begun = Instant::now();
        let told = || said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        while told().len() < wanted.len() && begun.elapsed() < ANSWER {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        ensure!(told() == wanted, "{:?}", told());
        // And more of the allowed kind than anyone needs.
        let mut opened = Vec::new();
        for _ in 0..200 {
            match timeout(ANSWER, handle.channel_open_session()).await? {
                Ok(channel) => opened.push(channel),
                Err(_) => break,
            }
        }
        ensure!((1..200).contains(&opened.len()), "{} channels without a request", opened.len());
        Ok(())
    })?;

    // As OpenSSH's users see it.
    let (_agent, socket) = stage.agent("channels")?;
    let mut login = stage.joe.login_command();
    let password = format!("{}\n", shared_testkit::cluster::PASSWORD);
    let _done = run(login.env("SSH_AUTH_SOCK", &socket), password, 60)?.ok();
    let mut ssh = shared_testkit::process::command("ssh", &stage.joe.folder);
    ssh.arg("-F").arg(stage.ssh_config()?).env("SSH_AUTH_SOCK", &socket);
    ssh.args(["-W", &format!("127.0.0.1:{target}"), "-p", &stage.cluster.port("ssh").to_string()]);
    let refused = run(ssh.arg(format!("{}@localhost", stage.login)), "", 30)?;
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("unknown channel type"), "{}", refused.stderr);
    assert!(refused.text().is_empty(), "the target answered: {}", refused.text());
    still_serves(&mut stage)
}

/// What a client sends where a signed request is due.
enum Instead {
    /// Nothing: the key was only offered.
    Nothing,
    /// The request with these bytes for a signature.
    Signature(Vec<u8>),
    /// The request for another user, rightly signed.
    User(&'static str, Arc<KeyPair>),
    /// Another packet.
    Packet(Vec<u8>),
    /// The right one.
    Right(Arc<KeyPair>),
}

#[derive(Debug)]
struct NotSigned;

impl From<russh::SendError> for NotSigned {
    fn from(_: russh::SendError) -> Self {
        Self
    }
}

/// Answers for a key that was offered, and counts how often the proxy asked it to.
struct Cheat {
    instead: Instead,
    asked: u32,
}

impl russh::Signer for Cheat {
    type Error = NotSigned;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, NotSigned> {
        self.asked += 1;
        let request = UserAuthRequest::parse(&to_sign).map_err(|_| NotSigned)?;
        let signed = |mut data: Vec<u8>, key: &KeyPair| {
            data.put_string(&signature(key, &data).map_err(|_| NotSigned)?);
            Ok(data)
        };
        match &self.instead {
            Instead::Nothing => Err(NotSigned),
            Instead::Signature(bytes) => {
                let mut data = to_sign.clone();
                data.put_string(bytes);
                Ok(data)
            }
            Instead::User(user, key) => {
                signed(encode_userauth(&UserAuthRequest { user: user.as_bytes(), ..request }), key)
            }
            Instead::Packet(packet) => {
                let mut data = Vec::new();
                data.put_string(request.session_id);
                data.extend_from_slice(packet);
                Ok(data)
            }
            Instead::Right(key) => signed(to_sign, key),
        }
    }
}

/// What the proxy answered.
#[derive(Debug, PartialEq)]
enum Told {
    /// That the login worked, or not.
    Answer(bool),
    Nothing,
}

/// What came of an offer.
#[derive(Debug)]
struct Tried {
    told: Told,
    /// How often the proxy took the offer up.
    asked: u32,
    /// Whether the proxy ended the connection.
    ended: bool,
}

/// Offers the certificate and goes on as `instead` says.
async fn try_in(
    address: &str,
    login: &str,
    certificate: &Certificate,
    instead: Instead,
) -> Result<Tried> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let mut handle = client::connect_stream(client_config(), stream, AnyHost).await?;
    let mut cheat = Cheat { instead, asked: 0 };
    let trying = handle.authenticate_certificate_with(login, certificate.clone(), None, &mut cheat);
    let told = match timeout(Duration::from_secs(5), trying).await {
        Ok(Ok(result)) => Told::Answer(result.success()),
        Ok(Err(NotSigned)) => Told::Nothing,
        // A packet that is out of place has no answer to wait for.
        Err(_) => Told::Nothing,
    };
    let asked = cheat.asked;
    if told == Told::Answer(true) {
        timeout(ANSWER, handle.channel_open_session()).await??;
        return Ok(Tried { told, asked, ended: false });
    }
    // What the proxy has to say to a refused client, it has said.
    let wait = Instant::now();
    while !handle.is_closed() && wait.elapsed() < Duration::from_secs(1) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Tried { told, asked, ended: handle.is_closed() })
}

/// A packet that opens a session channel.
fn channel_open() -> Vec<u8> {
    let mut packet = vec![90];
    packet.put_string(b"session");
    for number in [0, 1 << 20, 1 << 15] {
        packet.put_uint32(number);
    }
    packet
}

/// A packet that says that the login went well: what only a server says.
fn success() -> Vec<u8> {
    vec![52]
}

#[test]
fn an_offer_without_a_signature_is_no_login() -> Result<()> {
    let mut stage = Stage::new("offer")?;
    let (address, login) = (stage.cluster.address("ssh").to_owned(), stage.login.clone());
    let certificate = certificate(&stage.joe)?;
    let own = Arc::new(key(&stage.joe)?);
    let by_stranger = signature(&KeyPair::generate()?, b"something else")?;
    runtime()?.block_on(async {
        for (name, instead) in [
            ("nothing", Instead::Nothing),
            ("an empty signature", Instead::Signature(Vec::new())),
            ("another key's signature", Instead::Signature(by_stranger)),
            ("a channel", Instead::Packet(channel_open())),
            ("success", Instead::Packet(success())),
            ("another user's request", Instead::User("deputy", Arc::clone(&own))),
        ] {
            let wanted = match &instead {
                // A client whose channel were opened before it is in would end the connection.
                Instead::Nothing | Instead::Packet(_) => (Told::Nothing, Some(false)),
                Instead::Signature(_) | Instead::Right(_) => (Told::Answer(false), None),
                Instead::User(..) => (Told::Answer(false), Some(true)),
            };
            let tried = try_in(&address, &login, &certificate, instead).await.context(name)?;
            ensure!(tried.asked == 1, "{name}: the offer was not taken up, so this proves nothing");
            let as_wanted = wanted.1.is_none_or(|ended| ended == tried.ended);
            ensure!(tried.told == wanted.0 && as_wanted, "{name}: {tried:?}");
        }
        let tried = try_in(&address, &login, &certificate, Instead::Right(own)).await?;
        ensure!(tried.told == Told::Answer(true), "the right signature: {tried:?}");
        Ok(())
    })?;
    let refusals = || -> Option<Vec<String>> {
        let rows = stage.cluster.query("select error from auth where success = false").ok()?;
        let texts: Vec<String> = rows.into_iter().flatten().collect();
        (texts.len() >= 6).then_some(texts)
    };
    let texts = until("an event for each refusal", 30, refusals)?;
    assert!(texts.iter().any(|text| text == "a key was offered and not proved"), "{texts:?}");
    still_serves(&mut stage)
}

#[test]
fn a_user_name_does_not_change_in_mid_authentication() -> Result<()> {
    let mut stage = Stage::new("rename")?;
    let (address, login) = (stage.cluster.address("ssh").to_owned(), stage.login.clone());
    let (certificate, key) =
        (certificate(&stage.joe)?, Arc::new(key(&stage.joe)?.private().clone()));
    runtime()?.block_on(async {
        for (first, gets_in) in [("somebody-else", false), (login.as_str(), true)] {
            let stream = tokio::net::TcpStream::connect(&address).await?;
            let mut handle = client::connect_stream(client_config(), stream, AnyHost).await?;
            let none = timeout(ANSWER, handle.authenticate_none(first)).await??;
            ensure!(!none.success(), "no method is no login");
            let second = handle.authenticate_openssh_cert(
                login.clone(),
                Arc::clone(&key),
                certificate.clone(),
            );
            let inside = timeout(ANSWER, second).await?.is_ok_and(|result| result.success());
            ensure!(inside == gets_in, "first {first}, then {login}: {inside}");
        }
        let long = "x".repeat(30_000);
        let stream = tokio::net::TcpStream::connect(&address).await?;
        let mut handle = client::connect_stream(client_config(), stream, AnyHost).await?;
        let inside = timeout(ANSWER, handle.authenticate_none(long))
            .await?
            .is_ok_and(|result| result.success());
        ensure!(!inside, "a name of 30000 bytes");
        Ok(())
    })?;
    let told = || -> Option<()> {
        let rows =
            stage.cluster.query("select login, error from auth where success = false").ok()?;
        rows.iter()
            .any(|row| row == &["somebody-else", "user name changed during authentication"])
            .then_some(())
    };
    until("the event of the changed name", 30, told)?;
    still_serves(&mut stage)
}

//! Against stock OpenSSH servers: one that plays the proxy (with a Proxy-role certificate and a subsystem
//! that connects onward) and one that is the target.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use russh::keys::ssh_key::LineEnding;
use shared_pki::HostCertSpec;
use shared_pki::verify::CertRefusal;
use shared_types::{HostName, SystemRole};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;
use crate::agent::test_support::{Cluster, Host};
use crate::agent::{AgentKey, EmbeddedAgent, Policy};

const HOST: &str = "db.example.com";
const PROXY: &str = "proxy.example.com";

pub(super) struct Sshd {
    child: Child,
    pub(super) port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Sshd {
    /// Starts a server with this certificate; none where there is no sshd, or it cannot be run.
    pub(super) async fn start(cluster: &Cluster, host: &Host, extra: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let pem = host.key.private().to_openssh(LineEnding::LF).unwrap();
        write(&at("host"), &pem);
        let cert = russh::keys::Certificate::from_bytes(&host.blob).unwrap();
        write(&at("host-cert.pub"), &cert.to_openssh().unwrap());
        write(&at("ca.pub"), &cluster.user_ca.trusted().ssh_keys[0]);
        let port = free_port();
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nHostCertificate {0}/host-cert.pub\n\
             TrustedUserCAKeys {0}/ca.pub\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nAcceptEnv LANG\n\
             PermitRootLogin yes\n{extra}\n",
            dir.path().display()
        );
        write(&at("config"), &text);
        let _ = std::fs::create_dir_all("/run/sshd");
        let log = std::fs::File::create(at("log")).unwrap();
        let spawned = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(at("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let Ok(child) = spawned else {
            eprintln!("SKIPPED: sshd is not installed");
            return None;
        };
        let mut sshd = Self { child, port, dir };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some(sshd);
            }
            if sshd.child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let log = std::fs::read_to_string(sshd.dir.path().join("log")).unwrap();
        panic!("sshd did not come up: {log}");
    }
}

pub(super) fn current_user() -> String {
    let out = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

struct Scene {
    cluster: Cluster,
    key: Arc<AgentKey>,
    target: Sshd,
}

pub(super) fn host_with(cluster: &Cluster, name: &str, role: SystemRole) -> Host {
    Host::certified(&cluster.host_ca, name, role, Utc::now(), Some(Duration::from_secs(3600)))
}

async fn scene_as(role: SystemRole) -> Option<Scene> {
    let cluster = Cluster::new();
    let key = cluster.user_at(Utc::now(), &[&current_user(), "nobody"]);
    let node = host_with(&cluster, HOST, role);
    let target = Sshd::start(&cluster, &node, "").await?;
    Some(Scene { cluster, key, target })
}

async fn scene() -> Option<Scene> {
    scene_as(SystemRole::Node).await
}

impl Scene {
    fn options(&self) -> TargetOptions {
        TargetOptions {
            host: HOST.parse().unwrap(),
            login: current_user().parse().unwrap(),
            key: Arc::clone(&self.key),
            authorities: self.cluster.trusted(),
            recording_expected: false,
            plain_keys: None,
            forward_agent: None,
            timeout: Duration::from_secs(20),
        }
    }

    async fn stream(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.target.port)).await.unwrap()
    }

    async fn connect(&self) -> TargetConn {
        TargetConn::connect(self.stream().await, self.options(), None).await.unwrap()
    }
}

pub(super) struct Run {
    pub(super) end: Result<SessionEnd, ConnectError>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

pub(super) async fn collect(queue: Arc<ByteQueue>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = queue.take().await {
        all.extend_from_slice(&bytes);
        queue.written(bytes.len());
    }
    all
}

pub(super) async fn run_with(conn: &TargetConn, request: SessionRequest, input: Vec<Bytes>) -> Run {
    let (stdin, receiver) = mpsc::channel(4);
    let (_control, control) = mpsc::channel(4);
    let (stdout, stderr) = (Arc::new(ByteQueue::new()), Arc::new(ByteQueue::new()));
    let outs = tokio::spawn(collect(Arc::clone(&stdout)));
    let errs = tokio::spawn(collect(Arc::clone(&stderr)));
    tokio::spawn(async move {
        for bytes in input {
            if stdin.send(bytes).await.is_err() {
                return;
            }
        }
    });
    let io = SessionIo { stdin: receiver, stdout, stderr, control, started: None };
    let end = conn.run_session(request, io).await;
    Run { end, stdout: outs.await.unwrap(), stderr: errs.await.unwrap() }
}

pub(super) fn exec(command: &str) -> SessionRequest {
    SessionRequest { pty: None, env: Vec::new(), start: Start::Exec(command.as_bytes().to_vec()) }
}

pub(super) async fn run(conn: &TargetConn, command: &str) -> Run {
    run_with(conn, exec(command), Vec::new()).await
}

#[tokio::test]
async fn output_error_output_and_status_arrive() {
    let Some(scene) = scene().await else { return };
    let conn = scene.connect().await;
    let run = run(&conn, "printf out; printf err >&2; exit 7").await;
    assert_eq!(run.end.unwrap(), SessionEnd::Status(7));
    assert_eq!((run.stdout.as_slice(), run.stderr.as_slice()), (&b"out"[..], &b"err"[..]));
}

#[tokio::test]
async fn a_killed_command_is_told_by_its_signal() {
    let Some(scene) = scene().await else { return };
    let run = run(&scene.connect().await, "kill -KILL $$").await;
    assert!(matches!(run.end.unwrap(), SessionEnd::Signal { name, .. } if name == "KILL"));
}

#[tokio::test]
async fn end_of_input_ends_the_command() {
    let Some(scene) = scene().await else { return };
    let conn = scene.connect().await;
    let run = run_with(&conn, exec("wc -c"), vec![Bytes::from_static(b"12345")]).await;
    assert_eq!(run.end.unwrap(), SessionEnd::Status(0));
    assert_eq!(String::from_utf8(run.stdout).unwrap().trim(), "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_data_is_intact_both_ways_at_once() {
    let Some(scene) = scene().await else { return };
    let conn = scene.connect().await;
    let chunk: Vec<u8> =
        (0..100_003_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let input = vec![Bytes::from(chunk.clone()); 400];
    let run = run_with(&conn, exec("cat"), input).await;
    assert_eq!(run.end.unwrap(), SessionEnd::Status(0));
    assert_eq!(run.stdout.len(), chunk.len() * 400);
    assert!(run.stdout.chunks(chunk.len()).all(|part| part == chunk));
}

#[tokio::test]
async fn environment_and_terminal_reach_the_shell() {
    let Some(scene) = scene().await else { return };
    let conn = scene.connect().await;
    let size = WindowSize { columns: 91, rows: 33, width: 0, height: 0 };
    let request = SessionRequest {
        pty: Some(PtyRequest { term: "xterm-kitty".into(), size, modes: Vec::new() }),
        env: vec![("LANG".into(), "de_DE.UTF-8".into()), ("EVIL".into(), "1".into())],
        start: Start::Exec(b"stty size; echo $TERM $LANG $EVIL.".to_vec()),
    };
    let run = run_with(&conn, request, Vec::new()).await;
    let text = String::from_utf8(run.stdout).unwrap();
    assert_eq!(text, "33 91\r\nxterm-kitty de_DE.UTF-8 .\r\n");
}

#[tokio::test]
async fn resizes_and_signals_reach_a_running_command() {
    let Some(scene) = scene().await else { return };
    let conn = scene.connect().await;
    let (_stdin, receiver) = mpsc::channel(4);
    let (control, control_receiver) = mpsc::channel(4);
    let (stdout, stderr) = (Arc::new(ByteQueue::new()), Arc::new(ByteQueue::new()));
    let out = Arc::clone(&stdout);
    let size = WindowSize { columns: 80, rows: 24, width: 0, height: 0 };
    let request = SessionRequest {
        pty: Some(PtyRequest { term: "xterm".into(), size, modes: Vec::new() }),
        env: Vec::new(),
        start: Start::Exec(
            b"trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.1; done".to_vec(),
        ),
    };
    let io =
        SessionIo { stdin: receiver, stdout, stderr, control: control_receiver, started: None };
    let driver = async {
        assert!(out.take().await.unwrap().starts_with(b"ready"));
        let size = WindowSize { columns: 100, rows: 50, ..size };
        control.send(Control::Resize(size)).await.unwrap();
        collect(Arc::clone(&out)).await
    };
    let (end, rest) = tokio::join!(conn.run_session(request, io), driver);
    assert_eq!(end.unwrap(), SessionEnd::Status(3));
    assert_eq!(rest, b"50 100\r\n");
}

#[tokio::test]
async fn closing_our_output_ends_the_session_quietly() {
    let Some(scene) = scene().await else { return };
    let conn = scene.connect().await;
    let (_stdin, receiver) = mpsc::channel(1);
    let (_control, control) = mpsc::channel(1);
    let (stdout, stderr) = (Arc::new(ByteQueue::new()), Arc::new(ByteQueue::new()));
    stdout.break_off();
    let io = SessionIo { stdin: receiver, stdout, stderr, control, started: None };
    let end = conn.run_session(exec("yes"), io).await.unwrap();
    assert_eq!(end, SessionEnd::OutputClosed);
}

/// sshd does not close the channel of a command that goes on.
#[tokio::test]
async fn closing_a_session_whose_command_goes_on_does_not_wait_for_it() {
    let Some(scene) = scene().await else { return };
    let conn = scene.connect().await;
    let (_stdin, receiver) = mpsc::channel(1);
    let (control, control_receiver) = mpsc::channel(1);
    let (stdout, stderr) = (Arc::new(ByteQueue::new()), Arc::new(ByteQueue::new()));
    let (started, has_started) = tokio::sync::oneshot::channel();
    let io = SessionIo {
        stdin: receiver,
        stdout,
        stderr,
        control: control_receiver,
        started: Some(Box::new(|| started.send(()).unwrap())),
    };
    let closing = async {
        has_started.await.unwrap();
        control.send(Control::Close).await.unwrap();
    };
    let run = async { tokio::join!(conn.run_session(exec("sleep 60"), io), closing) };
    let (end, ()) = tokio::time::timeout(Duration::from_secs(20), run).await.unwrap();
    assert_eq!(end.unwrap(), SessionEnd::Closed);
}

/// A terminal that is not read (Ctrl-S) holds its command up and nothing else, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn unread_output_is_bounded_and_lost_by_nobody() {
    let Some(scene) = scene().await else { return };
    let conn = scene.connect().await;
    let (stdin, receiver) = mpsc::channel(1);
    let (_control, control) = mpsc::channel(1);
    let (stdout, stderr) = (Arc::new(ByteQueue::new()), Arc::new(ByteQueue::new()));
    let out = Arc::clone(&stdout);
    let io = SessionIo { stdin: receiver, stdout, stderr, control, started: None };
    let driver = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(out.len() <= 2 * 1024 * 1024, "{} bytes queued", out.len());
        drop(stdin);
        collect(Arc::clone(&out)).await.len()
    };
    let command = exec("head -c 50000000 /dev/zero");
    let (end, len) = tokio::join!(conn.run_session(command, io), driver);
    assert_eq!(end.unwrap(), SessionEnd::Status(0));
    assert_eq!(len, 50_000_000);
}

async fn refused_host(scene: &Scene, change: impl FnOnce(&mut TargetOptions)) -> CertRefusal {
    let mut options = scene.options();
    change(&mut options);
    match TargetConn::connect(scene.stream().await, options, None).await {
        Err(ConnectError::HostKey { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_target_is_checked_for_name_authority_and_role() {
    let Some(scene) = scene().await else { return };
    let name = refused_host(&scene, |o| o.host = "web.example.com".parse().unwrap()).await;
    assert!(matches!(name, CertRefusal::Principal(_)), "{name:?}");
    let authority = refused_host(&scene, |o| o.authorities = Cluster::new().trusted()).await;
    assert!(matches!(authority, CertRefusal::UnknownAuthority), "{authority:?}");
    let role = refused_host(&scene, |o| o.recording_expected = true).await;
    assert!(matches!(role, CertRefusal::WrongRole { .. }), "{role:?}");
}

#[tokio::test]
async fn a_proxy_is_no_target_unless_it_records() {
    let Some(scene) = scene_as(SystemRole::Proxy).await else { return };
    let role = refused_host(&scene, |_| {}).await;
    assert!(matches!(role, CertRefusal::WrongRole { .. }), "{role:?}");
    let options = TargetOptions { recording_expected: true, ..scene.options() };
    let conn = TargetConn::connect(scene.stream().await, options, None).await.unwrap();
    assert_eq!(run(&conn, "true").await.end.unwrap(), SessionEnd::Status(0));
}

#[tokio::test]
async fn a_plain_host_key_is_refused_with_the_known_text() {
    let cluster = Cluster::new();
    let key = cluster.user_at(Utc::now(), &[&current_user()]);
    let node = host_with(&cluster, HOST, SystemRole::Node);
    // A certificate for another key: sshd then offers the bare key only.
    let other = Host { key: host_with(&cluster, HOST, SystemRole::Node).key, blob: node.blob };
    let Some(target) = Sshd::start(&cluster, &other, "").await else { return };
    let scene = Scene { cluster, key, target };
    let error = TargetConn::connect(scene.stream().await, scene.options(), None).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(
            "ssh: handshake failed: remote host presented a public key, expected a host certificate"
        ),
        "{text}"
    );
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn another_login_is_denied() {
    let Some(scene) = scene().await else { return };
    let options = TargetOptions { login: "not-in-certificate".parse().unwrap(), ..scene.options() };
    let error = TargetConn::connect(scene.stream().await, options, None).await.unwrap_err();
    assert!(matches!(error, ConnectError::Denied { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        format!("not-in-certificate@{HOST}: permission denied (publickey)")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn local_ports_lead_to_the_target_and_one_that_stands_still_stops_no_other() {
    let Some(scene) = scene().await else { return };
    let conn = Arc::new(scene.connect().await);
    // Sends for ever what nobody may read.
    let source = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source_port = source.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = source.accept().await.unwrap();
        let zeros = vec![0; 65536];
        while stream.write_all(&zeros).await.is_ok() {}
    });
    let listen = |port: u16| async move {
        let forward: LocalForward = format!("127.0.0.1:0:127.0.0.1:{port}").parse().unwrap();
        forward.listen().await.unwrap()
    };
    let (stuck, echo) = (listen(source_port).await, listen(scene.target.port).await);
    let (stuck_at, echo_at) = (stuck.addresses()[0], echo.addresses()[0]);
    tokio::spawn(stuck.run(Arc::clone(&conn), |error| eprintln!("{error}")));
    tokio::spawn(echo.run(Arc::clone(&conn), |error| eprintln!("{error}")));
    let _unread = TcpStream::connect(stuck_at).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // The port of sshd itself: it says who it is.
    let greeting = async {
        let mut stream = TcpStream::connect::<SocketAddr>(echo_at).await.unwrap();
        let mut text = [0; 8];
        stream.read_exact(&mut text).await.unwrap();
        text
    };
    let text = tokio::time::timeout(Duration::from_secs(20), greeting).await.unwrap();
    assert_eq!(&text, b"SSH-2.0-");
}

#[tokio::test]
async fn a_forward_that_cannot_be_opened_says_so() {
    let Some(scene) = scene().await else { return };
    let conn = scene.connect().await;
    let error = conn.open_tcp(("127.0.0.1", free_port()), ("127.0.0.1", 1)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("channel 0: open failed: connect failed: "), "{text}");
    assert!(text.len() > "channel 0: open failed: connect failed: ".len(), "{text}");
}

/// The way through a proxy, which is played by an sshd whose subsystem connects onward.
async fn through_proxy(
    scene: &Scene,
    script: &str,
) -> Option<(Sshd, Result<TargetStream, ConnectError>, ProxyConn, Arc<EmbeddedAgent>)> {
    let proxy = host_with(&scene.cluster, PROXY, SystemRole::Proxy);
    let folder = scene.target.dir.path();
    write(&folder.join("onward"), script);
    let extra = format!(
        "Subsystem proxy:{HOST}:{} /bin/bash {}/onward",
        scene.target.port,
        folder.display()
    );
    let sshd = Sshd::start(&scene.cluster, &proxy, &extra).await?;
    let host: HostName = HOST.parse().unwrap();
    let login: shared_types::Login = current_user().parse().unwrap();
    let policy = Policy::new(host.clone(), login.clone(), scene.cluster.trusted());
    let agent = EmbeddedAgent::new(Arc::clone(&scene.key), policy);
    let options = ProxyOptions {
        host: PROXY.into(),
        login,
        key: Arc::clone(&scene.key),
        authorities: scene.cluster.trusted(),
        timeout: Duration::from_secs(20),
    };
    let stream = TcpStream::connect(("127.0.0.1", sshd.port)).await.unwrap();
    let conn = ProxyConn::connect(stream, options, Some(Arc::clone(&agent))).await.unwrap();
    let target = conn.open_target(&host, scene.target.port, true).await;
    Some((sshd, target, conn, agent))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_runs_through_the_proxy() {
    let Some(scene) = scene().await else { return };
    let onward = format!("exec 3<>/dev/tcp/127.0.0.1/{}; cat <&3 & cat >&3", scene.target.port);
    let Some((_sshd, target, _conn, _agent)) = through_proxy(&scene, &onward).await else { return };
    let conn = TargetConn::connect(target.unwrap(), scene.options(), None).await.unwrap();
    let run = run(&conn, "head -c 5000000 /dev/zero; exit 4").await;
    assert_eq!(run.end.unwrap(), SessionEnd::Status(4));
    assert_eq!(run.stdout.len(), 5_000_000);
}

/// A stock `ssh-add` on the proxy's side reaches the agent, and is shown nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_gets_no_key_out_of_an_unbound_agent() {
    let Some(scene) = scene().await else { return };
    let ask = "ssh-add -L 2>&1; echo asked";
    let Some((_sshd, target, _conn, agent)) = through_proxy(&scene, ask).await else { return };
    let mut said = String::new();
    target.unwrap().read_to_string(&mut said).await.unwrap();
    assert!(said.contains("asked") && !said.contains("ssh-ed25519"), "{said}");
    assert!(agent.last_refusal().unwrap().contains("not bound"), "{:?}", agent.last_refusal());
}

#[tokio::test]
async fn a_target_the_proxy_does_not_know_is_refused() {
    let Some(scene) = scene().await else { return };
    let Some((_sshd, _, conn, _)) = through_proxy(&scene, "true").await else { return };
    let error = match conn.open_target(&"other.example.com".parse().unwrap(), 22, true).await {
        Err(error) => error,
        Ok(_) => panic!("was opened"),
    };
    assert!(matches!(error, ConnectError::ProxyRefused { .. }), "{error}");
}

#[tokio::test]
async fn a_node_is_no_proxy() {
    let Some(scene) = scene().await else { return };
    let options = ProxyOptions {
        host: HOST.into(),
        login: current_user().parse().unwrap(),
        key: Arc::clone(&scene.key),
        authorities: scene.cluster.trusted(),
        timeout: Duration::from_secs(20),
    };
    let error = ProxyConn::connect(scene.stream().await, options, None).await.unwrap_err();
    assert!(
        matches!(
            &error,
            ConnectError::HostKey { leg: Leg::Proxy, refusal: CertRefusal::WrongRole { .. }, .. }
        ),
        "{error}"
    );
}

#[test]
fn certificates_of_hosts_have_the_names_they_were_asked_for() {
    // Guards the helper above: a certificate for nobody would make the refusals pass for the wrong reason.
    let cluster = Cluster::new();
    let spec = HostCertSpec {
        public_key: shared_pki::KeyPair::generate().unwrap().public().clone(),
        principals: Vec::new(),
        role: SystemRole::Node,
        cluster: "main".parse().unwrap(),
        now: Utc::now(),
        ttl: None,
    };
    assert!(cluster.host_ca.ssh_ca().unwrap().sign_host(spec).is_err());
}

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use chrono::Utc;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use shared_pki::{CaKind, CertAuthority, HostTlsSpec, TlsKey};
use shared_transport::tls;
use shared_types::{ClusterName, HostId, SystemRole};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::*;
use crate::keeper::{Credentials, Renew};
use crate::listen::bind;

fn cluster() -> ClusterName {
    "main.test".parse().unwrap()
}

/// A cluster with a proxy that echoes, and remembers what it was shown.
struct World {
    authority: CertAuthority,
    proxy: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    serving: JoinHandle<()>,
}

/// The ALPN name of each connection, and whether it showed a certificate.
type Seen = Vec<(Vec<u8>, bool)>;
type Keypair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn certificate(authority: &CertAuthority, role: SystemRole) -> Keypair {
    let key = TlsKey::generate().unwrap();
    let spec =
        HostTlsSpec { host_id: HostId::random(), role, cluster: cluster(), names: Vec::new() };
    let ca = authority.tls_ca().unwrap();
    let cert = ca.sign_server(&spec, &key.public(), Utc::now(), None).unwrap();
    (tls::certs_from_pem(cert.pem().as_bytes()).unwrap(), key.to_rustls())
}

impl World {
    async fn new(role: SystemRole) -> Self {
        shared_transport::install_crypto();
        let authority = CertAuthority::generate(CaKind::Host, &cluster(), Utc::now()).unwrap();
        let (certs, key) = certificate(&authority, role);
        let clients = Some(tls::danger_any_client_certificate());
        let config = tls::server_config(certs, key, clients, &[b"teleport-redis"]).unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let kept = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, kept) = (Arc::clone(&config), Arc::clone(&kept));
                tokio::spawn(async move {
                    let Ok(stream) = tls::accept(config, stream, Duration::from_secs(10)).await
                    else {
                        return;
                    };
                    let session = stream.get_ref().1;
                    let alpn = session.alpn_protocol().unwrap_or_default().to_vec();
                    kept.lock().unwrap().push((alpn, session.peer_certificates().is_some()));
                    let (mut from, mut to) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                    let _ = to.shutdown().await;
                });
            }
        });
        Self { authority, proxy, seen, serving }
    }

    fn credentials(&self, ends_in: Duration) -> Credentials {
        let identity = certificate(&self.authority, SystemRole::Node);
        let trusted = [self.authority.trusted()];
        let tls = Upstream::tls(&trusted, b"teleport-redis", Some(identity)).unwrap();
        Credentials { tls, ends: Some(SystemTime::now() + ends_in) }
    }

    /// A listener for Redis; where it is, and how to stop it.
    fn listen(
        &self,
        keeper: Keeper,
    ) -> (SocketAddr, CancellationToken, JoinHandle<()>, Arc<Mutex<String>>) {
        let (listener, addr) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let told = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&told);
        let behind = Arc::new(DbListener {
            protocol: DbProtocol::Redis,
            upstream: Upstream::new(self.proxy.to_string(), &cluster()),
            keeper,
            notice: Arc::new(move |text: &str| sink.lock().unwrap().push_str(text)),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(behind.serve(listener, stop.clone()));
        (addr, stop, task, told)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Has new credentials once somebody has logged in.
struct AfterLogin {
    logged_in: Arc<AtomicBool>,
    fresh: Credentials,
}

#[async_trait]
impl Renew for AfterLogin {
    async fn renew(&self) -> Result<Credentials, String> {
        match self.logged_in.load(Ordering::Relaxed) {
            true => Ok(self.fresh.clone()),
            false => Err("log in at the terminal".to_owned()),
        }
    }
}

fn never(credentials: Credentials) -> Keeper {
    let renew = AfterLogin { logged_in: Arc::default(), fresh: credentials.clone() };
    Keeper::new(credentials, Box::new(renew))
}

async fn ask(addr: SocketAddr, question: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(question).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn many_clients_are_carried_with_the_certificate() {
    let world = World::new(SystemRole::Proxy).await;
    let (addr, stop, task, _) = world.listen(never(world.credentials(Duration::from_secs(3600))));
    let clients: Vec<_> = (0..64_u8)
        .map(|n| {
            tokio::spawn(async move { ask(addr, &vec![n; 100_000]).await == vec![n; 100_000] })
        })
        .collect();
    for client in clients {
        assert!(client.await.unwrap());
    }
    {
        let seen = world.seen.lock().unwrap();
        assert_eq!(seen.len(), 64);
        assert!(seen.iter().all(|(alpn, shown)| alpn == b"teleport-redis" && *shown));
    }
    let mut open = TcpStream::connect(addr).await.unwrap();
    open.write_all(b"x").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'x');
    stop.cancel();
    task.await.unwrap();
    assert_eq!(open.read(&mut [0; 8]).await.unwrap_or(0), 0, "what runs ends with the listener");
    assert!(TcpStream::connect(addr).await.is_err(), "nothing is left behind");
}

#[tokio::test]
async fn the_listener_stays_while_nobody_is_logged_in() {
    let world = World::new(SystemRole::Proxy).await;
    let logged_in = Arc::new(AtomicBool::new(false));
    let fresh = world.credentials(Duration::from_secs(3600));
    let renew = AfterLogin { logged_in: Arc::clone(&logged_in), fresh };
    let keeper = Keeper::new(world.credentials(Duration::ZERO), Box::new(renew));
    let (addr, _stop, _task, _) = world.listen(keeper);
    let refused = ask(addr, b"*1\r\n$4\r\nPING\r\n").await;
    let text = String::from_utf8(refused).unwrap();
    assert!(text.starts_with('-') && text.contains("log in at the terminal"), "{text}");
    assert!(world.seen.lock().unwrap().is_empty(), "nothing goes out with an ended certificate");
    logged_in.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(ask(addr, b"PING").await, b"PING");
}

#[tokio::test]
async fn a_proxy_that_is_none_is_named_to_client_and_terminal() {
    let world = World::new(SystemRole::Node).await;
    let (addr, _stop, _task, told) =
        world.listen(never(world.credentials(Duration::from_secs(60))));
    let text = String::from_utf8(ask(addr, b"PING\r\n").await).unwrap();
    assert!(text.starts_with('-') && text.contains("secure connection to the proxy"), "{text}");
    assert!(told.lock().unwrap().contains("secure connection to the proxy"));
    assert!(world.seen.lock().unwrap().is_empty());
}

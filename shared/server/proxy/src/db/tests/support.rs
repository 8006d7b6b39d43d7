//! A proxy in front of agents that write down what they are told and send everything back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use server_core::Authority;
use server_core::db::Preamble;
use server_core::tunnel::{
    AgentService, Arrival, BoxedStream, ByteStream, ConnType, HostTls, LocalServices, Offered,
    PoolSettings, TunnelPool,
};
use shared_api::client::{Client, ClientConfig, Route};
use shared_api::{HostDatabases, NodeChanges, NodeView};
use shared_pki::verify::ServerVerifier;
use shared_pki::{DatabaseRoute, TlsIdentity, TlsKey};
use shared_transport::{alpn, tls};
use shared_types::resource::DatabaseSpec;
use shared_types::{Database, DatabaseServer, DbProtocol, HostId, Labels, SystemRole};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::test_support::Cluster;
use crate::{ProxyListeners, ProxyService, ProxySettings, RemoteAuth};

pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// What an agent was told.
pub(super) type Told = (Arrival, Preamble);

/// Writes down what it is told, and sends everything back.
#[derive(Default)]
pub(super) struct Echo(pub(super) Mutex<Vec<Told>>);

#[async_trait]
impl AgentService for Echo {
    async fn connection(
        self: Arc<Self>,
        mut stream: BoxedStream,
        arrival: Arrival,
        stop: CancellationToken,
    ) {
        let Ok(preamble) = Preamble::read(&mut stream).await else { return };
        self.0.lock().unwrap().push((arrival, preamble));
        let (mut read, mut write) = tokio::io::split(stream);
        let _ = stop.run_until_cancelled(tokio::io::copy(&mut read, &mut write)).await;
        let _ = write.shutdown().await;
    }
}

impl Echo {
    pub(super) fn told(&self) -> Vec<Told> {
        self.0.lock().unwrap().clone()
    }
}

/// A certificate and its key.
pub(super) type Pair = (CertificateDer<'static>, PrivateKeyDer<'static>);

pub(super) struct World {
    pub(super) cluster: Arc<Cluster>,
    pub(super) web: SocketAddr,
    pub(super) postgres: SocketAddr,
    pub(super) mysql: SocketAddr,
    pub(super) locals: LocalServices,
    pub(super) dir: tempfile::TempDir,
    _stop: DropGuard,
}

impl World {
    pub(super) async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    /// The same with other settings, which may use the folder.
    pub(super) async fn start_with(
        change: impl FnOnce(&mut ProxySettings, &std::path::Path),
    ) -> Self {
        shared_transport::install_crypto();
        let cluster = Cluster::new();
        cluster.change(|state| {
            let role = state.roles.values_mut().next().unwrap();
            let mut value = serde_json::to_value(&*role).unwrap();
            value["spec"]["allow"]["db_labels"] = serde_json::json!({"env": "dev"});
            value["spec"]["allow"]["db_users"] = serde_json::json!(["alice"]);
            *role = serde_json::from_value(value).unwrap();
        });
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let mut settings = ProxySettings::new(data, cluster.recorder, "proxy");
        change(&mut settings, dir.path());
        let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = |listener: &TcpListener| listener.local_addr().unwrap();
        let (web, postgres, mysql) = (bind().await, bind().await, bind().await);
        let (web_at, postgres_at, mysql_at) = (at(&web), at(&postgres), at(&mysql));
        let listeners = ProxyListeners {
            web,
            ssh: None,
            tunnel: None,
            postgres: Some(postgres),
            mysql: Some(mysql),
        };
        let nowhere =
            ClientConfig::new(Route::Direct { addr: "127.0.0.1:1".into() }, Vec::new(), None);
        let auth = Arc::new(RemoteAuth::new(Client::new(nowhere).unwrap()));
        let keys = watch::channel(Arc::new(cluster.host_keys(cluster.recorder, SystemRole::Proxy)));
        let locals = LocalServices::default();
        let authority: Arc<dyn Authority> = Arc::<Cluster>::clone(&cluster);
        let service = ProxyService::new(settings, authority, auth, keys.1, locals.clone());
        let service = service.await.unwrap();
        let stop = CancellationToken::new();
        let ending = stop.clone();
        tokio::spawn(async move { service.run(listeners, ending).await.unwrap() });
        Self {
            cluster,
            web: web_at,
            postgres: postgres_at,
            mysql: mysql_at,
            locals,
            dir,
            _stop: stop.drop_guard(),
        }
    }

    /// Says which hosts serve which databases.
    pub(super) fn register(&self, servers: Vec<DatabaseServer>) {
        let mut hosts: HashMap<HostId, Vec<DatabaseServer>> = HashMap::new();
        for server in servers {
            hosts.entry(server.spec.host_id).or_default().push(server);
        }
        let databases = hosts
            .into_iter()
            .map(|(host_id, servers)| HostDatabases { host_id, servers })
            .collect();
        let changes = NodeChanges { whole: true, databases, ..NodeChanges::default() };
        self.cluster.nodes.send_replace(Arc::new(NodeView::default().after(changes)));
    }

    /// An agent in the proxy's process that serves one database of a protocol.
    pub(super) fn local(&self, service: &str, protocol: DbProtocol) -> (Arc<Echo>, Offered) {
        let (echo, host) = (Arc::new(Echo::default()), self.cluster.recorder);
        let served: Arc<dyn AgentService> = Arc::clone(&echo) as _;
        let offered = self.locals.offer(host, ConnType::Db, served);
        self.register(vec![server(host, service, protocol, "dev")]);
        (echo, offered)
    }

    /// An agent of `role` with a tunnel to the proxy.
    pub(super) async fn tunnelled(
        &self,
        host_id: HostId,
        role: SystemRole,
    ) -> (Arc<Echo>, DropGuard) {
        let keys = watch::channel(Arc::new(self.cluster.host_keys(host_id, role))).0;
        let authority: Arc<dyn Authority> = Arc::<Cluster>::clone(&self.cluster);
        let (proxies, name) = (&[SystemRole::Proxy], alpn::REVERSE_TUNNEL);
        let tls = Arc::new(HostTls::new(authority, keys.subscribe(), proxies, name));
        let settings = PoolSettings {
            proxies: vec![self.web.to_string()],
            host_id,
            drain: Duration::from_secs(1),
        };
        let echo = Arc::new(Echo::default());
        let served: Arc<dyn AgentService> = Arc::clone(&echo) as _;
        let services = [ConnType::Db, ConnType::Node].map(|kind| (kind, Arc::clone(&served)));
        let pool = TunnelPool::new(settings, tls, HashMap::from(services));
        let stop = CancellationToken::new();
        let (mut status, ending) = (pool.status(), stop.clone());
        tokio::spawn(async move {
            let _keys = keys;
            pool.run(ending).await;
        });
        let connected = status.wait_for(|status| !status.proxies.is_empty());
        tokio::time::timeout(LIMIT, connected).await.expect("the tunnel").unwrap();
        (echo, stop.drop_guard())
    }

    /// A certificate of joe's for a database.
    pub(super) fn joe(&self, service: &str, protocol: DbProtocol) -> Pair {
        self.signed(&self.cluster, |identity| {
            identity.database = Some(route(service, protocol));
        })
    }

    /// A certificate of joe's, signed by the user authority of a cluster.
    pub(super) fn signed(&self, by: &Cluster, change: impl FnOnce(&mut TlsIdentity)) -> Pair {
        self.signed_from(by, Utc::now(), change)
    }

    /// The same that began at `from`, for an hour.
    pub(super) fn signed_from(
        &self,
        by: &Cluster,
        from: DateTime<Utc>,
        change: impl FnOnce(&mut TlsIdentity),
    ) -> Pair {
        let mut identity = TlsIdentity {
            user: "joe".parse().unwrap(),
            roles: vec!["dev".parse().unwrap()],
            logins: Vec::new(),
            traits: Default::default(),
            cluster: "main".parse().unwrap(),
            usage: Vec::new(),
            login_ip: None,
            pinned_ip: None,
            database: None,
        };
        change(&mut identity);
        let (key, hour) = (TlsKey::generate().unwrap(), Duration::from_secs(3600));
        let ca = by.user.tls_ca().unwrap();
        let signed = ca.sign_client(&identity, &key.public(), from, hour).unwrap();
        (CertificateDer::from(signed.der().to_vec()), key.to_rustls())
    }

    /// TLS over a connection, with a certificate where one is given. The server has to be a proxy of the cluster.
    pub(super) async fn in_tls<S: ByteStream>(
        &self,
        stream: S,
        alpn: &[u8],
        pair: Option<&Pair>,
    ) -> std::io::Result<BoxedStream> {
        let servers = ServerVerifier::new(&self.cluster.state().authorities, &[SystemRole::Proxy]);
        let identity = pair.map(|(cert, key)| (vec![cert.clone()], key.clone_key()));
        let mut config = tls::client_config(servers, identity).unwrap();
        if !alpn.is_empty() {
            config.alpn_protocols = vec![alpn.to_vec()];
        }
        let name = alpn::auth_server_name(Some(&"main".parse().unwrap()));
        match tls::connect(Arc::new(config), &name, stream, LIMIT).await {
            Ok(stream) => {
                if !alpn.is_empty() {
                    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
                }
                Ok(Box::new(stream))
            }
            Err(err) => Err(std::io::Error::other(err)),
        }
    }

    pub(super) async fn dial(&self, addr: SocketAddr) -> TcpStream {
        TcpStream::connect(addr).await.unwrap()
    }

    /// A client on the TLS port, under a database's name.
    pub(super) async fn client(&self, alpn: &[u8], pair: Option<&Pair>) -> BoxedStream {
        self.in_tls(self.dial(self.web).await, alpn, pair).await.unwrap()
    }
}

pub(super) fn route(service: &str, protocol: DbProtocol) -> DatabaseRoute {
    DatabaseRoute {
        service: service.to_owned(),
        protocol: protocol.as_str().to_owned(),
        user: "alice".to_owned(),
        name: String::new(),
    }
}

pub(super) fn server(
    host: HostId,
    service: &str,
    protocol: DbProtocol,
    env: &str,
) -> DatabaseServer {
    let mut database = Database::new(service, DatabaseSpec::new(protocol, "127.0.0.1:5432"));
    database.metadata.labels = Labels::from([("env".to_owned(), env.to_owned())]);
    DatabaseServer::of(host, "agent", database)
}

/// A start-up message of PostgreSQL.
pub(super) fn startup() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0alice\0database\0shop\0\0";
    let mut message = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    message.extend_from_slice(body);
    message
}

/// Sends something, and expects it back.
pub(super) async fn echoed(stream: &mut BoxedStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    comes(stream, bytes).await;
}

/// Expects something.
pub(super) async fn comes(stream: &mut BoxedStream, bytes: &[u8]) {
    let mut back = vec![0; bytes.len()];
    let read = tokio::time::timeout(LIMIT, stream.read_exact(&mut back)).await;
    read.expect("nothing comes").unwrap();
    assert_eq!(back, bytes);
}

/// All that comes until the connection ends.
pub(super) async fn rest(stream: &mut BoxedStream) -> Vec<u8> {
    let mut all = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut all)).await;
    // Closing without a word of TLS is an end, too.
    let _ = read.expect("the connection does not end");
    all
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A moment from which on a certificate of an hour has ended.
pub(super) fn long_ago() -> DateTime<Utc> {
    Utc::now() - TimeDelta::hours(3)
}

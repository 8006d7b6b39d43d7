//! What is spoken on the listeners, told by a connection's first bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use server_core::Authority;
use server_core::http::HttpLimits;
use server_core::ssh::Ends;
use shared_transport::{Protocol, Rewind, alpn};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::auth_path::AuthPath;
use crate::db::{DbProxy, Entry};
use crate::settings::ProxySettings;
use crate::shards::Shards;
use crate::ssh::SshProxy;
use crate::tunnels::Tunnels;
use crate::web::Peer;

/// How long a client may take to say what it speaks.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What serves the connections of all listeners.
pub(crate) struct WebPort {
    pub(crate) settings: Arc<ProxySettings>,
    pub(crate) ssh: Arc<SshProxy>,
    pub(crate) db: Arc<DbProxy>,
    pub(crate) auth: Arc<dyn AuthPath>,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) shards: Arc<Shards>,
    pub(crate) router: axum::Router,
}

impl WebPort {
    /// A connection on the one TLS port: whatever its first bytes say.
    pub(crate) async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        ending: CancellationToken,
    ) {
        let ends = Ends { peer, local: stream.local_addr().ok() };
        let mut stream = Rewind::new(stream);
        match shared_transport::detect(&mut stream, FIRST_BYTES).await {
            Ok(Protocol::Ssh) => {
                let ((stream, seen), ssh) = (stream.into_parts(), Arc::clone(&self.ssh));
                let serve = move |stream| async move {
                    ssh.connection(Rewind::with_seen(stream, &seen), ends, ending).await;
                };
                self.shards.run(stream, serve).await;
            }
            Ok(Protocol::Tls) => self.tls(stream, ends, ending).await,
            Ok(Protocol::Postgres) => self.database(stream, Entry::Postgres, ends, ending).await,
            Ok(protocol) => tracing::debug!(%peer, ?protocol, "protocol is not spoken here"),
            Err(err) => tracing::debug!(%peer, error = %err, "connection ended"),
        }
    }

    /// A connection on the port of SSH alone.
    pub(crate) async fn plain_ssh(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        ending: CancellationToken,
    ) {
        let ends = Ends { peer, local: stream.local_addr().ok() };
        let ssh = Arc::clone(&self.ssh);
        let serve =
            move |stream| async move { ssh.connection(Rewind::new(stream), ends, ending).await };
        self.shards.run(stream, serve).await;
    }

    /// A connection on the port of PostgreSQL alone.
    pub(crate) async fn postgres(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        ending: CancellationToken,
    ) {
        let ends = Ends { peer, local: stream.local_addr().ok() };
        self.database(Rewind::new(stream), Entry::Postgres, ends, ending).await;
    }

    /// A connection on the port of MySQL alone.
    pub(crate) async fn mysql(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        ending: CancellationToken,
    ) {
        let ends = Ends { peer, local: stream.local_addr().ok() };
        self.database(Rewind::new(stream), Entry::Mysql, ends, ending).await;
    }

    /// A client of a database.
    async fn database(
        &self,
        stream: Rewind<TcpStream>,
        entry: Entry,
        ends: Ends,
        ending: CancellationToken,
    ) {
        let ((stream, seen), db) = (stream.into_parts(), Arc::clone(&self.db));
        let serve = move |stream| async move {
            db.connection(Rewind::with_seen(stream, &seen), entry, ends, ending).await;
        };
        self.shards.run(stream, serve).await;
    }

    /// A connection on the port of tunnels alone.
    pub(crate) async fn tunnel(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        ending: CancellationToken,
    ) {
        let mut stream = Rewind::new(stream);
        match shared_transport::detect(&mut stream, FIRST_BYTES).await {
            Ok(Protocol::Tls) => self.agent(stream, peer, ending).await,
            Ok(protocol) => tracing::debug!(%peer, ?protocol, "protocol is not spoken here"),
            Err(err) => tracing::debug!(%peer, error = %err, "connection ended"),
        }
    }

    /// An agent's tunnel, which shows this host's certificate in place of the web's.
    async fn agent(
        self: Arc<Self>,
        stream: Rewind<TcpStream>,
        peer: SocketAddr,
        ending: CancellationToken,
    ) {
        let ((stream, seen), port) = (stream.into_parts(), Arc::clone(&self));
        let drain = self.settings.timeouts.drain;
        let serve = move |stream| async move {
            let stream = Rewind::with_seen(stream, &seen);
            port.tunnels.serve(stream, peer, ending, drain).await;
        };
        self.shards.run(stream, serve).await;
    }

    async fn tls(
        self: Arc<Self>,
        mut stream: Rewind<TcpStream>,
        ends: Ends,
        ending: CancellationToken,
    ) {
        let peer = ends.peer;
        let hello = match shared_transport::client_hello(&mut stream, HANDSHAKE).await {
            Ok(hello) => hello,
            Err(err) => {
                tracing::debug!(%peer, error = %err, "no client hello");
                return;
            }
        };
        if let Some(cluster) = hello.alpn.iter().find_map(|name| alpn::auth_cluster(name)) {
            if cluster.is_empty() || self.authority.state().cluster.as_str() == cluster {
                self.auth.pass(Box::new(stream), peer, ending).await;
            } else {
                tracing::debug!(%peer, "auth service of another cluster asked for");
            }
            return;
        }
        let asks = |wanted: &[u8]| hello.alpn.iter().any(|name| name.as_slice() == wanted);
        let database = hello.alpn.iter().find_map(|name| Some((name, alpn::database(name)?)));
        if asks(alpn::REVERSE_TUNNEL) {
            self.agent(stream, peer, ending).await;
        } else if let Some((name, wants)) = database {
            let entry = Entry::Alpn { name: name.clone(), wants };
            self.database(stream, entry, ends, ending).await;
        } else if asks(alpn::PROXY_SSH) {
            let ((stream, seen), port) = (stream.into_parts(), Arc::clone(&self));
            let serve = move |stream| async move {
                port.terminate(Rewind::with_seen(stream, &seen), ends, ending).await
            };
            self.shards.run(stream, serve).await;
        } else {
            self.terminate(stream, ends, ending).await;
        }
    }

    /// Ends TLS here, and serves what is inside.
    async fn terminate(&self, stream: Rewind<TcpStream>, ends: Ends, ending: CancellationToken) {
        let peer = ends.peer;
        let stream =
            match shared_transport::tls::accept(Arc::clone(&self.tls), stream, HANDSHAKE).await {
                Ok(stream) => stream,
                Err(err) => {
                    tracing::debug!(%peer, error = %err, "tls handshake");
                    return;
                }
            };
        if stream.get_ref().1.alpn_protocol() == Some(alpn::PROXY_SSH) {
            self.ssh.connection(Rewind::new(stream), ends, ending).await;
        } else {
            self.http(stream, peer, ending).await;
        }
    }

    async fn http<S>(&self, stream: S, peer: SocketAddr, ending: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(Peer(peer))));
        let drain = self.settings.timeouts.drain.min(Duration::from_secs(5));
        let limits = HttpLimits { streams: 32, drain, ..HttpLimits::default() };
        if let Err(err) = server_core::http::serve(stream, service, limits, &ending).await {
            tracing::debug!(%peer, error = %err, "http connection ended");
        }
    }
}

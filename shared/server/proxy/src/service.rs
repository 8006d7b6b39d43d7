//! The proxy as a whole: what it is made of, its listeners, its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use server_core::host::HostKeys;
use server_core::spool::{EventSpoolSettings, RecordingSpoolSettings};
use server_core::tunnel::LocalServices;
use server_core::{Authority, EventSpool, RecordingSpool, SpoolError};
use shared_transport::AcceptLimits;
use shared_transport::tls::TlsError;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::auth_path::AuthPath;
use crate::db::DbProxy;
use crate::ping::ListenAddrs;
use crate::port::WebPort;
use crate::settings::ProxySettings;
use crate::shards::Shards;
use crate::ssh::{HostKeyFileError, SshProxy};
use crate::tunnels::Tunnels;

/// How long events and recordings may go on being sent at the end; what is left is sent by the next run.
const FLUSH: Duration = Duration::from_secs(10);

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A certificate of the web port cannot be used.
    #[error("web certificate")]
    WebCertificate(#[source] TlsError),
    /// There is none.
    #[error("no web certificate")]
    NoWebCertificate,
    /// None can be made.
    #[error("make web certificate")]
    MakeWebCertificate(#[source] shared_pki::PkiError),
    /// It cannot be kept.
    #[error("store web certificate")]
    StoreWebCertificate(#[source] std::io::Error),
    /// `ssh_ciphers` names something unknown.
    #[error("ssh_ciphers")]
    Ciphers(#[source] shared_ssh::server::CipherOverrideError),
    /// A spool cannot be opened.
    #[error("open spool")]
    Spool(#[from] SpoolError),
    /// The host key cannot be had.
    #[error("host key of the proxy")]
    HostKey(#[from] HostKeyFileError),
    /// No thread can be had.
    #[error("start threads")]
    Threads(#[source] std::io::Error),
    /// A listener is broken.
    #[error("listener")]
    Listener(#[source] std::io::Error),
}

/// The sockets of a proxy.
#[derive(Debug)]
pub struct ProxyListeners {
    /// TLS: the web API, the way to auth, SSH, tunnels and databases inside TLS; plain SSH and PostgreSQL's own request
    /// for TLS are recognised too.
    pub web: TcpListener,
    /// SSH, where it has a port of its own.
    pub ssh: Option<TcpListener>,
    /// Tunnels of agents, where they have a port of their own.
    pub tunnel: Option<TcpListener>,
    /// PostgreSQL, where it has a port of its own.
    pub postgres: Option<TcpListener>,
    /// MySQL, where it has a port of its own.
    pub mysql: Option<TcpListener>,
}

/// A proxy that is ready to run.
pub struct ProxyService {
    settings: Arc<ProxySettings>,
    ssh: Arc<SshProxy>,
    db: Arc<DbProxy>,
    auth: Arc<dyn AuthPath>,
    authority: Arc<dyn Authority>,
    events: Arc<EventSpool>,
    recordings: Arc<RecordingSpool>,
    tunnels: Arc<Tunnels>,
    tls: Arc<ServerConfig>,
    shards: Arc<Shards>,
}

impl std::fmt::Debug for ProxyService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyService").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ProxyService {
    /// Opens the spools and makes keys. `keys` are this host's own of role Proxy, which it shows to agents; `locals`
    /// are services of agents in this process, which are reached without a tunnel. Spools go on after `shutdown` until
    /// [`ProxyService::run`] has drained.
    pub async fn new(
        settings: ProxySettings,
        authority: Arc<dyn Authority>,
        auth: Arc<dyn AuthPath>,
        keys: watch::Receiver<Arc<HostKeys>>,
        locals: LocalServices,
    ) -> Result<Self, StartError> {
        shared_ssh::server::check_cipher_names(&settings.ssh_ciphers)
            .map_err(StartError::Ciphers)?;
        let settings = Arc::new(settings);
        let config_of = Arc::clone(&settings);
        let web = tokio::task::spawn_blocking(move || crate::web_cert::shown(&config_of))
            .await
            .map_err(|err| StartError::Listener(std::io::Error::other(err)))??;
        let tls = crate::web_cert::server_config(Arc::clone(&web))?;
        let never = CancellationToken::new();
        let folder = settings.data_dir.join("log/events-spool");
        let events =
            EventSpool::open(folder, Arc::clone(&authority), EventSpoolSettings::default(), &never)
                .await?;
        let recordings = RecordingSpool::open(
            &settings.data_dir,
            Arc::clone(&authority),
            RecordingSpoolSettings {
                max_bytes: settings.spool_bytes,
                room_wait: settings.recording_wait,
                ..RecordingSpoolSettings::default()
            },
            &never,
        )
        .await?;
        let (settings_of, authority_of) = (Arc::clone(&settings), Arc::clone(&authority));
        let (events_of, recordings_of) = (Arc::clone(&events), Arc::clone(&recordings));
        let tunnels = Arc::new(Tunnels::new(Arc::clone(&authority), &keys));
        let db = Arc::new(DbProxy::new(
            Arc::clone(&settings),
            Arc::clone(&authority),
            Arc::clone(&events),
            Arc::clone(&tunnels),
            locals,
            keys,
            web,
        ));
        let tunnels_of = Arc::clone(&tunnels);
        let ssh = tokio::task::spawn_blocking(move || {
            SshProxy::new(settings_of, authority_of, events_of, recordings_of, tunnels_of)
        })
        .await
        .map_err(|err| StartError::Listener(std::io::Error::other(err)))??;
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let shards = Arc::new(Shards::start(threads).map_err(StartError::Threads)?);
        let ssh = Arc::new(ssh);
        Ok(Self { settings, ssh, db, auth, authority, events, recordings, tunnels, tls, shards })
    }

    /// How many agents are connected, for whoever watches that.
    pub fn agents(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let tunnels = Arc::clone(&self.tunnels);
        move || tunnels.connected()
    }

    /// Where recordings wait, for whoever watches how many do.
    pub fn spool(&self) -> Arc<RecordingSpool> {
        Arc::clone(&self.recordings)
    }

    /// Serves until `shutdown`, then lets sessions end within the drain's limit.
    pub async fn run(
        self,
        listeners: ProxyListeners,
        shutdown: CancellationToken,
    ) -> Result<(), StartError> {
        let listen = self.listening(&listeners)?;
        let router =
            crate::web::router(Arc::clone(&self.authority), Arc::clone(&self.settings), listen);
        let port = Arc::new(WebPort {
            settings: Arc::clone(&self.settings),
            ssh: Arc::clone(&self.ssh),
            db: Arc::clone(&self.db),
            auth: Arc::clone(&self.auth),
            authority: Arc::clone(&self.authority),
            tunnels: Arc::clone(&self.tunnels),
            tls: Arc::clone(&self.tls),
            shards: Arc::clone(&self.shards),
            router,
        });
        let renewing = tokio::spawn(Arc::clone(&self.ssh).keep_sessions_alive());
        let (web, ssh, tunnel, postgres, mysql, (), (), ()) = tokio::join!(
            self.serve(Some(listeners.web), &shutdown, Arc::clone(&port), WebPort::connection),
            self.serve(listeners.ssh, &shutdown, Arc::clone(&port), WebPort::plain_ssh),
            self.serve(listeners.tunnel, &shutdown, Arc::clone(&port), WebPort::tunnel),
            self.serve(listeners.postgres, &shutdown, Arc::clone(&port), WebPort::postgres),
            self.serve(listeners.mysql, &shutdown, port, WebPort::mysql),
            self.tunnels.watch_locks(shutdown.clone()),
            self.tunnels.follow_proxies(shutdown.clone()),
            self.ssh.registered.follow(self.authority.as_ref(), shutdown.clone()),
        );
        let left = web + ssh + tunnel + postgres + mysql;
        if left > 0 {
            tracing::warn!(connections = left, "connections did not end in time");
        }
        let drained = tokio::join!(self.events.drain(FLUSH), self.recordings.drain(FLUSH));
        renewing.abort();
        if drained != (true, true) {
            tracing::warn!(
                events = self.events.pending(),
                recordings = self.recordings.waiting(),
                "left for the next start"
            );
        }
        Ok(())
    }
}

impl ProxyService {
    /// Tells those who need to know where this proxy listens.
    fn listening(&self, listeners: &ProxyListeners) -> Result<ListenAddrs, StartError> {
        let local = |listener: &TcpListener| listener.local_addr().map_err(StartError::Listener);
        let web = local(&listeners.web)?;
        let ssh = listeners.ssh.as_ref().map(local).transpose()?;
        let tunnel = listeners.tunnel.as_ref().map(local).transpose()?;
        let postgres = listeners.postgres.as_ref().map(local).transpose()?;
        let mysql = listeners.mysql.as_ref().map(local).transpose()?;
        let all: Vec<SocketAddr> =
            [Some(web), ssh, tunnel, postgres, mysql].into_iter().flatten().collect();
        self.ssh.listening(&all);
        self.tunnels.listening(self.settings.host_id, self.settings.agents_dial(web));
        let text = |addr: SocketAddr| addr.to_string();
        Ok(ListenAddrs {
            web: text(web),
            ssh: ssh.map(text),
            tunnel: tunnel.map(text),
            postgres: postgres.map(text),
            mysql: mysql.map(text),
        })
    }

    /// Serves one listener, if there is one, and tells how many connections did not end in time.
    async fn serve<F>(
        &self,
        listener: Option<TcpListener>,
        shutdown: &CancellationToken,
        port: Arc<WebPort>,
        connection: fn(Arc<WebPort>, TcpStream, SocketAddr, CancellationToken) -> F,
    ) -> usize
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(listener) = listener else { return 0 };
        let limits = AcceptLimits {
            connections: self.settings.max_connections,
            per_peer: self.settings.max_connections_per_peer,
            drain: self.settings.timeouts.drain + Duration::from_secs(5),
        };
        let serving = shared_transport::serve(
            listener,
            limits,
            shutdown.clone(),
            move |stream, peer, ending| connection(Arc::clone(&port), stream, peer, ending),
        );
        serving.await.left
    }
}

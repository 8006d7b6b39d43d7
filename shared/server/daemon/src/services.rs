//! The services of this process: sockets, auth, proxy, agents, and their end in the other order.

use std::net::SocketAddr;
use std::sync::Arc;

use server_auth::{AuthError, OpenError};
use server_core::SpoolError;
use server_core::tunnel::LocalServices;
use server_proxy::{ProxyListeners, ProxyService, StartError};
use shared_api::{ClientError, LocalAdminError};
use shared_authz::PatternError;
use shared_config::TeleportConfig;
use shared_types::HostId;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::agents::{Agent, AgentHost, DbHost, SshHost};
use crate::auth_service::{RunningAuth, auth_settings};
use crate::data_dir::{DataDir, DataDirError};
use crate::diag::{self, Diagnostics};
use crate::host_identity::JoinError;
use crate::listeners::{ListenError, listen};
use crate::proxy_service::ProxyHost;
use crate::ready::Listening;
use crate::signals::Shutdown;

/// Why the services do not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("auth_service.cluster_name: {0}")]
    ClusterName(#[source] shared_types::NameError),
    #[error("auth_service.tokens: read {path}")]
    TokenFile {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("start auth service")]
    Auth(#[source] OpenError),
    #[error("start auth service")]
    AuthApi(#[source] AuthError),
    #[error("write the local administrator's identity")]
    Admin(#[source] LocalAdminError),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("ask the auth service for the cluster's state")]
    State(#[source] ClientError),
    #[error("start proxy service")]
    Proxy(#[source] StartError),
    #[error("teleport.nodename: {0}")]
    NodeName(#[source] shared_types::NameError),
    #[error("open the spool of an agent")]
    Spool(#[source] SpoolError),
    #[error("db_service.resources")]
    DbResources(#[source] PatternError),
    #[error("db_service.databases: {database}: read {path}")]
    DbAuthorities {
        database: String,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("a service ended unexpectedly")]
    Task(#[source] tokio::task::JoinError),
}

impl RunError {
    /// What to do about it, where that is plain.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Join(error) => error.hint(),
            Self::State(_) => Some(
                "check teleport.auth_server, teleport.ca_pin and the token; tctl status shows the pin"
                    .to_owned(),
            ),
            Self::Listen(_) => Some(
                "another program listens there; choose another address or stop it".to_owned(),
            ),
            _ => None,
        }
    }
}

/// Runs until the shutdown's drain, and then until everything has ended.
pub(crate) async fn run(
    config: &TeleportConfig,
    dir: &DataDir,
    shutdown: &Shutdown,
) -> Result<(), RunError> {
    let host_id = HostId::from(dir.host_id()?);
    let node_name = config.nodename.clone().unwrap_or_else(host_name);
    let mut listening = Listening::default();

    let diagnostics = Arc::new(Diagnostics::default());
    let diag_stop = CancellationToken::new();
    let _diag_guard = diag_stop.clone().drop_guard();
    if let Some(addr) = config.diag_addr {
        let (socket, addr) = listen("teleport.diag_addr", addr).await?;
        listening.diag = Some(addr);
        tokio::spawn(diag::serve(socket, Arc::clone(&diagnostics), diag_stop));
    }
    // Whoever balances by it sends nothing new while what is here ends.
    tokio::spawn({
        let (drain, diagnostics) = (shutdown.drain.clone(), Arc::clone(&diagnostics));
        async move {
            drain.cancelled().await;
            diagnostics.set_ready(false);
        }
    });

    let sockets = Sockets::open(config, &mut listening).await?;
    // The auth service ends after the others, whose last events and recordings it takes.
    let auth_stop = CancellationToken::new();
    let auth = match (&config.auth, sockets.auth) {
        (Some(auth), Some((socket, addr))) => {
            let settings = auth_settings(auth, dir, host_id, &node_name)?;
            let period = auth.upload_completer_period.as_std();
            Some(RunningAuth::start(settings, dir, socket, addr, period, &auth_stop).await?)
        }
        _ => None,
    };
    let host = Host { config, dir, host_id, node_name: &node_name, auth: auth.as_ref() };
    let drain = &shutdown.drain;
    // What waits for its auth service can be told to stop.
    let started = drain.run_until_cancelled(host.start(sockets.proxy, sockets.node, drain)).await;
    let ended = match started {
        Some(started) => {
            let running = started?;
            if let Some((proxy, _)) = &running.proxy {
                diagnostics.count_agents(proxy.agents());
            }
            let proxy = running.proxy.as_ref().map(|(proxy, _)| proxy.spool());
            let agents = running.agents.iter().map(|agent| agent.spool());
            proxy.into_iter().chain(agents).for_each(|spool| diagnostics.watch(spool));
            listening.announce(dir)?;
            diagnostics.set_ready(true);
            running.run(drain).await
        }
        None => Ok(()),
    };
    crate::ready::withdraw(dir);
    auth_stop.cancel();
    if let Some(auth) = auth {
        auth.end().await?;
    }
    tracing::info!("ended");
    ended
}

/// What this process listens on.
struct Sockets {
    auth: Option<(TcpListener, SocketAddr)>,
    proxy: Option<ProxyListeners>,
    node: Option<TcpListener>,
}

impl Sockets {
    async fn open(config: &TeleportConfig, listening: &mut Listening) -> Result<Self, ListenError> {
        let auth = match &config.auth {
            Some(auth) => {
                let (socket, addr) = listen("auth_service.listen_addr", auth.listen_addr).await?;
                listening.auth = Some(addr);
                Some((socket, addr))
            }
            None => None,
        };
        let proxy = match &config.proxy {
            Some(proxy) => Some(crate::proxy_service::sockets(proxy, listening).await?),
            None => None,
        };
        let node = match &config.ssh {
            Some(ssh) => crate::agents::socket(config, ssh, listening).await?,
            None => None,
        };
        Ok(Self { auth, proxy, node })
    }
}

/// What services of this process have in common.
struct Host<'a> {
    config: &'a TeleportConfig,
    dir: &'a DataDir,
    host_id: HostId,
    node_name: &'a str,
    auth: Option<&'a RunningAuth>,
}

/// The services besides auth, ready to run.
struct Running {
    proxy: Option<(ProxyService, ProxyListeners)>,
    agents: Vec<Agent>,
}

impl Host<'_> {
    async fn start(
        &self,
        listeners: Option<ProxyListeners>,
        node: Option<TcpListener>,
        drain: &CancellationToken,
    ) -> Result<Running, RunError> {
        let (config, dir, host_id, node_name) =
            (self.config, self.dir, self.host_id, self.node_name);
        let mut web_proxy = config.proxy_server.clone();
        let locals = LocalServices::default();
        let proxy = match (&config.proxy, listeners) {
            (Some(proxy), Some(listeners)) => {
                let web = listeners.web.local_addr().map_err(StartError::Listener);
                let web = web.map_err(RunError::Proxy)?;
                let locals = locals.clone();
                let host = ProxyHost { config, proxy, dir, host_id, node_name, web, locals };
                web_proxy = Some(host.public());
                Some((host.start(self.auth, drain).await?, listeners))
            }
            _ => None,
        };
        let host = AgentHost { config, dir, host_id, node_name, auth: self.auth, stop: drain };
        let mut agents = Vec::new();
        if let Some(ssh) = &config.ssh {
            let socket = match node {
                Some(socket) => {
                    let at = socket.local_addr().map_err(StartError::Listener);
                    Some((socket, at.map_err(RunError::Proxy)?))
                }
                None => None,
            };
            agents.push(SshHost { host, ssh, web_proxy }.start(socket).await?);
        }
        if let Some(db) = &config.db {
            agents.push(DbHost { host, db, locals: &locals }.start().await?);
        }
        Ok(Running { proxy, agents })
    }
}

impl Running {
    /// Runs until `drain`, and then until all have ended.
    async fn run(self, drain: &CancellationToken) -> Result<(), RunError> {
        let proxy = async {
            match self.proxy {
                Some((proxy, listeners)) => {
                    proxy.run(listeners, drain.clone()).await.map_err(RunError::Proxy)
                }
                None => {
                    drain.cancelled().await;
                    Ok(())
                }
            }
        };
        let agents = self.agents.into_iter().map(|agent| agent.run(drain.clone()));
        let (ended, _) = tokio::join!(proxy, futures::future::join_all(agents));
        ended
    }
}

/// The name of this host, as the operating system has it.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

//! The services of this process: sockets, auth, proxy, and their end in the other order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use server_auth::{AuthError, AuthService, AuthSettings, LocalAuthority, OpenError, StaticToken};
use server_core::{Authority, KeptState, RemoteAuthority};
use server_proxy::{
    AuthPath, InProcessAuth, ProxyListeners, ProxyService, ProxySettings, RemoteAuth, StartError,
};
use shared_api::{ClientError, LocalAdminError, Secret};
use shared_config::{AuthConfig, JoinToken, ProxyConfig, TeleportConfig};
use shared_types::resource::{AuthPreferenceSpec, NetworkingSpec, RecordingSpec};
use shared_types::{ClusterName, HostId};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::data_dir::{DataDir, DataDirError};
use crate::diag::{self, Diagnostics};
use crate::host_identity::{JoinError, Joiner, read_tokens};
use crate::listeners::{ListenError, host_of, listen, local, with_real_port};
use crate::ready::Listening;
use crate::signals::Shutdown;

/// How often the local administrator's identity is written anew and old state is swept.
const TEND: Duration = Duration::from_secs(3600);
/// How often a proxy renews its certificates.
const RENEW: Duration = Duration::from_secs(24 * 3600);
/// How long a renewal at the start is waited for, and how soon one that failed is tried again.
const RENEW_WAIT: Duration = Duration::from_secs(5);
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// How long to wait before asking an auth service that is away again.
const RETRY: Duration = Duration::from_secs(1);

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
    #[error("a service ended unexpectedly")]
    Task(#[source] tokio::task::JoinError),
}

impl RunError {
    /// What to do about it, where that is plain.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Join(JoinError::NoToken) => Some(
                "make a token with: tctl tokens add --type=proxy; then set teleport.auth_token to it or to its file",
            ),
            Self::Join(JoinError::Join { .. }) | Self::State(_) => Some(
                "check teleport.auth_server, teleport.ca_pin and the token; tctl status shows the pin",
            ),
            Self::Listen(_) => {
                Some("another program listens there; choose another address or stop it")
            }
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

    let auth_socket = match &config.auth {
        Some(auth) => {
            let (socket, addr) = listen("auth_service.listen_addr", auth.listen_addr).await?;
            listening.auth = Some(addr);
            Some((socket, addr))
        }
        None => None,
    };
    let proxy_sockets = match &config.proxy {
        Some(proxy) => {
            let (web, web_addr) =
                listen("proxy_service.web_listen_addr", proxy.web_listen_addr).await?;
            let (ssh, ssh_addr) =
                listen("proxy_service.listen_addr", proxy.ssh_listen_addr).await?;
            (listening.web, listening.ssh) = (Some(web_addr), Some(ssh_addr));
            Some((ProxyListeners { web, ssh }, web_addr))
        }
        None => None,
    };

    // The auth service ends after the proxy, whose last events and recordings it takes.
    let auth_stop = CancellationToken::new();
    let auth = match (&config.auth, auth_socket) {
        (Some(auth), Some((socket, addr))) => {
            let settings = auth_settings(auth, dir, host_id, &node_name)?;
            let period = auth.upload_completer_period.as_std();
            Some(RunningAuth::start(settings, dir, socket, addr, period, &auth_stop).await?)
        }
        _ => None,
    };
    let ended = match (&config.proxy, proxy_sockets) {
        (Some(proxy), Some((sockets, web_addr))) => {
            let public = proxy.public_addr.first().map_or(node_name.as_str(), String::as_str);
            let public = with_real_port(public, web_addr);
            let host = ProxyHost { config, proxy, dir, host_id, node_name: &node_name, public };
            let drain = &shutdown.drain;
            // A proxy that waits for its auth service can be told to stop.
            match drain.run_until_cancelled(host.start(auth.as_ref(), drain)).await {
                Some(started) => {
                    let service = started?;
                    diagnostics.watch(service.spool());
                    listening.announce(dir)?;
                    diagnostics.set_ready(true);
                    service.run(sockets, drain.clone()).await.map_err(RunError::Proxy)
                }
                None => Ok(()),
            }
        }
        _ => {
            listening.announce(dir)?;
            diagnostics.set_ready(true);
            shutdown.drain.cancelled().await;
            Ok(())
        }
    };
    crate::ready::withdraw(dir);
    auth_stop.cancel();
    if let Some(auth) = auth {
        auth.end().await?;
    }
    tracing::info!("ended");
    ended
}

/// The name of this host, as the operating system has it.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

struct RunningAuth {
    service: Arc<AuthService>,
    server: server_auth::AuthServer,
    api: tokio::task::JoinHandle<()>,
    /// Where the API listens.
    addr: SocketAddr,
}

impl RunningAuth {
    async fn start(
        settings: AuthSettings,
        dir: &DataDir,
        socket: TcpListener,
        addr: SocketAddr,
        period: Duration,
        stop: &CancellationToken,
    ) -> Result<Self, RunError> {
        let service = AuthService::open(settings).await.map_err(RunError::Auth)?;
        let server = service.server().map_err(RunError::AuthApi)?;
        let auth_addr = local(addr).to_string();
        write_admin(&service, dir, &auth_addr)?;
        tracing::info!(cluster = %service.cluster(), %addr, "auth service");

        let (api, stopped) = (server.clone(), stop.clone());
        let api = tokio::spawn(async move {
            let drained = api.serve(socket, stopped).await;
            if drained.left > 0 {
                tracing::warn!(connections = drained.left, "connections did not end in time");
            }
        });
        let (tended, stopped, folder) = (Arc::clone(&service), stop.clone(), dir.path().to_owned());
        tokio::spawn(async move {
            while stopped.run_until_cancelled(tokio::time::sleep(TEND)).await.is_some() {
                tended.tend().await;
                let written =
                    tended.local_admin(auth_addr.clone()).map(|admin| admin.save(&folder));
                match written {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "could not renew the local administrator's identity")
                    }
                    Err(error) => {
                        tracing::warn!(%error, "could not renew the local administrator's identity")
                    }
                }
            }
        });
        let (completed, stopped) = (Arc::clone(&service), stop.clone());
        tokio::spawn(async move {
            while stopped.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
                completed.complete_uploads(period).await;
            }
        });
        Ok(Self { service, server, api, addr })
    }

    async fn end(self) -> Result<(), RunError> {
        let ended = self.api.await.map_err(RunError::Task);
        self.service.close().await;
        ended
    }
}

fn write_admin(service: &AuthService, dir: &DataDir, auth_addr: &str) -> Result<(), RunError> {
    let admin = service.local_admin(auth_addr.to_owned()).map_err(RunError::AuthApi)?;
    admin.save(dir.path()).map_err(RunError::Admin)
}

fn auth_settings(
    auth: &AuthConfig,
    dir: &DataDir,
    host_id: HostId,
    node_name: &str,
) -> Result<AuthSettings, RunError> {
    let mut settings = AuthSettings::new(dir.path().to_owned(), host_id, node_name);
    if let Some(name) = &auth.cluster_name {
        settings.cluster_name =
            Some(ClusterName::new(name.as_str()).map_err(RunError::ClusterName)?);
    }
    settings.recordings_at = auth.audit_sessions_uri.clone();
    settings.tracker_ttl = auth.session_tracker_ttl.as_std();
    settings.upload_grace = auth.upload_grace_period.as_std();
    settings.names = auth.public_addr.iter().map(|addr| host_of(addr).to_owned()).collect();
    for token in &auth.tokens {
        let secrets = match &token.token {
            JoinToken::Value(value) => vec![Secret::new(value.clone())],
            JoinToken::File(path) => read_tokens(path).map_err(|source| RunError::TokenFile {
                path: path.display().to_string(),
                source,
            })?,
        };
        let fixed = secrets
            .into_iter()
            .map(|secret| StaticToken { roles: token.roles.clone(), token: secret });
        settings.static_tokens.extend(fixed);
    }
    if auth.session_recording.is_some() || auth.proxy_checks_host_keys.is_some() {
        let mut spec = RecordingSpec::default();
        spec.mode = auth.session_recording.unwrap_or(spec.mode);
        spec.proxy_checks_host_keys =
            auth.proxy_checks_host_keys.unwrap_or(spec.proxy_checks_host_keys);
        settings.recording = Some(spec);
    }
    if auth.default_session_ttl.is_some() || auth.disconnect_expired_cert.is_some() {
        let mut spec = AuthPreferenceSpec::default();
        spec.default_session_ttl = auth.default_session_ttl.unwrap_or(spec.default_session_ttl);
        spec.disconnect_expired_cert =
            auth.disconnect_expired_cert.unwrap_or(spec.disconnect_expired_cert);
        settings.auth_preference = Some(spec);
    }
    let mut networking = NetworkingSpec::default();
    networking.client_idle_timeout =
        auth.client_idle_timeout.unwrap_or(networking.client_idle_timeout);
    networking.keep_alive_interval =
        auth.keep_alive_interval.unwrap_or(networking.keep_alive_interval);
    networking.keep_alive_count_max =
        auth.keep_alive_count_max.unwrap_or(networking.keep_alive_count_max);
    networking.ssh_dial_timeout = auth.ssh_dial_timeout.unwrap_or(networking.ssh_dial_timeout);
    settings.networking = (networking != NetworkingSpec::default()).then_some(networking);
    Ok(settings)
}

/// What a proxy is started with.
struct ProxyHost<'a> {
    config: &'a TeleportConfig,
    proxy: &'a ProxyConfig,
    dir: &'a DataDir,
    host_id: HostId,
    node_name: &'a str,
    public: String,
}

impl ProxyHost<'_> {
    async fn start(
        &self,
        auth: Option<&RunningAuth>,
        drain: &CancellationToken,
    ) -> Result<ProxyService, RunError> {
        let (authority, path, protected): (Arc<dyn Authority>, Arc<dyn AuthPath>, Vec<SocketAddr>) =
            match auth {
                Some(auth) => {
                    auth.service.set_proxy_address(self.public.clone());
                    let server = auth.server.clone();
                    let path = InProcessAuth::new(move |stream, client, ending| {
                        let server = server.clone();
                        Box::pin(async move { server.connection(stream, client, ending).await })
                    });
                    let authority = LocalAuthority::for_proxy(Arc::clone(&auth.service))
                        .map_err(RunError::AuthApi)?;
                    (authority, Arc::new(path), vec![auth.addr])
                }
                None => {
                    let (authority, addr) = self.remote(drain).await?;
                    let path = RemoteAuth::new(authority.client().clone());
                    let resolved = tokio::net::lookup_host(addr.as_str()).await;
                    let protected = resolved.map(Iterator::collect).unwrap_or_default();
                    (authority, Arc::new(path), protected)
                }
            };
        let settings = ProxySettings::from_config(
            self.proxy,
            self.dir.path().to_owned(),
            self.host_id,
            self.node_name,
            protected,
        );
        ProxyService::new(settings, authority, path).await.map_err(RunError::Proxy)
    }

    /// Joins, or takes the identity of an earlier start, and follows the cluster's state.
    async fn remote(
        &self,
        drain: &CancellationToken,
    ) -> Result<(Arc<RemoteAuthority>, String), RunError> {
        let joiner = Arc::new(self.joiner());
        let client = joiner.client().await?;
        let mut away = false;
        // The state is still asked for while sessions end; dropping the authority ends it.
        let never = CancellationToken::new();
        let authority = loop {
            let (client, kept) = (client.clone(), KeptState::new(self.dir.path()));
            match RemoteAuthority::connect(client, self.host_id, kept, &never).await {
                Ok(authority) => break authority,
                Err(error) if error.is_transient() => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%error, "auth service cannot be reached, trying on");
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(RunError::State(error)),
            }
        };
        // New certificates at every start, so that names and addresses are those of the configuration now.
        let first = tokio::time::timeout(RENEW_WAIT, joiner.renew(&client)).await;
        let mut renewed = matches!(first, Ok(Ok(())));
        if !renewed {
            tracing::warn!("could not renew certificates, those in hand stay");
        }
        let renewer = Arc::clone(&joiner);
        let stop = drain.clone();
        tokio::spawn(async move {
            loop {
                let wait = tokio::time::sleep(if renewed { RENEW } else { RENEW_AGAIN });
                if stop.run_until_cancelled(wait).await.is_none() {
                    return;
                }
                let again = renewer.renew(&client).await;
                if let (Err(error), true) = (&again, renewed) {
                    tracing::warn!(%error, "could not renew certificates, those in hand stay");
                }
                renewed = again.is_ok();
            }
        });
        Ok((authority, joiner.auth_addr()?.to_owned()))
    }

    fn joiner(&self) -> Joiner {
        let public = self.proxy.public_addr.iter().chain(&self.proxy.ssh_public_addr);
        Joiner {
            data_dir: self.dir.path().to_owned(),
            host_id: self.host_id,
            node_name: self.node_name.to_owned(),
            names: public.map(|addr| host_of(addr).to_owned()).collect(),
            public_addr: Some(self.public.clone()),
            auth_servers: self.config.auth_servers.clone(),
            ca_pins: self.config.ca_pins.clone(),
            token: self.config.auth_token.clone(),
        }
    }
}

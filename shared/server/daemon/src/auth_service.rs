//! The auth service of this process: its API, and what it does by the clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use server_auth::{AuthService, AuthSettings, StaticToken};
use shared_api::Secret;
use shared_config::{AuthConfig, JoinToken, ListenerMode, RoutingStrategy};
use shared_types::resource::{AuthPreferenceSpec, NetworkingSpec, RecordingSpec};
use shared_types::{ClusterName, HostId};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::data_dir::DataDir;
use crate::host_identity::read_tokens;
use crate::listeners::{host_of, local, with_real_port};
use crate::services::RunError;

/// How often the local administrator's identity is written anew and old state is swept.
const TEND: Duration = Duration::from_secs(3600);

/// The auth service, running.
pub(crate) struct RunningAuth {
    pub(crate) service: Arc<AuthService>,
    pub(crate) server: server_auth::AuthServer,
    api: tokio::task::JoinHandle<()>,
    /// Where the API listens.
    pub(crate) addr: SocketAddr,
}

impl RunningAuth {
    /// Opens the state, and serves until `stop`.
    pub(crate) async fn start(
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

    /// Waits for its end.
    pub(crate) async fn end(self) -> Result<(), RunError> {
        let ended = self.api.await.map_err(RunError::Task);
        self.service.close().await;
        ended
    }
}

fn write_admin(service: &AuthService, dir: &DataDir, auth_addr: &str) -> Result<(), RunError> {
    let admin = service.local_admin(auth_addr.to_owned()).map_err(RunError::AuthApi)?;
    admin.save(dir.path()).map_err(RunError::Admin)
}

/// What the configuration says of the auth service.
pub(crate) fn auth_settings(
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
    let public = auth.public_addr.first().map_or(node_name, String::as_str);
    settings.address = Some(with_real_port(public, auth.listen_addr));
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
    networking.case_insensitive_routing =
        auth.case_insensitive_routing.unwrap_or(networking.case_insensitive_routing);
    if auth.routing_strategy == Some(RoutingStrategy::MostRecent) {
        networking.routing_strategy = 1.into();
    }
    if auth.proxy_listener_mode == Some(ListenerMode::Multiplex) {
        networking.proxy_listener_mode = 1;
    }
    settings.networking = (networking != NetworkingSpec::default()).then_some(networking);
    Ok(settings)
}

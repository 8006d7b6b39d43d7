//! From a login to a connection to the target.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shared_cli::{CliError, ExitCode};
use shared_config::Profile;
use shared_ssh::agent::{EmbeddedAgent, HostKeys, Policy, RunningAgent, agent_comment};
use shared_ssh::client::{
    AgentSource, ConnectError, ProxyConn, ProxyOptions, TargetConn, TargetOptions, printable,
};
use shared_transport::{alpn, dial, tls};
use tokio::io::{AsyncRead, AsyncWrite};

use super::destination::Destination;
use super::host_keys::AskingHostKeys;
use crate::context::{Ctx, Login, api_error};
use crate::ping::ProxyAddr;

/// How long each connection may take to stand.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the target and what keeps it up.
pub(super) struct Connected {
    pub(super) target: Arc<TargetConn>,
    pub(super) proxy: ProxyConn,
    agent: Arc<EmbeddedAgent>,
    host_keys: Arc<AskingHostKeys>,
}

impl Connected {
    /// A session that failed, with what was refused on this side, which the server only saw as a failure.
    pub(super) fn failed(&self, error: &ConnectError) -> CliError {
        refused(&self.agent, &self.host_keys, error)
    }
}

fn refused(agent: &EmbeddedAgent, host_keys: &AskingHostKeys, error: &ConnectError) -> CliError {
    if let Some(refusal) = host_keys.refusal() {
        return refusal;
    }
    if let Some(text) = agent.last_refusal() {
        eprintln!("WARNING: the agent refused to sign for the proxy: {}", printable(&text));
    }
    failed(error)
}

/// A failed connection as an error with the exit status that `ssh` has for it.
pub(super) fn failed(error: &ConnectError) -> CliError {
    let shown = CliError::from_error(error).exit(ExitCode::Remote(255));
    match error.hint() {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}

/// What the command line says about a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wishes {
    /// The port; 0 leaves it to the cluster.
    pub(super) port: u16,
    /// The target gets an agent.
    pub(super) forward_agent: bool,
    /// Only logins that name the host are signed.
    pub(super) hostbound_only: bool,
}

/// Connects to the target. Whether the proxy records, and whether host keys are checked, is asked of auth
/// itself, at the same time as the proxy is dialled: what the proxy says about it does not count.
pub(super) async fn connect(
    ctx: &Ctx,
    login: &Login,
    destination: &Destination,
    wishes: Wishes,
) -> Result<Connected, CliError> {
    let profile = ctx.profile()?;
    let proxy_addr: ProxyAddr = profile.web_proxy_addr.parse()?;
    let key = Arc::new(login.agent_key(&agent_comment(&profile.user))?);
    let policy =
        Policy::new(destination.host.clone(), destination.login.clone(), login.authorities.clone())
            .plain_publickey(!wishes.hostbound_only);
    let agent = EmbeddedAgent::new(Arc::clone(&key), policy);
    let pins = ctx.dir.pinned_hosts_path(&profile);
    let host_keys = AskingHostKeys::new(&destination.host, wishes.port, &profile.cluster, pins);

    let recording = async {
        let reply = ctx.api()?.session_recording().await;
        reply.map_err(|error| {
            let shown =
                api_error(error).context("ask the auth service where sessions are recorded");
            // A way that does not work is a failed connection; a refusal keeps its own status.
            match shown.exit_code() {
                ExitCode::Failed => shown.exit(ExitCode::Remote(255)),
                _ => shown,
            }
        })
    };
    let proxy = async {
        let options = ProxyOptions {
            host: proxy_addr.host.clone(),
            login: destination.login.clone(),
            key: Arc::clone(&key),
            authorities: login.authorities.clone(),
            timeout: PATIENCE,
        };
        let stream = to_proxy(&profile, &proxy_addr.host).await?;
        ProxyConn::connect(stream, options, Some(Arc::clone(&agent)))
            .await
            .map_err(|error| failed(&error))
    };
    let (recording, proxy) = tokio::try_join!(recording, proxy)?;
    let recording_expected = recording.mode.is_proxy();
    if recording.hostbound_only {
        agent.refuse_plain_publickey();
    }
    let plain_keys =
        (!recording.proxy_checks_host_keys).then(|| Arc::clone(&host_keys) as Arc<dyn HostKeys>);
    if let Some(plain_keys) = &plain_keys {
        agent.ask_about_plain_keys(Arc::clone(plain_keys));
    }

    let options = TargetOptions {
        host: destination.host.clone(),
        login: destination.login.clone(),
        key: Arc::clone(&key),
        authorities: login.authorities.clone(),
        recording_expected,
        plain_keys,
        forward_agent: if wishes.forward_agent { Some(agent_source().await) } else { None },
        timeout: PATIENCE,
    };
    let target = async {
        let stream = proxy.open_target(&destination.host, wishes.port, recording_expected).await?;
        TargetConn::connect(stream, options, recording_expected.then(|| Arc::clone(&agent))).await
    };
    match target.await {
        Ok(target) => Ok(Connected { target: Arc::new(target), proxy, agent, host_keys }),
        Err(error) => Err(refused(&agent, &host_keys, &error)),
    }
}

/// A stream to the proxy's SSH server.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Plain TCP to the SSH port, or TLS on the web port where one port serves everything. The TLS there only
/// carries: who is at the other end is decided by the host certificate inside, so any web certificate does.
async fn to_proxy(profile: &Profile, host: &str) -> Result<Box<dyn Stream>, CliError> {
    let unreachable = |error: &(dyn std::error::Error + 'static)| {
        CliError::wrap(format!("proxy {host} cannot be reached"), error).exit(ExitCode::Remote(255))
    };
    if !profile.tls_routing_enabled {
        let stream =
            dial(&profile.ssh_proxy_addr, PATIENCE).await.map_err(|error| unreachable(&error))?;
        return Ok(Box::new(stream));
    }
    let mut config = tls::accept_any_certificate();
    config.alpn_protocols = vec![alpn::PROXY_SSH.to_vec()];
    let stream =
        dial(&profile.web_proxy_addr, PATIENCE).await.map_err(|error| unreachable(&error))?;
    let stream = tls::connect(Arc::new(config), host, stream, PATIENCE)
        .await
        .map_err(|error| unreachable(&error))?;
    Ok(Box::new(stream))
}

/// With `-A` the target gets the running agent, as with `ssh`; where none runs, our own key.
async fn agent_source() -> AgentSource {
    match std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from) {
        Some(path) if RunningAgent::connect(&path).await.is_ok() => AgentSource::Running(path),
        _ => AgentSource::Own,
    }
}

//! From a login to a connection to the target.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shared_cli::{CliError, ExitCode};
use shared_config::Profile;
use shared_ssh::agent::{EmbeddedAgent, Policy, RunningAgent, agent_comment};
use shared_ssh::client::{
    AgentSource, ConnectError, ProxyConn, ProxyOptions, TargetConn, TargetOptions, printable,
};
use shared_transport::{alpn, dial, tls};
use tokio::io::{AsyncRead, AsyncWrite};

use super::destination::Destination;
use crate::context::{Ctx, Login, api_error};
use crate::ping::ProxyAddr;

/// How long each connection may take to stand.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the target and what keeps it up.
pub(super) struct Connected {
    pub(super) target: Arc<TargetConn>,
    pub(super) proxy: ProxyConn,
    agent: Arc<EmbeddedAgent>,
}

impl Connected {
    /// Tells the user what the agent refused, which the server only saw as a failure.
    pub(super) fn explain(&self) {
        explain(&self.agent);
    }
}

fn explain(agent: &EmbeddedAgent) {
    if let Some(text) = agent.last_refusal() {
        eprintln!("WARNING: the agent refused to sign for the proxy: {}", printable(&text));
    }
}

/// A failed connection as an error with the exit status that `ssh` has for it.
pub(super) fn failed(error: &ConnectError) -> CliError {
    let shown = CliError::from_error(error).exit(ExitCode::Remote(255));
    match error.hint() {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}

/// Connects to the target. Whether the proxy records is asked of auth itself, at the same time as the
/// proxy is dialled: what the proxy says about it does not count.
pub(super) async fn connect(
    ctx: &Ctx,
    login: &Login,
    destination: &Destination,
    port: u16,
    forward_agent: bool,
) -> Result<Connected, CliError> {
    let profile = ctx.profile()?;
    let proxy_addr: ProxyAddr = profile.web_proxy_addr.parse()?;
    let key = Arc::new(login.agent_key(&agent_comment(&profile.user))?);
    let policy =
        Policy::new(destination.host.clone(), destination.login.clone(), login.authorities.clone());
    let agent = EmbeddedAgent::new(Arc::clone(&key), policy);

    let recording = async {
        let reply = ctx.api()?.session_recording().await;
        let mode = reply.map_err(|error| {
            api_error(error).context("ask the auth service where sessions are recorded")
        });
        mode.map(|reply| reply.mode.is_proxy())
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
    let (recording_expected, proxy) = tokio::try_join!(recording, proxy)?;

    let options = TargetOptions {
        host: destination.host.clone(),
        login: destination.login.clone(),
        key: Arc::clone(&key),
        authorities: login.authorities.clone(),
        recording_expected,
        forward_agent: if forward_agent { Some(agent_source().await) } else { None },
        timeout: PATIENCE,
    };
    let target = async {
        let stream = proxy.open_target(&destination.host, port, recording_expected).await?;
        TargetConn::connect(stream, options, recording_expected.then(|| Arc::clone(&agent))).await
    };
    match target.await {
        Ok(target) => Ok(Connected { target: Arc::new(target), proxy, agent }),
        Err(error) => {
            explain(&agent);
            Err(failed(&error))
        }
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

//! From a login to a connection to the target.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shared_api::NodesQuery;
use shared_cli::{CliError, ExitCode};
use shared_config::Profile;
use shared_ssh::agent::{AgentKey, EmbeddedAgent, HostKeys, Policy, RunningAgent, agent_comment};
use shared_ssh::client::{
    AgentSource, ConnectError, ProxyConn, ProxyOptions, TargetConn, TargetOptions, printable,
};
use shared_transport::{alpn, dial, tls};
use shared_types::Node;
use tokio::io::{AsyncRead, AsyncWrite};

use super::destination::Destination;
use super::host_keys::AskingHostKeys;
use crate::context::{Ctx, Login, api_error};
use crate::ping::ProxyAddr;

/// How long each connection may take to stand.
const PATIENCE: Duration = Duration::from_secs(30);

/// The port of SSH services, which stands for the node's own.
const SSH_SERVICE: u16 = 3022;

/// A connection to the target and what keeps it up.
pub(in crate::commands) struct Connected {
    pub(in crate::commands) target: Arc<TargetConn>,
    pub(in crate::commands) proxy: ProxyConn,
    agent: Arc<EmbeddedAgent>,
    host_keys: Arc<AskingHostKeys>,
}

impl Connected {
    /// A session that failed, with what was refused on this side, which the server only saw as a failure.
    pub(in crate::commands) fn failed(&self, error: &ConnectError) -> CliError {
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
pub(in crate::commands) fn failed(error: &ConnectError) -> CliError {
    let shown = CliError::from_error(error).exit(ExitCode::Remote(255));
    match error.hint() {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}

/// What the command line says about a connection.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) struct Wishes {
    /// The port; 0 leaves it to the cluster.
    pub(in crate::commands) port: u16,
    /// The target gets an agent.
    pub(in crate::commands) forward_agent: bool,
    /// Only logins that name the host are signed.
    pub(in crate::commands) hostbound_only: bool,
}

/// The way through the proxy, before a target is asked for.
pub(in crate::commands) struct Way {
    pub(in crate::commands) proxy: ProxyConn,
    /// Whether the proxy speaks for the target.
    pub(in crate::commands) recording_expected: bool,
    /// Whether the proxy needs the agent for that. It logs in on registered servers without an agent by itself.
    pub(in crate::commands) needs_agent: bool,
    pub(in crate::commands) agent: Arc<EmbeddedAgent>,
    key: Arc<AgentKey>,
    host_keys: Arc<AskingHostKeys>,
    plain_keys: Option<Arc<dyn HostKeys>>,
}

impl Way {
    /// A connection that failed, with what was refused on this side.
    pub(in crate::commands) fn failed(&self, error: &ConnectError) -> CliError {
        refused(&self.agent, &self.host_keys, error)
    }
}

/// Logs in to the proxy. Whether it records, and whether host keys are checked, is asked of auth itself, at the same
/// time as the proxy is dialled: what the proxy says about it does not count.
pub(in crate::commands) async fn to_proxy(
    ctx: &Ctx,
    login: &Login,
    destination: &Destination,
    wishes: Wishes,
) -> Result<Way, CliError> {
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
    let registered = async {
        let ask =
            NodesQuery { search: Some(destination.host.to_string()), ..NodesQuery::default() };
        // A proxy that records is expected where nothing is known; a node has to prove itself.
        let found = ctx.api()?.nodes(&ask).await.map(|found| found.items).unwrap_or_default();
        Ok(is_openssh(&found, destination.host.as_ref(), wishes.port))
    };
    let proxy = async {
        let options = ProxyOptions {
            host: proxy_addr.host.clone(),
            login: destination.login.clone(),
            key: Arc::clone(&key),
            authorities: login.authorities.clone(),
            timeout: PATIENCE,
        };
        let stream = dial_proxy(&profile, &proxy_addr.host).await?;
        ProxyConn::connect(stream, options, Some(Arc::clone(&agent)))
            .await
            .map_err(|error| failed(&error))
    };
    let (recording, openssh, proxy) = tokio::try_join!(recording, registered, proxy)?;
    let recording_expected = recording.mode.is_proxy() || openssh;
    let needs_agent = recording_expected && !openssh;
    if recording.hostbound_only {
        agent.refuse_plain_publickey();
    }
    let plain_keys =
        (!recording.proxy_checks_host_keys).then(|| Arc::clone(&host_keys) as Arc<dyn HostKeys>);
    if let Some(plain_keys) = &plain_keys {
        agent.ask_about_plain_keys(Arc::clone(plain_keys));
    }
    Ok(Way { proxy, recording_expected, needs_agent, agent, key, host_keys, plain_keys })
}

/// Connects to the target.
pub(in crate::commands) async fn connect(
    ctx: &Ctx,
    login: &Login,
    destination: &Destination,
    wishes: Wishes,
) -> Result<Connected, CliError> {
    let way = to_proxy(ctx, login, destination, wishes).await?;
    let options = TargetOptions {
        host: destination.host.clone(),
        login: destination.login.clone(),
        key: Arc::clone(&way.key),
        authorities: login.authorities.clone(),
        recording_expected: way.recording_expected,
        plain_keys: way.plain_keys.clone(),
        forward_agent: if wishes.forward_agent { Some(agent_source().await) } else { None },
        timeout: PATIENCE,
    };
    let target = async {
        let forwarded = way.needs_agent;
        let stream = way.proxy.open_target(&destination.host, wishes.port, forwarded).await?;
        TargetConn::connect(stream, options, forwarded.then(|| Arc::clone(&way.agent))).await
    };
    match target.await {
        Ok(target) => Ok(Connected {
            target: Arc::new(target),
            proxy: way.proxy,
            agent: way.agent,
            host_keys: way.host_keys,
        }),
        Err(error) => Err(way.failed(&error)),
    }
}

/// Whether a destination is a registered server without an agent, for which the proxy speaks in every mode. Where it
/// may be another node as well, it is not.
fn is_openssh(nodes: &[Node], host: &str, port: u16) -> bool {
    let usual = matches!(port, 0 | SSH_SERVICE);
    let of_addr = |addr: &str| {
        usual || addr.rsplit_once(':').is_some_and(|(_, of_addr)| of_addr.parse() == Ok(port))
    };
    let mut meant = nodes
        .iter()
        .filter(|node| of_addr(&node.spec.addr))
        .filter(|node| node.names().any(|name| name.eq_ignore_ascii_case(host)))
        .peekable();
    meant.peek().is_some() && meant.all(Node::is_openssh)
}

/// A stream to the proxy's SSH server.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Plain TCP to the SSH port, or TLS on the web port where one port serves everything. The TLS there only
/// carries: who is at the other end is decided by the host certificate inside, so any web certificate does.
async fn dial_proxy(profile: &Profile, host: &str) -> Result<Box<dyn Stream>, CliError> {
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

#[cfg(test)]
mod tests {
    use shared_types::HostId;
    use shared_types::resource::NodeSpec;

    use super::*;

    #[test]
    fn only_a_registered_server_without_an_agent_is_spoken_for() {
        let spec = |hostname: &str, addr: &str| NodeSpec {
            hostname: hostname.to_owned(),
            addr: addr.to_owned(),
            ..NodeSpec::default()
        };
        let plain = Node::new_openssh(HostId::random(), spec("db", "10.0.0.7:22"));
        let agent = Node::new(HostId::random().to_string(), spec("web", "10.0.0.8:3022"));
        let both = Node::new(HostId::random().to_string(), spec("db", ""));
        let nodes = [plain.clone(), agent];
        for (host, port, expected) in [
            ("db", 0, true),
            ("DB", 22, true),
            ("10.0.0.7", 3022, true),
            (plain.name(), 22, true),
            ("db", 2222, false),
            ("d", 0, false),
            ("web", 0, false),
            ("other", 0, false),
        ] {
            assert_eq!(is_openssh(&nodes, host, port), expected, "{host}:{port}");
        }
        assert!(!is_openssh(&[plain, both], "db", 0), "it may be the other one");
    }
}

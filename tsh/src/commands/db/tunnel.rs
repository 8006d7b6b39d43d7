//! Listeners on this machine in front of databases.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use local_proxy::{Credentials, DbListener, Keeper, ListenError, Renew, Upstream, bind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shared_cli::{CliError, ExitCode, printable};
use shared_pki::DatabaseRoute;
use shared_types::DbProtocol;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::certs::issue;
pub(crate) use super::certs::store;
use super::reauth::DatabaseRenewal;
pub(crate) use super::reauth::Reauth;
pub(crate) use super::settings::{Settings, local_proxy_reason};
use crate::context::Ctx;

/// A listener that serves.
pub(crate) struct Listening {
    /// Where.
    pub(crate) addr: SocketAddr,
    /// Ends when it was told to stop.
    pub(crate) task: JoinHandle<()>,
}

/// What may go wrong before anything listens.
pub(crate) fn listen_error(error: &ListenError) -> CliError {
    let shown = CliError::from_error(error);
    match error {
        ListenError::Bind { .. } => shown,
        ListenError::NotLoopback(_) => shown
            .exit(ExitCode::Usage)
            .hint("--insecure-listen-anywhere, if everybody who reaches it may use it"),
        ListenError::Twice => shown.exit(ExitCode::Usage),
    }
}

/// The client brings its certificate itself: nothing to renew.
struct Nothing;

#[async_trait]
impl Renew for Nothing {
    async fn renew(&self) -> Result<Credentials, String> {
        Err("the connection carries no certificate".to_owned())
    }
}

fn listening(
    protocol: DbProtocol,
    reauth: &Reauth,
    keeper: Keeper,
    at: SocketAddr,
    stop: &CancellationToken,
) -> Result<Listening, CliError> {
    let (listener, addr) = bind(at).map_err(|error| listen_error(&error))?;
    let profile = reauth.profile();
    let behind = Arc::new(DbListener {
        protocol,
        upstream: Upstream::new(profile.web_proxy_addr.clone(), &profile.cluster),
        keeper,
        notice: Arc::new(|text: &str| eprintln!("{}", printable(text))),
    });
    let task = tokio::spawn(behind.serve(listener, stop.child_token()));
    Ok(Listening { addr, task })
}

fn protocol_of(route: &DatabaseRoute) -> Result<DbProtocol, CliError> {
    route.protocol.parse().map_err(|error| CliError::from_error(&error))
}

/// Listens for clients that need no certificate: it is in memory here and nowhere else.
pub(crate) async fn open(
    ctx: &Ctx,
    reauth: &Arc<Reauth>,
    route: &DatabaseRoute,
    at: SocketAddr,
    stop: &CancellationToken,
) -> Result<Listening, CliError> {
    let protocol = protocol_of(route)?;
    let issued = issue(&ctx.api()?, route).await?;
    let alpn = protocol.alpn().as_bytes().to_vec();
    let renewal = DatabaseRenewal::new(Arc::clone(reauth), route.clone(), alpn);
    let first = renewal.credentials(&issued, &ctx.login()?.authorities).map_err(CliError::new)?;
    listening(protocol, reauth, Keeper::new(first, Box::new(renewal)), at, stop)
}

/// Listens for clients that bring the certificate themselves, in TLS of their own.
pub(crate) fn open_bare(
    ctx: &Ctx,
    reauth: &Arc<Reauth>,
    route: &DatabaseRoute,
    at: SocketAddr,
    stop: &CancellationToken,
) -> Result<Listening, CliError> {
    let protocol = protocol_of(route)?;
    let tls = Upstream::tls(&ctx.login()?.authorities, protocol.alpn().as_bytes(), None)
        .map_err(|error| CliError::from_error(&error))?;
    let keeper = Keeper::new(Credentials { tls, ends: None }, Box::new(Nothing));
    listening(protocol, reauth, keeper, at, stop)
}

/// Any free port of 127.0.0.1.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0))
}

/// `addr` for the listener that is `nth` of several: ports follow each other, any stays any.
pub(crate) fn nth_address(addr: SocketAddr, nth: usize) -> Option<SocketAddr> {
    let ip: IpAddr = addr.ip();
    match addr.port() {
        0 => Some(addr),
        port => Some(SocketAddr::new(ip, port.checked_add(u16::try_from(nth).ok()?)?)),
    }
}

/// A connection is two descriptors, and pools of connections are large.
pub(crate) fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_each_other() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(nth_address(addr("127.0.0.1:5000"), 2), Some(addr("127.0.0.1:5002")));
        assert_eq!(nth_address(addr("127.0.0.1:0"), 2), Some(addr("127.0.0.1:0")));
        assert_eq!(nth_address(addr("[::1]:65535"), 1), None);
    }
}

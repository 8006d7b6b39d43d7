//! `tsh proxy ssh`: OpenSSH's ProxyCommand. The SSH of the user's client passes through as it is.
//!
//! Where the cluster records at the proxy, the proxy needs an agent: it gets the embedded one, which signs for this
//! server and this login only, so that nothing has to be forwarded by the client.

use std::net::SocketAddr;

use shared_cli::{CliError, ExitCode};
use shared_config::Profile;
use shared_ssh::agent::hide_process;
use tokio::io::AsyncWriteExt as _;

use super::{listen, pipes};
use crate::commands::ls;
use crate::commands::ssh::connect::{Wishes, to_proxy};
use crate::commands::ssh::destination::Destination;
use crate::context::Ctx;

/// Sessions that a client may open over one connection, each of which may need a signature: what sshd allows.
const SESSIONS: usize = 10;

/// Shown below the flags.
const HELP: &str = "\
    Without --port, standard input and output are connected to the server, as ProxyCommand wants it. With it, an SSH \
    server listens here and asks for a password that is printed once and holds for this run only, because other users \
    of this machine reach its ports too.";

/// Flags of `tsh proxy ssh`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct SshArgs {
    /// Cluster of the server; only the one you are logged in to
    #[arg(short = 'c', long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// Sign no login that does not name the server: refuses those with an sshd before 8.9
    #[arg(long, env = "TELEPORT_HOSTBOUND_ONLY", value_parser = clap::builder::FalseyValueParser::new())]
    hostbound_only: bool,
    /// Listen on this port of 127.0.0.1 for clients that know no certificates; 0 takes any
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// The same on another loopback address
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Accepted, and without effect: connections are not resumed
    #[arg(long, hide = true)]
    no_resume: bool,
    /// Accepted, and without effect: a login is never begun by a connection
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    relogin: Option<bool>,
    /// Server: name or address, with the login in front and the port behind
    #[arg(value_name = "[USER@]HOST[:PORT]")]
    target: String,
}

/// Connects, and carries bytes until one side ends.
pub(super) async fn run(ctx: &Ctx, args: SshArgs) -> Result<ExitCode, CliError> {
    hide_process();
    let listen = local_proxy::listen_address(args.port, args.listen, false)
        .map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?;
    let profile = ctx.profile()?;
    if let Some(cluster) = args.cluster.as_deref().filter(|name| *name != profile.cluster.as_str())
    {
        let text =
            format!("cluster {cluster:?} is not known; you are logged in to {}", profile.cluster);
        return Err(CliError::new(text).exit(ExitCode::Remote(255)));
    }
    let login = ctx.login()?;
    let (target, port) = split(&args.target);
    let target = short(target, &profile);
    let destination = Destination::parse(&target, ctx.global.login.as_deref(), &login.logins())?;
    let wishes = Wishes { port, forward_agent: false, hostbound_only: args.hostbound_only };
    let way = to_proxy(ctx, &login, &destination, wishes).await?;
    if let Some(at) = listen {
        return listen::run(way, &login, destination, port, at).await;
    }
    (1..SESSIONS).for_each(|_| way.agent.note_session());
    let opened = way.proxy.open_target(&destination.host, port, way.needs_agent).await;
    let stream = match opened {
        Ok(stream) => stream,
        Err(error) => {
            let failed = way.failed(&error);
            if ls::is_ambiguous(&failed) {
                return Err(ls::ambiguous(ctx, destination.host.as_str()).await);
            }
            return Err(failed);
        }
    };
    let (mut input, mut output) = (pipes::stdin(), pipes::stdout());
    let (mut from_server, mut to_server) = tokio::io::split(stream);
    let up = async {
        let _ = pipes::copy(&mut input, &mut to_server).await;
        let _ = to_server.shutdown().await;
        // What the server still says is for the client to hear; its end is the end.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = up => {}
        _ = pipes::copy(&mut from_server, &mut output) => {}
    }
    way.proxy.close().await;
    Ok(ExitCode::Done)
}

/// Host and port of `[user@]host[:port]`; 0 where no port is named. An address with colons and no brackets has its port
/// behind the last of them, as OpenSSH's `%h:%p` writes it.
fn split(target: &str) -> (&str, u16) {
    let Some((host, port)) = target.rsplit_once(':') else { return (target, 0) };
    let name = host.rsplit_once('@').map_or(host, |(_, name)| name);
    let whole = !name.contains(':')
        || (name.starts_with('[') && name.ends_with(']'))
        || name.parse::<std::net::Ipv6Addr>().is_ok();
    match port.parse() {
        Ok(port) if whole => (host, port),
        _ => (target, 0),
    }
}

/// The target without the cluster's or the proxy's name behind it.
fn short(target: &str, profile: &Profile) -> String {
    for name in [profile.cluster.as_str(), profile.name()] {
        let cut = target.strip_suffix(name).and_then(|rest| rest.strip_suffix('.'));
        if let Some(rest) = cut.filter(|rest| !rest.is_empty() && !rest.ends_with('@')) {
            return rest.to_owned();
        }
    }
    target.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_openssh_writes_them() {
        for (text, host, port) in [
            ("root@db", "root@db", 0),
            ("root@db:22", "root@db", 22),
            ("db:3022", "db", 3022),
            ("root@[::1]:22", "root@[::1]", 22),
            ("root@::1:22", "root@::1", 22),
            ("root@[::1]", "root@[::1]", 0),
            ("root@::1", "root@::1", 0),
            ("root@db:x", "root@db:x", 0),
            ("root@db:99999", "root@db:99999", 0),
        ] {
            assert_eq!(split(text), (host, port), "{text}");
        }
    }

    #[test]
    fn cluster_and_proxy_behind_a_name_are_left_out() {
        let profile = Profile::new(
            "gate.test:3080".to_owned(),
            "gate.test:3023".to_owned(),
            "joe".parse().unwrap(),
            "main".parse().unwrap(),
            false,
        );
        for (typed, meant) in [
            ("root@db.main", "root@db"),
            ("root@db.gate.test", "root@db"),
            ("root@db", "root@db"),
            ("root@main", "root@main"),
            ("root@.main", "root@.main"),
            ("root@gate.test", "root@gate.test"),
        ] {
            assert_eq!(short(typed, &profile), meant);
        }
    }
}

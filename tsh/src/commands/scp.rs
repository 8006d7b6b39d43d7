//! `tsh scp`: files to and from a server, over SFTP, through the proxy.
//!
//! The way there is that of `tsh ssh`. A server is not believed: the names it gives are names in the folder that is being
//! filled and nothing else, and nothing is written through a link ([`local`]).

mod download;
mod local;
mod place;
mod remote;
#[cfg(test)]
mod tests;
mod upload;

use shared_cli::{CliError, ExitCode, Progress};
use shared_ssh::agent::hide_process;
use shared_ssh::client::printable;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use self::place::{Direction, Plan};
use super::ssh::connect::{self, Wishes};
use super::ssh::destination::Destination;
use crate::context::Ctx;

/// The deepest tree that is copied; a server can make one without an end.
const MAX_DEPTH: usize = 128;
/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;

/// Shown below the flags.
const HELP: &str = "\
    A remote place is [USER@]HOST:PATH; a local one with a colon in its name is written with a slash in front of it, \
    as in ./a:b. Links inside a tree are followed; what is neither a file nor a folder is left out, with a word.";

/// Flags of `tsh scp`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct ScpArgs {
    /// Copy folders with everything in them
    #[arg(short, long)]
    recursive: bool,
    /// Keep times and modes
    #[arg(short, long)]
    preserve: bool,
    /// Port of the server; the cluster's choice when left out
    #[arg(short = 'P', long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Sign no login that does not name the server: refuses those with an sshd before 8.9
    #[arg(long, env = "TELEPORT_HOSTBOUND_ONLY", value_parser = clap::builder::FalseyValueParser::new())]
    hostbound_only: bool,
    /// What to copy, and where to
    #[arg(value_name = "FROM... TO")]
    places: Vec<String>,
}

/// How things are copied.
#[derive(Debug, Clone, Copy)]
struct How {
    recursive: bool,
    preserve: bool,
    quiet: bool,
}

/// Connects and copies.
pub async fn run(ctx: &Ctx, args: ScpArgs) -> Result<ExitCode, CliError> {
    hide_process();
    let plan = Plan::parse(&args.places)?;
    let login = ctx.login()?;
    let destination = Destination::parse(&plan.host, ctx.global.login.as_deref(), &login.logins())?;
    let wishes =
        Wishes { port: args.port, forward_agent: false, hostbound_only: args.hostbound_only };
    let connected = connect::connect(ctx, &login, &destination, wishes).await?;
    ctx.remember_hosts([destination.host.as_str()].into_iter());
    let how = How { recursive: args.recursive, preserve: args.preserve, quiet: args.quiet };
    let mut report = Report { quiet: how.quiet, failed: false };
    let result = match remote::open(&connected).await {
        Ok(sftp) => {
            let copied = match plan.direction {
                Direction::Upload => upload::all(&sftp, &plan, how, &mut report).await,
                Direction::Download => download::all(&sftp, &plan, how, &mut report).await,
            };
            let _ = sftp.close().await;
            copied
        }
        Err(error) => Err(error),
    };
    connected.target.close().await;
    connected.proxy.close().await;
    result?;
    Ok(if report.failed { ExitCode::Failed } else { ExitCode::Done })
}

/// Copies to the end; answers with how many bytes.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    progress: Option<Progress>,
) -> std::io::Result<u64> {
    let (mut buffer, mut copied) = (vec![0; CHUNK], 0_u64);
    let result = loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) => break to.flush().await,
            Ok(length) => length,
            Err(error) => break Err(error),
        };
        if let Err(error) = to.write_all(buffer.get(..length).unwrap_or_default()).await {
            break Err(error);
        }
        copied += length as u64;
        if let Some(progress) = &progress {
            progress.add(length as u64);
        }
    };
    progress.into_iter().for_each(Progress::finish);
    result.map(|()| copied)
}

/// Tells what was copied and what was not.
struct Report {
    quiet: bool,
    failed: bool,
}

impl Report {
    /// A file is on its way: the bar it has while it is, and on a terminal only.
    fn begins(&self, name: &str, total: Option<u64>) -> Option<Progress> {
        (!self.quiet).then(|| Progress::bytes(&printable(name), total))
    }

    /// A file is there.
    fn copied(&self, name: &str, bytes: u64) {
        if !self.quiet {
            println!("{}  {bytes} bytes", printable(name));
        }
    }

    /// One of them is not; the others still are copied.
    fn failed(&mut self, name: &str, why: &dyn std::fmt::Display) {
        self.failed = true;
        eprintln!("ERROR: {}: {}", printable(name), printable(&why.to_string()));
    }

    /// Left out.
    fn left_out(&mut self, name: &str, why: &str) {
        self.failed = true;
        eprintln!("WARNING: {}: {why}, not copied", printable(name));
    }
}

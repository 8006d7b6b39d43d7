//! A user who asks for channels that are refused, a hundred thousand times on one connection.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use russh::client::{self, Handle};
use shared_testkit::cluster::PASSWORD;
use shared_testkit::process::command;
use shared_testkit::{Guard, Home, run, until};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Held, MORE_KIB, long, sound};
use crate::hostile::agent::{AnyHost, client_config};
use crate::limits::{certificate, key, runtime};
use crate::support::Stage;

/// Asked for at a time.
const AT_ONCE: usize = 64;
/// What a busy machine may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// How often channels are asked for.
const TIMES: usize = 100_000;
/// The same where each refusal is an event on the disk before it is said.
fn recorded_times() -> usize {
    if long() { TIMES } else { TIMES / 20 }
}

async fn logged_in<S>(stream: S, home: &Home, login: &str) -> Result<Handle<AnyHost>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let key = Arc::new(key(home)?.private().clone());
    let mut handle = client::connect_stream(client_config(), stream, AnyHost).await?;
    let trying = handle.authenticate_openssh_cert(login, key, certificate(home)?);
    ensure!(timeout(ANSWER, trying).await??.success(), "the honest login");
    Ok(handle)
}

/// Asks for `direct-tcpip` channels, all of which have to be refused.
async fn ask(handle: Handle<AnyHost>, times: usize) -> Result<()> {
    let handle = Arc::new(handle);
    let left = Arc::new(AtomicUsize::new(times));
    let mut askers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (handle, left) = (Arc::clone(&handle), Arc::clone(&left));
        askers.spawn(async move {
            let more = || {
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            };
            while more().is_ok() {
                let asked = handle.channel_open_direct_tcpip("127.0.0.1", 9, "127.0.0.1", 1);
                match timeout(ANSWER, asked).await.context("an answer")? {
                    Err(russh::Error::ChannelOpenFailure(_)) => {}
                    Err(error) => return Err(anyhow::anyhow!(error).context("ask")),
                    Ok(_) => anyhow::bail!("the channel was opened"),
                }
            }
            Ok(())
        });
    }
    while let Some(asked) = askers.join_next().await {
        asked??;
    }
    // The same connection is still good for what it may do.
    timeout(ANSWER, handle.channel_open_session()).await.context("a session")??;
    Ok(())
}

#[test]
fn refused_channels_leave_nothing_behind() -> Result<()> {
    let _alone = crate::support::alone();
    let mut stage = Stage::new("refused")?;
    let (home, login) = (stage.joe.clone(), stage.login.clone());
    let address = stage.cluster.address("ssh").to_owned();
    sound(&mut stage)?;
    let before = Held::by(&stage.cluster.auth)?;
    let asking = std::thread::spawn(move || -> Result<()> {
        runtime()?.block_on(async {
            let stream = tokio::net::TcpStream::connect(&address).await?;
            ask(logged_in(stream, &home, &login).await?, TIMES).await
        })
    });
    sound(&mut stage)?;
    asking.join().expect("the thread has no panic in it")?;
    before.comes_back(&stage.cluster.auth, MORE_KIB)?;
    sound(&mut stage)
}

/// Somebody who may not forward ports, with an agent; and its socket.
fn narrow_user(stage: &Stage) -> Result<(Home, Guard, std::path::PathBuf)> {
    let _created = stage.cluster.create(
        "kind: role\nversion: v7\nmetadata:\n  name: narrow\nspec:\n  options:\n    port_forwarding: false\n",
    )?;
    let home = stage.cluster.add_user("ann", "access,loopback,narrow", &stage.login)?;
    let (guard, socket) = stage.agent("narrow")?;
    let mut login = home.login_command();
    let _done = run(login.env("SSH_AUTH_SOCK", &socket), format!("{PASSWORD}\n"), 60)?.ok();
    Ok((home, guard, socket))
}

#[test]
fn forwards_that_a_role_forbids_leave_nothing_behind() -> Result<()> {
    let _alone = crate::support::alone();
    let mut stage = Stage::new("narrow")?;
    let (home, _agent, socket) = narrow_user(&stage)?;
    let (login, config) = (stage.login.clone(), stage.ssh_config()?);
    let (port, target) = (stage.cluster.port("ssh"), stage.sshd.port);
    sound(&mut stage)?;
    let before = Held::by(&stage.cluster.auth)?;
    let asked = recorded_times();
    let asking = std::thread::spawn(move || -> Result<()> {
        runtime()?.block_on(async {
            // OpenSSH has the first connection, and the agent; the one inside it is ours.
            let mut ssh = command("ssh", &home.folder);
            ssh.env("SSH_AUTH_SOCK", &socket).arg("-F").arg(config);
            ssh.args(["-o", "ForwardAgent yes", "-p", &port.to_string(), "-s"]);
            ssh.args([format!("{login}@localhost"), format!("proxy:127.0.0.1:{target}")]);
            let mut ssh = tokio::process::Command::from(ssh);
            ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
            let mut hop = ssh.spawn()?;
            let (from, to) = (hop.stdout.take(), hop.stdin.take());
            let stream = tokio::io::join(from.context("stdout")?, to.context("stdin")?);
            ask(logged_in(stream, &home, &login).await?, asked).await
        })
    });
    sound(&mut stage)?;
    asking.join().expect("the thread has no panic in it")?;
    before.comes_back(&stage.cluster.auth, MORE_KIB)?;
    // Each attempt is on record.
    let sql = "select count(*) from port where success = false and \"user\" = 'ann'";
    let told = until("an event for each refusal", 60, || {
        let rows = stage.cluster.query(sql).ok()?;
        let count: usize = rows.first()?.first()?.parse().ok()?;
        (count >= asked).then_some(count)
    })?;
    assert_eq!(told, asked);
    sound(&mut stage)
}

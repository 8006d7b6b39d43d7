//! Where rounds happen: auth and proxy as two processes, a store, a small disk, and networks that can be cut.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::plan::{Fault, Mode};
use super::script::Script;
use crate::cluster::{ClusterOptions, Home};
use crate::forwarder::Forwarder;
use crate::process::Guard;
use crate::pty::Terminal;
use crate::scratch::Scratch;
use crate::stage::Stage;
use crate::stores::ObjectServer;

const BUCKET: &str = "chaos-bucket";
/// The proxy's disk for recordings.
const DISK_MIB: u64 = 64;
/// Shells that read nothing at their start, which may write something.
const SSHD: &str = "MaxStartups 200:30:400\nSetEnv HOME=/nonexistent";
/// Terminals of a session.
const SIZE: (u16, u16) = (80, 24);

/// The processes and what is between them.
pub(super) struct World {
    pub(super) stage: Stage,
    /// Whose sessions are recorded or do not run.
    ann: Home,
    _agent: Guard,
    socket: PathBuf,
    /// The way to the store, where there is one.
    store: Option<Forwarder>,
    _server: Option<(ObjectServer, Scratch)>,
    /// Sessions of rounds that are over.
    pub(super) known: BTreeSet<String>,
}

/// A session and its client.
pub(super) struct Live {
    pub(super) script: Script,
    pub(super) terminal: Terminal,
    /// Whether it may not run unrecorded.
    pub(super) strict: bool,
    pub(super) client: &'static str,
}

impl World {
    pub(super) fn new(mode: Mode) -> Result<Self> {
        let mut options = ClusterOptions {
            recording: Some(mode.name().to_owned()),
            two_processes: true,
            link: Some(Duration::ZERO),
            // What is left behind by a proxy that is away is finished within seconds.
            auth_extra: "  upload_completer_period: 1s\n  session_tracker_ttl: 9s\n".to_owned(),
            proxy_extra: "  recording_wait: 3s\n".to_owned(),
            ..ClusterOptions::default()
        };
        let scratch = Scratch::new("chaosstore")?;
        let server = ObjectServer::start_s3(&scratch.folder("s3")?)?;
        let store = match &server {
            Some(server) => {
                server.make_bucket(BUCKET, true)?;
                let way = Forwarder::start(&server.address(), Duration::ZERO)?;
                ObjectServer::keeps_recordings(BUCKET, &way.address(), &mut options);
                Some(way)
            }
            None => None,
        };
        let stage = Stage::with_small_disk("chaos", DISK_MIB, &options, SSHD)?;
        let ann = stage.strict_user()?;
        let (agent, socket) = stage.agent_of_joe("agent")?;
        Ok(Self {
            stage,
            ann,
            _agent: agent,
            socket,
            store,
            _server: server.map(|server| (server, scratch)),
            known: BTreeSet::new(),
        })
    }

    /// Whether this fault can be had here.
    pub(super) fn has(&self, fault: Fault) -> bool {
        match fault {
            Fault::StoreAway(_) => self.store.is_some(),
            Fault::DiskFull => self.stage.disk.is_some(),
            _ => true,
        }
    }

    /// The file whose appearance ends the sessions of a round.
    pub(super) fn end_file(&self, round: u64) -> PathBuf {
        self.stage.scratch.path().join(format!("end-{round}"))
    }

    /// Starts the sessions of a round: by tsh and by ssh, with a terminal and without, some strict, one that writes
    /// much.
    pub(super) fn sessions(&self, round: u64, count: usize) -> Result<Vec<Live>> {
        let end = self.end_file(round);
        let mut live = Vec::new();
        for number in 0..count {
            let script = Script::new(format!("r{round}s{number}"), number == 0, &end);
            let line = script.command();
            let (client, strict, mut command) = self.client(number, &line)?;
            let terminal = Terminal::start(&mut command, SIZE.0, SIZE.1)?;
            live.push(Live { script, terminal, strict, client });
        }
        for live in &live {
            live.terminal.expect(&live.script.first(), 0).context(live.client)?;
        }
        Ok(live)
    }

    fn client(&self, number: usize, line: &str) -> Result<(&'static str, bool, Command)> {
        Ok(match number % 5 {
            0 => ("tsh with a terminal", false, self.stage.tsh_ssh(&["-t"], &[line])),
            1 => ("tsh without a terminal", false, self.stage.tsh_ssh(&[], &[line])),
            2 => ("ssh with a terminal", false, self.stage.ssh(&self.socket, &["-tt"], &[line])?),
            3 => ("ssh without a terminal", false, self.stage.ssh(&self.socket, &["-T"], &[line])?),
            _ => ("tsh of a strict user", true, self.stage.tsh_ssh_of(&self.ann, &["-t"], &[line])),
        })
    }

    /// Lets it happen.
    pub(super) fn begin(&mut self, fault: Fault) -> Result<()> {
        let cluster = &mut self.stage.cluster;
        match fault {
            Fault::AuthKilled => cluster.auth.kill()?,
            Fault::AuthFrozen => cluster.auth.signal(Signal::STOP)?,
            Fault::ProxyKilled => cluster.proxy.as_mut().context("a proxy")?.kill()?,
            Fault::BothKilled => {
                cluster.auth.signal(Signal::KILL)?;
                cluster.proxy.as_mut().context("a proxy")?.kill()?;
                cluster.auth.kill()?;
            }
            Fault::StoreAway(how) => self.store.as_ref().context("a store")?.cut(how),
            Fault::DiskFull => self.stage.disk.as_ref().context("a small disk")?.fill()?,
            Fault::NetworkCut(how) => self.link()?.cut(how),
        }
        Ok(())
    }

    /// Lets it be over.
    pub(super) fn heal(&mut self, fault: Fault) -> Result<()> {
        let cluster = &mut self.stage.cluster;
        match fault {
            Fault::AuthKilled => cluster.restart_auth()?,
            Fault::AuthFrozen => cluster.auth.signal(Signal::CONT)?,
            Fault::ProxyKilled => cluster.restart_proxy()?,
            Fault::BothKilled => {
                cluster.restart_auth()?;
                cluster.restart_proxy()?;
            }
            Fault::StoreAway(_) => self.store.as_ref().context("a store")?.restore(),
            Fault::DiskFull => self.stage.disk.as_ref().context("a small disk")?.free()?,
            Fault::NetworkCut(_) => self.link()?.restore(),
        }
        Ok(())
    }

    fn link(&self) -> Result<&Forwarder> {
        self.stage.cluster.link.as_ref().context("a way from the proxy to auth")
    }
}

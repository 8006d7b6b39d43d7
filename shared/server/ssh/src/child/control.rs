//! The hold on a running child: size, signals, its end.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child as Process;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::group::{self, Member};
use super::tty::Master;

/// How long programs may take to tidy up after `HUP`.
const GRACE: Duration = Duration::from_secs(5);

/// Signals that wait to be sent; a client that sends more, faster, loses some.
const MAX_SIGNALS: usize = 16;

/// How a program ended, as RFC 4254 §6.10 wants it told: a status or a signal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exit {
    /// Exit status.
    pub status: Option<u32>,
    /// Name of the signal that ended it, without `SIG`.
    pub signal: Option<String>,
    /// Whether it left a core.
    pub core: bool,
}

/// A signal that RFC 4254 §6.10 does not name.
#[derive(Debug, thiserror::Error)]
#[error("no signal is called {0:?}")]
pub struct UnknownSignal(String);

/// Controls a running child. When the last clone is dropped, the child is ended as by [`ChildControl::hangup`].
#[derive(Debug, Clone)]
pub struct ChildControl {
    signals: mpsc::Sender<Signal>,
    hangup: CancellationToken,
    exit: watch::Receiver<Option<Exit>>,
    tty: Option<Weak<Master>>,
}

/// Takes a process that leads a session of its own; `user` is its login's.
pub(super) fn keep(
    process: Process,
    pid: Pid,
    user: u32,
    tty: Option<&Arc<Master>>,
) -> ChildControl {
    let (signals, ordered) = mpsc::channel(MAX_SIGNALS);
    let (report, exit) = watch::channel(None);
    let hangup = CancellationToken::new();
    tokio::spawn(Keeper { process, pid, user }.run(ordered, hangup.clone(), report));
    ChildControl { signals, hangup, exit, tty: tty.map(Arc::downgrade) }
}

impl ChildControl {
    /// Changes the terminal's size: characters, then pixels. Without a terminal, nothing happens.
    pub fn resize(&self, columns: u32, rows: u32, pixels: (u32, u32)) {
        if let Some(tty) = self.tty.as_ref().and_then(Weak::upgrade)
            && let Err(error) = tty.resize(columns, rows, pixels)
        {
            tracing::debug!(%error, "terminal keeps its size");
        }
    }

    /// Sends a signal (RFC 4254 §6.9) to the program's process group, as far as the login itself may.
    pub fn signal(&self, name: &str) -> Result<(), UnknownSignal> {
        let signal = NAMES.iter().find(|(known, _)| *known == name);
        let (_, signal) = signal.ok_or_else(|| UnknownSignal(name.to_owned()))?;
        // A full queue is a client's own doing, and a child that ended takes no signals.
        let _ = self.signals.try_send(*signal);
        Ok(())
    }

    /// Ends the program's session: `HUP` to all of it, and after some seconds `KILL` to its process group. Jobs of an
    /// interactive shell that ignore `HUP` (`nohup`) stay, as users of any SSH server expect.
    pub fn hangup(&self) {
        self.hangup.cancel();
    }

    /// Waits until the program has ended, and says how. Several may wait, at any time.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_default(),
            // The runtime is going down, and the process with it.
            Err(_) => killed(),
        }
    }
}

/// Owns the process: as long as the keeper has not waited for it, its number is nobody else's.
struct Keeper {
    process: Process,
    pid: Pid,
    user: u32,
}

impl Keeper {
    async fn run(
        mut self,
        mut signals: mpsc::Receiver<Signal>,
        hangup: CancellationToken,
        report: watch::Sender<Option<Exit>>,
    ) {
        let exit = loop {
            tokio::select! {
                biased;
                status = self.process.wait() => break told(status),
                () = hangup.cancelled() => break self.end().await,
                signal = signals.recv() => match signal {
                    Some(signal) => self.signal(signal).await,
                    None => break self.end().await,
                },
            }
        };
        report.send_replace(Some(exit));
    }

    /// The program may have started others with more rights than its login has: those are not the login's to signal.
    async fn signal(&self, signal: Signal) {
        let user = self.user;
        group::signal(&group::own_group(self.session().await), signal, Some(user));
    }

    async fn session(&self) -> Vec<Member> {
        let pid = self.pid;
        tokio::task::spawn_blocking(move || group::session(pid)).await.unwrap_or_default()
    }

    async fn end(&mut self) -> Exit {
        let session = self.session().await;
        for signal in [Signal::HUP, Signal::CONT] {
            group::signal(&session, signal, None);
        }
        let deadline = tokio::time::Instant::now() + GRACE;
        let exit = match tokio::time::timeout_at(deadline, self.process.wait()).await {
            Ok(status) => told(status),
            Err(_) => {
                // All of it, with those who came since.
                let _ = kill_process_group(self.pid, Signal::KILL);
                told(self.process.wait().await)
            }
        };
        let stubborn = group::own_group(session);
        tokio::spawn(async move {
            tokio::time::sleep_until(deadline).await;
            group::signal(&stubborn, Signal::KILL, None);
        });
        exit
    }
}

fn told(status: std::io::Result<ExitStatus>) -> Exit {
    match status {
        Ok(status) => match status.signal() {
            Some(signal) => Exit {
                status: None,
                signal: Some(name(signal).to_owned()),
                core: status.core_dumped(),
            },
            None => {
                Exit { status: status.code().map(i32::cast_unsigned), signal: None, core: false }
            }
        },
        Err(error) => {
            tracing::warn!(%error, "how a program ended is not known");
            killed()
        }
    }
}

fn killed() -> Exit {
    Exit { status: None, signal: Some("KILL".to_owned()), core: false }
}

/// The signals of RFC 4254 §6.10.
const NAMES: &[(&str, Signal)] = &[
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

/// The RFC's name; clients know `SIG@openssh.com` for all others.
fn name(signal: i32) -> &'static str {
    NAMES
        .iter()
        .find(|(_, known)| known.as_raw() == signal)
        .map_or("SIG@openssh.com", |(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_told_as_the_rfc_wants() {
        let exit = |raw| told(Ok(ExitStatus::from_raw(raw)));
        assert_eq!(exit(0), Exit { status: Some(0), signal: None, core: false });
        assert_eq!(exit(200 << 8), Exit { status: Some(200), signal: None, core: false });
        assert_eq!(exit(9), killed());
        assert_eq!(exit(11 | 0x80), Exit { status: None, signal: Some("SEGV".into()), core: true });
        assert_eq!(exit(7).signal.as_deref(), Some("SIG@openssh.com"));
    }
}

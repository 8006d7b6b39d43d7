//! Servers without a host certificate, in clusters that allow them: the user is asked once, and the key
//! is kept for the host and port. Nothing is accepted that the user has not seen.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rustix::termios::{QueueSelector, tcflush};
use shared_cli::{CliError, ExitCode, Prompter, printable};
use shared_pki::ssh_key::{HashAlg, PublicKey};
use shared_ssh::agent::{HostKeyRefusal, HostKeys};
use shared_types::{ClusterName, HostName};

use super::pins::{PinError, PinFile, PinName, Pinned};
use crate::commands::agent::quoted;

/// Where the proxy connects when no port was typed.
const CLUSTERS_PORT: u16 = 3022;

/// Why a plain key is not accepted.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "host key of {host} port {port} has changed: the host shows {shown}, but {} line {line} has {kept}",
        path.display()
    )]
    Changed { host: String, port: u16, shown: String, kept: String, path: PathBuf, line: usize },
    #[error("host key of {host} port {port} is revoked: {shown}, {} line {line}", path.display())]
    Revoked { host: String, port: u16, shown: String, path: PathBuf, line: usize },
    #[error("host key of {host} port {port} was not accepted: {shown}")]
    Declined { host: String, port: u16, shown: String },
    #[error(
        "host key of {host} port {port} is not known here, and there is no terminal to ask on: {shown}"
    )]
    NoTerminal { host: String, port: u16, shown: String },
    #[error(transparent)]
    File(#[from] PinError),
}

/// Decides about one host's plain key, for one run.
#[derive(Debug)]
pub(super) struct AskingHostKeys {
    asker: Arc<Asker>,
    /// Whether a question may be asked: one at a time, none after a no, and none once a session runs.
    may_ask: tokio::sync::Mutex<bool>,
    refused: Mutex<Option<CliError>>,
}

#[derive(Debug)]
struct Asker {
    host: String,
    port: u16,
    cluster: String,
    name: PinName,
    file: PinFile,
}

impl AskingHostKeys {
    /// For `host` at `port` (0 when none was typed), with its answers kept at `path`.
    pub(super) fn new(
        host: &HostName,
        port: u16,
        cluster: &ClusterName,
        path: PathBuf,
    ) -> Arc<Self> {
        let port = if port == 0 { CLUSTERS_PORT } else { port };
        let asker = Asker {
            host: host.to_string(),
            port,
            cluster: cluster.to_string(),
            name: PinName::new(host, port),
            file: PinFile::at(path),
        };
        Arc::new(Self {
            asker: Arc::new(asker),
            may_ask: tokio::sync::Mutex::new(true),
            refused: Mutex::default(),
        })
    }

    /// What was refused last, for the user; the server only saw a failure.
    pub(super) fn refusal(&self) -> Option<CliError> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn decide(&self, key: &PublicKey) -> Result<(), Refused> {
        let mut may_ask = self.may_ask.lock().await;
        match self.asker.file.look(&self.asker.name, key)? {
            Pinned::Unknown if *may_ask => {}
            found => return self.asker.judge(found, key),
        }
        let (asker, asked) = (Arc::clone(&self.asker), key.clone());
        // A person takes their time: not on a thread that serves connections.
        let answer = tokio::task::spawn_blocking(move || asker.ask(&asked)).await;
        let verdict = answer.unwrap_or_else(|_| Err(self.asker.declined(key)));
        *may_ask = verdict.is_ok();
        verdict
    }
}

#[async_trait]
impl HostKeys for AskingHostKeys {
    async fn accept(&self, key: &PublicKey) -> Result<(), HostKeyRefusal> {
        let Err(refused) = self.decide(key).await else { return Ok(()) };
        let shown = CliError::from_error(&refused).exit(ExitCode::Remote(255));
        let shown = match self.asker.hint(&refused) {
            Some(hint) => shown.hint(hint),
            None => shown,
        };
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Err(HostKeyRefusal(refused.to_string()))
    }

    async fn settle(&self) {
        *self.may_ask.lock().await = false;
    }
}

impl Asker {
    fn ask(&self, key: &PublicKey) -> Result<(), Refused> {
        let (host, port) = (printable(&self.host), self.port);
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            let (host, shown) = (self.host.clone(), shown(key));
            return Err(Refused::NoTerminal { host, port, shown });
        }
        // What was typed before the question is no answer to it.
        tcflush(&stdin, QueueSelector::IFlush).ok();
        eprintln!(
            "Server {host}, port {port}, has no host certificate of cluster {}.",
            printable(&self.cluster)
        );
        eprintln!("  key type:    {}", key.algorithm());
        eprintln!("  fingerprint: {}", key.fingerprint(HashAlg::Sha256));
        eprintln!("On the server, 'ssh-keygen -lf' with the path of its host key shows the same.");
        match Prompter.confirm(&format!("Keep this key for {host} port {port}, and connect?")) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(self.declined(key)),
        }
        let kept = self.file.keep(&self.name, key)?;
        self.judge(kept, key)?;
        eprintln!("Kept in {}.", self.file.path().display());
        Ok(())
    }

    fn judge(&self, found: Pinned, key: &PublicKey) -> Result<(), Refused> {
        let (host, port, path) = (self.host.clone(), self.port, self.file.path().to_owned());
        let shown_key = shown(key);
        match found {
            Pinned::Same => Ok(()),
            Pinned::Unknown => Err(self.declined(key)),
            Pinned::Other { line, revoked: true, .. } => {
                Err(Refused::Revoked { host, port, shown: shown_key, path, line })
            }
            Pinned::Other { line, kept, revoked: false } => {
                let kept = shown(&kept);
                Err(Refused::Changed { host, port, shown: shown_key, kept, path, line })
            }
        }
    }

    fn declined(&self, key: &PublicKey) -> Refused {
        Refused::Declined { host: self.host.clone(), port: self.port, shown: shown(key) }
    }

    /// The next thing to do.
    fn hint(&self, refused: &Refused) -> Option<String> {
        let path = quoted(&self.file.path().to_string_lossy());
        match refused {
            Refused::Changed { .. } => Some(format!(
                "somebody may be between you and the server; if it really has a new key, forget the old one: \
                 ssh-keygen -R {} -f {path}",
                quoted(self.name.as_str())
            )),
            Refused::NoTerminal { .. } => {
                Some("connect once from a terminal and compare the fingerprint".to_owned())
            }
            Refused::Revoked { .. } | Refused::Declined { .. } | Refused::File(_) => None,
        }
    }
}

/// A key as people compare it.
fn shown(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_pki::KeyPair;

    fn key() -> PublicKey {
        KeyPair::generate().unwrap().public().clone()
    }

    fn deciding(path: &std::path::Path) -> Arc<AskingHostKeys> {
        let (host, cluster) = ("db".parse().unwrap(), "main".parse().unwrap());
        AskingHostKeys::new(&host, 0, &cluster, path.to_owned())
    }

    /// Tests have no terminal, or must not read it: a pin decides, and nothing else does.
    #[tokio::test]
    async fn a_kept_key_is_accepted_and_a_changed_one_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("with space");
        let (kept, other) = (key(), key());
        let keys = deciding(&path);
        PinFile::at(path.clone()).keep(&PinName::new(&"db".parse().unwrap(), 3022), &kept).unwrap();
        assert!(keys.accept(&kept).await.is_ok());
        assert!(keys.refusal().is_none());
        let refused = keys.accept(&other).await.unwrap_err().to_string();
        let place = format!("{} line 1", path.display());
        for part in ["has changed", &place, &shown(&kept), &shown(&other)] {
            assert!(refused.contains(part), "{part} is missing in {refused}");
        }
        let shown = keys.refusal().unwrap();
        assert_eq!((shown.message(), shown.exit_code().code()), (refused.as_str(), 255));
        let mut text = Vec::new();
        shared_cli::report(&shown, false, &mut text).unwrap();
        let remedy = format!("ssh-keygen -R '[db]:3022' -f '{}'", path.display());
        assert!(String::from_utf8(text).unwrap().contains(&remedy));
    }

    #[tokio::test]
    async fn nothing_is_asked_once_a_session_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pins");
        let keys = deciding(&path);
        keys.settle().await;
        let refused = keys.accept(&key()).await.unwrap_err();
        assert!(refused.to_string().contains("was not accepted"), "{refused}");
        let kept = key();
        PinFile::at(path).keep(&PinName::new(&"db".parse().unwrap(), 3022), &kept).unwrap();
        assert!(keys.accept(&kept).await.is_ok());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_understood_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pins");
        std::fs::write(&path, "what?\n").unwrap();
        let refused = deciding(&path).accept(&key()).await.unwrap_err();
        assert!(refused.to_string().contains("pins line 1"), "{refused}");
    }
}

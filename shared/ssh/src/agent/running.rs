//! Loads key and certificate into an ssh-agent that is already running, and takes them out again.
//!
//! Agents that cannot hold certificates (gnome-keyring, gpg-agent) are told apart by what they answer
//! and, for the message, by where their socket lies. That is a [`Loaded::Refused`], not an error.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use russh::keys::ssh_key::Certificate;
use shared_pki::parse_certificate;
use shared_types::UserName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::key::{AgentKey, KeyError};
use crate::wire::{
    AddCertificate, IdentityEntry, MAX_MESSAGE, Reply, Request, WireError, parse_reply,
};

/// An agent that does not answer is as good as none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The comment under which a user's certificate is kept.
#[must_use]
pub fn agent_comment(user: &UserName) -> String {
    format!("teleport:{user}")
}

/// Trouble with a running agent.
#[derive(Debug, thiserror::Error)]
pub enum RunningAgentError {
    /// Cannot be reached.
    #[error("connect to ssh-agent at {}", path.display())]
    Connect {
        /// `SSH_AUTH_SOCK`.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("talk to ssh-agent")]
    Talk(#[source] io::Error),
    /// No answer in time.
    #[error("ssh-agent did not answer in time")]
    Timeout,
    /// An answer that is none.
    #[error("answer of ssh-agent")]
    Answer(#[source] WireError),
    /// The key cannot be sent.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// How loading went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// The agent lists the certificate.
    Yes,
    /// `SSH_AUTH_SOCK` is not set.
    NoAgent,
    /// The agent does not take certificates; the text is a warning for the user.
    Refused(String),
}

/// A connection to a running agent.
#[derive(Debug)]
pub struct RunningAgent {
    stream: UnixStream,
    path: PathBuf,
}

impl RunningAgent {
    /// Connects to `SSH_AUTH_SOCK`; none when it is not set.
    pub async fn from_env() -> Result<Option<Self>, RunningAgentError> {
        match std::env::var_os("SSH_AUTH_SOCK") {
            Some(path) if !path.is_empty() => Self::connect(Path::new(&path)).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Connects to an agent's socket.
    pub async fn connect(path: &Path) -> Result<Self, RunningAgentError> {
        match tokio::time::timeout(ANSWER_TIMEOUT, UnixStream::connect(path)).await {
            Ok(Ok(stream)) => Ok(Self { stream, path: path.to_owned() }),
            Ok(Err(source)) => Err(RunningAgentError::Connect { path: path.to_owned(), source }),
            Err(_) => Err(RunningAgentError::Timeout),
        }
    }

    /// The bare connection, to pass an agent channel on to.
    #[must_use]
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// Replaces an older certificate of the same user and authority, adds this one until it ends, and
    /// looks whether the agent really has it.
    pub async fn load(
        &mut self,
        key: &AgentKey,
        user: &UserName,
        now: DateTime<Utc>,
    ) -> Result<Loaded, RunningAgentError> {
        self.unload(key.certificate(), user).await?;
        let comment = agent_comment(user);
        let private_fields = key.private_fields()?;
        let request = AddCertificate {
            algorithm: key.algorithm(),
            certificate: key.blob(),
            private_fields: &private_fields,
            comment: &comment,
            lifetime: lifetime(key.certificate(), now),
        }
        .encode();
        let listed = match self.ask(&request).await? {
            Reply::Success => self.list().await?.iter().any(|entry| entry.key == key.blob()),
            _ => false,
        };
        Ok(if listed { Loaded::Yes } else { Loaded::Refused(self.refusal_text()) })
    }

    /// Removes what [`RunningAgent::load`] added for this user under the authority of `certificate`.
    pub async fn unload(
        &mut self,
        certificate: &Certificate,
        user: &UserName,
    ) -> Result<usize, RunningAgentError> {
        let comment = agent_comment(user);
        let mut removed = 0;
        for entry in self.list().await? {
            if entry.comment != comment {
                continue;
            }
            let ours = parse_certificate(&entry.key)
                .is_ok_and(|held| held.signature_key() == certificate.signature_key());
            if ours && self.ask(&Request::encode_remove(&entry.key)).await? == Reply::Success {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// What the agent holds.
    pub async fn list(&mut self) -> Result<Vec<IdentityEntry>, RunningAgentError> {
        match self.ask(&Request::encode_list()).await? {
            Reply::Identities(entries) => Ok(entries),
            _ => Ok(Vec::new()),
        }
    }

    async fn ask(&mut self, message: &[u8]) -> Result<Reply, RunningAgentError> {
        let exchange = async {
            // In two writes: a frame would be one more copy of a private key.
            let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
            self.stream.write_all(&len.to_be_bytes()).await?;
            self.stream.write_all(message).await?;
            let len = self.stream.read_u32().await? as usize;
            if len > MAX_MESSAGE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "message is too long"));
            }
            let mut answer = Vec::new();
            (&mut self.stream).take(len as u64).read_to_end(&mut answer).await?;
            Ok(answer)
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange)
            .await
            .map_err(|_| RunningAgentError::Timeout)?
            .map_err(RunningAgentError::Talk)?;
        parse_reply(&answer).map_err(RunningAgentError::Answer)
    }

    fn refusal_text(&self) -> String {
        let name = agent_name(&self.path);
        format!(
            "{name} does not take certificates, so ssh will not find yours there; start ssh-agent, or use \
             'tsh agent', or pass --no-use-local-ssh-agent"
        )
    }
}

/// Loads into the agent of `SSH_AUTH_SOCK`, if there is one.
pub async fn load_into_running_agent(
    key: &AgentKey,
    user: &UserName,
) -> Result<Loaded, RunningAgentError> {
    match RunningAgent::from_env().await? {
        Some(mut agent) => agent.load(key, user, Utc::now()).await,
        None => Ok(Loaded::NoAgent),
    }
}

/// Removes from the agent of `SSH_AUTH_SOCK`, if there is one, what was loaded for this user.
pub async fn unload_from_running_agent(
    certificate: &Certificate,
    user: &UserName,
) -> Result<usize, RunningAgentError> {
    match RunningAgent::from_env().await? {
        Some(mut agent) => agent.unload(certificate, user).await,
        None => Ok(0),
    }
}

fn agent_name(path: &Path) -> &'static str {
    let path = path.to_string_lossy();
    if path.contains("gnupg") || path.contains("gpg-agent") {
        "gpg-agent"
    } else if path.contains("keyring") {
        "gnome-keyring"
    } else {
        "the running ssh-agent"
    }
}

fn lifetime(certificate: &Certificate, now: DateTime<Utc>) -> Option<u32> {
    let end = certificate.valid_before();
    if end == u64::MAX {
        return None;
    }
    let now = u64::try_from(now.timestamp()).unwrap_or(0);
    // Zero would mean "for ever" to some agents.
    Some(u32::try_from(end.saturating_sub(now)).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
#[path = "running_tests.rs"]
mod tests;

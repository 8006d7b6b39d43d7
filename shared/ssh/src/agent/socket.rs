//! The socket of `tsh agent`: a folder only its owner can enter, and a look at who connects.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::serve::serve;
use super::socket_session::SocketAgent;

/// Connections at a time; `ssh` holds one per login.
const MAX_CONNECTIONS: usize = 128;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The folder cannot be made.
    #[error("create folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The folder belongs to somebody else or lets others in.
    #[error("folder {} must belong to you and have mode 0700", path.display())]
    Open {
        /// Which.
        path: PathBuf,
    },
    /// The socket cannot be bound.
    #[error("listen on {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Accepting connections went wrong.
    #[error("accept a connection")]
    Accept(#[source] io::Error),
}

/// A bound socket; its files go when it is dropped.
#[derive(Debug)]
pub struct AgentSocket {
    listener: UnixListener,
    path: PathBuf,
    folder: Option<PathBuf>,
}

impl AgentSocket {
    /// Binds in a new folder of its own below the user's runtime folder, or below the one for temporary
    /// files.
    pub fn in_new_folder() -> Result<Self, SocketError> {
        let base = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute() && path.is_dir())
            .unwrap_or_else(std::env::temp_dir);
        let folder = base.join(format!("tsh-agent-{:016x}", rand::random::<u64>()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|source| SocketError::Folder { path: folder.clone(), source })?;
        let mut socket = Self::at(&folder.join("agent.sock"))?;
        socket.folder = Some(folder);
        Ok(socket)
    }

    /// Binds at a path whose folder is the user's own.
    pub fn at(path: &Path) -> Result<Self, SocketError> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let meta = std::fs::metadata(folder)
            .map_err(|source| SocketError::Folder { path: folder.to_owned(), source })?;
        let own = meta.uid() == rustix::process::getuid().as_raw();
        if !own || meta.permissions().mode() & 0o077 != 0 {
            return Err(SocketError::Open { path: folder.to_owned() });
        }
        let listener = UnixListener::bind(path)
            .map_err(|source| SocketError::Listen { path: path.to_owned(), source })?;
        Ok(Self { listener, path: path.to_owned(), folder: None })
    }

    /// Where it listens; what `SSH_AUTH_SOCK` is set to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until told to stop.
    pub async fn run(
        &self,
        agent: Arc<SocketAgent>,
        stop: CancellationToken,
    ) -> Result<(), SocketError> {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                accepted = self.listener.accept() => accepted,
            };
            let (stream, _) = accepted.map_err(SocketError::Accept)?;
            if !is_own(&stream) {
                tracing::warn!("agent refused a connection of another user");
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!("agent refused a connection: too many at a time");
                continue;
            };
            let (channel, stop) = (agent.channel(), stop.clone());
            tokio::spawn(async move {
                let _place = place;
                tokio::select! {
                    () = stop.cancelled() => {}
                    served = serve(stream, channel) => if let Err(error) = served {
                        tracing::debug!(%error, "agent connection");
                    }
                }
            });
        }
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        // The files are gone already, or stay behind: nothing else could be done about either.
        let _ = std::fs::remove_file(&self.path);
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn is_own(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::getuid().as_raw())
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;

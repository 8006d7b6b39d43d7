//! The socket at which programs of a session find the forwarded agent.
//!
//! The daemon is root and works in a folder that others can write to. The socket's own folder is made by mkdir with a
//! name nobody can guess, is entered once and named only by its descriptor from then on; it goes to the login last,
//! when everything in it is done. No link is followed, nothing that was there before is used.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use shared_types::Login;
use tokio::net::{UnixListener, UnixStream};

use super::account::{Account, Refusal};

/// Where every login may go.
const BASE: &str = "/tmp";

const NAME: &str = "agent.sock";

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum AgentSocketError {
    /// The host does not know the login.
    #[error("agent socket for {login}: {reason}")]
    Refused {
        /// The login asked for.
        login: Login,
        /// Why.
        reason: Refusal,
    },
    /// The system does not let us.
    #[error("{step} for an agent socket")]
    System {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A socket that only one login can reach; gone when dropped.
#[derive(Debug)]
pub struct AgentSocket {
    listener: UnixListener,
    user: u32,
    place: Place,
}

/// Makes a socket for programs of `login`.
pub async fn agent_socket(login: &Login) -> Result<AgentSocket, AgentSocketError> {
    let login = login.clone();
    let make = move || {
        let account = Account::lookup(&login).map_err(system("look the login up"))?;
        let account =
            account.ok_or(AgentSocketError::Refused { login, reason: Refusal::NoAccount })?;
        let (listener, place) = make(Path::new(BASE), account.uid.as_raw(), account.gid.as_raw())?;
        Ok((account.uid.as_raw(), listener, place))
    };
    let made = tokio::task::spawn_blocking(make).await;
    let (user, listener, place) = made.map_err(|error| system("wait")(error.into()))??;
    let listener = UnixListener::from_std(listener).map_err(system("watch a socket"))?;
    Ok(AgentSocket { listener, user, place })
}

impl AgentSocket {
    /// Value for `SSH_AUTH_SOCK`.
    pub fn path(&self) -> &Path {
        &self.place.socket
    }

    /// The next program that wants the agent. Others than the login (and root) are sent away.
    pub async fn accept(&self) -> std::io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == self.user || peer.uid() == 0 => return Ok(stream),
                Ok(peer) => tracing::warn!(user = peer.uid(), "stranger at an agent socket"),
                Err(error) => tracing::debug!(%error, "caller of an agent socket is not known"),
            }
        }
    }
}

/// Folder and socket; removed with it.
#[derive(Debug)]
struct Place {
    folder: OwnedFd,
    folder_path: PathBuf,
    socket: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        // The folder is the login's: what it did there is its own affair, and nothing but our names is touched.
        let _ = rustix::fs::unlinkat(&self.folder, NAME, AtFlags::empty());
        let _ = rustix::fs::unlinkat(CWD, &self.folder_path, AtFlags::REMOVEDIR);
    }
}

fn make(base: &Path, user: u32, group: u32) -> Result<(StdListener, Place), AgentSocketError> {
    let folder_path = base.join(format!("teleport-{}", hex::encode(rand::random::<[u8; 12]>())));
    rustix::fs::mkdirat(CWD, &folder_path, Mode::RWXU).map_err(step("make a folder"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, &folder_path, flags, Mode::empty())
        .map_err(step("open the folder"))?;
    let stat = rustix::fs::fstat(&folder).map_err(step("look at the folder"))?;
    if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
        return Err(system("make a folder")(std::io::Error::other(
            "somebody else's is in its place",
        )));
    }
    let socket = folder_path.join(NAME);
    let place = Place { folder, folder_path, socket };
    let pinned = format!("/proc/self/fd/{}/{NAME}", place.folder.as_fd().as_raw_fd());
    let listener = StdListener::bind(pinned).map_err(system("bind"))?;
    listener.set_nonblocking(true).map_err(system("bind"))?;
    let (owner, owner_group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    rustix::fs::chmodat(&place.folder, NAME, Mode::RUSR | Mode::WUSR, AtFlags::empty())
        .map_err(step("close the socket to others"))?;
    rustix::fs::chownat(&place.folder, NAME, owner, owner_group, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(step("give the socket to the login"))?;
    rustix::fs::fchown(&place.folder, owner, owner_group)
        .map_err(step("give the folder to the login"))?;
    Ok((listener, place))
}

fn step(step: &'static str) -> impl FnOnce(rustix::io::Errno) -> AgentSocketError {
    move |error| system(step)(error.into())
}

fn system(step: &'static str) -> impl FnOnce(std::io::Error) -> AgentSocketError {
    move |source| AgentSocketError::System { step, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[tokio::test]
    async fn the_login_owns_it_and_it_goes() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can give files away");
            return;
        }
        let login = Login::new("nobody").unwrap();
        let socket = agent_socket(&login).await.unwrap();
        let path = socket.path().to_owned();
        let folder = path.parent().unwrap().to_owned();
        let owner = Account::lookup(&login).unwrap().unwrap().uid.as_raw();
        for (path, mode) in [(&folder, 0o700), (&path, 0o600)] {
            let meta = path.symlink_metadata().unwrap();
            assert_eq!((meta.uid(), meta.mode() & 0o777), (owner, mode), "{path:?}");
        }
        let (mine, theirs) = tokio::join!(UnixStream::connect(&path), socket.accept());
        mine.unwrap();
        theirs.unwrap();
        drop(socket);
        assert!(folder.symlink_metadata().is_err());
    }

    #[tokio::test]
    async fn what_the_login_did_there_stays_its_own() {
        let base = tempfile::tempdir().unwrap();
        let target = base.path().join("target");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join(NAME), "kept").unwrap();
        let me = rustix::process::geteuid().as_raw();
        let (_listener, place) =
            make(base.path(), me, rustix::process::getegid().as_raw()).unwrap();
        let folder = place.folder_path.clone();
        std::fs::rename(&folder, base.path().join("away")).unwrap();
        std::os::unix::fs::symlink(&target, &folder).unwrap();
        drop(place);
        assert_eq!(std::fs::read_to_string(target.join(NAME)).unwrap(), "kept");
        assert!(folder.symlink_metadata().unwrap().is_symlink());
    }

    #[tokio::test]
    async fn no_login_no_socket() {
        let error = agent_socket(&Login::new("no-such-login-here").unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), "agent socket for no-such-login-here: no such account");
    }
}

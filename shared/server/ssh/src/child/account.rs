//! Accounts of the host, and whether they may be used.
//!
//! Names are looked up through the name service (LDAP and the like included). All questions are asked whatever the
//! first answers, so that a missing account is refused like any other.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};
use rustix::fs::Access;
use serde::{Deserialize, Serialize};
use shared_types::Login;

/// Files with the host's own rules are small; more of them is not read.
const MAX_FILE: u64 = 1024 * 1024;

/// The most that is shown of `/etc/nologin`.
const MAX_NOTICE: usize = 1024;

/// Shells that mean "nobody logs in here".
const NO_SHELLS: &[&str] = &["nologin", "false"];

/// Why a host does not let a login in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The name service does not know the login.
    #[error("no such account")]
    NoAccount,
    /// `chage -E`, `usermod --expiredate`.
    #[error("the account has expired")]
    Expired,
    /// `/usr/sbin/nologin` and the like.
    #[error("its shell {0} lets nobody log in")]
    NoLoginShell(String),
    /// The shell is missing or not executable.
    #[error("its shell {0} cannot be run")]
    BadShell(String),
    /// `/etc/nologin` exists; its text.
    #[error("the host takes no logins now: {0}")]
    Closed(String),
    /// A service without root's rights can become nobody else.
    #[error("the service runs as {0}, and only root can serve other logins")]
    OtherLogin(String),
}

/// An account of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// The name the name service gives; it may differ from what was asked (case, domain).
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) home: PathBuf,
    pub(super) shell: PathBuf,
}

impl Account {
    /// Asks the name service; may wait for a directory server.
    pub(super) fn lookup(login: &Login) -> std::io::Result<Option<Self>> {
        let user = User::from_name(login.as_ref())?;
        Ok(user.map(|user| Self {
            name: user.name,
            uid: user.uid,
            gid: user.gid,
            home: user.dir,
            shell: if user.shell.as_os_str().is_empty() { "/bin/sh".into() } else { user.shell },
        }))
    }
}

/// The account, if the host lets it in now and this process can become it.
pub(super) fn admit(login: &Login) -> std::io::Result<Result<Account, Refusal>> {
    let account = Account::lookup(login)?;
    let name = account.as_ref().map_or(login.as_ref(), |account| &account.name);
    let expired = expired(&read_small(Path::new("/etc/shadow")).unwrap_or_default(), name, today());
    let notice = notice(Path::new("/etc/nologin"));
    let Some(account) = account else {
        return Ok(Err(Refusal::NoAccount));
    };
    if expired {
        return Ok(Err(Refusal::Expired));
    }
    if let Some(notice) = notice.filter(|_| !account.uid.is_root()) {
        return Ok(Err(Refusal::Closed(notice)));
    }
    if let Err(refusal) = shell(&account.shell) {
        return Ok(Err(refusal));
    }
    let own = Uid::effective();
    if !own.is_root() && own != account.uid {
        let name =
            User::from_uid(own).ok().flatten().map_or_else(|| own.to_string(), |user| user.name);
        return Ok(Err(Refusal::OtherLogin(name)));
    }
    Ok(Ok(account))
}

fn shell(shell: &Path) -> Result<(), Refusal> {
    let text = || shell.display().to_string();
    if shell
        .file_name()
        .is_some_and(|name| NO_SHELLS.iter().any(|no| name.as_bytes() == no.as_bytes()))
    {
        return Err(Refusal::NoLoginShell(text()));
    }
    let usable = shell.is_absolute()
        && shell.is_file()
        && rustix::fs::access(shell, Access::EXEC_OK).is_ok();
    if usable { Ok(()) } else { Err(Refusal::BadShell(text())) }
}

/// The text of `/etc/nologin`, if the file exists, readable or not.
fn notice(path: &Path) -> Option<String> {
    if path.symlink_metadata().is_err() {
        return None;
    }
    let text = read_small(path).unwrap_or_default();
    let text: String =
        text.trim().chars().filter(|c| !c.is_control() || *c == '\n').take(MAX_NOTICE).collect();
    Some(if text.is_empty() { "/etc/nologin exists".to_owned() } else { text })
}

/// Whether `shadow(5)` says that the account ended on or before `today` (days since 1970). A locked password (`!`) is
/// no lock of the account: hosts without passwords have it everywhere.
fn expired(shadow: &str, name: &str, today: i64) -> bool {
    shadow
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))
        .and_then(|fields| fields.get(7)?.parse::<i64>().ok())
        .is_some_and(|day| (0..=today).contains(&day))
}

fn today() -> i64 {
    chrono::Utc::now().timestamp().div_euclid(86_400)
}

/// The beginning of a text file, whatever its size.
pub(super) fn read_small(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_end_on_their_day() {
        let shadow = "a:!:1:0:9:7:::\nb:x:1:0:9:7::100:\nc:*:1:0:9:7::-1:\nd:x\n";
        for (name, today, ended) in [
            ("a", 100, false),
            ("b", 99, false),
            ("b", 100, true),
            ("c", 100, false),
            ("d", 100, false),
            ("", 1, false),
        ] {
            assert_eq!(expired(shadow, name, today), ended, "{name} on day {today}");
        }
    }

    #[test]
    fn shells_that_let_nobody_in() {
        assert_eq!(shell(Path::new("/bin/sh")), Ok(()));
        assert!(matches!(shell(Path::new("/usr/sbin/nologin")), Err(Refusal::NoLoginShell(_))));
        assert!(matches!(shell(Path::new("/bin/false")), Err(Refusal::NoLoginShell(_))));
        for bad in ["sh", "/bin", "/no/such/shell", "/etc/passwd"] {
            assert!(matches!(shell(Path::new(bad)), Err(Refusal::BadShell(_))), "{bad}");
        }
    }

    #[test]
    fn a_notice_closes_the_host_whatever_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nologin");
        assert_eq!(notice(&path), None);
        std::fs::write(&path, "").unwrap();
        assert_eq!(notice(&path).as_deref(), Some("/etc/nologin exists"));
        std::fs::write(&path, "Maintenance\x1b[2J until 5\n").unwrap();
        assert_eq!(notice(&path).as_deref(), Some("Maintenance[2J until 5"));
    }

    #[test]
    fn root_exists_and_most_names_do_not() {
        let root = Account::lookup(&Login::new("root").unwrap()).unwrap().unwrap();
        assert!(root.uid.is_root());
        let missing = admit(&Login::new("no-such-login-here").unwrap()).unwrap();
        assert_eq!(missing, Err(Refusal::NoAccount));
    }
}

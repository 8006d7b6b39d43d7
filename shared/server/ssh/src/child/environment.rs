//! The environment of a login's program.
//!
//! Later wins: what the host gives everyone, the account, `~/.tsh/environment` where allowed, what the client sent and
//! the service let through, the session's own. Nothing of the daemon's environment is among them.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::account::{Account, read_small};
use super::handoff::Order;

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `~/.tsh/environment` is read up to here.
const MAX_USER_FILE: u64 = 64 * 1024;

/// Name to value, each name once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// What the host gives to every login: `/etc/login.defs`, `/etc/environment` and the locale.
    pub(super) fn of_host(account: &Account) -> Self {
        let read = |path: &str| read_small(Path::new(path)).unwrap_or_default();
        Self::from_texts(
            account.uid.is_root(),
            &read("/etc/login.defs"),
            &(read("/etc/locale.conf") + "\n" + &read("/etc/default/locale")),
            &read("/etc/environment"),
        )
    }

    fn from_texts(root: bool, login_defs: &str, locale: &str, environment: &str) -> Self {
        let mut all = Self::default();
        all.set("LANG", "C.UTF-8");
        let default = if root { ROOT_PATH } else { PATH };
        all.set("PATH", defined_path(login_defs, root).unwrap_or(default));
        for (name, value) in assignments(locale) {
            if name == "LANG" || name == "LANGUAGE" || name.starts_with("LC_") {
                all.set(name, value);
            }
        }
        for (name, value) in assignments(environment) {
            all.set(name, value);
        }
        all
    }

    /// Adds the account, the user's file (call it as the login, with its rights), the client's and the session's.
    pub(super) fn complete(&mut self, account: &Account, order: &Order) {
        self.set("HOME", &account.home);
        self.set("USER", &account.name);
        self.set("LOGNAME", &account.name);
        self.set("SHELL", &account.shell);
        self.set("MAIL", Path::new("/var/mail").join(&account.name));
        if order.spec.permit_user_env {
            for (name, value) in assignments(&user_file(&account.home)) {
                self.set(name, value);
            }
        }
        for (name, value) in order.spec.client_env.iter().chain(&order.spec.env) {
            self.set(name, value);
        }
        if let (Some(pty), Some(tty)) = (&order.spec.pty, &order.tty) {
            self.set("TERM", &pty.term);
            self.set("SSH_TTY", tty);
        }
    }

    /// Names and values the kernel would not take are left out.
    fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        let value = value.as_ref();
        if name.is_empty() || name.contains(['=', '\0']) || value.as_bytes().contains(&0) {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value.to_owned(),
            None => self.0.push((name.into(), value.to_owned())),
        }
    }

    /// All variables, in the order in which they were first set.
    pub(super) fn into_vars(self) -> Vec<(OsString, OsString)> {
        self.0
    }
}

/// `ENV_PATH` or `ENV_SUPATH` of `login.defs(5)`, with or without `PATH=`.
fn defined_path(login_defs: &str, root: bool) -> Option<&str> {
    let wanted = if root { "ENV_SUPATH" } else { "ENV_PATH" };
    let value = login_defs.lines().find_map(|line| {
        let (key, value) = line.trim().split_once(char::is_whitespace)?;
        (key == wanted).then(|| value.trim())
    })?;
    let value = value.strip_prefix("PATH=").unwrap_or(value);
    (!value.is_empty()).then_some(value)
}

/// `NAME=VALUE` lines: `#` comments, an optional `export`, optional quotes around the value.
fn assignments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let (name, value) = line.split_once('=')?;
        let plain =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        plain.then(|| (name, unquoted(value)))
    })
}

fn unquoted(value: &str) -> &str {
    ['"', '\'']
        .iter()
        .find_map(|&quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

/// `~/.tsh/environment`. Without waiting: it could be a pipe.
fn user_file(home: &Path) -> String {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut bytes = Vec::new();
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(home.join(".tsh/environment"));
    if let Ok(file) = file
        && file.metadata().is_ok_and(|meta| meta.is_file())
        && file.take(MAX_USER_FILE).read_to_end(&mut bytes).is_err()
    {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Gid, Uid};

    use super::*;
    use crate::child::{ChildSpec, Program, PtySpec};

    fn value(all: &Environment, name: &str) -> Option<String> {
        let found = all.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.to_string_lossy().into_owned())
    }

    fn account(home: &Path) -> Account {
        Account {
            name: "joe".into(),
            uid: Uid::from_raw(1),
            gid: Gid::from_raw(1),
            home: home.to_owned(),
            shell: "/bin/sh".into(),
        }
    }

    fn order(permit: bool) -> Order {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let spec = ChildSpec {
            login: shared_types::Login::new("joe").unwrap(),
            program: Program::Shell,
            pty: Some(PtySpec {
                term: "xterm".into(),
                columns: 80,
                rows: 24,
                pixels: (0, 0),
                modes: Vec::new(),
            }),
            client_env: vec![
                pair("LANG", "de_DE.UTF-8"),
                pair("SSH_SESSION_ID", "forged"),
                pair("A=B", "x"),
            ],
            env: vec![pair("SSH_SESSION_ID", "s1"), pair("NUL", "a\0b")],
            permit_user_env: permit,
        };
        Order { spec, tty: Some("/dev/pts/3".into()) }
    }

    #[test]
    fn the_host_comes_first() {
        let defs = "# c\nENV_SUPATH\tPATH=/s\nENV_PATH  PATH=/u\n";
        let all = Environment::from_texts(
            false,
            defs,
            "LANG=\"fr_FR\"\nFOO=1\n",
            "export X='y z'\n#Z=1\nB A=1\n",
        );
        assert_eq!(value(&all, "PATH").as_deref(), Some("/u"));
        assert_eq!(value(&all, "LANG").as_deref(), Some("fr_FR"));
        assert_eq!(value(&all, "X").as_deref(), Some("y z"));
        assert_eq!((value(&all, "FOO"), value(&all, "Z"), value(&all, "B A")), (None, None, None));
        assert_eq!(
            value(&Environment::from_texts(true, defs, "", ""), "PATH").as_deref(),
            Some("/s")
        );
        assert_eq!(
            value(&Environment::from_texts(true, defs, "", "PATH=/e"), "PATH").as_deref(),
            Some("/e")
        );
        assert_eq!(
            value(&Environment::from_texts(false, "", "", ""), "PATH").as_deref(),
            Some(PATH)
        );
    }

    #[test]
    fn the_session_wins_over_the_client_and_the_user() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".tsh")).unwrap();
        std::fs::write(home.path().join(".tsh/environment"), "SSH_SESSION_ID=mine\nEDITOR=vi\n")
            .unwrap();
        for permit in [true, false] {
            let mut all = Environment::default();
            all.complete(&account(home.path()), &order(permit));
            assert_eq!(value(&all, "SSH_SESSION_ID").as_deref(), Some("s1"));
            assert_eq!(value(&all, "LANG").as_deref(), Some("de_DE.UTF-8"));
            assert_eq!(value(&all, "EDITOR").is_some(), permit);
            assert_eq!(value(&all, "SSH_TTY").as_deref(), Some("/dev/pts/3"));
            assert_eq!(value(&all, "TERM").as_deref(), Some("xterm"));
            assert_eq!(value(&all, "MAIL").as_deref(), Some("/var/mail/joe"));
            assert_eq!((value(&all, "A=B"), value(&all, "NUL")), (None, None));
        }
    }

    #[test]
    fn a_pipe_in_place_of_the_users_file_does_not_hold_the_login_up() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".tsh")).unwrap();
        let path = home.path().join(".tsh/environment");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o644.into(), 0)
            .unwrap();
        assert_eq!(user_file(home.path()), "");
    }
}

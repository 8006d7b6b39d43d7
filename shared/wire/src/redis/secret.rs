//! Which arguments are secrets. They reach the server and nothing else.

use super::Command;

/// How an argument is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Whole,
    /// Only its first character, which says what is done with the secret behind it.
    Mark,
    Nothing,
}

/// Where the command that counts begins: some commands only talk about another one.
fn offset(command: &Command<'_>) -> usize {
    if command.is("COMMAND") && (command.word(1, "GETKEYS") || command.word(1, "GETKEYSANDFLAGS")) {
        2
    } else if command.is("ACL") && command.word(1, "DRYRUN") {
        3
    } else {
        0
    }
}

/// How the argument at `at` is shown; the name is at 0.
pub(super) fn shown(command: &Command<'_>, at: usize) -> Shown {
    let from = offset(command);
    if at <= from {
        return Shown::Whole;
    }
    let word = |index: usize, word: &str| command.word(from + index, word);
    let hide = |hidden: bool| if hidden { Shown::Nothing } else { Shown::Whole };
    let index = at - from;
    if word(0, "AUTH") {
        // The user's name is shown only where it can be told from a password.
        hide(!(index == 1 && command.count() == from as u64 + 3))
    } else if word(0, "HELLO") {
        hide(behind_auth(command, from, index))
    } else if word(0, "ACL") && word(1, "SETUSER") {
        let mark = command.arg(at).and_then(|arg| arg.kept.first().copied());
        let hidden = index > 2 && matches!(mark, Some(b'>' | b'<' | b'#' | b'!'));
        if hidden { Shown::Mark } else { Shown::Whole }
    } else if word(0, "MIGRATE") {
        hide(in_migration(command, from, index))
    } else if word(0, "CONFIG") && word(1, "SET") {
        hide(index > 2 && index % 2 == 1 && secret_setting(command, at - 1))
    } else if word(0, "SENTINEL") && (word(1, "SET") || (word(1, "CONFIG") && word(2, "SET"))) {
        hide(index > 2 && secret_setting(command, at - 1))
    } else {
        Shown::Whole
    }
}

/// Whether the command carries a secret at all.
pub(super) fn any(command: &Command<'_>) -> bool {
    (0..command.args().len()).any(|at| shown(command, at) != Shown::Whole)
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`: everything behind `AUTH` but a user that a password follows.
fn behind_auth(command: &Command<'_>, from: usize, index: usize) -> bool {
    let auth = (2..index).find(|at| command.word(from + at, "AUTH"));
    auth.is_some_and(|auth| !(index == auth + 1 && command.count() > (from + auth + 2) as u64))
}

/// `MIGRATE host port key db timeout [COPY] [REPLACE] [AUTH password | AUTH2 user password] [KEYS key …]`.
fn in_migration(command: &Command<'_>, from: usize, index: usize) -> bool {
    let word = |at: usize, word: &str| at > 5 && command.word(from + at, word);
    let keys = (6..index).any(|at| word(at, "KEYS"));
    !keys && (word(index - 1, "AUTH") || index.checked_sub(2).is_some_and(|at| word(at, "AUTH2")))
}

/// Whether the setting named at `at` is a password: `requirepass`, `masterauth`, `tls-key-file-pass`, `auth-pass`.
fn secret_setting(command: &Command<'_>, at: usize) -> bool {
    let name = command.arg(at).map(|arg| arg.kept.to_ascii_lowercase()).unwrap_or_default();
    let has = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
    has(b"pass") || name.ends_with(b"auth")
}

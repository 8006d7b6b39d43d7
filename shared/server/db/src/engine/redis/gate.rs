//! Which commands pass: those of the database user the session was opened for, and nothing that would make of the
//! connection what it was not opened for.
//!
//! What must stay true: a server that takes a certificate lets its holder in as `default`, until it hears a password.
//! Someone who may be `alice` only is not served as `default`: nothing passes before the server has let `alice` in.

use shared_wire::redis::{Command, encode};

/// Commands that turn a connection into the replication link of a server.
const REPLICATION: [&[u8]; 3] = [b"SYNC", b"PSYNC", b"REPLCONF"];
/// Commands that are judged when all of them has come.
const JUDGED: [&[u8]; 7] =
    [b"AUTH", b"HELLO", b"QUIT", b"RESET", REPLICATION[0], REPLICATION[1], REPLICATION[2]];

/// Lets commands pass, or not.
#[derive(Debug)]
pub(super) struct Gate {
    user: String,
    open: bool,
}

/// What happens to a command whose name is known, and to the bytes behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// They are passed on as they come.
    Passes,
    /// They wait until the command is whole.
    Judged,
    /// They are not passed on.
    Refused,
}

/// What happens to a whole command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is passed on; `auth`: it logs the user in.
    Pass { auth: bool },
    /// This is passed on in its place, and logs the user in.
    Instead(Vec<u8>),
    /// It is answered with an error: its code and its text.
    Refuse(&'static str, String),
}

impl Gate {
    /// For the database user `user`; `open`: the server takes the connection for that user's already.
    pub(super) fn new(user: &str, open: bool) -> Self {
        Self { user: user.to_owned(), open }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The server has let the user in.
    pub(super) fn open(&mut self) {
        self.open = true;
    }

    pub(super) fn classify(&self, name: &[u8]) -> Class {
        if JUDGED.iter().any(|judged| name.eq_ignore_ascii_case(judged)) {
            Class::Judged
        } else if self.open {
            Class::Passes
        } else {
            Class::Refused
        }
    }

    /// What happens to a command that is whole.
    pub(super) fn judge(&mut self, command: &Command<'_>) -> Verdict {
        match self.classify(command.name()) {
            Class::Passes => return Verdict::Pass { auth: false },
            Class::Refused => return self.closed(),
            Class::Judged => {}
        }
        if !command.whole() {
            let name = command.name().escape_ascii();
            return Verdict::Refuse("ERR", format!("the arguments of {name} are too long"));
        }
        if command.is("QUIT") {
            Verdict::Pass { auth: false }
        } else if command.is("RESET") {
            // It makes the connection that of `default` again.
            self.open = self.user == super::DEFAULT_USER;
            Verdict::Pass { auth: false }
        } else if command.is("AUTH") {
            self.auth(command)
        } else if command.is("HELLO") {
            self.hello(command)
        } else {
            let text = "replication is not available here: a copy of everything is no command that could be audited";
            Verdict::Refuse("NOPERM", text.to_owned())
        }
    }

    /// The answer to what was asked too early.
    fn closed(&self) -> Verdict {
        let user = &self.user;
        let text = format!(
            "Authentication required: this session is for the database user \"{user}\"; send AUTH with that user's password"
        );
        Verdict::Refuse("NOAUTH", text)
    }

    /// `AUTH [user] password`. Without a user, servers mean `default`; here the session's user is meant.
    fn auth(&self, command: &Command<'_>) -> Verdict {
        match (command.count(), command.arg(1)) {
            (2, Some(password)) if self.user != super::DEFAULT_USER => {
                let args = [b"AUTH".as_slice(), self.user.as_bytes(), password.kept];
                Verdict::Instead(encode(args.into_iter()))
            }
            (3, Some(user)) if user.kept != self.user.as_bytes() => self.other_user(user.kept),
            _ => Verdict::Pass { auth: true },
        }
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]`. What servers would not understand does not reach them:
    /// the user who counts is the last one named.
    fn hello(&self, command: &Command<'_>) -> Verdict {
        let (mut at, mut auth) = (2, false);
        while let Some(option) = command.arg(at) {
            let (name, values) =
                if command.word(at, "AUTH") { ("AUTH", 2) } else { ("SETNAME", 1) };
            if !command.word(at, name) || command.arg(at + values).is_none() {
                let option = option.kept.escape_ascii();
                return Verdict::Refuse("ERR", format!("Syntax error in HELLO option '{option}'"));
            }
            if let (2, Some(user)) = (values, command.arg(at + 1)) {
                if user.kept != self.user.as_bytes() {
                    return self.other_user(user.kept);
                }
                auth = true;
            }
            at += 1 + values;
        }
        if auth || self.open { Verdict::Pass { auth } } else { self.closed() }
    }

    fn other_user(&self, asked: &[u8]) -> Verdict {
        let (user, asked) = (&self.user, asked.escape_ascii());
        let text = format!(
            "this session is for the database user \"{user}\", not \"{asked}\"; log in for another one with tsh db login --db-user"
        );
        Verdict::Refuse("NOPERM", text)
    }
}

#[cfg(test)]
mod tests {
    use shared_wire::redis::Commands;

    use super::*;

    fn judge(gate: &mut Gate, line: &str) -> Verdict {
        let mut commands = Commands::default();
        assert!(commands.scan(format!("{line}\n").as_bytes()).unwrap().1, "{line}");
        gate.judge(&commands.command())
    }

    fn code(verdict: Verdict) -> String {
        match verdict {
            Verdict::Pass { auth } => format!("pass{}", if auth { " auth" } else { "" }),
            Verdict::Instead(bytes) => bytes.escape_ascii().to_string(),
            Verdict::Refuse(code, _) => code.to_owned(),
        }
    }

    #[test]
    fn nothing_passes_before_the_user_is_in() {
        let mut gate = Gate::new("alice", false);
        for (line, wanted) in [
            ("GET a", "NOAUTH"),
            ("PING", "NOAUTH"),
            ("HELLO 3", "NOAUTH"),
            ("HELLO", "NOAUTH"),
            ("hello 3 auth alice pw setname n", "pass auth"),
            ("HELLO 3 AUTH bob pw", "NOPERM"),
            ("HELLO 3 AUTH alice a AUTH bob b", "NOPERM"),
            ("HELLO 3 WHAT", "ERR"),
            ("HELLO 3 AUTH alice", "ERR"),
            ("AUTH pw", r"*3\r\n$4\r\nAUTH\r\n$5\r\nalice\r\n$2\r\npw\r\n"),
            ("auth alice pw", "pass auth"),
            ("AUTH default pw", "NOPERM"),
            ("AUTH Alice pw", "NOPERM"),
            ("AUTH", "pass auth"),
            ("AUTH a b c", "pass auth"),
            ("QUIT", "pass"),
            ("RESET", "pass"),
            ("PSYNC ? -1", "NOPERM"),
        ] {
            assert_eq!(code(judge(&mut gate, line)), wanted, "{line}");
        }
        gate.open();
        assert_eq!(code(judge(&mut gate, "GET a")), "pass");
        assert_eq!(code(judge(&mut gate, "HELLO 3")), "pass");
        assert_eq!(code(judge(&mut gate, "AUTH bob pw")), "NOPERM");
        assert_eq!(code(judge(&mut gate, "sync")), "NOPERM");
        assert_eq!(code(judge(&mut gate, "RESET")), "pass");
        assert_eq!(code(judge(&mut gate, "GET a")), "NOAUTH");
    }

    #[test]
    fn the_default_user_needs_nothing_of_us() {
        let mut gate = Gate::new("default", true);
        for (line, wanted) in [
            ("GET a", "pass"),
            ("AUTH pw", "pass auth"),
            ("AUTH default pw", "pass auth"),
            ("AUTH alice pw", "NOPERM"),
            ("RESET", "pass"),
            ("GET a", "pass"),
            ("REPLCONF listening-port 1", "NOPERM"),
        ] {
            assert_eq!(code(judge(&mut gate, line)), wanted, "{line}");
        }
    }

    #[test]
    fn what_is_too_long_to_judge_is_refused() {
        let mut commands = Commands::default();
        let long = vec![b'x'; 100_000];
        let bytes = encode([b"AUTH".as_slice(), b"alice", &long].into_iter());
        assert!(commands.scan(&bytes).unwrap().1);
        let verdict = Gate::new("alice", false).judge(&commands.command());
        assert_eq!(code(verdict), "ERR");
    }
}

//! What a command line is: a program that copies files, or anything else.
//!
//! This decides what an observer is put beside, and what a role forbids; it cannot be a wall, for whoever may run
//! commands may move bytes with them. What counts as a copy is listed and not recorded, so only what the known clients
//! send counts; everything else is a command like any other.

use crate::{Direction, Policy};

/// A program that copies files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tool {
    /// An SFTP server.
    Sftp,
    /// `scp` in its old protocol.
    Scp {
        /// What it copies from or to: its last word.
        path: String,
        /// Which way.
        direction: Direction,
    },
    /// `rsync`'s server half.
    Rsync {
        /// Which way.
        direction: Direction,
        /// Whether it may do more than that: its other words come later (`--secluded-args`), it removes what it sent, or
        /// it is a daemon.
        more: bool,
    },
}

impl Tool {
    /// Looks at a command line.
    #[must_use]
    pub fn of_command(command: &str) -> Option<Self> {
        // A shell would do more with these than start one program.
        if command.contains([';', '|', '&', '`', '$', '>', '<', '(', ')', '\n', '\r', '\0']) {
            return None;
        }
        let mut words = command.split_ascii_whitespace();
        let program = words.next()?.rsplit('/').next()?;
        let words: Vec<&str> = words.collect();
        match program {
            "scp" => scp(&words),
            "rsync" => rsync(&words),
            "sftp-server" => Some(Self::Sftp),
            _ => None,
        }
    }

    /// Looks at a subsystem.
    #[must_use]
    pub fn of_subsystem(name: &str) -> Option<Self> {
        (name == "sftp").then_some(Self::Sftp)
    }

    /// Its name, as events have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sftp => "sftp",
            Self::Scp { .. } => "scp",
            Self::Rsync { .. } => "rsync",
        }
    }

    /// The way it copies, where it is one only.
    #[must_use]
    pub fn direction(&self) -> Option<Direction> {
        match self {
            Self::Sftp => None,
            Self::Scp { direction, .. } | Self::Rsync { direction, .. } => Some(*direction),
        }
    }

    /// Whether it may start. The error is a text for the user.
    pub fn permitted(&self, policy: Policy) -> Result<(), &'static str> {
        let allowed = match self {
            Self::Sftp => policy.upload || policy.download,
            Self::Rsync { more: true, .. } => policy.allows_all(),
            Self::Scp { direction, .. } | Self::Rsync { direction, .. } => {
                policy.allows(*direction)
            }
        };
        if allowed { Ok(()) } else { Err(self.refusal(policy)) }
    }

    fn refusal(&self, policy: Policy) -> &'static str {
        match (policy.upload, policy.download) {
            (true, _) if self.direction() == Some(Direction::Upload) => {
                "rsync may only upload here, and its command does not show that it does (try --no-secluded-args)"
            }
            (_, true) if self.direction() == Some(Direction::Download) => {
                "rsync may only download here, and its command does not show that it does (try --no-secluded-args)"
            }
            (true, _) => Direction::Download.refusal(),
            (_, true) => Direction::Upload.refusal(),
            (false, false) => "file copying is not permitted",
        }
    }
}

/// How a refusal reads.
pub(crate) trait Refusal {
    fn refusal(self) -> &'static str;
}

impl Refusal for Direction {
    fn refusal(self) -> &'static str {
        match self {
            Self::Upload => "file uploads are not permitted",
            Self::Download => "file downloads are not permitted",
        }
    }
}

fn is_cluster(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-') && !word.starts_with("--")
}

fn scp(words: &[&str]) -> Option<Tool> {
    let flag = |letter| words.iter().any(|word| is_cluster(word) && word.contains(letter));
    let direction = match (flag('t'), flag('f')) {
        (true, false) => Direction::Upload,
        (false, true) => Direction::Download,
        _ => return None,
    };
    let path = words.last().copied().unwrap_or_default().to_owned();
    Some(Tool::Scp { path, direction })
}

fn rsync(words: &[&str]) -> Option<Tool> {
    if words.first() != Some(&"--server") {
        return None;
    }
    let has = |names: &[&str]| words.iter().any(|word| names.contains(word));
    // In a cluster of letters everything behind an `e` is that letter's value.
    let secluded = words
        .iter()
        .filter(|word| is_cluster(word))
        .any(|word| word.split_once('e').map_or(*word, |(letters, _)| letters).contains('s'));
    let more = secluded
        || has(&["--secluded-args", "--protect-args", "--daemon"])
        || has(&["--remove-source-files", "--remove-sent-files"]);
    let direction = if has(&["--sender"]) { Direction::Download } else { Direction::Upload };
    Some(Tool::Rsync { direction, more })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(command: &str) -> Option<Tool> {
        Tool::of_command(command)
    }

    #[test]
    fn copies_are_told_from_commands() {
        let upload = Tool::Scp { path: "/tmp/x".into(), direction: Direction::Upload };
        assert_eq!(tool("scp -t /tmp/x"), Some(upload.clone()));
        assert_eq!(tool("scp -r -p -t -- /tmp/x"), Some(upload));
        let download = Tool::Scp { path: "y".into(), direction: Direction::Download };
        assert_eq!(tool("/usr/bin/scp -pf y"), Some(download));
        let rsync = |direction, more| Some(Tool::Rsync { direction, more });
        assert_eq!(
            tool("rsync --server -logDtpre.iLsfxCIvu . /tmp"),
            rsync(Direction::Upload, false)
        );
        assert_eq!(
            tool("rsync --server --sender -logDtpre.iLsfxCIvu . /tmp"),
            rsync(Direction::Download, false)
        );
        for more in [
            "rsync --server --sender -slogDtpre.iLsfxCIvu",
            "rsync --server --secluded-args",
            "rsync --server --sender -e.iLsfxCIvu --remove-source-files . x",
            "rsync --server --daemon .",
        ] {
            assert!(matches!(tool(more), Some(Tool::Rsync { more: true, .. })), "{more}");
        }
        assert_eq!(tool("/usr/lib/openssh/sftp-server"), Some(Tool::Sftp));
        for recorded in [
            "cat /etc/passwd",
            "scp a b:c",
            "rsync -a x y",
            "scp -t x; cat /etc/shadow",
            "scp -t $(id)",
            "sftp-server | tee x",
            "rsync --server\nid",
            "",
            "  ",
            "echo scp -t x",
            "scp -t x && id",
        ] {
            assert_eq!(tool(recorded), None, "{recorded}");
        }
    }

    #[test]
    fn only_what_the_role_allows_starts() {
        let both = Policy { upload: true, download: true };
        let up = Policy { upload: true, download: false };
        let down = Policy { upload: false, download: true };
        let none = Policy { upload: false, download: false };
        for (command, allowed) in [
            ("scp -t x", [true, true, false, false]),
            ("scp -f x", [true, false, true, false]),
            ("rsync --server -e.i . x", [true, true, false, false]),
            ("rsync --server --sender -e.i . x", [true, false, true, false]),
            ("rsync --server -se.i", [true, false, false, false]),
            ("rsync --server --sender --remove-source-files . x", [true, false, false, false]),
            ("sftp-server", [true, true, true, false]),
        ] {
            let tool = tool(command).unwrap();
            let now = [both, up, down, none].map(|policy| tool.permitted(policy).is_ok());
            assert_eq!(now, allowed, "{command}");
        }
        assert_eq!(
            tool("scp -t x").unwrap().permitted(down),
            Err("file uploads are not permitted")
        );
        assert_eq!(tool("scp -f x").unwrap().permitted(none), Err("file copying is not permitted"));
        let hidden = tool("rsync --server -se.i").unwrap().permitted(up).unwrap_err();
        assert!(hidden.contains("--no-secluded-args"), "{hidden}");
    }
}

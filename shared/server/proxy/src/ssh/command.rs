//! What a command line is, for the recorder: something to record, or a transfer of files whose bytes are not kept.
//!
//! This is a classification for the record and for the role option on file copies; it cannot be a wall: whoever may
//! run commands may move bytes with them. What it takes for a transfer is named in the audit log and not recorded, so
//! it takes only what such a client sends, and records everything else.

use super::events::Copy;

/// A program that moves files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// `scp` in its old protocol.
    Scp { path: String, copy: Copy },
    /// `rsync`'s server half.
    Rsync,
    /// `sftp-server`, started as a command.
    Sftp,
}

/// Looks at a command that runs without a terminal.
pub(crate) fn transfer(command: &str) -> Option<Transfer> {
    // A shell would do more with these than start one program.
    if command.contains([';', '|', '&', '`', '$', '>', '<', '(', ')', '\n', '\r', '\0']) {
        return None;
    }
    let mut words = command.split_ascii_whitespace();
    let program = words.next()?.rsplit('/').next()?;
    let words: Vec<&str> = words.collect();
    match program {
        "scp" => {
            let flag = |letter| words.iter().any(|word| is_flags(word) && word.contains(letter));
            let copy = match (flag('t'), flag('f')) {
                (true, false) => Copy::Upload,
                (false, true) => Copy::Download,
                _ => return None,
            };
            let path = words.last().copied().unwrap_or_default().to_owned();
            Some(Transfer::Scp { path, copy })
        }
        "rsync" => (words.first() == Some(&"--server")).then_some(Transfer::Rsync),
        "sftp-server" => Some(Transfer::Sftp),
        _ => None,
    }
}

fn is_flags(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-') && !word.starts_with("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_told_from_commands() {
        let upload = Transfer::Scp { path: "/tmp/x".into(), copy: Copy::Upload };
        assert_eq!(transfer("scp -t /tmp/x"), Some(upload.clone()));
        assert_eq!(transfer("scp -r -p -t -- /tmp/x"), Some(upload));
        let download = Transfer::Scp { path: "y".into(), copy: Copy::Download };
        assert_eq!(transfer("/usr/bin/scp -pf y"), Some(download));
        assert_eq!(transfer("rsync --server -logDtpre.iLsfxCIvu . /tmp"), Some(Transfer::Rsync));
        assert_eq!(transfer("/usr/lib/openssh/sftp-server"), Some(Transfer::Sftp));
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
            assert_eq!(transfer(recorded), None, "{recorded}");
        }
    }
}

//! The lines that sshd reads: a file of our own, and how `sshd_config` comes to include it (sshd_config(5)).
//!
//! sshd takes the first value it meets of most keywords, so the file has to come early and outside of a `Match`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The file of ours, where a folder of such files is included already.
const DROP_IN: &str = "00-gatehouse.conf";
/// Marks the lines that were added to `sshd_config`.
const BEGIN: &str = "# Added by \"teleport join openssh\", which removes it with --undo:";
/// Where relative paths of an Include begin.
const BASE: &str = "/etc/ssh";

/// What the file of ours says.
pub(super) struct DropIn<'a> {
    /// Host keys that have to be named because ours is.
    pub(super) host_keys: &'a [PathBuf],
    pub(super) certificate: &'a Path,
    pub(super) user_ca: &'a Path,
}

impl DropIn<'_> {
    pub(super) fn text(&self) -> String {
        let mut text = String::from(
            "# Made by \"teleport join openssh\" and changed by its renewal; edits are lost.\n\
             # To take it back: teleport join openssh --undo\n",
        );
        for key in self.host_keys {
            let _ = writeln!(text, "HostKey {}", quoted(key));
        }
        let _ = writeln!(text, "HostCertificate {}", quoted(self.certificate));
        let _ = writeln!(text, "TrustedUserCAKeys {}", quoted(self.user_ca));
        text
    }
}

/// As a word of the configuration.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains([' ', '\t', '#']) { format!("\"{text}\"") } else { text }
}

/// Whether a path can stand in the configuration, and in a table of cron or a unit of systemd.
pub(super) fn is_plain(path: &Path) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    path.is_absolute() && path.to_str().is_some_and(|text| text.chars().all(plain))
}

/// How `sshd_config` comes to read the file of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Included {
    /// It includes a folder, and the file goes there.
    Folder(PathBuf),
    /// A line is added to it; the file is elsewhere.
    Line(PathBuf),
}

impl Included {
    /// Where the file of ours goes: into the first folder that `main` includes all `.conf` files of, else `own`.
    pub(super) fn find(main: &str, own: &Path) -> Self {
        for line in main.lines() {
            let mut words = line.split_whitespace();
            let Some(keyword) = words.next() else { continue };
            if keyword.eq_ignore_ascii_case("match") {
                break;
            }
            if !keyword.eq_ignore_ascii_case("include") {
                continue;
            }
            for word in words {
                let pattern = Path::new(BASE).join(word.trim_matches('"'));
                let takes_all =
                    pattern.file_name().is_some_and(|name| name == "*.conf" || name == "*");
                if let Some(folder) = pattern.parent().filter(|folder| takes_all && folder.is_dir())
                {
                    return Self::Folder(folder.join(DROP_IN));
                }
            }
        }
        Self::Line(own.to_owned())
    }

    /// The file of ours.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Line(path) => path,
        }
    }

    /// `main` with the line, once.
    pub(super) fn added(&self, main: &str) -> String {
        match self {
            Self::Folder(_) => main.to_owned(),
            Self::Line(path) => format!("{}{}", block(path), self.removed(main)),
        }
    }

    /// `main` without the line; every other byte as it was.
    pub(super) fn removed(&self, main: &str) -> String {
        match self {
            Self::Folder(_) => main.to_owned(),
            Self::Line(path) => main.replacen(&block(path), "", 1),
        }
    }
}

fn block(path: &Path) -> String {
    format!("{BEGIN}\nInclude {}\n", quoted(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_included_is_used_and_else_a_line_is_added_once() {
        let folder = tempfile::tempdir().unwrap();
        let own = Path::new("/var/lib/teleport/openssh/sshd.conf");
        let dir = folder.path().display();
        for main in [
            format!("# hello\n\nInclude {dir}/*.conf\nPort 22\n"),
            format!("include /no/such/folder/*.conf \"{dir}/*.conf\"\n"),
        ] {
            let found = Included::find(&main, own);
            assert_eq!(found, Included::Folder(folder.path().join(DROP_IN)), "{main}");
            assert_eq!((found.added(&main), found.removed(&main)), (main.clone(), main));
        }
        for main in [
            "Port 22\n".to_owned(),
            "#Include /etc/ssh/sshd_config.d/*.conf\n".to_owned(),
            format!("Include {dir}/some.conf\n"),
            format!("Match User joe\nInclude {dir}/*.conf\n"),
            "no newline at the end".to_owned(),
            String::new(),
            "Port 22\r\n".to_owned(),
        ] {
            let found = Included::find(&main, own);
            assert_eq!(found, Included::Line(own.to_owned()), "{main}");
            let added = found.added(&main);
            assert!(added.contains("\nInclude /var/lib/teleport/openssh/sshd.conf\n"), "{added}");
            assert_eq!(found.added(&added), added, "once");
            assert_eq!(found.removed(&added), main);
            // Also when somebody has changed the rest meanwhile.
            let changed = format!("PermitRootLogin no\n{added}UseDNS no\n");
            assert_eq!(found.removed(&changed), format!("PermitRootLogin no\n{main}UseDNS no\n"));
        }
    }

    #[test]
    fn the_file_of_ours() {
        let text = DropIn {
            host_keys: &["/etc/ssh/a key".into(), "/b".into()],
            certificate: Path::new("/d/host-cert.pub"),
            user_ca: Path::new("/d/ca.pub"),
        }
        .text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "HostKey \"/etc/ssh/a key\"",
                "HostKey /b",
                "HostCertificate /d/host-cert.pub",
                "TrustedUserCAKeys /d/ca.pub",
            ]
        );
    }

    #[test]
    fn paths_that_mean_something_else_somewhere() {
        assert!(is_plain(Path::new("/var/lib/teleport")));
        for path in ["relative", "/a b", "/a%b", "/a\"b", "/a\nb", "/a$b", "/ä"] {
            assert!(!is_plain(Path::new(path)), "{path}");
        }
    }
}

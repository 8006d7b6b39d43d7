//! The program itself, without a server.

use std::process::{Command, Stdio};

/// A reader that goes away ends the program quietly, as it does other programs.
#[test]
fn a_closed_pipe_ends_it_quietly() {
    let home = tempfile::tempdir().expect("a folder");
    for args in [&["logout"][..], &["completion", "bash"], &["version"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = Command::new(env!("CARGO_BIN_EXE_tsh"))
            .args(args)
            .env("TELEPORT_HOME", home.path())
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .expect("tsh runs");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{args:?}");
        assert_eq!(ended.status.code(), Some(0), "{args:?}");
    }
}

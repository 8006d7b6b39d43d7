use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use server_ssh::child::{Child, Program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::host::{DEADLINE, Host, JOE, exec, finish, pty, spec};

/// Reads until `text` was seen.
async fn until(child: &mut Child, text: &str) -> String {
    let mut seen = String::new();
    let read = async {
        while !seen.contains(text) {
            let mut buffer = [0; 4096];
            let count = child.output.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "ended before {text:?}: {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    tokio::time::timeout(DEADLINE, read).await.unwrap_or_else(|_| panic!("{text:?} is not coming"));
    seen
}

async fn type_in(child: &mut Child, text: &str) {
    child.input.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_shell_on_a_terminal_of_its_own() {
    let Some(host) = Host::new() else { return };
    let mut wanted = spec("joe", Program::Shell);
    wanted.pty = Some(pty(&[]));
    let mut child = host.spawn(wanted).await.unwrap();
    assert!(child.error.is_none());
    let tty = child.tty.clone().unwrap();
    let meta = std::fs::metadata(&tty).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (JOE.1, 5, 0o620));
    type_in(
        &mut child,
        "echo $0 $TERM $SSH_TTY; tty; stty size; ps -o tpgid= -p $$; echo d''one\n",
    )
    .await;
    let seen = until(&mut child, "done\r\n").await;
    assert!(seen.contains(&format!("-sh xterm {tty}\r\n{tty}\r\n25 81\r\n")), "{seen}");
    child.control.resize(100, 50, (0, 0));
    type_in(&mut child, "stty size; echo d''one\n").await;
    assert!(until(&mut child, "done\r\n").await.contains("50 100\r\n"));
    type_in(&mut child, "sleep 600\n").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    type_in(&mut child, "\x03echo st''atus $?\n").await;
    assert!(until(&mut child, "status 1").await.contains("status 130"));
    type_in(&mut child, "exit 4\n").await;
    let ran = finish(child, b"").await;
    assert_eq!(ran.exit.status, Some(4));
    // Given back, or gone.
    assert!(std::fs::metadata(&tty).map_or(true, |meta| meta.uid() != JOE.1));
}

#[tokio::test]
async fn the_clients_modes_are_set() {
    let Some(host) = Host::new() else { return };
    let mut wanted = spec("joe", exec("stty -a"));
    wanted.pty = Some(pty(&[(53, 0), (1, 24), (42, 1), (72, 0)]));
    let ran = finish(host.spawn(wanted).await.unwrap(), b"").await;
    for mode in ["-echo ", "intr = ^X;", " iutf8", "-onlcr", "rows 25; columns 81;"] {
        assert!(ran.output.contains(mode), "{mode}: {}", ran.output);
    }
}

#[tokio::test]
async fn a_lot_of_output_comes_whole() {
    let Some(host) = Host::new() else { return };
    let mut wanted = spec("joe", exec("seq 1 300000"));
    wanted.pty = Some(pty(&[(70, 0)]));
    let ran = finish(host.spawn(wanted).await.unwrap(), b"").await;
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(ran.output == expected, "{} of {} bytes", ran.output.len(), expected.len());
}

#[tokio::test]
async fn who_hangs_up_ends_the_jobs() {
    let Some(host) = Host::new() else { return };
    let mut wanted = spec("joe", Program::Shell);
    wanted.pty = Some(pty(&[]));
    let mut child = host.spawn(wanted).await.unwrap();
    type_in(&mut child, "set -m; sleep 600 & echo \"pid=$!.\"; sleep 601\n").await;
    let seen = loop {
        let seen = until(&mut child, ".\r\n").await;
        if let Some((_, rest)) = seen.rsplit_once("pid=")
            && let Some((pid, _)) = rest.split_once('.')
            && pid.parse::<u32>().is_ok()
        {
            break pid.to_owned();
        }
    };
    let control = child.control.clone();
    control.hangup();
    drop(child);
    let exit = tokio::time::timeout(DEADLINE, control.wait()).await.unwrap();
    assert!(exit.signal.is_some() || exit.status.is_some());
    crate::host::ends(&seen).await;
}

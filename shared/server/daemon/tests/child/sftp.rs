use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use server_ssh::child::Program;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::host::{Host, JOE, TELEPORT, finish, spec};

/// Runs OpenSSH's `sftp` with a batch against the server alone, in `folder`.
fn batch(folder: &Path, commands: &str) -> (bool, String) {
    let mut sftp = Command::new("sftp");
    let script = folder.join("batch");
    std::fs::write(&script, commands).unwrap();
    let program = format!("{TELEPORT} sftp");
    sftp.args(["-D", &program, "-b"]).arg(&script).current_dir(folder);
    let done = sftp.stdin(Stdio::null()).output().expect("sftp is installed");
    let text = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    (done.status.success(), text.into_owned())
}

/// Bytes that do not repeat.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn openssh_sftp_works_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let bytes = noise(5_000_001);
    std::fs::write(root.join("local"), &bytes).unwrap();
    let (done, text) = batch(
        root,
        "mkdir d\nput -p local d/remote\nput local \"d/two words\"\nln -s remote d/link\nln d/remote d/hard\n\
         chmod 640 d/remote\nls -la d\nls -l d/remote\ndf d\nrename d/hard d/other\n\
         get d/link back\nget -R d copy\nrm d/other\nrmdir none\n",
    );
    assert!(!done, "the last command cannot work");
    assert!(
        text.contains("remote delete") || text.contains("rmdir") || text.contains("No such file"),
        "{text}"
    );
    let d = root.join("d");
    assert!(std::fs::read(root.join("back")).unwrap() == bytes);
    assert!(std::fs::read(root.join("copy/two words")).unwrap() == bytes);
    assert_eq!(std::fs::read_link(d.join("link")).unwrap(), Path::new("remote"));
    assert_eq!(d.join("remote").metadata().unwrap().mode() & 0o777, 0o640);
    assert!(!d.join("other").exists() && !d.join("hard").exists());
    assert!(text.contains("-rw-r-----") && text.contains("lrwxrwxrwx"), "{text}");
    let (done, text) = batch(root, "put local a\nrename a local\n");
    assert!(done, "OpenSSH's rename replaces: {text}");
    let (done, text) = batch(root, "put d/remote a\nrename -l a local\n");
    assert!(!done && text.contains("Failure"), "the protocol's own does not: {text}");
}

#[test]
fn openssh_scp_copies_trees_with_odd_names() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    std::fs::create_dir_all(from.join("deep/er")).unwrap();
    let odd: std::ffi::OsString =
        std::os::unix::ffi::OsStringExt::from_vec(b"odd\xff name".to_vec());
    std::fs::write(from.join("deep/er").join(&odd), noise(70_000)).unwrap();
    std::fs::write(from.join("empty"), "").unwrap();
    // scp takes no arguments for it.
    let program = folder.path().join("server");
    std::fs::write(&program, format!("#!/bin/sh\nexec {TELEPORT} sftp\n")).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let copy = |from: &str, to: &str| {
        let scp = Command::new("scp")
            .arg("-rpD")
            .arg(&program)
            .args([from, to])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(scp.status.success(), "{}", String::from_utf8_lossy(&scp.stderr));
    };
    copy("from", "host:up");
    copy("host:up", "down");
    let diff = Command::new("diff")
        .args(["-r", "from", "down"])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(diff.success());
    assert!(folder.path().join("down/deep/er").join(&odd).exists());
}

#[tokio::test]
async fn a_session_serves_the_logins_home_with_its_rights() {
    let Some(host) = Host::new() else { return };
    let secret = host.folder.path().join("secret");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let mut child = host.spawn(spec("joe", Program::Sftp)).await.unwrap();
    let packet = |parts: &[&[u8]]| {
        let body = parts.concat();
        [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
    };
    let text = |text: &str| {
        [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
    };
    let requests = [
        packet(&[&[1], &3_u32.to_be_bytes()]),
        // mkdir, relative
        packet(&[&[14], &1_u32.to_be_bytes(), &text("made"), &[0; 4]]),
        // open to read
        packet(&[
            &[3],
            &2_u32.to_be_bytes(),
            &text(secret.to_str().unwrap()),
            &1_u32.to_be_bytes(),
            &[0; 4],
        ]),
    ];
    child.input.write_all(&requests.concat()).await.unwrap();
    child.input.shutdown().await.unwrap();
    let mut answers = Vec::new();
    child.output.read_to_end(&mut answers).await.unwrap();
    // Type, number and status of each.
    let mut seen = Vec::new();
    let mut rest = answers.as_slice();
    while let Some((length, packets)) = rest.split_first_chunk() {
        let (packet, later) = packets.split_at(u32::from_be_bytes(*length) as usize);
        seen.push((packet[0], packet[4], packet[8]));
        rest = later;
    }
    assert_eq!(seen[0].0, 2);
    assert_eq!(seen[1..], [(101, 1, 0), (101, 2, 3)]);
    let ran = finish(child, b"").await;
    assert_eq!(ran.exit.status, Some(0));
    let made = host.home().join("made").metadata().unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (JOE.1, JOE.2, 0o755));
}

#[tokio::test]
async fn old_scp_runs_as_any_command() {
    let Some(host) = Host::new() else { return };
    let child = host.spawn(spec("joe", crate::host::exec("scp -t ."))).await.unwrap();
    let ran = finish(child, b"C0644 4 f\nabc\n\0").await;
    assert_eq!((ran.exit.status, ran.output.as_str()), (Some(0), "\0\0\0"), "{}", ran.error);
    assert_eq!(std::fs::read_to_string(host.home().join("f")).unwrap(), "abc\n");
}

#[test]
fn garbage_ends_it() {
    let mut sftp = Command::new(TELEPORT)
        .arg("sftp")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut sftp.stdin.take().unwrap(), b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let done = sftp.wait_with_output().unwrap();
    assert!(!done.status.success());
    assert_eq!(String::from_utf8_lossy(&done.stderr), "sftp: packet of 1195725856 bytes\n");
}

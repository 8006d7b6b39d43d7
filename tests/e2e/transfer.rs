//! Bulk in both directions, many sessions, slow readers.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use shared_testkit::run;

use crate::support::Stage;

const MIB: usize = 1 << 20;

/// Bytes that no compressor or repeated buffer can fake.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn a_gibibyte_arrives_intact_both_ways() -> Result<()> {
    let stage = Stage::new("bulk")?;
    let block = noise(64 * MIB);
    let file = stage.scratch.path().join("big");
    {
        use std::io::Write;
        let mut out = std::fs::File::create(&file)?;
        for _ in 0..16 {
            out.write_all(&block)?;
        }
    }
    let sum = |path: &std::path::Path| -> Result<String> {
        let out = std::process::Command::new("sha256sum").arg(path).output()?;
        Ok(String::from_utf8_lossy(&out.stdout).split(' ').next().unwrap_or_default().to_owned())
    };
    let wanted = sum(&file)?;
    let down = stage.scratch.path().join("down");
    let status = stage
        .tsh_ssh(&[], &[&format!("cat {}", file.display())])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&down)?)
        .status()?;
    assert!(status.success());
    assert_eq!(sum(&down)?, wanted);
    std::fs::remove_file(&down)?;
    let up = stage.scratch.path().join("up");
    let status = stage
        .tsh_ssh(&[], &[&format!("cat > {}", up.display())])
        .stdin(std::fs::File::open(&file)?)
        .status()?;
    assert!(status.success());
    assert_eq!(sum(&up)?, wanted);
    Ok(())
}

#[test]
fn a_reader_that_stops_loses_nothing_and_takes_no_memory() -> Result<()> {
    let stage = Stage::new("slow")?;
    let mut child = stage
        .tsh_ssh(&[], &["head -c 200M /dev/zero"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = child.stdout.take().context("stdout")?;
    let mut first = vec![0_u8; MIB];
    stdout.read_exact(&mut first)?;
    std::thread::sleep(Duration::from_secs(5));
    let memory = e2e::measure::process_memory(stage.cluster.auth.id());
    assert!(memory < 400.0 * 1024.0, "the proxy holds {memory} KiB");
    let rest = std::io::copy(&mut stdout, &mut std::io::sink())?;
    assert!(child.wait()?.success());
    assert_eq!(rest + MIB as u64, 200 * MIB as u64);
    Ok(())
}

#[test]
fn many_parallel_sessions_are_all_recorded() -> Result<()> {
    let stage =
        Stage::with("many", &Default::default(), "MaxStartups 500:30:1000\nMaxSessions 500")?;
    let count = 60;
    let mut children = Vec::new();
    for number in 0..count {
        let line = format!("echo session-{number}");
        children.push(
            stage.tsh_ssh(&[], &[&line]).stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?,
        );
    }
    for (number, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output()?;
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("session-{number}\n"));
    }
    let records = stage.cluster.data_dir().join("log/records");
    shared_testkit::until("all recordings", 60, || {
        let files = std::fs::read_dir(&records).ok()?;
        let tars = files
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|kind| kind == "tar"));
        (tars.count() == count).then_some(())
    })?;
    let rows = stage.cluster.query("select count(distinct sid) from session_end")?;
    assert_eq!(rows, [[count.to_string()]]);
    Ok(())
}

#[test]
fn scp_sftp_and_rsync_pass_and_their_bytes_are_not_recorded() -> Result<()> {
    let stage = Stage::new("files")?;
    let (_guard, socket) = stage.agent("a")?;
    let _done = run(
        stage.joe.login_command().env("SSH_AUTH_SOCK", &socket),
        format!("{}\n", shared_testkit::cluster::PASSWORD),
        60,
    )?
    .ok();
    let content = noise(3 * MIB);
    let from = stage.scratch.write("from", &content)?;
    let ssh = stage.ssh(&socket, &[], &[])?;
    let options: Vec<String> = ssh
        .get_args()
        .take_while(|arg| *arg != "-p")
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let port = stage.sshd.port.to_string();
    for (name, legacy) in [("sftp", false), ("scp", true)] {
        let to = stage.scratch.path().join(name);
        let mut scp = shared_testkit::process::command("scp", &stage.joe.folder);
        scp.env("SSH_AUTH_SOCK", &socket).args(&options).args(["-P", &port]);
        if legacy {
            scp.arg("-O");
        }
        scp.arg(&from).arg(format!("{}:{}", stage.target(), to.display()));
        let _copied = run(&mut scp, "", 60)?.ok();
        assert_eq!(std::fs::read(&to)?, content, "{name}");
    }
    let names = stage.cluster.query(
        "select event_type from events where event_type in ('subsystem', 'scp') order by 1",
    )?;
    assert_eq!(names, [["scp"], ["subsystem"]]);
    let records = stage.cluster.data_dir().join("log/records");
    for file in std::fs::read_dir(&records)?.flatten() {
        assert!(file.metadata()?.len() < 100 * 1024, "{:?} holds file contents", file.path());
    }
    Ok(())
}

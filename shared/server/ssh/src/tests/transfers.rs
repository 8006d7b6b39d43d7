//! Bulk: files and pipes both ways.

use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{DEADLINE, World, have_ssh, run, text};

const SIZE: usize = 64 * 1024 * 1024;

fn noise() -> Vec<u8> {
    let mut state = 1_u32;
    (0..SIZE)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_passes_both_ways_at_once() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let mut ssh = world.ssh();
    ssh.arg("cat").stdin(Stdio::piped());
    let mut cat = ssh.spawn().unwrap();
    let (mut input, mut output) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
    let sent = noise();
    let writing = async {
        input.write_all(&sent).await.unwrap();
        drop(input);
    };
    let mut got = Vec::with_capacity(SIZE);
    let both = async { tokio::join!(writing, output.read_to_end(&mut got)).1.unwrap() };
    tokio::time::timeout(DEADLINE, both).await.expect("it hangs");
    assert!(got == sent, "{} bytes came back", got.len());
    assert!(tokio::time::timeout(DEADLINE, cat.wait()).await.unwrap().unwrap().success());
    let data = &world.cluster.wait_for("session.data", 1).await[0];
    assert_eq!((data["tx"].as_u64(), data["rx"].as_u64()), (Some(SIZE as u64), Some(SIZE as u64)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_copied_and_roles_decide() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let content = noise();
    std::fs::write(world.path("file"), &content).unwrap();
    for old in [false, true] {
        let (there, back) = (world.path(&format!("there{old}")), world.path(&format!("back{old}")));
        for (from, to) in [
            (
                world.path("file").display().to_string(),
                format!("root@127.0.0.1:{}", there.display()),
            ),
            (format!("root@127.0.0.1:{}", there.display()), back.display().to_string()),
        ] {
            let mut scp = world.client("scp", "user");
            scp.args(old.then_some("-O")).args([from, to]);
            let copied = run(&mut scp).await;
            assert!(copied.status.success(), "old {old}: {copied:?}");
        }
        assert!(std::fs::read(back).unwrap() == content, "old {old}");
    }
    assert_eq!(world.cluster.recordings(), 0, "no bytes are recorded");
    world.cluster.options(serde_json::json!({"ssh_file_copy": false}));
    let mut sftp = world.client("sftp", "user");
    sftp.args(["-b", "/dev/null", "root@127.0.0.1"]);
    let refused = run(&mut sftp).await;
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("file copying is not permitted"), "{refused:?}");
    let events = world.cluster.wait_for("sftp", 1).await;
    assert!(events.iter().any(|event| event["code"] == "TS020E"), "{events:?}");
}

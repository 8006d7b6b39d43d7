//! Commands and shells: what they say, how they end, what is recorded of them.

use std::process::Stdio;
use std::time::Duration;

use server_core::tunnel::ArrivedBy;
use shared_types::{GoDuration, RecordingMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{DEADLINE, World, have_ssh, run, text, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_as_the_login_and_is_recorded() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let output = run(world.ssh().arg("echo out; echo err >&2; id -un; exit 7")).await;
    assert_eq!(text(&output.stdout), "out\nroot\n", "{output:?}");
    assert_eq!(text(&output.stderr), "err\n");
    assert_eq!(output.status.code(), Some(7));

    let start = &world.cluster.wait_for("session.start", 1).await[0];
    assert_eq!(start["initial_command"][0], "echo out; echo err >&2; id -un; exit 7");
    assert_eq!((start["user"].as_str(), start["login"].as_str()), (Some("joe"), Some("root")));
    assert_eq!(start["server_id"].as_str(), Some(world.cluster.node.to_string().as_str()));
    assert_eq!(start["server_hostname"], "web-1");
    assert_eq!(start["server_labels"]["env"], "test");
    assert_eq!(start["session_recording"], "node");
    let exec = &world.cluster.wait_for("exec", 1).await[0];
    assert_eq!((exec["exitCode"].as_str(), exec["code"].as_str()), (Some("7"), Some("T3002E")));
    let end = &world.cluster.wait_for("session.end", 1).await[0];
    let sid = end["sid"].as_str().unwrap();
    assert_eq!(start["sid"].as_str(), Some(sid));
    let printed = text(&world.cluster.printed(sid).await);
    assert!(printed.contains("out\n") && printed.contains("err\n"), "{printed}");
    world.cluster.wait_for("session.data", 1).await;
    world.cluster.wait_for("session.connect", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_know_their_session() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let mut ssh = world.client("ssh", "user");
    ssh.args(["-o", "SendEnv=LANG LD_PRELOAD LC_SECRET", "root@127.0.0.1", "env"]);
    ssh.env("LANG", "de_DE.UTF-8").env("LD_PRELOAD", "").env("LC_SECRET", "x");
    let output = run(&mut ssh).await;
    let vars = text(&output.stdout);
    let sid = world.cluster.wait_for("session.start", 1).await[0]["sid"].clone();
    let sid = sid.as_str().unwrap();
    for expected in [
        "SSH_TELEPORT_USER=joe",
        "SSH_TELEPORT_CLUSTER_NAME=main",
        "SSH_SESSION_WEBPROXY_ADDR=proxy.example.com:3080",
        &format!("SSH_TELEPORT_HOST_UUID={}", world.cluster.node),
        &format!("SSH_SESSION_ID={sid}"),
        &format!("TELEPORT_SESSION={sid}"),
        "LANG=de_DE.UTF-8",
        "LC_SECRET=x",
        "USER=root",
        "HOME=/root",
    ] {
        assert!(vars.lines().any(|line| line == expected), "{expected} is missing in\n{vars}");
    }
    assert!(vars.contains("SSH_CONNECTION=127.0.0.1 ") && vars.contains("SSH_CLIENT=127.0.0.1 "));
    assert!(
        !vars.contains("LD_PRELOAD") && !vars.contains("SSH_AUTH_SOCK") && !vars.contains("CARGO"),
        "{vars}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_ends_a_program_is_told() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let output = run(world.ssh().arg("kill -TERM $$")).await;
    assert_eq!(output.status.code(), Some(255));
    let exec = &world.cluster.wait_for("exec", 1).await[0];
    assert_eq!(exec["exitError"], "killed by signal TERM");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_with_a_terminal_is_recorded() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let mut ssh = world.client("ssh", "user");
    ssh.args(["-tt", "root@127.0.0.1"]).stdin(Stdio::piped()).env("TERM", "vt100");
    let mut shell = ssh.spawn().unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(b"echo $TERM $((6*7)) $SSH_TTY; exit 3\n").await.unwrap();
    let output = tokio::time::timeout(DEADLINE, shell.wait_with_output()).await.unwrap().unwrap();
    drop(input);
    assert!(text(&output.stdout).contains("vt100 42 /dev/pts/"), "{output:?}");
    assert_eq!(output.status.code(), Some(3));
    let end = &world.cluster.wait_for("session.end", 1).await[0];
    assert_eq!(end["interactive"], true);
    let printed = text(&world.cluster.printed(end["sid"].as_str().unwrap()).await);
    assert!(printed.contains("vt100 42 /dev/pts/"), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_client_takes_its_program_along() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let file = world.path("pid");
    let mut ssh = world.ssh();
    ssh.arg(format!("echo $$ > {}; exec sleep 1000", file.display()));
    let mut client = ssh.spawn().unwrap();
    let pid: i32 =
        until("program", || std::fs::read_to_string(&file).ok()?.trim().parse().ok()).await;
    client.kill().await.unwrap();
    until("end of the program", || {
        (!std::path::Path::new(&format!("/proc/{pid}/stat")).exists()).then_some(())
    })
    .await;
    let end = &world.cluster.wait_for("session.end", 1).await[0];
    assert_eq!(end["user"], "joe");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modes_say_where_it_is_recorded() {
    if !have_ssh() {
        return;
    }
    for (via, mode, told, recorded) in [
        (ArrivedBy::Direct, RecordingMode::Off, Some("off"), false),
        (ArrivedBy::Direct, RecordingMode::Proxy, Some("node"), true),
        (ArrivedBy::Direct, RecordingMode::ProxySync, Some("node-sync"), true),
        (ArrivedBy::Direct, RecordingMode::NodeSync, Some("node-sync"), true),
        (ArrivedBy::Tunnel, RecordingMode::Node, Some("node"), true),
        (ArrivedBy::Tunnel, RecordingMode::Proxy, None, false),
        (ArrivedBy::Proxy, RecordingMode::ProxySync, None, false),
    ] {
        let world = World::start_with(via, |_| {}).await;
        world.cluster.change(|state| state.recording.spec.mode = mode);
        let output = run(world.ssh().arg("echo here")).await;
        assert_eq!(text(&output.stdout), "here\n", "{mode} {via:?}: {output:?}");
        match told {
            Some(told) => {
                let start = &world.cluster.wait_for("session.start", 1).await[0];
                assert_eq!(start["session_recording"], told, "{mode} {via:?}");
                let sid = start["sid"].as_str().unwrap();
                world.cluster.wait_for("session.end", 1).await;
                if recorded {
                    assert!(text(&world.cluster.printed(sid).await).contains("here"));
                }
            }
            None => tokio::time::sleep(Duration::from_millis(300)).await,
        }
        if !recorded {
            assert_eq!(world.cluster.recordings(), 0, "{mode} {via:?}");
        }
        if told.is_none() {
            for kind in ["session.start", "session.end", "exec", "session.data", "session.connect"]
            {
                assert!(world.cluster.seen(kind).is_empty(), "{kind} in {mode} {via:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_idleness_end_what_runs() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let mut ssh = world.ssh();
    ssh.arg("echo up; exec sleep 1000");
    let mut client = ssh.spawn().unwrap();
    let mut up = [0; 3];
    client.stdout.as_mut().unwrap().read_exact(&mut up).await.unwrap();
    world.cluster.change(|state| {
        let spec = serde_json::json!({"target": {"user": "joe"}, "message": "gone"});
        let spec = serde_json::from_value(spec).unwrap();
        state.locks.push(shared_types::resource::Lock::new("l", spec));
    });
    let output = tokio::time::timeout(DEADLINE, client.wait_with_output()).await.unwrap().unwrap();
    assert!(
        text(&output.stderr).contains("lock targeting User:\"joe\" is in force: gone"),
        "{output:?}"
    );
    world.cluster.wait_for("client.disconnect", 1).await;
    let told = run(world.ssh().arg("true")).await;
    assert!(text(&told.stderr).contains("in force: gone"), "told why: {told:?}");
    world.cluster.change(|state| state.locks.clear());

    world
        .cluster
        .change(|state| state.networking.spec.client_idle_timeout = GoDuration::from_secs(1));
    let output = run(world.ssh().arg("sleep 1000")).await;
    assert!(text(&output.stderr).contains("client_idle_timeout"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_roles_hold() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    world.cluster.options(serde_json::json!({"max_connections": 1}));
    let mut ssh = world.ssh();
    ssh.arg("echo up; exec sleep 1000");
    let mut first = ssh.spawn().unwrap();
    let mut up = [0; 3];
    first.stdout.as_mut().unwrap().read_exact(&mut up).await.unwrap();
    let second = run(world.ssh().arg("true")).await;
    assert!(text(&second.stderr).contains("max_connections limit reached"), "{second:?}");
    let rejected = &world.cluster.wait_for("session.rejected", 1).await[0];
    assert_eq!((rejected["max"].as_i64(), rejected["code"].as_str()), (Some(1), Some("T1006W")));
    first.kill().await.unwrap();

    world.cluster.options(serde_json::json!({"max_sessions": 1}));
    let control = world.path("control");
    let master = |command: &mut tokio::process::Command| {
        command.arg("-o").arg(format!("ControlPath={}", control.display()));
    };
    let mut ssh = world.client("ssh", "user");
    master(&mut ssh);
    ssh.args(["-M", "root@127.0.0.1", "echo up; exec sleep 1000"]);
    let mut first = ssh.spawn().unwrap();
    first.stdout.as_mut().unwrap().read_exact(&mut up).await.unwrap();
    until("control socket", || control.exists().then_some(())).await;
    let mut ssh = world.client("ssh", "user");
    master(&mut ssh);
    ssh.args(["root@127.0.0.1", "true"]);
    let second = run(&mut ssh).await;
    // The client goes on with a connection of its own, which has a session of its own.
    assert!(text(&second.stderr).contains("open refused by peer"), "{second:?}");
    world.cluster.wait_for("session.rejected", 2).await;
    first.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_stops_its_program_and_nothing_else() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let control = world.path("control");
    let file = world.path("written");
    let mut ssh = world.client("ssh", "user");
    ssh.arg("-o").arg(format!("ControlPath={}", control.display()));
    // Writes on for as long as somebody takes it, and says how much that was.
    let writes = format!(
        "dd if=/dev/zero bs=64k count=4096 2>/dev/null | tee >(wc -c > {}) ",
        file.display()
    );
    ssh.args(["-M", "root@127.0.0.1"]).arg(format!("bash -c '{writes}'"));
    let mut stalled = ssh.spawn().unwrap();
    until("control socket", || control.exists().then_some(())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Beside it on the same connection, and on another.
    for beside in [true, false] {
        let mut ssh = world.client("ssh", "user");
        if beside {
            ssh.arg("-o").arg(format!("ControlPath={}", control.display()));
        }
        ssh.args(["root@127.0.0.1", "echo beside"]);
        assert_eq!(text(&run(&mut ssh).await.stdout), "beside\n", "{beside}");
    }
    assert!(!file.exists() || std::fs::read(&file).unwrap().is_empty(), "it was not stopped");
    let mut out = stalled.stdout.take().unwrap();
    let mut all = 0_u64;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = tokio::time::timeout(DEADLINE, out.read(&mut chunk)).await.unwrap().unwrap();
        if read == 0 {
            break;
        }
        all += read as u64;
    }
    assert_eq!(all, 4096 * 64 * 1024);
}

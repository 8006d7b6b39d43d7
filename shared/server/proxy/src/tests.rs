//! The recording proxy between an unmodified OpenSSH client and an unmodified sshd.

use std::process::{Output, Stdio};
use std::time::Duration;

use shared_recording::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::test_support::{World, have_ssh};

const DEADLINE: Duration = Duration::from_secs(60);

async fn run(command: &mut Command) -> Output {
    tokio::time::timeout(DEADLINE, command.output()).await.expect("the command hangs").unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn printed(recording: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new(recording);
    let mut out = Vec::new();
    while let Some(event) = decoder.next_event().unwrap() {
        if let shared_events::AuditEvent::SessionPrint(print) = event {
            out.extend_from_slice(&print.data);
        }
    }
    out
}

async fn recording(world: &World, sid: &str) -> Vec<u8> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(found) = world.cluster.recordings.lock().unwrap().get(sid) {
            return found.clone();
        }
        assert!(tokio::time::Instant::now() < deadline, "no recording of {sid}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_and_is_recorded() {
    if !have_ssh() {
        return;
    }
    let world = World::start("", true).await;
    let output = run(world.ssh(true).arg("echo out; echo err >&2; exit 7")).await;
    assert_eq!(text(&output.stdout), "out\n", "{output:?}");
    assert!(text(&output.stderr).contains("err\n"), "{output:?}");
    assert_eq!(output.status.code(), Some(7));

    let start = &world.cluster.wait_for("session.start", 1).await[0];
    assert_eq!(start["initial_command"][0], "echo out; echo err >&2; exit 7");
    assert_eq!((start["user"].as_str(), start["login"].as_str()), (Some("joe"), Some("root")));
    let exec = &world.cluster.wait_for("exec", 1).await[0];
    assert_eq!((exec["exitCode"].as_str(), exec["code"].as_str()), (Some("7"), Some("T3002E")));
    let end = &world.cluster.wait_for("session.end", 1).await[0];
    assert_eq!(end["interactive"], false);
    assert_eq!(end["sid"], start["sid"]);
    let data = &world.cluster.wait_for("session.data", 1).await[0];
    assert_eq!(data["tx"], 8);
    let recorded = printed(&recording(&world, start["sid"].as_str().unwrap()).await);
    assert_eq!(recorded.len(), "out\nerr\n".len());
    assert!(world.cluster.seen("session.connect").len() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_recorded_byte_for_byte() {
    if !have_ssh() {
        return;
    }
    let world = World::start("", true).await;
    let output = run(world
        .ssh(true)
        .args(["-tt", "stty size; printf '日本語\\033[31mred\\033[0m\\n'; exit 3"]))
    .await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let end = &world.cluster.wait_for("session.end", 1).await[0];
    assert_eq!(end["interactive"], true);
    let recorded = printed(&recording(&world, end["sid"].as_str().unwrap()).await);
    assert_eq!(text(&recorded), text(&output.stdout));
    assert!(text(&recorded).contains("日本語"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_goes_both_ways_and_always_ends() {
    if !have_ssh() {
        return;
    }
    let world = World::start("", true).await;
    for _ in 0..5 {
        let output = run(world.ssh(true).arg("head -c 60000000 /dev/zero; exit 4")).await;
        assert_eq!((output.stdout.len(), output.status.code()), (60_000_000, Some(4)));
    }
    let input = vec![b'x'; 40_000_000];
    let mut child =
        world.ssh(true).arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writing = tokio::spawn(async move {
        stdin.write_all(&input).await.unwrap();
    });
    let output =
        tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("cat hangs").unwrap();
    writing.await.unwrap();
    assert_eq!((output.stdout.len(), output.status.code()), (40_000_000, Some(0)));
    let ends = world.cluster.wait_for("session.end", 6).await;
    let last = recording(&world, ends[0]["sid"].as_str().unwrap()).await;
    // The bucket: 16 MiB, and what was refilled meanwhile.
    let kept = printed(&last).len();
    assert!((16 << 20..20 << 20).contains(&kept), "{kept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_at_once() {
    if !have_ssh() {
        return;
    }
    let world = World::start("MaxStartups 200", true).await;
    let mut running = tokio::task::JoinSet::new();
    for n in 0..30 {
        let mut command = world.ssh(true);
        command.arg(format!("seq 1 2000; exit {n}"));
        running.spawn(async move { (n, run(&mut command).await) });
    }
    while let Some(done) = running.join_next().await {
        let (n, output) = done.unwrap();
        assert_eq!(output.status.code(), Some(n), "{output:?}");
        assert_eq!(text(&output.stdout).lines().count(), 2000);
    }
    assert_eq!(world.cluster.wait_for("session.end", 30).await.len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_agent_the_first_channel_says_why() {
    if !have_ssh() {
        return;
    }
    let world = World::start("", true).await;
    let output = run(world.ssh(false).arg("true")).await;
    let said = text(&output.stderr);
    assert!(
        said.contains("open failed: connect failed: agent forwarding has not been requested"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(255));
    let refused = world.cluster.wait_for("auth", 1).await;
    assert!(refused[0]["error"].as_str().unwrap().contains("agent forwarding"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_host_key_is_refused_unless_keys_are_not_checked() {
    if !have_ssh() {
        return;
    }
    let world = World::start("", false).await;
    let output = run(world.ssh(true).arg("true")).await;
    let wanted = "connect failed: ssh: handshake failed: remote host presented a public key, expected a host certificate";
    assert!(text(&output.stderr).contains(wanted), "{output:?}");
    world.cluster.change(|state| state.recording.spec.proxy_checks_host_keys = false);
    let output = run(world.ssh(true).arg("echo in")).await;
    assert_eq!(text(&output.stdout), "in\n", "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_sshd_is_eof_with_a_hint() {
    if !have_ssh() {
        return;
    }
    let world = World::start("MaxStartups 1:100:1\nLoginGraceTime 60", true).await;
    // One that never logs in fills it, once those who only looked whether it listens are gone.
    let _held = loop {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", world.target)).await.unwrap();
        let mut first = [0; 4];
        if stream.read_exact(&mut first).await.is_ok() && &first == b"SSH-" {
            break stream;
        }
    };
    let output = run(world.ssh(true).arg("true")).await;
    let said = text(&output.stderr);
    assert!(
        said.contains("channel 0: open failed: connect failed: ssh: handshake failed: EOF"),
        "{said}"
    );
    assert!(said.contains("MaxStartups"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_that_no_role_names_are_refused() {
    if !have_ssh() {
        return;
    }
    let world = World::start("", true).await;
    // Everything, which does not mean this machine.
    world.cluster.change(|state| {
        for role in state.roles.values_mut() {
            role.spec.allow.node_labels = serde_json::from_str("{\"*\": \"*\"}").unwrap();
        }
    });
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "127.1",
        "0.0.0.0",
        "::1",
        "::ffff:127.0.0.1",
        "169.254.169.254",
    ] {
        let output = run(world.client("ssh", true).arg(format!("root@{host}")).arg("true")).await;
        assert_eq!(output.status.code(), Some(255), "{host}: {output:?}");
        let said = text(&output.stderr);
        // The client writes some of them in another way before it asks.
        let denied = said.contains("user joe@main is not authorized to login as root@")
            && said.contains(": access denied");
        assert!(denied || said.contains("is offline or does not exist"), "{host}: {said}");
    }
    assert!(world.cluster.seen("session.connect").is_empty());
    assert!(!world.cluster.seen("auth").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_mode_names_the_remedy_and_off_is_a_pipe() {
    if !have_ssh() {
        return;
    }
    let world = World::start("", true).await;
    world.cluster.change(|state| state.recording.spec.mode = shared_types::RecordingMode::Node);
    let output = run(world.ssh(true).arg("true")).await;
    assert!(text(&output.stderr).contains("session_recording: \"proxy\""), "{output:?}");
    world.cluster.change(|state| state.recording.spec.mode = shared_types::RecordingMode::Off);
    let output = run(world.ssh(false).arg("echo direct")).await;
    assert_eq!(text(&output.stdout), "direct\n", "{output:?}");
    assert!(world.cluster.seen("session.start").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_copied_and_named_and_not_recorded() {
    if !have_ssh() {
        return;
    }
    let world = World::start("", true).await;
    let (from, to) = (world.path("from"), world.path("to"));
    std::fs::write(&from, vec![b'z'; 3_000_000]).unwrap();
    let output = run(world
        .client("scp", true)
        .arg("-q")
        .arg(&from)
        .arg(format!("root@127.0.0.1:{}", to.display())))
    .await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read(&to).unwrap().len(), 3_000_000);
    assert_eq!(world.cluster.wait_for("subsystem", 1).await[0]["name"], "sftp");
    let again = world.path("again");
    let output = run(world
        .client("scp", true)
        .args(["-q", "-O"])
        .arg(&from)
        .arg(format!("root@127.0.0.1:{}", again.display())))
    .await;
    assert!(output.status.success(), "{output:?}");
    let scp = &world.cluster.wait_for("scp", 1).await[0];
    assert_eq!((scp["action"].as_str(), scp["code"].as_str()), (Some("upload"), Some("T3005I")));
    assert!(world.cluster.seen("session.start").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_goes_ends_the_session() {
    if !have_ssh() {
        return;
    }
    let world = World::start("", true).await;
    let mut command = world.ssh(true);
    command.arg("sleep 300");
    let running = tokio::spawn(async move { run(&mut command).await });
    world.cluster.wait_for("session.start", 1).await;
    world.cluster.change(|state| state.roles.clear());
    let output = running.await.unwrap();
    assert!(text(&output.stderr).contains("access was revoked"), "{output:?}");
    let end = world.cluster.wait_for("client.disconnect", 1).await;
    assert_eq!(end[0]["reason"], "access was revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_login_does_not_get_in() {
    if !have_ssh() {
        return;
    }
    let world = World::start("", true).await;
    let output = run(world.client("ssh", true).args(["nobody@127.0.0.1", "true"])).await;
    assert_eq!(output.status.code(), Some(255));
    let refused = world.cluster.wait_for("auth", 1).await;
    assert_eq!(
        (refused[0]["login"].as_str(), refused[0]["code"].as_str()),
        (Some("nobody"), Some("T3007W"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_web_port_speaks_what_guides_type() {
    if !have_ssh() {
        return;
    }
    let world = World::start("", true).await;
    let get = async |path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sk", "-w", "\n%{http_code}"]).arg(format!("https://{}{path}", world.web));
        text(&run(&mut curl).await.stdout)
    };
    let ping = get("/webapi/ping").await;
    assert!(ping.contains("\"cluster_name\":\"main\"") && ping.ends_with("200"), "{ping}");
    assert!(get("/v1/webapi/find").await.ends_with("200"));
    assert!(get("/webapi/auth/export?type=user").await.starts_with("cert-authority ssh-ed25519 "));
    assert!(
        get("/webapi/ping/nobody")
            .await
            .contains("{\"error\":{\"message\":\"connector not found\"}}")
    );
    assert!(get("/nothing").await.ends_with("404"));
    let mut codes = Vec::new();
    for _ in 0..45 {
        codes.push(get("/webapi/ping").await.ends_with("200"));
    }
    assert!(codes.contains(&true) && codes.contains(&false), "the rate limit does not hold");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_sessions_end_and_keeps_their_recordings() {
    if !have_ssh() {
        return;
    }
    let mut world = World::start("", true).await;
    let mut command = world.ssh(true);
    command.arg("sleep 2; echo late");
    let running = tokio::spawn(async move { run(&mut command).await });
    world.cluster.wait_for("session.start", 1).await;
    world.stop.cancel();
    let output = running.await.unwrap();
    assert_eq!(text(&output.stdout), "late\n", "{output:?}");
    tokio::time::timeout(DEADLINE, world.proxy.take().unwrap())
        .await
        .expect("drain hangs")
        .unwrap();
    let end = &world.cluster.seen("session.end")[0];
    assert_eq!(text(&printed(&recording(&world, end["sid"].as_str().unwrap()).await)), "late\n");
}

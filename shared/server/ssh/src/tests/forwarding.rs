//! Forwarded connections both ways, and the agent.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::support::{DEADLINE, World, have_ssh, run, text, until};

/// Sends back what it gets, on a port of its own.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    port
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn dial(port: u16) -> TcpStream {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => return stream,
            Err(_) => assert!(tokio::time::Instant::now() < deadline, "nobody listens"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn comes_back(stream: &mut TcpStream, size: usize) {
    let sent: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    let (mut read, mut write) = stream.split();
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let both = async { tokio::join!(writing, read.read_to_end(&mut got)).1.unwrap() };
    tokio::time::timeout(DEADLINE, both).await.expect("it does not come back");
    assert!(got == sent, "{} of {size} bytes", got.len());
}

fn forwarding(world: &World, arguments: &[&str]) -> Child {
    let mut ssh = world.client("ssh", "user");
    ssh.args(["-N", "-o", "ExitOnForwardFailure=yes"]).args(arguments).arg("root@127.0.0.1");
    ssh.spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_forwarded_both_ways() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let (echo, local, remote, socks) = (echo().await, free_port(), free_port(), free_port());
    let _client = forwarding(
        &world,
        &[
            "-L",
            &format!("{local}:127.0.0.1:{echo}"),
            "-R",
            &format!("{remote}:127.0.0.1:{echo}"),
            "-D",
            &socks.to_string(),
        ],
    );
    comes_back(&mut dial(local).await, 3_000_000).await;
    let events = world.cluster.wait_for("port", 2).await;
    assert!(events.iter().any(|event| event["addr"] == format!("127.0.0.1:{echo}")), "{events:?}");
    comes_back(&mut dial(remote).await, 3_000_000).await;

    let mut stream = dial(socks).await;
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.unwrap();
    let [high, low] = echo.to_be_bytes();
    stream.write_all(&[5, 1, 0, 1, 127, 0, 0, 1, high, low]).await.unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[1], 0, "the answer of SOCKS");
    comes_back(&mut stream, 100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_decide_on_forwarding() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let (echo, port) = (echo().await, free_port());
    let remote = format!("{port}:127.0.0.1:{echo}");
    world.cluster.options(serde_json::json!({
        "ssh_port_forwarding": {"local": {"enabled": false}, "remote": {"enabled": false}},
    }));
    let mut client = forwarding(&world, &["-R", &remote]);
    let ended = tokio::time::timeout(DEADLINE, client.wait()).await.unwrap().unwrap();
    assert!(!ended.success(), "the port is not listened on");
    let _client = forwarding(&world, &["-L", &remote]);
    let mut stream = dial(port).await;
    assert_eq!(
        tokio::time::timeout(DEADLINE, stream.read(&mut [0; 1])).await.unwrap().unwrap_or(0),
        0
    );
    let failures = world.cluster.wait_for("port", 2).await;
    assert!(failures.iter().all(|event| event["code"] == "T3003E"), "{failures:?}");
    assert!(
        failures.iter().all(|event| event["error"] == "port forwarding not permitted"),
        "{failures:?}"
    );
}

/// An agent with a key in it, and its socket.
async fn agent(world: &World) -> (Child, std::path::PathBuf) {
    let socket = world.path("agent.sock");
    let mut command = Command::new("ssh-agent");
    command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).kill_on_drop(true);
    let agent = command.spawn().unwrap();
    until("agent", || socket.exists().then_some(())).await;
    let added = Command::new("ssh-add")
        .arg("-q")
        .arg(world.path("user"))
        .env("SSH_AUTH_SOCK", &socket)
        .status()
        .await;
    assert!(added.unwrap().success());
    (agent, socket)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_reach_the_agent_where_roles_allow() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let (_agent, socket) = agent(&world).await;
    let ssh = |command: &str| {
        let mut ssh = world.client("ssh", "user");
        ssh.args(["-A", "root@127.0.0.1", command]).env("SSH_AUTH_SOCK", &socket);
        ssh
    };
    let listed =
        run(&mut ssh("ssh-add -l; stat -c %a $(dirname $SSH_AUTH_SOCK); echo $SSH_AUTH_SOCK"))
            .await;
    let shown = text(&listed.stdout);
    assert!(shown.contains("ED25519"), "{listed:?}");
    assert_eq!(shown.lines().rev().nth(1), Some("700"), "{shown}");
    let path = shown.lines().last().unwrap().to_owned();
    until("end of the socket", || (!std::path::Path::new(&path).exists()).then_some(())).await;

    world.cluster.options(serde_json::json!({"forward_agent": false}));
    let without = run(&mut ssh("echo agent=$SSH_AUTH_SOCK")).await;
    assert_eq!(text(&without.stdout), "agent=\n");
}

use crate::wire::frame;
use std::process::{Child, Command, Stdio};

use super::super::test_support::Cluster;
use super::*;

/// A stock ssh-agent in the foreground, killed at the end; none where OpenSSH is not installed.
struct StockAgent {
    child: Child,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl StockAgent {
    async fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let spawned = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = spawned else {
            eprintln!("SKIPPED: ssh-agent is not installed");
            return None;
        };
        let agent = Self { child, path, _dir: dir };
        for _ in 0..500 {
            if RunningAgent::connect(&agent.path).await.is_ok() {
                return Some(agent);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("ssh-agent did not come up");
    }
}

impl Drop for StockAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_stock_agent_takes_the_certificate_and_gives_it_back() {
    let Some(stock) = StockAgent::start().await else { return };
    let user: UserName = "joe".parse().unwrap();
    let cluster = Cluster::new();
    let now = Utc::now();
    let mut agent = RunningAgent::connect(&stock.path).await.unwrap();

    let first = cluster.user_at(now, &["root"]);
    assert_eq!(agent.load(&first, &user, now).await.unwrap(), Loaded::Yes);
    let second = cluster.user_at(now, &["root"]);
    assert_eq!(agent.load(&second, &user, now).await.unwrap(), Loaded::Yes);
    // Another cluster's certificate of a user with the same name stays.
    let elsewhere = Cluster::new().user_at(now, &["root"]);
    assert_eq!(agent.load(&elsewhere, &user, now).await.unwrap(), Loaded::Yes);

    let held = agent.list().await.unwrap();
    let blobs: Vec<_> = held.iter().map(|entry| entry.key.as_slice()).collect();
    assert!(held.iter().all(|entry| entry.comment == "teleport:joe"));
    assert_eq!(blobs, [second.blob(), elsewhere.blob()]);

    assert_eq!(agent.unload(second.certificate(), &user).await.unwrap(), 1);
    assert_eq!(agent.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_stock_agent_signs_with_the_loaded_key() {
    use russh::keys::signature::Verifier;
    use russh::keys::ssh_key::Signature;
    use russh::keys::ssh_key::encoding::Decode;
    let Some(stock) = StockAgent::start().await else { return };
    let now = Utc::now();
    let key = Cluster::new().user_at(now, &["root"]);
    let mut agent = RunningAgent::connect(&stock.path).await.unwrap();
    agent.load(&key, &"joe".parse().unwrap(), now).await.unwrap();
    let reply = agent.ask(&Request::encode_sign(key.blob(), b"data", 0)).await.unwrap();
    let Reply::Signature(blob) = reply else { panic!("{reply:?}") };
    let signature = Signature::decode(&mut blob.as_slice()).unwrap();
    key.certificate().public_key().verify(b"data", &signature).unwrap();
}

/// An agent that refuses certificates, as gnome-keyring and gpg-agent do.
#[tokio::test]
async fn an_agent_that_refuses_is_named_and_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("keyring");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("ssh");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Ok(len) = stream.read_u32().await {
            let mut message = vec![0; len as usize];
            stream.read_exact(&mut message).await.unwrap();
            let reply = match message[0] {
                11 => Reply::Identities(Vec::new()),
                _ => Reply::Failure,
            };
            stream.write_all(&frame(&reply.encode())).await.unwrap();
        }
    });
    let now = Utc::now();
    let key = Cluster::new().user_at(now, &["root"]);
    let mut agent = RunningAgent::connect(&path).await.unwrap();
    let loaded = agent.load(&key, &"joe".parse().unwrap(), now).await.unwrap();
    let Loaded::Refused(text) = loaded else { panic!("{loaded:?}") };
    assert!(text.contains("gnome-keyring"), "{text}");
}

#[test]
fn lifetimes_are_what_is_left_and_never_for_ever() {
    let now = Utc::now();
    let key = Cluster::new().user_at(now, &["root"]);
    let left = lifetime(key.certificate(), now).unwrap();
    assert!((3590..=3600).contains(&left), "{left}");
    assert_eq!(lifetime(key.certificate(), now + chrono::TimeDelta::days(9)), Some(1));
}

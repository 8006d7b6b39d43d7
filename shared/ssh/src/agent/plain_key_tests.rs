//! Binds with a plain host key: refused unless somebody vouches for it, and nobody is asked about a key
//! that has proved nothing.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use russh::keys::ssh_key::PublicKey;
use shared_pki::KeyPair;
use shared_pki::verify::CertRefusal;
use shared_types::SystemRole;

use super::test_support::{Cluster, Host, now, sign, userauth};
use super::*;
use crate::wire::{Reply, Request, SessionBind};

const SID: &[u8] = &[7; 32];
const HOST: &str = "db.example.com";

/// Vouches for one key, and remembers what it was asked.
#[derive(Debug)]
struct Only {
    key: PublicKey,
    asked: Mutex<Vec<PublicKey>>,
}

#[async_trait]
impl HostKeys for Only {
    async fn accept(&self, key: &PublicKey) -> Result<(), HostKeyRefusal> {
        self.asked.lock().unwrap().push(key.clone());
        if *key == self.key { Ok(()) } else { Err(HostKeyRefusal("another key".into())) }
    }
}

struct Scene {
    cluster: Cluster,
    key: Arc<AgentKey>,
    host: Host,
    keys: Arc<Only>,
    agent: Arc<EmbeddedAgent>,
}

fn plain_host() -> Host {
    let key = KeyPair::generate().unwrap();
    let blob = key.public().to_bytes().unwrap();
    Host { key, blob }
}

fn scene() -> Scene {
    let cluster = Cluster::new();
    let key = cluster.user(&["root"]);
    let host = plain_host();
    let keys = Arc::new(Only { key: host.key.public().clone(), asked: Mutex::default() });
    let policy = Policy::new(HOST.parse().unwrap(), "root".parse().unwrap(), cluster.trusted());
    let agent = EmbeddedAgent::new(Arc::clone(&key), policy);
    agent.ask_about_plain_keys(Arc::<Only>::clone(&keys));
    Scene { cluster, key, host, keys, agent }
}

impl Scene {
    async fn ask(&self, message: &[u8]) -> (AgentSession, Answer) {
        let mut channel = self.agent.channel().unwrap();
        let answer = channel.handle_asking(message, now()).await;
        (channel, answer)
    }

    fn asked(&self) -> usize {
        self.keys.asked.lock().unwrap().len()
    }
}

#[tokio::test]
async fn a_vouched_key_binds_and_signs_for_itself_only() {
    let scene = scene();
    let (mut channel, answer) = scene.ask(&scene.host.bind(SID, false)).await;
    assert_eq!(answer.reply, Reply::Success, "{:?}", answer.refusal);
    assert_eq!(scene.asked(), 1);
    let other = plain_host();
    for (blob, signed) in [(&scene.host.blob, true), (&other.blob, false)] {
        let data = userauth(&scene.key, SID, "root", Some(blob));
        let answer = channel.handle_asking(&sign(&scene.key, &data), now()).await;
        assert_eq!(matches!(answer.reply, Reply::Signature(_)), signed, "{:?}", answer.refusal);
    }
    let data = userauth(&scene.key, &[8; 32], "root", Some(&scene.host.blob));
    let answer = channel.handle_asking(&sign(&scene.key, &data), now()).await;
    assert!(matches!(answer.refusal, Some(Refusal::OtherSession)), "{:?}", answer.refusal);
}

#[tokio::test]
async fn a_key_nobody_vouches_for_closes_the_channel() {
    let scene = scene();
    let (mut channel, answer) = scene.ask(&plain_host().bind(SID, false)).await;
    assert!(matches!(answer.refusal, Some(Refusal::HostKey(_))), "{:?}", answer.refusal);
    assert!(answer.close);
    assert_eq!(scene.agent.last_refusal().unwrap(), "host key: another key");
    let listed = channel.handle_asking(&Request::encode_list(), now()).await;
    assert!(matches!(listed.refusal, Some(Refusal::Closed)));
}

#[tokio::test]
async fn nobody_is_asked_about_a_key_that_proves_nothing() {
    let scene = scene();
    let stranger = plain_host();
    let bind = |session_id: &[u8], signature: &[u8], forwarding| {
        let host_key = &scene.host.blob;
        SessionBind { host_key, session_id, signature, forwarding }.encode()
    };
    let mut trailing = scene.host.signature(SID);
    trailing.push(0);
    let mut spare = scene.host.blob.clone();
    spare.push(0);
    let spare = Host { key: KeyPair::new(scene.host.key.private().clone()).unwrap(), blob: spare };
    for (what, message) in [
        ("another key's signature", bind(SID, &stranger.signature(SID), false)),
        ("another session's signature", bind(SID, &scene.host.signature(&[8; 32]), false)),
        ("no signature", bind(SID, b"", false)),
        ("spare bytes behind the signature", bind(SID, &trailing, false)),
        ("spare bytes behind the key", spare.bind(SID, false)),
        ("forwarding", bind(SID, &scene.host.signature(SID), true)),
        ("no session id", bind(b"", &scene.host.signature(b""), false)),
        ("a long session id", bind(&[7; 65], &scene.host.signature(&[7; 65]), false)),
    ] {
        let (_, answer) = scene.ask(&message).await;
        assert!(answer.refusal.is_some() && answer.close, "{what}: {answer:?}");
    }
    assert_eq!(scene.asked(), 0);
}

#[tokio::test]
async fn weak_keys_are_not_asked_about() {
    use russh::keys::ssh_key::Mpint;
    use russh::keys::ssh_key::public::{KeyData, RsaPublicKey};
    let number = |len: usize| Mpint::from_positive_bytes(&vec![0xc1; len]);
    for (bytes, good) in [(128, false), (256, true)] {
        let key = RsaPublicKey::new(Mpint::from_positive_bytes(&[1, 0, 1]), number(bytes));
        let blob = PublicKey::new(KeyData::Rsa(key.unwrap()), "").to_bytes().unwrap();
        assert_eq!(super::plain_key(&blob).is_some(), good, "{bytes}");
    }
    assert!(super::plain_key(b"").is_none());
}

#[tokio::test]
async fn without_a_way_to_ask_a_plain_key_is_refused() {
    let scene = scene();
    let mut channel = scene.agent.channel().unwrap();
    let answer = channel.handle(&scene.host.bind(SID, false), now());
    assert!(matches!(answer.refusal, Some(Refusal::HostKey(_))), "{:?}", answer.refusal);
    let policy =
        Policy::new(HOST.parse().unwrap(), "root".parse().unwrap(), scene.cluster.trusted());
    let strict = EmbeddedAgent::new(Arc::clone(&scene.key), policy);
    let answer = strict.channel().unwrap().handle_asking(&scene.host.bind(SID, false), now()).await;
    let refusal = answer.refusal.unwrap();
    assert!(matches!(refusal, Refusal::Host(CertRefusal::NotCertificate)), "{refusal:?}");
}

#[tokio::test]
async fn certificates_keep_their_rules() {
    let scene = scene();
    let forged = scene.cluster.host(HOST, SystemRole::Proxy);
    let other = scene.cluster.host("web.example.com", SystemRole::Node);
    let stranger = Cluster::new().host(HOST, SystemRole::Node);
    for host in [&forged, &other, &stranger] {
        let (_, answer) = scene.ask(&host.bind(SID, false)).await;
        assert!(matches!(answer.refusal, Some(Refusal::Host(_))), "{:?}", answer.refusal);
    }
    let node = scene.cluster.host(HOST, SystemRole::Node);
    let (_, answer) = scene.ask(&node.bind(SID, false)).await;
    assert_eq!(answer.reply, Reply::Success, "{:?}", answer.refusal);
    assert_eq!(scene.asked(), 0);
}

#[tokio::test]
async fn a_session_id_is_taken_once_also_with_a_plain_key() {
    let scene = scene();
    let bind = scene.host.bind(SID, false);
    assert_eq!(scene.ask(&bind).await.1.reply, Reply::Success);
    let (_, answer) = scene.ask(&bind).await;
    assert!(matches!(answer.refusal, Some(Refusal::SessionIdReused)), "{:?}", answer.refusal);
    assert_eq!(scene.asked(), 1);
}

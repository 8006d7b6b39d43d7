use shared_pki::verify::CertRefusal;
use shared_types::SystemRole;

use super::super::test_support::{Cluster, Host, now, sign, userauth};
use super::*;

const SID: &[u8] = &[3; 32];

struct Scene {
    cluster: Cluster,
    key: Arc<AgentKey>,
    proxy: Host,
    node: Host,
}

fn scene() -> Scene {
    let cluster = Cluster::new();
    let key = cluster.user(&["root"]);
    let proxy = cluster.host("proxy.example.com", SystemRole::Proxy);
    let node = cluster.host("db.example.com", SystemRole::Node);
    Scene { cluster, key, proxy, node }
}

impl Scene {
    fn channel(&self, allow_unbound: bool) -> SocketSession {
        SocketAgent::new(Arc::clone(&self.key), self.cluster.trusted(), allow_unbound).channel()
    }

    fn sign(&self, channel: &mut SocketSession, sid: &[u8], host: &Host) -> Answer {
        let data = userauth(&self.key, sid, "root", Some(&host.blob));
        channel.handle(&sign(&self.key, &data), now())
    }
}

#[test]
fn a_login_to_the_proxy_and_one_through_it_are_signed() {
    let scene = scene();
    // `ssh` to the proxy itself.
    let mut outer = scene.channel(false);
    assert_eq!(outer.handle(&scene.proxy.bind(SID, false), now()).reply, Reply::Success);
    assert!(matches!(scene.sign(&mut outer, SID, &scene.proxy).reply, Reply::Signature(_)));
    // The agent forwarded to the proxy, which logs in to the node.
    let mut forwarded = scene.channel(false);
    assert_eq!(forwarded.handle(&scene.proxy.bind(SID, true), now()).reply, Reply::Success);
    assert_eq!(forwarded.handle(&scene.node.bind(&[4; 32], false), now()).reply, Reply::Success);
    assert!(matches!(scene.sign(&mut forwarded, &[4; 32], &scene.node).reply, Reply::Signature(_)));
}

#[test]
fn behind_a_proxy_a_proxy_is_not_signed_for() {
    let scene = scene();
    let forged = scene.cluster.host("db.example.com", SystemRole::Proxy);
    let mut forwarded = scene.channel(false);
    forwarded.handle(&scene.proxy.bind(SID, true), now());
    let answer = forwarded.handle(&forged.bind(&[4; 32], false), now());
    assert!(matches!(answer.refusal, Some(Refusal::Host(CertRefusal::WrongRole { .. }))));
    assert_eq!(scene.sign(&mut forwarded, &[4; 32], &forged).reply, Reply::Failure);
}

#[test]
fn an_agent_forwarded_to_a_node_signs_nothing() {
    let scene = scene();
    let mut forwarded = scene.channel(false);
    assert_eq!(forwarded.handle(&scene.node.bind(SID, true), now()).reply, Reply::Failure);
    let other = scene.cluster.host("web.example.com", SystemRole::Node);
    forwarded.handle(&other.bind(&[4; 32], false), now());
    assert_eq!(scene.sign(&mut forwarded, &[4; 32], &other).reply, Reply::Failure);
}

#[test]
fn unbound_signing_needs_to_be_allowed() {
    let scene = scene();
    let mut strict = scene.channel(false);
    let answer = scene.sign(&mut strict, SID, &scene.node);
    assert!(matches!(answer.refusal, Some(Refusal::Unbound)));
    let mut open = scene.channel(true);
    assert!(matches!(scene.sign(&mut open, SID, &scene.node).reply, Reply::Signature(_)));
    // Anything at all: that is what the flag says.
    let anything = open.handle(&sign(&scene.key, b"anything"), now());
    assert!(matches!(anything.reply, Reply::Signature(_)));
}

#[test]
fn a_bind_for_forwarding_alone_signs_nothing() {
    let scene = scene();
    let mut forwarded = scene.channel(false);
    forwarded.handle(&scene.proxy.bind(SID, true), now());
    let answer = scene.sign(&mut forwarded, SID, &scene.proxy);
    assert!(matches!(answer.refusal, Some(Refusal::ForwardingBind)));
}

#[test]
fn a_second_bind_that_ends_the_way_is_refused() {
    let scene = scene();
    let mut channel = scene.channel(false);
    channel.handle(&scene.node.bind(SID, false), now());
    let answer = channel.handle(&scene.node.bind(&[4; 32], false), now());
    assert!(matches!(answer.refusal, Some(Refusal::SecondBind)));
    // And what was bound is lost with it.
    assert_eq!(scene.sign(&mut channel, SID, &scene.node).reply, Reply::Failure);
}

#[test]
fn other_sessions_logins_and_hosts_are_not_signed_for() {
    let scene = scene();
    let bound = || {
        let mut channel = scene.channel(false);
        channel.handle(&scene.node.bind(SID, false), now());
        channel
    };
    assert_eq!(scene.sign(&mut bound(), &[9; 32], &scene.node).reply, Reply::Failure);
    assert_eq!(scene.sign(&mut bound(), SID, &scene.proxy).reply, Reply::Failure);
    let data = userauth(&scene.key, SID, "nobody", Some(&scene.node.blob));
    let answer = bound().handle(&sign(&scene.key, &data), now());
    assert!(matches!(answer.refusal, Some(Refusal::OtherUser)));
}

#[test]
fn a_new_login_is_taken_up_and_the_old_one_serves_what_it_began() {
    let scene = scene();
    let agent = SocketAgent::new(Arc::clone(&scene.key), scene.cluster.trusted(), false);
    let listed = |channel: &mut SocketSession| {
        let answer = channel.handle(&Request::encode_list(), now());
        let Reply::Identities(entries) = answer.reply else { panic!("{answer:?}") };
        entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    let mut channel = agent.channel();
    channel.handle(&scene.node.bind(SID, false), now());
    assert_eq!(listed(&mut channel), [scene.key.blob()]);
    let newer = scene.cluster.user(&["root"]);
    agent.replace(Arc::clone(&newer), scene.cluster.trusted());
    // Between the list and the signature: the key that was listed signs.
    assert!(matches!(scene.sign(&mut channel, SID, &scene.node).reply, Reply::Signature(_)));
    assert_eq!(listed(&mut channel), [newer.blob()]);
    let answer = scene.sign(&mut channel, SID, &scene.node);
    assert!(matches!(answer.refusal, Some(Refusal::OtherKey)), "{:?}", answer.refusal);
    assert_eq!(listed(&mut agent.channel()), [newer.blob()]);
}

#[test]
fn a_forgotten_login_signs_nothing_anywhere() {
    let scene = scene();
    let agent = SocketAgent::new(Arc::clone(&scene.key), scene.cluster.trusted(), true);
    let mut channel = agent.channel();
    agent.forget();
    let answer = channel.handle(&sign(&scene.key, b"anything"), now());
    assert!(matches!(answer.refusal, Some(Refusal::NoKey)), "{:?}", answer.refusal);
    let list = channel.handle(&Request::encode_list(), now());
    assert_eq!(list.reply, Reply::Identities(Vec::new()));
    agent.replace(Arc::clone(&scene.key), scene.cluster.trusted());
    channel.handle(&Request::encode_list(), now());
    let answer = channel.handle(&sign(&scene.key, b"anything"), now());
    assert!(matches!(answer.reply, Reply::Signature(_)), "{:?}", answer.refusal);
}

use std::time::Duration;

use chrono::TimeDelta;
use proptest::prelude::*;
use russh::keys::signature::Verifier;
use russh::keys::ssh_key::Signature;
use russh::keys::ssh_key::encoding::Decode;
use shared_pki::verify::CertRefusal;
use shared_pki::{CaKind, CertAuthority, KeyPair};
use shared_types::SystemRole;

use super::super::test_support::{Cluster, Host, now, sign, userauth};
use super::*;
use crate::wire::{AuthMethod, SSH_CONNECTION, UserAuthRequest, encode_userauth};

const SID: &[u8] = &[7; 32];
const HOST: &str = "db.example.com";

struct Scene {
    cluster: Cluster,
    key: Arc<AgentKey>,
    node: Host,
    agent: Arc<EmbeddedAgent>,
}

fn policy(cluster: &Cluster) -> Policy {
    Policy::new(HOST.parse().unwrap(), "root".parse().unwrap(), cluster.trusted())
}

fn scene() -> Scene {
    scene_with(|policy| policy)
}

fn scene_with(change: impl FnOnce(Policy) -> Policy) -> Scene {
    let cluster = Cluster::new();
    let key = cluster.user(&["root", "joe"]);
    let node = cluster.host(HOST, SystemRole::Node);
    let agent = EmbeddedAgent::new(Arc::clone(&key), change(policy(&cluster)));
    Scene { cluster, key, node, agent }
}

impl Scene {
    fn channel(&self) -> AgentSession {
        self.agent.channel().unwrap()
    }

    fn bound(&self) -> AgentSession {
        let mut channel = self.channel();
        let answer = channel.handle(&self.node.bind(SID, false), now());
        assert_eq!(answer.reply, Reply::Success, "{:?}", answer.refusal);
        channel
    }

    fn request(&self) -> Vec<u8> {
        userauth(&self.key, SID, "root", Some(&self.node.blob))
    }
}

fn refused(answer: &Answer) -> &Refusal {
    assert_eq!(answer.reply, Reply::Failure);
    answer.refusal.as_ref().expect("a refusal")
}

macro_rules! assert_refused {
    ($answer:expr, $pattern:pat, close: $close:expr) => {{
        let answer = $answer;
        let refusal = refused(&answer);
        assert!(matches!(refusal, $pattern), "{refusal:?}");
        assert_eq!(answer.close, $close);
    }};
}

#[test]
fn a_bound_channel_lists_one_certificate_and_signs_for_it() {
    let scene = scene();
    let mut channel = scene.bound();
    let list = channel.handle(&Request::encode_list(), now());
    let Reply::Identities(entries) = list.reply else { panic!("{list:?}") };
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].key, scene.key.blob());

    let data = scene.request();
    let answer = channel.handle(&sign(&scene.key, &data), now());
    let Reply::Signature(blob) = answer.reply else { panic!("{answer:?}") };
    let signature = Signature::decode(&mut blob.as_slice()).unwrap();
    scene.key.certificate().public_key().verify(&data, &signature).unwrap();
}

#[test]
fn nothing_comes_before_the_bind() {
    let scene = scene();
    assert_refused!(
        scene.channel().handle(&Request::encode_list(), now()),
        Refusal::Unbound,
        close: false
    );
    assert_refused!(
        scene.channel().handle(&sign(&scene.key, &scene.request()), now()),
        Refusal::Unbound,
        close: false
    );
}

#[test]
fn a_second_bind_closes_the_channel_for_good() {
    let scene = scene();
    let mut channel = scene.bound();
    assert_refused!(
        channel.handle(&scene.node.bind(&[8; 32], false), now()),
        Refusal::SecondBind,
        close: true
    );
    assert_refused!(
        channel.handle(&sign(&scene.key, &scene.request()), now()),
        Refusal::Closed,
        close: true
    );
    assert!(channel.bound().is_none());
}

#[test]
fn a_refused_bind_closes_the_channel() {
    let scene = scene();
    let mut channel = scene.channel();
    assert!(channel.handle(&scene.node.bind(SID, true), now()).close);
    assert_refused!(
        channel.handle(&scene.node.bind(SID, false), now()),
        Refusal::Closed,
        close: true
    );
}

#[test]
fn a_forwarding_bind_is_refused() {
    let scene = scene();
    assert_refused!(
        scene.channel().handle(&scene.node.bind(SID, true), now()),
        Refusal::ForwardingBind,
        close: true
    );
}

#[test]
fn a_session_id_of_no_or_more_than_64_bytes_is_refused() {
    let scene = scene();
    for len in [0, 65, 4096] {
        assert_refused!(
            scene.channel().handle(&scene.node.bind(&vec![7; len], false), now()),
            Refusal::SessionIdLength(_),
            close: true
        );
    }
    for len in [1, 64] {
        let answer = scene.channel().handle(&scene.node.bind(&vec![7; len], false), now());
        assert_eq!(answer.reply, Reply::Success);
    }
}

#[test]
fn a_replayed_bind_is_refused_on_another_channel() {
    let scene = scene();
    let bind = scene.node.bind(SID, false);
    let _first = scene.bound();
    assert_refused!(scene.channel().handle(&bind, now()), Refusal::SessionIdReused, close: true);
}

#[test]
fn a_replayed_bind_is_refused_after_the_first_channel_is_gone() {
    let scene = scene();
    drop(scene.bound());
    assert_refused!(
        scene.channel().handle(&scene.node.bind(SID, false), now()),
        Refusal::SessionIdReused,
        close: true
    );
}

#[test]
fn a_signature_over_another_session_does_not_bind() {
    let scene = scene();
    let bind = SessionBind {
        host_key: &scene.node.blob,
        session_id: SID,
        signature: &scene.node.signature(&[9; 32]),
        forwarding: false,
    };
    assert_refused!(
        scene.channel().handle(&bind.encode(), now()),
        Refusal::HostSignature,
        close: true
    );
}

#[test]
fn a_certificate_whose_key_the_proxy_does_not_have_does_not_bind() {
    let scene = scene();
    let other = scene.cluster.host(HOST, SystemRole::Node);
    let bind = SessionBind {
        host_key: &scene.node.blob,
        session_id: SID,
        signature: &other.signature(SID),
        forwarding: false,
    };
    assert_refused!(
        scene.channel().handle(&bind.encode(), now()),
        Refusal::HostSignature,
        close: true
    );
}

#[test]
fn spare_bytes_behind_a_signature_do_not_bind() {
    let scene = scene();
    let mut signature = scene.node.signature(SID);
    signature.push(0);
    let bind = SessionBind {
        host_key: &scene.node.blob,
        session_id: SID,
        signature: &signature,
        forwarding: false,
    };
    assert_refused!(
        scene.channel().handle(&bind.encode(), now()),
        Refusal::Unreadable,
        close: true
    );
}

#[test]
fn another_host_does_not_bind() {
    let scene = scene();
    let other = scene.cluster.host("web.example.com", SystemRole::Node);
    assert_refused!(
        scene.channel().handle(&other.bind(SID, false), now()),
        Refusal::Host(CertRefusal::Principal(_)),
        close: true
    );
}

#[test]
fn a_proxy_role_certificate_for_the_hosts_name_does_not_bind() {
    let scene = scene();
    for role in [SystemRole::Proxy, SystemRole::Auth, SystemRole::Admin] {
        let forged = scene.cluster.host(HOST, role);
        assert_refused!(
            scene.channel().handle(&forged.bind(SID, false), now()),
            Refusal::Host(CertRefusal::WrongRole { .. }),
            close: true
        );
    }
}

/// The control run: what the role check is for. Without it the proxy, which gets certificates for any
/// name, binds as the host and has a login to the real one signed.
#[test]
fn without_the_role_check_the_same_attack_succeeds() {
    let scene = scene_with(Policy::danger_skip_role_check);
    let forged = scene.cluster.host(HOST, SystemRole::Proxy);
    let mut channel = scene.channel();
    assert_eq!(channel.handle(&forged.bind(SID, false), now()).reply, Reply::Success);
    let data = userauth(&scene.key, SID, "root", Some(&forged.blob));
    let answer = channel.handle(&sign(&scene.key, &data), now());
    assert!(matches!(answer.reply, Reply::Signature(_)), "{:?}", answer.refusal);
}

#[test]
fn hosts_of_other_authorities_do_not_bind() {
    let scene = scene();
    let stranger = Cluster::new().host(HOST, SystemRole::Node);
    assert_refused!(
        scene.channel().handle(&stranger.bind(SID, false), now()),
        Refusal::Host(CertRefusal::UnknownAuthority),
        close: true
    );
    // The user CA vouches for no host, even if it were made to sign one.
    let name = "main".parse().unwrap();
    let user_ca = CertAuthority::generate(CaKind::User, &name, now()).unwrap();
    let agent = EmbeddedAgent::new(
        Arc::clone(&scene.key),
        Policy::new(HOST.parse().unwrap(), "root".parse().unwrap(), vec![user_ca.trusted()]),
    );
    assert_refused!(
        agent.channel().unwrap().handle(&scene.node.bind(SID, false), now()),
        Refusal::Host(CertRefusal::UnknownAuthority),
        close: true
    );
}

#[test]
fn certificates_outside_their_time_do_not_bind() {
    let scene = scene();
    let bind = scene.node.bind(SID, false);
    assert_refused!(
        scene.channel().handle(&bind, now() + TimeDelta::hours(2)),
        Refusal::Host(CertRefusal::Expired),
        close: true
    );
    let early = Host::certified(
        &scene.cluster.host_ca,
        HOST,
        SystemRole::Node,
        now() + TimeDelta::hours(1),
        Some(Duration::from_secs(60)),
    );
    assert_refused!(
        scene.channel().handle(&early.bind(SID, false), now()),
        Refusal::Host(CertRefusal::NotYetValid),
        close: true
    );
}

#[test]
fn a_critical_option_on_the_host_certificate_does_not_bind() {
    use russh::keys::ssh_key::certificate::{Builder, CertType};
    let scene = scene();
    let ca = KeyPair::generate().unwrap();
    let mut authority = scene.cluster.host_ca.trusted();
    authority.ssh_keys = vec![ca.public_openssh()];
    let key = KeyPair::generate().unwrap();
    let start = u64::try_from(now().timestamp()).unwrap();
    let mut builder = Builder::new(vec![1; 32], key.public(), start, start + 60).unwrap();
    builder.cert_type(CertType::Host).unwrap();
    builder.valid_principal(HOST).unwrap();
    builder.critical_option("source-address", "10.0.0.0/8").unwrap();
    builder.extension("x-teleport-role", "Node").unwrap();
    builder.extension("x-teleport-authority", "main").unwrap();
    let blob = builder.sign(ca.private()).unwrap().to_bytes().unwrap();
    let host = Host { key, blob };
    let policy = Policy::new(HOST.parse().unwrap(), "root".parse().unwrap(), vec![authority]);
    let agent = EmbeddedAgent::new(Arc::clone(&scene.key), policy);
    assert_refused!(
        agent.channel().unwrap().handle(&host.bind(SID, false), now()),
        Refusal::Host(CertRefusal::UnknownCriticalOption(_)),
        close: true
    );
}

#[test]
fn a_plain_host_key_does_not_bind() {
    let scene = scene();
    let key = KeyPair::generate().unwrap();
    let blob = key.public().to_bytes().unwrap();
    let host = Host { key, blob };
    assert_refused!(
        scene.channel().handle(&host.bind(SID, false), now()),
        Refusal::Host(CertRefusal::NotCertificate),
        close: true
    );
}

#[test]
fn a_users_certificate_does_not_bind_as_a_host() {
    let scene = scene();
    let user = scene.cluster.user(&[HOST]);
    let key = KeyPair::new((**user.private_key()).clone()).unwrap();
    let host = Host { key, blob: user.blob().to_vec() };
    assert_refused!(
        scene.channel().handle(&host.bind(SID, false), now()),
        Refusal::Host(CertRefusal::WrongType { .. }),
        close: true
    );
}

#[test]
fn every_changed_byte_of_a_bind_is_refused() {
    let scene = scene();
    let bind = scene.node.bind(SID, false);
    for at in 0..bind.len() {
        let mut changed = bind.clone();
        changed[at] ^= 1;
        // A budget of its own, so that the channel count does not end the loop.
        let agent = EmbeddedAgent::new(Arc::clone(&scene.key), policy(&scene.cluster));
        let answer = agent.channel().unwrap().handle(&changed, now());
        assert_ne!(answer.reply, Reply::Success, "byte {at}");
    }
}

#[test]
fn a_request_for_another_session_is_not_signed() {
    let scene = scene();
    let data = userauth(&scene.key, &[8; 32], "root", Some(&scene.node.blob));
    assert_refused!(
        scene.bound().handle(&sign(&scene.key, &data), now()),
        Refusal::OtherSession,
        close: false
    );
}

#[test]
fn a_request_for_another_login_is_not_signed() {
    let scene = scene();
    // "joe" is in the certificate, and still not what the user typed.
    for user in ["joe", "rootx", "roo", "root\0", ""] {
        let agent = EmbeddedAgent::new(Arc::clone(&scene.key), policy(&scene.cluster));
        let mut channel = agent.channel().unwrap();
        channel.handle(&scene.node.bind(SID, false), now());
        let data = userauth(&scene.key, SID, user, Some(&scene.node.blob));
        assert_refused!(
            channel.handle(&sign(&scene.key, &data), now()),
            Refusal::OtherUser,
            close: false
        );
    }
}

#[test]
fn a_request_that_names_another_host_key_is_not_signed() {
    let scene = scene();
    let other = scene.cluster.host(HOST, SystemRole::Node);
    let data = userauth(&scene.key, SID, "root", Some(&other.blob));
    assert_refused!(
        scene.bound().handle(&sign(&scene.key, &data), now()),
        Refusal::OtherHost,
        close: false
    );
}

#[test]
fn a_request_for_another_service_is_not_signed() {
    let scene = scene();
    let data = encode_userauth(&UserAuthRequest {
        session_id: SID,
        user: b"root",
        service: b"ssh-userauth",
        method: AuthMethod::HostBound(&scene.node.blob),
        algorithm: scene.key.algorithm().as_bytes(),
        key: scene.key.blob(),
    });
    assert_refused!(
        scene.bound().handle(&sign(&scene.key, &data), now()),
        Refusal::OtherService,
        close: false
    );
}

#[test]
fn other_keys_and_algorithms_are_not_signed_for() {
    let scene = scene();
    let plain_key = scene.key.private_key().public_key().to_bytes().unwrap();
    let data = scene.request();
    // The bare key behind the certificate is another key.
    assert_refused!(
        scene.bound().handle(&Request::encode_sign(&plain_key, &data, 0), now()),
        Refusal::OtherKey,
        close: false
    );
    let request = |algorithm: &[u8], key: &[u8]| {
        encode_userauth(&UserAuthRequest {
            session_id: SID,
            user: b"root",
            service: SSH_CONNECTION.as_bytes(),
            method: AuthMethod::HostBound(&scene.node.blob),
            algorithm,
            key,
        })
    };
    let mut channel = scene_bound_again(&scene);
    assert_refused!(
        channel.handle(&sign(&scene.key, &request(b"ssh-ed25519", &plain_key)), now()),
        Refusal::OtherKey,
        close: false
    );
    for algorithm in [&b"ssh-ed25519"[..], b"rsa-sha2-256-cert-v01@openssh.com", b""] {
        let mut channel = scene_bound_again(&scene);
        assert_refused!(
            channel.handle(&sign(&scene.key, &request(algorithm, scene.key.blob())), now()),
            Refusal::OtherAlgorithm,
            close: false
        );
    }
    for flags in [1, 2, 4, u32::MAX] {
        let mut channel = scene_bound_again(&scene);
        let asked = Request::encode_sign(scene.key.blob(), &data, flags);
        assert_refused!(channel.handle(&asked, now()), Refusal::OtherAlgorithm, close: false);
    }
}

/// A channel of a fresh agent with the same key, since a session id binds once.
fn scene_bound_again(scene: &Scene) -> AgentSession {
    let agent = EmbeddedAgent::new(Arc::clone(&scene.key), policy(&scene.cluster));
    let mut channel = agent.channel().unwrap();
    assert_eq!(channel.handle(&scene.node.bind(SID, false), now()).reply, Reply::Success);
    channel
}

#[test]
fn a_request_with_spare_or_missing_bytes_is_not_signed() {
    let scene = scene();
    let data = scene.request();
    let mut spare = data.clone();
    spare.push(0);
    assert_refused!(
        scene.bound().handle(&sign(&scene.key, &spare), now()),
        Refusal::NotUserAuth(_),
        close: false
    );
    for cut in 0..data.len() {
        let mut channel = scene_bound_again(&scene);
        let answer = channel.handle(&sign(&scene.key, &data[..cut]), now());
        assert_eq!(answer.reply, Reply::Failure, "cut at {cut}");
    }
}

#[test]
fn data_that_is_no_userauth_request_is_not_signed() {
    let scene = scene();
    for data in [&b""[..], b"SSHSIG\0\0\0\0", b"some challenge of another protocol", SID] {
        let mut channel = scene_bound_again(&scene);
        assert_refused!(
            channel.handle(&sign(&scene.key, data), now()),
            Refusal::NotUserAuth(_),
            close: false
        );
    }
}

#[test]
fn plain_publickey_is_signed_unless_the_role_refuses_it() {
    let scene = scene();
    let data = userauth(&scene.key, SID, "root", None);
    let answer = scene.bound().handle(&sign(&scene.key, &data), now());
    assert!(matches!(answer.reply, Reply::Signature(_)), "{:?}", answer.refusal);

    let strict =
        EmbeddedAgent::new(Arc::clone(&scene.key), policy(&scene.cluster).plain_publickey(false));
    let mut channel = strict.channel().unwrap();
    channel.handle(&scene.node.bind(SID, false), now());
    assert_refused!(
        channel.handle(&sign(&scene.key, &data), now()),
        Refusal::PlainPublicKey,
        close: false
    );
    let hostbound = scene.request();
    let answer = channel.handle(&sign(&scene.key, &hostbound), now());
    assert!(matches!(answer.reply, Reply::Signature(_)));

    // What auth says of the role comes when the agent is there already.
    let later = EmbeddedAgent::new(Arc::clone(&scene.key), policy(&scene.cluster));
    later.refuse_plain_publickey();
    let mut channel = later.channel().unwrap();
    channel.handle(&scene.node.bind(SID, false), now());
    assert_refused!(
        channel.handle(&sign(&scene.key, &data), now()),
        Refusal::PlainPublicKey,
        close: false
    );
}

#[test]
fn there_is_one_signature_more_than_session_channels() {
    let scene = scene();
    let mut made = 0;
    let mut attempt = |scene: &Scene| {
        let sid = [made + 1; 32];
        made += 1;
        let mut channel = scene.channel();
        channel.handle(&scene.node.bind(&sid, false), now());
        let data = userauth(&scene.key, &sid, "root", Some(&scene.node.blob));
        channel.handle(&sign(&scene.key, &data), now())
    };
    assert!(matches!(attempt(&scene).reply, Reply::Signature(_)));
    assert_refused!(attempt(&scene), Refusal::Budget, close: false);
    scene.agent.note_session();
    scene.agent.note_session();
    assert!(matches!(attempt(&scene).reply, Reply::Signature(_)));
    assert!(matches!(attempt(&scene).reply, Reply::Signature(_)));
    assert_refused!(attempt(&scene), Refusal::Budget, close: false);
}

#[test]
fn one_channel_does_not_get_around_the_budget() {
    let scene = scene();
    let mut channel = scene.bound();
    let request = sign(&scene.key, &scene.request());
    assert!(matches!(channel.handle(&request, now()).reply, Reply::Signature(_)));
    assert_refused!(channel.handle(&request, now()), Refusal::Budget, close: false);
}

#[test]
fn channels_are_not_without_end() {
    let scene = scene();
    let opened = std::iter::from_fn(|| scene.agent.channel()).take(10_000).count();
    assert!(opened < 100, "{opened}");
}

#[test]
fn nothing_but_list_bind_and_sign_exists() {
    let scene = scene();
    let mut extension = vec![27];
    crate::wire::Put::put_string(&mut extension, b"query");
    // Add, remove, remove all, lock, unlock, smartcards, constrained add; and the answers' own numbers.
    for message in [
        &[17, 0, 0][..],
        &[18],
        &[19],
        &[22],
        &[23],
        &[20],
        &[21],
        &[25],
        &[26],
        &[1],
        &[5],
        &[6],
        &[12],
        &[14],
        &[255],
    ] {
        let mut channel = scene_bound_again(&scene);
        assert_refused!(channel.handle(message, now()), Refusal::Request(_), close: false);
    }
    let mut channel = scene_bound_again(&scene);
    assert_refused!(channel.handle(&extension, now()), Refusal::Extension, close: false);
}

#[test]
fn unreadable_messages_and_too_many_refusals_close() {
    let scene = scene();
    assert_refused!(scene.bound().handle(&[], now()), Refusal::Message(_), close: true);
    let mut channel = scene_bound_again(&scene);
    let closed = (0..MAX_REFUSALS).map(|_| channel.handle(&[19], now()).close).collect::<Vec<_>>();
    assert_eq!(closed.iter().filter(|close| **close).count(), 1);
    assert_eq!(closed.last(), Some(&true));
}

#[test]
fn the_user_can_be_told_what_was_refused() {
    let scene = scene();
    let forged = scene.cluster.host(HOST, SystemRole::Proxy);
    scene.channel().handle(&forged.bind(SID, false), now());
    let text = scene.agent.last_refusal().unwrap();
    assert!(text.starts_with("host certificate: "), "{text}");
    assert!(text.contains("Proxy"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_sequence_of_messages_panics_or_signs_unbound(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..8)
    ) {
        let scene = scene();
        let mut channel = scene.channel();
        for message in &messages {
            let answer = channel.handle(message, now());
            prop_assert!(!matches!(answer.reply, Reply::Signature(_)));
        }
    }
}

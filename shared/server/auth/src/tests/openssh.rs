//! Certificates for logins on registered servers without an agent: for whom, and for whom not.

use chrono::Duration;
use serde_json::json;
use shared_api::{HostCertReply, OpensshUserRequest};
use shared_pki::verify::SshVerifier;
use shared_pki::{CaKind, KeyPair, TrustedAuthority};
use shared_types::SystemRole;

use super::{Bed, Keys, PASSWORD, here};
use crate::error::Result;

const NODE: &str = "5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11";

/// A registered server with `env: prod`, a user who may go there as root, and one who may not.
async fn bed() -> Bed {
    let bed = Bed::new().await;
    bed.role("prod", json!({"logins": ["root", "deploy"], "node_labels": {"env": "prod"}})).await;
    bed.role("dev", json!({"logins": ["root"], "node_labels": {"env": "dev"}})).await;
    bed.user("joe", &["prod"], &[]).await;
    bed.user("mia", &["dev"], &[]).await;
    register(&bed).await;
    bed
}

async fn register(bed: &Bed) {
    let node = json!({
        "kind": "node", "sub_kind": "openssh",
        "metadata": {"name": NODE, "labels": {"env": "prod"}},
        "spec": {"hostname": "db-7", "addr": "10.0.0.7:22"},
    });
    bed.service.create_resource(&bed.admin(), "node", node, true).await.unwrap();
}

async fn shown(bed: &Bed, user: &str) -> String {
    bed.login(user, PASSWORD, &Keys::new()).await.unwrap().ssh_cert
}

fn ask(certificate: &str) -> OpensshUserRequest {
    OpensshUserRequest {
        certificate: certificate.to_owned(),
        client_ip: here().ip(),
        login: "root".parse().unwrap(),
        node: NODE.parse().unwrap(),
        public_key: KeyPair::generate().unwrap().public_openssh(),
        source: Some("10.0.0.1".parse().unwrap()),
    }
}

async fn sign(bed: &Bed, ask: OpensshUserRequest) -> Result<HostCertReply> {
    bed.service.sign_openssh_user(&bed.system(SystemRole::Proxy), ask).await
}

async fn refused(bed: &Bed, ask: OpensshUserRequest) -> String {
    sign(bed, ask).await.unwrap_err().into_answer().message
}

#[tokio::test]
async fn one_login_for_a_minute_where_the_roles_admit() {
    let bed = bed().await;
    let reply = sign(&bed, ask(&shown(&bed, "joe").await)).await.unwrap();
    let cert = shared_pki::parse_certificate_line(&reply.certificate).unwrap();
    assert_eq!((cert.key_id(), cert.valid_principals()), ("joe", &["root".to_owned()][..]));
    let now = bed.service.now().timestamp().unsigned_abs();
    assert!((now + 50..=now + 60).contains(&cert.valid_before()));
    assert_eq!(cert.critical_options().get("source-address").unwrap(), "10.0.0.1/32");
    // A terminal, and nothing that the roles do not give.
    assert!(cert.extensions().contains_key("permit-pty"));
    assert!(!cert.extensions().contains_key("permit-agent-forwarding"));
    let events = bed.events().await;
    assert_eq!(
        events.iter().filter(|event| *event == "cert.create TC000I").count(),
        2,
        "{events:?}"
    );

    // It is of the exported authority, and opens nothing of the cluster.
    let line = bed.service.export(Some("openssh")).unwrap();
    let exported = TrustedAuthority::from_authorized_lines(CaKind::Openssh, &line).unwrap();
    assert_eq!(exported.ssh_public_keys()[0].key_data(), cert.signature_key());
    let state = bed.service.current_state();
    let source = Some("10.0.0.1".parse().unwrap());
    let verifier = SshVerifier::new(&state.authorities, bed.service.now());
    assert!(verifier.user(&cert, "root", source).is_err());
    assert!(state.authorities.iter().all(|authority| authority.kind != CaKind::Openssh));
}

#[tokio::test]
async fn what_the_proxy_thinks_of_it_does_not_count() {
    let bed = bed().await;
    let (joe, mia) = (shown(&bed, "joe").await, shown(&bed, "mia").await);
    assert_eq!(refused(&bed, ask(&mia)).await, "access denied");
    let nobody = OpensshUserRequest { login: "nobody".parse().unwrap(), ..ask(&joe) };
    assert!(refused(&bed, nobody).await.contains("certificate of the user"));
    let other = OpensshUserRequest { node: shared_types::HostId::random(), ..ask(&joe) };
    assert_eq!(refused(&bed, other).await, "access denied");
    // A node with an agent takes the user's own certificate.
    let agent = json!({
        "kind": "node", "metadata": {"name": bed.service.host_id(), "labels": {"env": "prod"}},
        "spec": {"hostname": "gate", "addr": "10.0.0.8:3022"},
    });
    let agent = serde_json::from_value(agent).unwrap();
    bed.service.heartbeat(&bed.system(SystemRole::Node), agent).await.unwrap();
    let agent = OpensshUserRequest { node: bed.service.host_id(), ..ask(&joe) };
    assert_eq!(refused(&bed, agent).await, "access denied");
    // Not the certificate of a user: what this authority signed itself, and rubbish.
    let own = sign(&bed, ask(&joe)).await.unwrap().certificate;
    assert!(refused(&bed, ask(&own)).await.contains("certificate of the user"));
    assert!(
        refused(&bed, ask("ssh-ed25519-cert-v01@openssh.com AAAA")).await.contains("of the user")
    );
    let bad_key = OpensshUserRequest { public_key: joe.clone(), ..ask(&joe) };
    assert!(refused(&bed, bad_key).await.contains("public"));
    assert!(bed.events().await.contains(&"auth T3007W".to_owned()));

    for role in [SystemRole::Node, SystemRole::Admin, SystemRole::Auth] {
        let answer = bed.service.sign_openssh_user(&bed.system(role), ask(&joe)).await;
        assert_eq!(answer.unwrap_err().into_answer().message, "access denied");
    }
    let user = bed.caller("joe").await;
    assert!(bed.service.sign_openssh_user(&user, ask(&joe)).await.is_err());
}

#[tokio::test]
async fn what_changed_since_the_login_counts_at_once() {
    let bed = bed().await;
    let joe = shown(&bed, "joe").await;
    assert!(sign(&bed, ask(&joe)).await.is_ok());
    for target in [json!({"user": "joe"}), json!({"server_id": NODE}), json!({"login": "root"})] {
        let lock = json!({"kind": "lock", "metadata": {"name": "l"}, "spec": {"target": target}});
        bed.service.create_resource(&bed.admin(), "lock", lock, true).await.unwrap();
        assert!(refused(&bed, ask(&joe)).await.contains("lock"), "{target}");
        bed.service.delete_resource(&bed.admin(), "lock", "l").await.unwrap();
    }
    assert!(sign(&bed, ask(&joe)).await.is_ok());
    // The role does not admit the host any more.
    bed.role("prod", json!({"logins": ["root"], "node_labels": {"env": "dev"}})).await;
    assert_eq!(refused(&bed, ask(&joe)).await, "access denied");
    bed.role("prod", json!({"logins": ["root"], "node_labels": {"env": "prod"}})).await;
    bed.service.delete_resource(&bed.admin(), "node", NODE).await.unwrap();
    assert_eq!(refused(&bed, ask(&joe)).await, "access denied");
    register(&bed).await;
    bed.advance(Duration::hours(40));
    assert!(refused(&bed, ask(&joe)).await.contains("expired"));
}

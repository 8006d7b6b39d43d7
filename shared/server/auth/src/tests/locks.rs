//! Locks and evictions: from the moment they are stored, nothing is answered any more.

use chrono::Duration;
use serde_json::{Value, json};
use shared_api::{CreateTokenRequest, ErrorKind, JoinRequest, UserCertsRequest};
use shared_types::{HostId, ResourceKind, SystemRole};

use super::{Bed, Keys, PASSWORD, here, name};
use crate::caller::Caller;
use crate::error::AuthError;

fn told<T: std::fmt::Debug>(result: Result<T, AuthError>) -> (ErrorKind, String) {
    let answer = result.unwrap_err().into_answer();
    (answer.kind, answer.message)
}

fn lock(name: &str, spec: Value) -> Value {
    json!({"kind": "lock", "version": "v2", "metadata": {"name": name}, "spec": spec})
}

impl Bed {
    async fn lock(&self, name: &str, spec: Value) {
        self.service.create_resource(&self.admin(), "lock", lock(name, spec), false).await.unwrap();
    }

    async fn certificate(&self, user: &str) -> Vec<u8> {
        let reply = self.login(user, PASSWORD, &Keys::new()).await.unwrap();
        shared_transport::tls::certs_from_pem(reply.tls_cert.as_bytes()).unwrap()[0].to_vec()
    }
}

#[tokio::test]
async fn a_locked_user_gets_nothing_and_reads_why() {
    let bed = Bed::new().await;
    bed.user("joe", &["access"], &["joe"]).await;
    bed.user("ann", &["access"], &["ann"]).await;
    let (joe, ann) = (bed.certificate("joe").await, bed.certificate("ann").await);
    let revision = bed.service.current_state().revision;
    bed.lock("l1", json!({"target": {"user": "joe"}, "message": "left the company"})).await;
    let state = bed.service.current_state();
    assert!(state.revision > revision && state.locks.len() == 1, "services hear of it");
    assert_eq!(state.locks[0].spec.created_by.as_deref(), Some(bed.admin().name()));
    assert!(state.locks[0].spec.created_at.is_some());

    let text = "lock targeting User:\"joe\" is in force: left the company".to_owned();
    let locked = (ErrorKind::Locked, text.clone());
    assert_eq!(told(bed.service.caller(&joe, here()).await), locked);
    assert_eq!(told(bed.login("joe", PASSWORD, &Keys::new()).await), locked);
    // Only who knows the password learns of the lock.
    let wrong = told(bed.login("joe", "wrong horse battery", &Keys::new()).await);
    assert_eq!(wrong.0, ErrorKind::Unauthenticated);
    let keys = Keys::new();
    let ask = UserCertsRequest {
        user: Some(name("joe")),
        ssh_public_key: keys.ssh.public_openssh(),
        tls_public_key: keys.tls.public().to_pem(),
        ttl_seconds: None,
        database: None,
    };
    assert_eq!(told(bed.service.user_certs(&bed.admin(), ask).await), locked);
    bed.service.caller(&ann, here()).await.unwrap();

    let events = bed.events().await;
    for event in ["lock.created TLK00I", "auth T3007W", "user.login T1000W"] {
        assert!(events.iter().any(|found| found == event), "{event}: {events:?}");
    }
    bed.service.delete_resource(&bed.admin(), "lock", "l1").await.unwrap();
    bed.service.caller(&joe, here()).await.unwrap();
    assert!(bed.events().await.contains(&"lock.deleted TLK01I".to_owned()));
}

#[tokio::test]
async fn locks_on_roles_hold_for_their_time() {
    let bed = Bed::new().await;
    bed.user("joe", &["access", "auditor"], &["joe"]).await;
    let joe = bed.certificate("joe").await;
    let end = bed.service.now() + Duration::hours(1);
    bed.lock("l1", json!({"target": {"role": "auditor"}, "expires": end})).await;
    let locked = (ErrorKind::Locked, "lock targeting Role:\"auditor\" is in force".to_owned());
    assert_eq!(told(bed.service.caller(&joe, here()).await), locked);
    // Everything that is set has to fit.
    bed.service.delete_resource(&bed.admin(), "lock", "l1").await.unwrap();
    bed.lock("l2", json!({"target": {"role": "editor", "user": "joe"}})).await;
    bed.lock("l3", json!({"target": {"login": "root", "user": "joe"}})).await;
    bed.service.caller(&joe, here()).await.unwrap();
    bed.lock("l4", json!({"target": {"role": "auditor"}, "expires": end})).await;
    bed.advance(Duration::minutes(61));
    bed.service.caller(&joe, here()).await.unwrap();
    let left = bed.service.list_resources(&bed.admin(), "lock").await.unwrap().items;
    let names: Vec<_> =
        left.iter().map(|lock| lock["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["l2", "l3"], "a lock that has ended is not listed");
}

#[tokio::test]
async fn who_may_lock_and_what_is_a_lock() {
    let bed = Bed::new().await;
    for (user, role) in [("ann", "access"), ("ed", "editor"), ("au", "auditor")] {
        bed.user(user, &[role], &[user]).await;
    }
    let make = async |caller: &Caller, name: &str, spec: Value, force| {
        bed.service.create_resource(caller, "lock", lock(name, spec), force).await
    };
    let joe = json!({"target": {"user": "joe"}, "created_by": "somebody else"});
    for user in ["ann", "au"] {
        let caller = bed.caller(user).await;
        assert_eq!(told(make(&caller, "l", joe.clone(), false).await).0, ErrorKind::Denied);
        let delete = bed.service.delete_resource(&caller, "lock", "l").await;
        assert_eq!(told(delete).0, ErrorKind::Denied);
        assert_eq!(told(bed.service.list_resources(&caller, "lock").await).0, ErrorKind::Denied);
    }
    let editor = bed.caller("ed").await;
    make(&editor, "l", joe.clone(), false).await.unwrap();
    let stored = bed.service.read_resource(&editor, "lock", "l").await.unwrap();
    assert_eq!(stored["spec"]["created_by"], "ed", "nobody locks in another's name");
    assert_eq!(told(make(&editor, "l", joe.clone(), false).await).0, ErrorKind::AlreadyExists);
    make(&bed.admin(), "l", json!({"target": {"user": "joe"}, "message": "m"}), true)
        .await
        .unwrap();
    let again = bed.service.read_resource(&editor, "lock", "l").await.unwrap();
    assert_eq!(again["spec"]["created_by"], "ed");
    assert_eq!(again["spec"]["created_at"], stored["spec"]["created_at"]);
    let past = bed.service.now() - Duration::minutes(1);
    for bad in [
        json!({}),
        json!({"target": {"mfa_device": "x"}}),
        json!({"target": {"user": "joe"}, "expires": past}),
    ] {
        assert_eq!(told(make(&editor, "bad", bad, false).await).0, ErrorKind::BadRequest);
    }
    // A lock on the editors stops the editor, and never the administrator on the host.
    make(&editor, "own", json!({"target": {"role": "editor"}}), false).await.unwrap();
    let refused = told(bed.login("ed", PASSWORD, &Keys::new()).await);
    assert_eq!(refused.0, ErrorKind::Locked);
    bed.service.delete_resource(&bed.admin(), "lock", "own").await.unwrap();
    bed.login("ed", PASSWORD, &Keys::new()).await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_was_put_out_is_refused_and_stays_out() {
    let bed = Bed::new().await;
    let ask = CreateTokenRequest {
        roles: vec![SystemRole::Proxy],
        value: None,
        ttl_seconds: Some(365 * 24 * 3600),
        labels: Default::default(),
        single_use: false,
    };
    let token = bed.service.create_token(&bed.admin(), ask).await.unwrap().token;
    let keys = Keys::new();
    let join = |host_id: HostId| JoinRequest {
        token: token.clone(),
        host_id,
        node_name: "door".to_owned(),
        role: SystemRole::Proxy,
        ssh_public_key: keys.ssh.public_openssh(),
        tls_public_key: keys.tls.public().to_pem(),
        additional_principals: Vec::new(),
        public_addr: Some("door.example.test:443".to_owned()),
    };
    let (host, other) = (HostId::random(), HostId::random());
    let mut certificates = Vec::new();
    for host in [host, other] {
        let reply = bed.service.join(join(host), here(), None).await.unwrap();
        let der = shared_transport::tls::certs_from_pem(reply.tls_cert.as_bytes()).unwrap();
        certificates.push(der[0].to_vec());
    }
    bed.user("ed", &["editor"], &["ed"]).await;
    let denied = bed.service.list_resources(&bed.caller("ed").await, "proxy").await;
    assert_eq!(told(denied).0, ErrorKind::Denied);
    let found = bed.service.list_resources(&bed.admin(), "proxies").await.unwrap().items;
    assert_eq!(found.len(), 2);
    let one = bed.service.read_resource(&bed.admin(), "proxy", &host.to_string()).await.unwrap();
    assert_eq!(one["spec"]["hostname"], "door");
    assert_eq!(one["spec"]["public_addrs"][0], "door.example.test:443");
    let made = bed.service.create_resource(&bed.admin(), "proxy", one, true).await;
    assert_eq!(told(made).0, ErrorKind::BadRequest, "a proxy is not written");

    bed.service.caller(&certificates[0], here()).await.unwrap();
    bed.service.delete_resource(&bed.admin(), "proxy", &host.to_string()).await.unwrap();
    let text = format!(
        "lock targeting ServerID:\"{host}\" is in force: the proxy was removed from the cluster"
    );
    let locked = (ErrorKind::Locked, text);
    assert_eq!(told(bed.service.caller(&certificates[0], here()).await), locked);
    assert_eq!(told(bed.service.join(join(host), here(), None).await), locked);
    assert!(bed.service.caller(&certificates[1], here()).await.unwrap().is_proxy());
    let again = bed.service.delete_resource(&bed.admin(), "proxy", &host.to_string()).await;
    assert_eq!(told(again).0, ErrorKind::NotFound);
    assert!(bed.events().await.contains(&"lock.created TLK00I".to_owned()));
    let left = bed.service.list_resources(&bed.admin(), "proxy").await.unwrap().items;
    assert_eq!(left.len(), 1);
    // The lock goes when the last certificate of that host has ended.
    bed.advance(Duration::days(31));
    assert!(
        bed.service.store().resources(ResourceKind::Lock).await.unwrap().is_empty(),
        "the lock has ended"
    );
    bed.service.join(join(host), here(), None).await.unwrap();
}

#[tokio::test]
async fn services_hear_of_users_who_go_or_are_locked() {
    let bed = Bed::new().await;
    bed.user("joe", &["access"], &["joe"]).await;
    let joe = || bed.service.current_state().users.get("joe").cloned();
    let now = bed.service.now();
    assert!(joe().unwrap().is_open(now));
    let document = json!({
        "kind": "user", "version": "v2", "metadata": {"name": "joe"},
        "spec": {"roles": ["access"], "status": {"is_locked": true}},
    });
    bed.service.create_resource(&bed.admin(), "user", document, true).await.unwrap();
    assert!(!joe().unwrap().is_open(now));
    let ask = shared_api::UpdateUserRequest {
        roles: Some(vec![name("auditor")]),
        ..shared_api::UpdateUserRequest::default()
    };
    bed.service.update_user(&bed.admin(), &name("joe"), ask).await.unwrap();
    assert_eq!(joe().unwrap().roles, [name::<shared_types::RoleName>("auditor")]);
    bed.service.delete_resource(&bed.admin(), "user", "joe").await.unwrap();
    assert_eq!(joe(), None);
}

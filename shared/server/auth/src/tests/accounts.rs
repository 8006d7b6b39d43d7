//! Users, logins, certificates, joins, resources.

use chrono::Duration;
use serde_json::json;
use server_store::Backend;
use shared_api::{
    CreateTokenRequest, ErrorKind, HostCertRequest, InviteInfoRequest, InviteUserRequest,
    JoinRequest, ProxyHostCertRequest, ResetUserRequest, Secret, SignupRequest, UpdateUserRequest,
    UserCertsRequest,
};
use shared_pki::{parse_certificate_line, verify};
use shared_types::{HostId, SystemRole, Traits};

use super::{Bed, Keys, PASSWORD, here, login_request, name, settings};
use crate::error::AuthError;
use crate::service::AuthService;

fn kind<T: std::fmt::Debug>(result: Result<T, AuthError>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn the_first_start_makes_the_cluster_and_the_second_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::open(settings(folder.path())).await;
    let state = bed.service.current_state();
    assert_eq!(
        state.roles.keys().map(ToString::to_string).collect::<Vec<_>>(),
        ["access", "auditor", "editor"]
    );
    let pins = bed.service.ca_pins().unwrap();
    assert!(pins[0].starts_with("sha256:"));
    bed.service.close().await;
    drop(bed);
    let mut again = settings(folder.path());
    again.cluster_name = None;
    let bed = Bed::open(again).await;
    assert_eq!(bed.service.cluster().as_str(), "example.test");
    assert_eq!(bed.service.ca_pins().unwrap(), pins);
    bed.service.close().await;
    drop(bed);
    let mut other = settings(folder.path());
    other.cluster_name = Some(name("other.test"));
    let refused = AuthService::open(other).await.unwrap_err().to_string();
    assert!(
        refused.contains("\"other.test\"") && refused.contains("fixed at the first start"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_invitation_is_good_once_and_for_its_time() {
    let bed = Bed::new().await;
    let ask = |user: &str| InviteUserRequest {
        user: name(user),
        roles: vec![name("access")],
        traits: Traits::new(),
        ttl_seconds: None,
    };
    let first = bed.service.invite_user(&bed.admin(), ask("alice")).await.unwrap();
    assert_eq!(first.token.expose().len(), 32);
    assert_eq!(
        kind(bed.service.invite_user(&bed.admin(), ask("alice")).await),
        ErrorKind::AlreadyExists
    );
    let info = bed.service.invite_info(&first.token).await.unwrap();
    assert_eq!((info.user.as_str(), info.reset), ("alice", false));
    let signup = |token: &Secret, password: &str| SignupRequest {
        token: token.clone(),
        password: Secret::new(password),
    };
    assert_eq!(
        kind(bed.service.signup(signup(&first.token, "short"), here()).await),
        ErrorKind::BadRequest
    );
    bed.service.signup(signup(&first.token, PASSWORD), here()).await.unwrap();
    assert_eq!(
        kind(bed.service.signup(signup(&first.token, PASSWORD), here()).await),
        ErrorKind::NotFound
    );
    // Another link replaces the one before it.
    let reset = ResetUserRequest::default();
    let second = bed.service.reset_user(&bed.admin(), &name("alice"), reset.clone()).await.unwrap();
    assert_eq!(kind(bed.login("alice", PASSWORD, &Keys::new()).await), ErrorKind::Unauthenticated);
    let third = bed.service.reset_user(&bed.admin(), &name("alice"), reset).await.unwrap();
    assert_eq!(kind(bed.service.invite_info(&second.token).await), ErrorKind::NotFound);
    assert!(bed.service.invite_info(&third.token).await.unwrap().reset);
    bed.advance(Duration::hours(9));
    assert_eq!(
        kind(bed.service.signup(signup(&third.token, PASSWORD), here()).await),
        ErrorKind::NotFound
    );
    // The token itself is nowhere in the store.
    let all = bed.service.backend.all(&server_store::Key::root()).await.unwrap();
    assert!(all.iter().all(|item| {
        let value = String::from_utf8_lossy(&item.value).into_owned();
        !value.contains(first.token.expose()) && !item.key.as_str().contains(first.token.expose())
    }));
    let _ = InviteInfoRequest { token: third.token };
}

#[tokio::test]
async fn a_login_gives_both_certificates_after_the_events() {
    let bed = Bed::new().await;
    bed.user("joe", &["access"], &["root", "joe"]).await;
    let keys = Keys::new();
    let reply = bed.login("joe", PASSWORD, &keys).await.unwrap();
    let cert = parse_certificate_line(&reply.ssh_cert).unwrap();
    let principals = cert.valid_principals();
    assert!(
        principals.contains(&"root".to_owned()) && principals.contains(&"joe".to_owned()),
        "{principals:?}"
    );
    assert_eq!(cert.key_id(), "joe");
    let der = shared_transport::tls::certs_from_pem(reply.tls_cert.as_bytes()).unwrap();
    let identity = verify::tls_peer(&der[0], &reply.authorities, bed.service.now()).unwrap();
    assert_eq!(identity.user.as_str(), "joe");
    assert_eq!(identity.login_ip, Some(here().ip()));
    let hours = (reply.valid_until - bed.service.now()).num_minutes();
    assert!((715..=720).contains(&hours), "{hours}");
    let events = bed.events().await;
    assert_eq!(events[events.len() - 2..], ["cert.create TC000I", "user.login T1000I"]);
    // A role without logins still gives a principal, one that fits no account.
    bed.user("noone", &["editor"], &[]).await;
    let reply = bed.login("noone", PASSWORD, &Keys::new()).await.unwrap();
    let cert = parse_certificate_line(&reply.ssh_cert).unwrap();
    assert!(!cert.valid_principals().is_empty());
    assert!(cert.valid_principals().iter().all(|principal| principal.starts_with('-')));
}

#[tokio::test]
async fn the_role_limits_the_ttl_and_a_renewal_does_not_extend_it() {
    let bed = Bed::new().await;
    bed.user("joe", &["access"], &["joe"]).await;
    let keys = Keys::new();
    let mut ask = login_request("joe", PASSWORD, &keys);
    ask.ttl_seconds = Some(100 * 3600);
    let reply = bed.service.login(ask, here()).await.unwrap();
    assert_eq!((reply.valid_until - bed.service.now()).num_hours(), 29);
    let der = shared_transport::tls::certs_from_pem(reply.tls_cert.as_bytes()).unwrap();
    bed.advance(Duration::hours(28));
    let caller = bed.service.caller(&der[0], here()).await.unwrap();
    let again = UserCertsRequest {
        user: None,
        ssh_public_key: keys.ssh.public_openssh(),
        tls_public_key: keys.tls.public().to_pem(),
        ttl_seconds: None,
        database: None,
    };
    let renewed = bed.service.user_certs(&caller, again.clone()).await.unwrap();
    assert!(renewed.valid_until <= reply.valid_until);
    let other = UserCertsRequest { user: Some(name("alice")), ..again };
    assert_eq!(kind(bed.service.user_certs(&caller, other).await), ErrorKind::Denied);
    bed.advance(Duration::hours(3));
    assert_eq!(kind(bed.service.caller(&der[0], here()).await), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn options_of_roles_reach_the_certificates() {
    let bed = Bed::new().await;
    let document = json!({"kind": "role", "version": "v7", "metadata": {"name": "pinned"}, "spec": {
        "options": {"pin_source_ip": true, "forward_agent": true, "port_forwarding": false, "cert_extensions": [
            {"type": "ssh", "mode": "extension", "name": "login@github.com", "value": "{{external.hub}}"},
            {"type": "ssh", "mode": "extension", "name": "teleport-roles", "value": "editor"}]},
        "allow": {"logins": ["root", "{{internal.logins}}"], "node_labels": {"*": "*"}},
        "deny": {"logins": ["root"]}}});
    bed.service.create_resource(&bed.admin(), "role", document, false).await.unwrap();
    bed.user("joe", &["pinned"], &["joe"]).await;
    let mut ask = UpdateUserRequest::default();
    ask.traits.insert("hub".to_owned(), vec!["joe-hub".to_owned()]);
    bed.service.update_user(&bed.admin(), &name("joe"), ask).await.unwrap();
    let reply = bed.login("joe", PASSWORD, &Keys::new()).await.unwrap();
    let cert = parse_certificate_line(&reply.ssh_cert).unwrap();
    assert_eq!(
        cert.critical_options().get("source-address").map(String::as_str),
        Some("192.0.2.7/32")
    );
    let extension = |name: &str| cert.extensions().get(name).map(String::as_str);
    assert_eq!(extension("login@github.com"), Some("joe-hub"));
    assert!(extension("teleport-roles").unwrap().contains("pinned"));
    assert_eq!(
        (extension("permit-agent-forwarding"), extension("permit-port-forwarding")),
        (Some(""), None)
    );
    assert!(!cert.valid_principals().contains(&"root".to_owned()));
    let der = shared_transport::tls::certs_from_pem(reply.tls_cert.as_bytes()).unwrap();
    assert!(bed.service.caller(&der[0], here()).await.is_ok());
    let elsewhere = "192.0.2.8:1".parse().unwrap();
    assert_eq!(kind(bed.service.caller(&der[0], elsewhere).await), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn five_failures_lock_known_and_unknown_names_alike() {
    let bed = Bed::new().await;
    bed.user("joe", &["access"], &["joe"]).await;
    for user in ["joe", "nobody"] {
        let mut texts = Vec::new();
        for _ in 0..5 {
            texts.push(
                bed.login(user, "wrong password !", &Keys::new()).await.unwrap_err().into_answer(),
            );
        }
        assert!(
            texts.iter().all(|text| text.kind == ErrorKind::Unauthenticated && text == &texts[0]),
            "{texts:?}"
        );
        assert_eq!(kind(bed.login(user, PASSWORD, &Keys::new()).await), ErrorKind::Locked);
    }
    bed.advance(Duration::minutes(31));
    bed.login("joe", PASSWORD, &Keys::new()).await.unwrap();
    assert_eq!(kind(bed.login("nobody", PASSWORD, &Keys::new()).await), ErrorKind::Unauthenticated);
    let events = bed.events().await;
    assert_eq!(events.iter().filter(|event| *event == "user.login T1000W").count(), 13);
}

#[tokio::test]
async fn guesses_in_parallel_are_counted_one_by_one() {
    let bed = Bed::new().await;
    bed.user("joe", &["access"], &["joe"]).await;
    let tries = (0..12).map(|n| {
        let service = std::sync::Arc::clone(&bed.service);
        async move {
            service
                .login(login_request("joe", &format!("wrong password {n}"), &Keys::new()), here())
                .await
        }
    });
    let answers = futures::future::join_all(tries).await;
    let locked = answers
        .iter()
        .filter(|answer| matches!(answer, Err(e) if e.kind() == ErrorKind::Locked))
        .count();
    assert_eq!(locked, 7);
}

#[tokio::test]
async fn losing_an_account_or_a_role_works_at_once() {
    let bed = Bed::new().await;
    bed.user("eve", &["editor", "access"], &["eve"]).await;
    let reply = bed.login("eve", PASSWORD, &Keys::new()).await.unwrap();
    let der = shared_transport::tls::certs_from_pem(reply.tls_cert.as_bytes()).unwrap();
    let caller = bed.service.caller(&der[0], here()).await.unwrap();
    bed.service.list_resources(&caller, "roles").await.unwrap();
    let ask = UpdateUserRequest { roles: Some(vec![name("access")]), traits: Traits::new() };
    bed.service.update_user(&bed.admin(), &name("eve"), ask).await.unwrap();
    let caller = bed.service.caller(&der[0], here()).await.unwrap();
    assert_eq!(kind(bed.service.list_resources(&caller, "roles").await), ErrorKind::Denied);
    // Denied comes before any look at what exists.
    assert_eq!(kind(bed.service.read_resource(&caller, "user", "nobody").await), ErrorKind::Denied);
    bed.service.delete_resource(&bed.admin(), "user", "eve").await.unwrap();
    assert_eq!(kind(bed.service.caller(&der[0], here()).await), ErrorKind::Unauthenticated);
    assert_eq!(kind(bed.login("eve", PASSWORD, &Keys::new()).await), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn host_certificates() {
    let bed = Bed::new().await;
    bed.user("ed", &["editor"], &["ed"]).await;
    let key = Keys::new().ssh.public_openssh();
    let ask = |hosts: &[&str]| HostCertRequest {
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        public_key: key.clone(),
        ttl_seconds: None,
    };
    let reply = bed
        .service
        .sign_host(&bed.admin(), ask(&["a.example.com", "*.example.com", "1.2.3.4"]))
        .await
        .unwrap();
    let cert = parse_certificate_line(&reply.certificate).unwrap();
    assert_eq!(cert.valid_principals(), ["a.example.com", "*.example.com", "1.2.3.4"]);
    assert_eq!((cert.key_id(), cert.serial(), reply.valid_until), ("", 0, None));
    assert_eq!(cert.extensions().get("x-teleport-role").map(String::as_str), Some("Node"));
    assert_eq!(kind(bed.service.sign_host(&bed.admin(), ask(&[])).await), ErrorKind::BadRequest);
    assert_eq!(
        kind(bed.service.sign_host(&bed.admin(), ask(&["a b"])).await),
        ErrorKind::BadRequest
    );
    assert_eq!(
        kind(bed.service.sign_host(&bed.caller("ed").await, ask(&["a"])).await),
        ErrorKind::Denied
    );
    // A proxy gets role Proxy for whatever name, and nobody else gets that.
    let inner = || ProxyHostCertRequest {
        principals: vec!["db.example.com".to_owned()],
        public_key: key.clone(),
    };
    let reply = bed.service.sign_proxy_host(&bed.system(SystemRole::Proxy), inner()).await.unwrap();
    let cert = parse_certificate_line(&reply.certificate).unwrap();
    assert_eq!(cert.extensions().get("x-teleport-role").map(String::as_str), Some("Proxy"));
    assert!(reply.valid_until.is_some());
    for role in [SystemRole::Node, SystemRole::Auth, SystemRole::Admin] {
        assert_eq!(
            kind(bed.service.sign_proxy_host(&bed.system(role), inner()).await),
            ErrorKind::Denied
        );
    }
    assert_eq!(
        kind(bed.service.sign_host(&bed.system(SystemRole::Proxy), ask(&["a"])).await),
        ErrorKind::Denied
    );
}

fn join(token: &str, role: SystemRole, name: &str, keys: &Keys) -> JoinRequest {
    JoinRequest {
        token: Secret::new(token),
        host_id: HostId::random(),
        node_name: name.to_owned(),
        role,
        ssh_public_key: keys.ssh.public_openssh(),
        tls_public_key: keys.tls.public().to_pem(),
        additional_principals: Vec::new(),
        public_addr: None,
    }
}

#[tokio::test]
async fn joining_takes_a_token_for_the_role_and_a_free_name() {
    let bed = Bed::new().await;
    let ask = CreateTokenRequest {
        roles: vec![SystemRole::Proxy],
        value: None,
        ttl_seconds: None,
        labels: Default::default(),
        single_use: false,
    };
    let token = bed.service.create_token(&bed.admin(), ask).await.unwrap();
    let token = token.token.expose().to_owned();
    let keys = Keys::new();
    let reply = bed
        .service
        .join(join(&token, SystemRole::Proxy, "door", &keys), here(), None)
        .await
        .unwrap();
    let der = shared_transport::tls::certs_from_pem(reply.tls_cert.as_bytes()).unwrap();
    let caller = bed.service.caller(&der[0], here()).await.unwrap();
    assert!(caller.is_proxy());
    let mut texts = Vec::new();
    for (token, role) in [
        (token.as_str(), SystemRole::Node),
        ("no-such-token-anywhere", SystemRole::Proxy),
        (token.as_str(), SystemRole::Auth),
        (token.as_str(), SystemRole::Admin),
    ] {
        let refused = bed
            .service
            .join(join(token, role, "x", &keys), here(), None)
            .await
            .unwrap_err()
            .into_answer();
        assert_eq!(refused.kind, ErrorKind::Denied);
        texts.push(refused.message);
    }
    assert_eq!(
        texts,
        [
            "the token is not for role Node",
            "token not recognized",
            "the token is not for role Auth",
            "the token is not for role Admin"
        ]
    );
    for name in ["localhost", "a b", "-x"] {
        assert!(
            bed.service
                .join(join(&token, SystemRole::Proxy, name, &keys), here(), None)
                .await
                .is_err(),
            "{name}"
        );
    }
    bed.advance(Duration::minutes(31));
    assert_eq!(
        kind(bed.service.join(join(&token, SystemRole::Proxy, "late", &keys), here(), None).await),
        ErrorKind::Denied
    );
    let events = bed.events().await;
    assert!(
        events.contains(&"instance.join TJ002I".to_owned())
            && events.contains(&"instance.join TJ002E".to_owned()),
        "{events:?}"
    );
    assert!(!bed.all_events_text().await.contains(&token), "no token in the log");
}

impl Bed {
    async fn all_events_text(&self) -> String {
        let now = self.service.now();
        let found = self
            .service
            .audit
            .search(now - Duration::days(400), now + Duration::days(1), &[], 1000)
            .await
            .unwrap();
        found.iter().map(shared_events::AuditEvent::to_json).collect()
    }
}

#[tokio::test]
async fn resources_keep_to_rights_revisions_and_origin() {
    let settings_dir = tempfile::tempdir().unwrap();
    let mut settings = settings(settings_dir.path());
    settings.recording = Some(shared_types::resource::RecordingSpec {
        mode: shared_types::RecordingMode::Proxy,
        ..Default::default()
    });
    let bed = Bed::open(settings.clone()).await;
    let admin = bed.admin();
    let role = |name: &str, login: &str| json!({"kind": "role", "metadata": {"name": name}, "spec": {"allow": {"logins": [login], "node_labels": {"*": "*"}}}});
    let made =
        bed.service.create_resource(&admin, "role", role("dev", "one"), false).await.unwrap();
    assert!(made.created);
    assert_eq!(
        kind(bed.service.create_resource(&admin, "role", role("dev", "two"), false).await),
        ErrorKind::AlreadyExists
    );
    let forced =
        bed.service.create_resource(&admin, "role", role("dev", "two"), true).await.unwrap();
    assert!(!forced.created);
    // The first reader writes too late.
    let mut late = made.resource.clone();
    late["spec"]["allow"]["logins"] = json!(["three"]);
    assert_eq!(
        kind(bed.service.update_resource(&admin, "role", "dev", late, false).await),
        ErrorKind::AlreadyExists
    );
    bed.service.update_resource(&admin, "role", "dev", forced.resource, false).await.unwrap();
    assert_eq!(kind(bed.service.create_resource(&admin, "role", json!({"kind": "role", "metadata": {"name": "x"}, "spec": {"allow": {"logns": []}}}), false).await), ErrorKind::BadRequest);
    // A role in use stays.
    bed.user("joe", &["dev"], &[]).await;
    // What a role asks of the client is told to those who hold it.
    let joe = bed.caller("joe").await;
    assert!(!bed.service.session_recording(&joe).hostbound_only);
    let mut strict = role("dev", "three");
    strict["spec"]["options"] = json!({"ssh_hostbound_only": true});
    bed.service.create_resource(&admin, "role", strict, true).await.unwrap();
    assert!(bed.service.session_recording(&joe).hostbound_only);
    assert!(!bed.service.session_recording(&admin).hostbound_only);
    assert_eq!(
        kind(bed.service.delete_resource(&admin, "role", "dev").await),
        ErrorKind::BadRequest
    );
    // The configuration file's word.
    let off = json!({"kind": "session_recording_config", "version": "v2", "spec": {"mode": "off"}});
    assert!(bed.service.create_resource(&admin, "recconfig", off.clone(), false).await.is_err());
    assert_eq!(bed.mode(), shared_types::RecordingMode::Proxy);
    bed.service.create_resource(&admin, "recconfig", off.clone(), true).await.unwrap();
    assert_eq!(bed.mode(), shared_types::RecordingMode::Off);
    let sync = json!({"kind": "session_recording_config", "version": "v2", "spec": {"mode": "proxy-sync"}});
    bed.service.create_resource(&admin, "recconfig", sync, true).await.unwrap();
    assert_eq!(bed.mode(), shared_types::RecordingMode::ProxySync);
    bed.service.close().await;
    drop(bed);
    // The file wins at the next start; without it, what it said goes.
    let bed = Bed::open(settings.clone()).await;
    assert_eq!(bed.mode(), shared_types::RecordingMode::Proxy);
    bed.service.close().await;
    drop(bed);
    settings.recording = None;
    let bed = Bed::open(settings.clone()).await;
    assert_eq!(bed.mode(), shared_types::RecordingMode::Node);
    // Nobody set it now, so setting it needs no force, and it stays.
    bed.service.create_resource(&bed.admin(), "recconfig", off, false).await.unwrap();
    bed.service.close().await;
    drop(bed);
    let bed = Bed::open(settings).await;
    assert_eq!(bed.mode(), shared_types::RecordingMode::Off);
    let events = bed.events().await;
    for kind in
        ["role.created T9000I", "role.updated T9002I", "session_recording_config.update TCREC003I"]
    {
        assert!(events.iter().any(|event| event == kind), "{kind} in {events:?}");
    }
}

#[tokio::test]
async fn token_names_are_secrets() {
    let bed = Bed::new().await;
    let ask = CreateTokenRequest {
        roles: vec![SystemRole::Proxy],
        value: Some(Secret::new("a-token-of-some-length")),
        ttl_seconds: None,
        labels: Default::default(),
        single_use: false,
    };
    bed.service.create_token(&bed.admin(), ask).await.unwrap();
    bed.role(
        "lister",
        json!({"rules": [{"resources": ["token"], "verbs": ["list", "readnosecrets"]}]}),
    )
    .await;
    bed.user("ann", &["lister"], &[]).await;
    bed.user("ed", &["editor"], &[]).await;
    let names = |list: shared_api::ResourceList| {
        list.items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let seen = bed.service.list_resources(&bed.caller("ann").await, "token").await.unwrap();
    assert_eq!(names(seen), ["*****************ength"]);
    let seen = bed.service.list_resources(&bed.caller("ed").await, "token").await.unwrap();
    assert_eq!(names(seen), ["a-token-of-some-length"]);
    assert!(bed.account("ann").await.spec.created_by.is_some());
}

/// A link is good for one password, however many use it at once.
#[tokio::test]
async fn one_link_used_many_times_at_once_sets_one_password() {
    let bed = Bed::new().await;
    let ask = InviteUserRequest {
        user: name("joe"),
        roles: vec![name("access")],
        traits: Traits::new(),
        ttl_seconds: None,
    };
    let link = bed.service.invite_user(&bed.admin(), ask).await.unwrap().token;
    let tries = (0..6).map(|n| {
        let password = Secret::new(format!("{PASSWORD} {n}"));
        bed.service.signup(SignupRequest { token: link.clone(), password }, here())
    });
    let answers = futures::future::join_all(tries).await;
    let set: Vec<usize> = (0..6).filter(|n| answers[*n].is_ok()).collect();
    assert_eq!(set.len(), 1);
    for n in 0..6 {
        let tried = bed.login("joe", &format!("{PASSWORD} {n}"), &Keys::new()).await;
        assert_eq!(tried.is_ok(), set == [n]);
    }
}

/// The reset comes while the password of the old link is being hashed.
#[tokio::test]
async fn a_link_that_a_reset_replaced_meanwhile_sets_no_password() {
    let bed = Bed::new().await;
    bed.user("joe", &["access"], &["joe"]).await;
    let (admin, joe) = (bed.admin(), name("joe"));
    let reset = || bed.service.reset_user(&admin, &joe, ResetUserRequest::default());
    let old = reset().await.unwrap().token;
    let busy = bed.service.passwords().all_turns().await;
    let ask = SignupRequest { token: old, password: Secret::new(PASSWORD) };
    let signup = bed.service.signup(ask, here());
    tokio::pin!(signup);
    assert!(futures::poll!(signup.as_mut()).is_pending());
    let waits = tokio::time::timeout(std::time::Duration::from_millis(200), signup.as_mut()).await;
    assert!(waits.is_err());
    let new = reset().await.unwrap().token;
    drop(busy);
    assert_eq!(kind(signup.await), ErrorKind::NotFound);
    assert_eq!(kind(bed.login("joe", PASSWORD, &Keys::new()).await), ErrorKind::Unauthenticated);
    assert!(bed.service.invite_info(&new).await.is_ok(), "the new link still counts");
}

/// An account whose time was up goes by itself; its password must not open the next one of that name.
#[tokio::test]
async fn a_new_user_does_not_have_the_password_of_an_earlier_one() {
    let bed = Bed::new().await;
    for again_by_invitation in [true, false] {
        let end = bed.service.now() + Duration::hours(1);
        let document = json!({"kind": "user", "version": "v2", "metadata": {"name": "joe", "expires": end}, "spec": {"roles": ["access"]}});
        bed.service.create_resource(&bed.admin(), "user", document.clone(), true).await.unwrap();
        let link = bed
            .service
            .reset_user(&bed.admin(), &name("joe"), ResetUserRequest::default())
            .await
            .unwrap();
        let ask = SignupRequest { token: link.token, password: Secret::new(PASSWORD) };
        bed.service.signup(ask, here()).await.unwrap();
        bed.login("joe", PASSWORD, &Keys::new()).await.unwrap();
        bed.advance(Duration::hours(2));
        assert_eq!(
            kind(bed.login("joe", PASSWORD, &Keys::new()).await),
            ErrorKind::Unauthenticated
        );
        if again_by_invitation {
            let ask = InviteUserRequest {
                user: name("joe"),
                roles: vec![name("access")],
                traits: Traits::new(),
                ttl_seconds: None,
            };
            bed.service.invite_user(&bed.admin(), ask).await.unwrap();
        } else {
            let document = json!({"kind": "user", "version": "v2", "metadata": {"name": "joe"}, "spec": {"roles": ["access"]}});
            bed.service.create_resource(&bed.admin(), "user", document, false).await.unwrap();
        }
        assert_eq!(
            kind(bed.login("joe", PASSWORD, &Keys::new()).await),
            ErrorKind::Unauthenticated
        );
        bed.service.delete_resource(&bed.admin(), "user", "joe").await.unwrap();
    }
}

/// What a role denied that is gone is not known any more: nothing is allowed without it.
#[tokio::test]
async fn a_role_that_is_gone_allows_nothing_and_signs_nothing() {
    let bed = Bed::new().await;
    bed.role("no-users", json!({})).await;
    bed.user("ed", &["editor", "no-users"], &["ed"]).await;
    let editor = bed.caller("ed").await;
    bed.service.list_resources(&editor, "role").await.unwrap();
    // It cannot be deleted while somebody has it, so it goes behind the service's back.
    let key = crate::state::resource_key(shared_types::ResourceKind::Role, "no-users").unwrap();
    let gone = crate::state::delete(key, server_store::Condition::Present);
    bed.service.store().write(vec![gone]).await.unwrap();
    bed.service.refresh().await.unwrap();
    assert_eq!(kind(bed.service.list_resources(&editor, "role").await), ErrorKind::Denied);
    assert_eq!(
        kind(
            bed.service
                .invite_user(
                    &editor,
                    InviteUserRequest {
                        user: name("x"),
                        roles: vec![name("editor")],
                        traits: Traits::new(),
                        ttl_seconds: None
                    }
                )
                .await
        ),
        ErrorKind::Denied
    );
    assert_eq!(kind(bed.login("ed", PASSWORD, &Keys::new()).await), ErrorKind::Denied);
    assert_eq!(bed.events().await.last().map(String::as_str), Some("user.login T1000W"));
    // And a role does not go by itself.
    let end = bed.service.now() + Duration::hours(1);
    let document =
        json!({"kind": "role", "metadata": {"name": "brief", "expires": end}, "spec": {}});
    assert_eq!(
        kind(bed.service.create_resource(&bed.admin(), "role", document, false).await),
        ErrorKind::BadRequest
    );
}

/// A rule for some labels is no way to put them on or take them off.
#[tokio::test]
async fn who_may_change_some_resources_changes_none_into_others() {
    let bed = Bed::new().await;
    bed.role("dev-admin", json!({"rules": [{"resources": ["role"], "verbs": ["list", "create", "read", "update"], "where": "equals(resource.metadata.labels[\"env\"], \"dev\")"}]})).await;
    bed.user("dan", &["dev-admin"], &[]).await;
    let dan = bed.caller("dan").await;
    let role = |env: &str| json!({"kind": "role", "metadata": {"name": "r", "labels": {"env": env}}, "spec": {}});
    assert_eq!(
        kind(bed.service.create_resource(&dan, "role", role("prod"), false).await),
        ErrorKind::Denied
    );
    bed.service.create_resource(&dan, "role", role("dev"), false).await.unwrap();
    assert_eq!(
        kind(bed.service.update_resource(&dan, "role", "r", role("prod"), false).await),
        ErrorKind::Denied
    );
    bed.service.update_resource(&dan, "role", "r", role("dev"), false).await.unwrap();
    // His own roles are not among them.
    assert_eq!(kind(bed.service.update_resource(&dan, "role", "dev-admin", json!({"kind": "role", "metadata": {"name": "dev-admin", "labels": {"env": "dev"}}, "spec": {}}), false).await), ErrorKind::NotFound);
}

/// The administrator's certificates end with the account as well, and there are none for a locked one.
#[tokio::test]
async fn certificates_for_others_keep_to_the_account() {
    let bed = Bed::new().await;
    let keys = Keys::new();
    let ask = || UserCertsRequest {
        user: Some(name("joe")),
        ssh_public_key: keys.ssh.public_openssh(),
        tls_public_key: keys.tls.public().to_pem(),
        ttl_seconds: None,
        database: None,
    };
    let end = bed.service.now() + Duration::hours(1);
    let user = |spec: serde_json::Value| json!({"kind": "user", "version": "v2", "metadata": {"name": "joe"}, "spec": spec});
    bed.service
        .create_resource(
            &bed.admin(),
            "user",
            user(json!({"roles": ["access"], "expires": end})),
            true,
        )
        .await
        .unwrap();
    let reply = bed.service.user_certs(&bed.admin(), ask()).await.unwrap();
    assert!(reply.valid_until <= end);
    bed.service
        .create_resource(
            &bed.admin(),
            "user",
            user(json!({"roles": ["access"], "status": {"is_locked": true}})),
            true,
        )
        .await
        .unwrap();
    assert_eq!(kind(bed.service.user_certs(&bed.admin(), ask()).await), ErrorKind::Locked);
}

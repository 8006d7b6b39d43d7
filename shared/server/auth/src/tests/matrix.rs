//! Who may call what: every endpoint with every kind of caller, as a golden file.

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::json;
use shared_api::paths;
use shared_pki::{HostTlsSpec, TlsKey};
use shared_types::{HostId, SystemRole};
use tower::ServiceExt;

use super::{Bed, Keys, PASSWORD, here};
use crate::http::{Peer, router};

fn endpoints() -> Vec<(Method, String, &'static str)> {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRoaXMgaXMgbm90IGEgcmVhbCBrZXkuLi4uLi4u";
    let host = Box::leak(format!(r#"{{"hosts":[],"public_key":"{key}"}}"#).into_boxed_str());
    let inner = Box::leak(format!(r#"{{"principals":[],"public_key":"{key}"}}"#).into_boxed_str());
    let recorder = Box::leak(format!(r#"{{"public_key":"{key}"}}"#).into_boxed_str());
    let openssh = r#"{"certificate":"","client_ip":"192.0.2.7","login":"x","node":"5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11","public_key":""}"#;
    let database = r#"{"public_key_pem":"","user_certificate":"","service":"x","db_user":"x"}"#;
    let server = r#"{"hosts":[],"public_key_pem":""}"#;
    let renew = r#"{"node_name":"x","ssh_public_key":"","tls_public_key":""}"#;
    let part =
        "/v1/uploads/5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11/5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11/1";
    let complete = "/v1/uploads/5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11/5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11/complete";
    let mut all: Vec<(Method, String, &'static str)> = vec![
        (Method::POST, paths::LOGIN.into(), "{}"),
        (Method::POST, paths::INVITE_INFO.into(), "{}"),
        (Method::POST, paths::SIGNUP.into(), "{}"),
        (Method::POST, paths::JOIN.into(), "{}"),
        (Method::GET, paths::AUTHORITIES.into(), ""),
        (Method::GET, paths::AUTHORITIES_EXPORT.into(), ""),
        (Method::GET, paths::STATUS.into(), ""),
        (Method::GET, paths::ME.into(), ""),
        (Method::GET, paths::NODES.into(), ""),
        (Method::GET, paths::DATABASES.into(), ""),
        (Method::GET, paths::INVENTORY.into(), ""),
        (Method::GET, paths::SESSION_RECORDING.into(), ""),
    ];
    for kind in [
        "role",
        "user",
        "token",
        "lock",
        "proxy",
        "node",
        "db",
        "db_server",
        "session_recording_config",
        "cluster_auth_preference",
        "cluster_networking_config",
    ] {
        all.push((Method::GET, format!("/v1/resources/{kind}"), ""));
        all.push((Method::POST, format!("/v1/resources/{kind}"), "{}"));
        all.push((Method::GET, format!("/v1/resources/{kind}/none"), ""));
        all.push((Method::PUT, format!("/v1/resources/{kind}/none"), "{}"));
        // A configuration would be there, and go.
        if !kind.contains("_config") && kind != "cluster_auth_preference" {
            all.push((Method::DELETE, format!("/v1/resources/{kind}/none"), ""));
        }
    }
    all.extend([
        (Method::POST, paths::USERS_INVITE.into(), r#"{"user":"new","roles":[]}"#),
        (Method::PATCH, "/v1/users/none".into(), "{}"),
        (Method::POST, "/v1/users/none/reset".into(), "{}"),
        (Method::POST, paths::TOKENS.into(), r#"{"roles":[]}"#),
        (Method::POST, paths::CERTS_HOST.into(), &*host),
        (
            Method::POST,
            paths::CERTS_USER.into(),
            r#"{"user":"other","ssh_public_key":"","tls_public_key":""}"#,
        ),
        (Method::POST, paths::CERTS_USER.into(), r#"{"ssh_public_key":"","tls_public_key":""}"#),
        (Method::POST, paths::CERTS_PROXY_HOST.into(), &*inner),
        (Method::POST, paths::CERTS_OPENSSH_USER.into(), openssh),
        (Method::POST, paths::CERTS_DATABASE.into(), database),
        (Method::POST, paths::CERTS_DATABASE_SERVER.into(), server),
        (Method::POST, paths::CERTS_RECORDER.into(), &*recorder),
        (Method::POST, paths::SESSIONS_RENEW.into(), r#"{"sessions":[]}"#),
        (Method::POST, paths::CERTS_RENEW.into(), renew),
        (Method::POST, paths::QUERY.into(), r#"{"sql":""}"#),
        (Method::GET, paths::RECORDINGS.into(), ""),
        (Method::GET, "/v1/recordings/5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11".into(), ""),
        (Method::DELETE, "/v1/recordings/5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11".into(), ""),
        (Method::GET, paths::CLUSTER_STATE.into(), ""),
        (Method::GET, paths::NODE_VIEW.into(), ""),
        (Method::PUT, paths::PRESENCE_NODE.into(), "{}"),
        (Method::DELETE, paths::PRESENCE_NODE.into(), ""),
        (Method::PUT, paths::PRESENCE_DB.into(), r#"{"servers":[{}]}"#),
        (Method::DELETE, paths::PRESENCE_DB.into(), ""),
        (Method::POST, paths::EVENTS.into(), r#"{"events":[]}"#),
        (Method::PUT, part.into(), ""),
        (Method::POST, complete.into(), r#"{"parts":0,"bytes":0}"#),
    ]);
    all
}

#[tokio::test]
async fn who_may_call_what() {
    let bed = Bed::new().await;
    let service = &bed.service;
    let host = |role: SystemRole| {
        let spec = HostTlsSpec {
            host_id: HostId::random(),
            role,
            cluster: service.cluster().clone(),
            names: Vec::new(),
        };
        let key = TlsKey::generate().unwrap();
        let ca = service.host_authority().tls_ca().unwrap();
        Some(ca.sign_server(&spec, &key.public(), service.now(), None).unwrap().der().to_vec())
    };
    let mut callers: Vec<(&str, Option<Vec<u8>>)> = vec![("nobody", None)];
    for user in ["access", "editor", "auditor"] {
        bed.user(user, &[user], &[user]).await;
        let reply = bed.login(user, PASSWORD, &Keys::new()).await.unwrap();
        let der = shared_transport::tls::certs_from_pem(reply.tls_cert.as_bytes()).unwrap();
        callers.push((user, Some(der[0].to_vec())));
    }
    callers.extend([
        ("Admin", host(SystemRole::Admin)),
        ("Proxy", host(SystemRole::Proxy)),
        ("Node", host(SystemRole::Node)),
        ("Db", host(SystemRole::Db)),
        ("Auth", host(SystemRole::Auth)),
    ]);
    // Who has a certificate, and is stopped all the same.
    bed.user("locked", &["access", "editor", "auditor"], &["locked"]).await;
    let reply = bed.login("locked", PASSWORD, &Keys::new()).await.unwrap();
    let der = shared_transport::tls::certs_from_pem(reply.tls_cert.as_bytes()).unwrap();
    callers.push(("locked", Some(der[0].to_vec())));
    let evicted = HostId::random();
    let spec = HostTlsSpec {
        host_id: evicted,
        role: SystemRole::Proxy,
        cluster: service.cluster().clone(),
        names: Vec::new(),
    };
    let key = TlsKey::generate().unwrap();
    let ca = service.host_authority().tls_ca().unwrap();
    let cert = ca.sign_server(&spec, &key.public(), service.now(), None).unwrap();
    callers.push(("evicted", Some(cert.der().to_vec())));
    for (name, target) in [("l1", json!({"user": "locked"})), ("l2", json!({"server_id": evicted}))]
    {
        let lock = json!({"kind": "lock", "metadata": {"name": name}, "spec": {"target": target}});
        service.create_resource(&bed.admin(), "lock", lock, false).await.unwrap();
    }

    let router = router(Arc::clone(service));
    let mut table = format!("{:<56}", "");
    for (who, _) in &callers {
        table += &format!("{who:<9}");
    }
    for (method, path, body) in endpoints() {
        let shown = path.replace("5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11", "ID");
        table += &format!("\n{:<56}", format!("{method} {shown}"));
        for (_, certificate) in &callers {
            let peer = Peer { address: here(), certificate: certificate.as_deref().map(Arc::from) };
            let request = Request::builder().method(method.clone()).uri(&path).extension(peer);
            let request = request.body(Body::from(body)).unwrap();
            let status = router.clone().oneshot(request).await.unwrap().status();
            let word = match status {
                StatusCode::UNAUTHORIZED => "who?",
                StatusCode::FORBIDDEN => "no",
                StatusCode::LOCKED => "locked",
                StatusCode::INTERNAL_SERVER_ERROR => "BROKEN",
                _ => "yes",
            };
            table += &format!("{word:<9}");
        }
    }
    let table: Vec<&str> = table.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(table.join("\n"));
}

//! The API over real TLS, with the client that programs use.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use shared_api::client::{Confirm, Timeouts, fetch_authorities};
use shared_api::{
    Client, ClientConfig, ClientIdentity, CompleteUpload, CreateTokenRequest, ErrorKind,
    JoinRequest, ProxyHostCertRequest, Route, Secret,
};
use shared_events::{AuditEvent, ServerMetadata, SessionConnect, UserLogin};
use shared_types::{HostId, ResourceKind, SessionId, SystemRole};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Bed, Keys, PASSWORD, login_request, name};

struct Server {
    bed: Bed,
    addr: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<shared_transport::Drained>,
}

impl Server {
    async fn start() -> Self {
        let bed = Bed::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (server, ending) = (bed.service.server().unwrap(), stop.clone());
        let task = tokio::spawn(async move { server.serve(listener, ending).await });
        Self { bed, addr, stop, task }
    }

    fn route(&self) -> Route {
        Route::Direct { addr: self.addr.to_string() }
    }

    fn client(&self, identity: Option<ClientIdentity>) -> Client {
        let authorities = self.bed.service.authorities().authorities;
        Client::new(ClientConfig::new(self.route(), authorities, identity)).unwrap()
    }

    fn admin(&self) -> Client {
        Client::new(self.bed.service.local_admin(self.addr.to_string()).unwrap().client_config())
            .unwrap()
    }

    async fn user(&self, user: &str) -> Client {
        let keys = Keys::new();
        let reply = self.client(None).login(&login_request(user, PASSWORD, &keys)).await.unwrap();
        self.client(Some(ClientIdentity { cert_pem: reply.tls_cert, key_pem: keys.tls.to_pem() }))
    }

    /// A proxy that joined, and its id.
    async fn proxy(&self) -> (Client, HostId) {
        let ask = CreateTokenRequest {
            roles: vec![SystemRole::Proxy],
            value: None,
            ttl_seconds: None,
            labels: Default::default(),
            single_use: false,
        };
        let token = self.admin().create_token(&ask).await.unwrap();
        let (keys, host_id) = (Keys::new(), HostId::random());
        let ask = JoinRequest {
            token: token.token,
            host_id,
            node_name: "door".to_owned(),
            role: SystemRole::Proxy,
            ssh_public_key: keys.ssh.public_openssh(),
            tls_public_key: keys.tls.public().to_pem(),
            additional_principals: vec!["door.example.test".to_owned()],
            public_addr: Some("door.example.test:443".to_owned()),
        };
        let reply = self.client(None).join(&ask).await.unwrap();
        let identity = ClientIdentity { cert_pem: reply.tls_cert, key_pem: keys.tls.to_pem() };
        (self.client(Some(identity)), host_id)
    }
}

#[tokio::test]
async fn the_first_contact_holds_the_server_to_the_pin() {
    let server = Server::start().await;
    let pins = server.bed.service.ca_pins().unwrap();
    let found = fetch_authorities(&server.route(), Timeouts::default(), Confirm::Pins(&pins))
        .await
        .unwrap();
    assert_eq!(found.cluster.as_str(), "example.test");
    let wrong = [format!("sha256:{}", "ab".repeat(32))];
    fetch_authorities(&server.route(), Timeouts::default(), Confirm::Pins(&wrong))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_user_logs_in_and_asks() {
    let server = Server::start().await;
    server.bed.user("joe", &["access"], &["root"]).await;
    let client = server.user("joe").await;
    let me = client.me().await.unwrap();
    assert_eq!((me.user.as_str(), me.logins[0].as_str()), ("joe", "root"));
    let status = client.status().await.unwrap();
    assert_eq!(status.cluster.as_str(), "example.test");
    assert!(status.ca_pins[0].starts_with("sha256:"));
    let denied = client.list_resources(ResourceKind::Role).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);
    let wrong = server
        .client(None)
        .login(&login_request("joe", "wrong password", &Keys::new()))
        .await
        .unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Unauthenticated);
    let nobody = server.client(None).status().await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Unauthenticated);
    let export = client.export_authority(Some("user")).await.unwrap();
    assert!(
        export.starts_with("cert-authority ssh-ed25519 ")
            && export.ends_with("clustername=example.test&type=user\n"),
        "{export}"
    );
}

#[tokio::test]
async fn the_local_administrator_may_everything_a_person_may() {
    let server = Server::start().await;
    let admin = server.admin();
    assert_eq!(admin.list_resources(ResourceKind::Role).await.unwrap().len(), 3);
    let document =
        json!({"kind": "role", "version": "v7", "metadata": {"name": "dev"}, "spec": {}});
    let role = shared_types::Resource::from_json(document).unwrap();
    assert!(admin.create_resource(&role, false).await.unwrap().created);
    admin.delete_resource(ResourceKind::Role, "dev").await.unwrap();
    let gone = admin.delete_resource(ResourceKind::Role, "dev").await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    // But it is no proxy.
    assert_eq!(admin.cluster_state(None).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_proxy_follows_the_state_and_delivers() {
    let server = Server::start().await;
    let (proxy, host_id) = server.proxy().await;
    let first = proxy.cluster_state(None).await.unwrap();
    let (waiting, began) = (proxy.clone(), Instant::now());
    let next = tokio::spawn(async move { waiting.cluster_state(Some(first.revision)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.bed.role("dev", json!({})).await;
    let next = next.await.unwrap().unwrap();
    assert!(next.revision > first.revision && began.elapsed() < Duration::from_secs(20));
    assert!(next.roles.keys().any(|role| role.as_str() == "dev"));

    let from =
        |id: HostId| ServerMetadata { server_id: id.to_string(), ..ServerMetadata::default() };
    let prepared = |mut event: AuditEvent| {
        event.prepare(chrono::Utc::now(), "example.test");
        [event]
    };
    let connect = |id: HostId| SessionConnect { server: from(id), ..SessionConnect::default() };
    proxy.emit(&prepared(connect(host_id).into())).await.unwrap();
    for wrong in [connect(HostId::random()).into(), UserLogin::default().into()] {
        assert_eq!(proxy.emit(&prepared(wrong)).await.unwrap_err().kind(), ErrorKind::BadRequest);
    }
    assert!(server.bed.events().await.contains(&"session.connect T2010I".to_owned()));

    let (id, sid) = (Uuid::new_v4(), SessionId::random());
    proxy.upload_part(id, &sid, 1, Bytes::from_static(b"bytes of a recording")).await.unwrap();
    proxy
        .complete_upload(id, &sid, &CompleteUpload { parts: 1, bytes: 20, truncated: false })
        .await
        .unwrap();
    let mut got = server.admin().recording(&sid).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = got.next().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes, b"bytes of a recording");

    let key = Keys::new().ssh.public_openssh();
    let ask = ProxyHostCertRequest { principals: vec!["db-1".to_owned()], public_key: key };
    proxy.sign_proxy_host(&ask).await.unwrap();
    assert_eq!(
        proxy.list_resources(ResourceKind::User).await.unwrap_err().kind(),
        ErrorKind::Denied
    );
    // Links for users name the proxy that joined.
    server.bed.user("joe", &["access"], &[]).await;
    let reset = server.admin().reset_user(&name("joe"), &Default::default()).await.unwrap();
    assert_eq!(reset.proxy.as_deref(), Some("door.example.test:443"));
}

#[tokio::test]
async fn requests_have_their_limits() {
    let server = Server::start().await;
    let mut ask = login_request("joe", PASSWORD, &Keys::new());
    for size in [3 * 1024 * 1024, shared_api::limits::MAX_ANONYMOUS] {
        ask.password = Secret::new("x".repeat(size));
        let refused = server.client(None).login(&ask).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BadRequest);
    }
    let address = "192.0.2.9".parse().unwrap();
    let now = Instant::now();
    let turns =
        (0..1000).take_while(|_| server.bed.service.anonymous_turn(address, now).is_ok()).count();
    assert_eq!(turns, 480);
}

#[tokio::test]
async fn the_drain_lets_a_request_end() {
    let server = Server::start().await;
    let (proxy, _) = server.proxy().await;
    proxy.status().await.unwrap();
    server.stop.cancel();
    let drained =
        tokio::time::timeout(Duration::from_secs(15), server.task).await.unwrap().unwrap();
    assert_eq!(drained.left, 0);
    assert!(proxy.status().await.is_err());
}

/// Who hangs up in the middle of a change does not keep it out of the audit log.
#[tokio::test]
async fn a_change_whose_caller_hangs_up_is_finished_and_written_down() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.status().await.unwrap();
    let document =
        json!({"kind": "role", "version": "v7", "metadata": {"name": "dev"}, "spec": {}});
    let role = shared_types::Resource::from_json(document).unwrap();
    let busy = server.bed.service.changes.lock().await;
    let caller = tokio::spawn(async move { admin.create_resource(&role, false).await });
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.bed.service.running.is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    caller.abort();
    assert!(caller.await.is_err());
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(busy);
    while !server.bed.events().await.contains(&"role.created T9000I".to_owned()) {
        assert!(Instant::now() < deadline, "the change is in the audit log");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

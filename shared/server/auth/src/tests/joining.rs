//! Hosts that join, and nodes that say that they are there.

use std::net::SocketAddr;

use chrono::Duration;
use serde_json::json;
use shared_api::{
    CreateTokenRequest, ErrorKind, HostCertRequest, JoinReply, JoinRequest, NodesQuery, Secret,
    limits,
};
use shared_pki::{HostCertSpec, parse_certificate_line};
use shared_types::resource::NodeSpec;
use shared_types::{HostId, Node, ResourceKind, SystemRole};

use super::{Bed, Keys, here, host};
use crate::caller::Caller;
use crate::error::Result;

const NODE: SystemRole = SystemRole::Node;
const PROXY: SystemRole = SystemRole::Proxy;

/// A host that asks to join.
struct Guest {
    host: HostId,
    name: String,
    keys: Keys,
    role: SystemRole,
    further: Vec<String>,
}

impl Guest {
    fn new(name: &str, role: SystemRole) -> Self {
        let further = Vec::new();
        Self { host: HostId::random(), name: name.to_owned(), keys: Keys::new(), role, further }
    }

    fn ask(&self, token: &Secret) -> JoinRequest {
        JoinRequest {
            token: token.clone(),
            host_id: self.host,
            node_name: self.name.clone(),
            role: self.role,
            ssh_public_key: self.keys.ssh.public_openssh(),
            tls_public_key: self.keys.tls.public().to_pem(),
            additional_principals: self.further.clone(),
            public_addr: None,
        }
    }

    async fn join(&self, bed: &Bed, token: &Secret) -> Result<JoinReply> {
        bed.service.join(self.ask(token), here(), None).await
    }

    /// Joins, and is who its certificate says.
    async fn caller(&self, bed: &Bed, token: &Secret) -> Caller {
        caller(bed, &self.join(bed, token).await.unwrap(), here()).await
    }

    fn node(&self) -> Node {
        let spec = NodeSpec {
            hostname: self.name.clone(),
            use_tunnel: true,
            version: "1.2.3".to_owned(),
            ..NodeSpec::default()
        };
        Node::new(self.host.to_string(), spec)
    }
}

async fn caller(bed: &Bed, reply: &JoinReply, from: SocketAddr) -> Caller {
    let der = shared_transport::tls::certs_from_pem(reply.tls_cert.as_bytes()).unwrap();
    bed.service.caller(&der[0], from).await.unwrap()
}

async fn token(bed: &Bed, roles: &[SystemRole], single_use: bool) -> Secret {
    let ask = CreateTokenRequest {
        roles: roles.to_vec(),
        value: None,
        ttl_seconds: Some(3600),
        labels: Default::default(),
        single_use,
    };
    bed.service.create_token(&bed.admin(), ask).await.unwrap().token
}

fn told<T: std::fmt::Debug>(outcome: Result<T>) -> (ErrorKind, String) {
    let answer = outcome.unwrap_err().into_answer();
    (answer.kind, answer.message)
}

#[tokio::test]
async fn a_node_joins_renews_and_is_who_it_was() {
    let bed = Bed::new().await;
    let token = token(&bed, &[NODE], false).await;
    let guest = Guest { further: vec!["db.example.org".to_owned()], ..Guest::new("db-1", NODE) };
    let reply = guest.join(&bed, &token).await.unwrap();
    let cert = parse_certificate_line(&reply.ssh_cert).unwrap();
    let cluster = bed.service.cluster();
    let names = HostCertSpec::service_principals(guest.host, "db-1", cluster, &guest.further);
    assert_eq!(cert.valid_principals(), names);
    assert_eq!(cert.extensions().get("x-teleport-role").map(String::as_str), Some("Node"));
    let joined = caller(&bed, &reply, here()).await;
    assert!(joined.is_node() && joined.host_id() == Some(guest.host));

    bed.advance(Duration::days(20));
    let keys = Keys::new();
    let ask = || shared_api::RenewRequest {
        node_name: "db-1".to_owned(),
        ssh_public_key: keys.ssh.public_openssh(),
        tls_public_key: keys.tls.public().to_pem(),
        additional_principals: Vec::new(),
        public_addr: None,
    };
    let renewed = bed.service.renew(&joined, ask()).await.unwrap();
    bed.advance(Duration::days(20));
    let renewed = caller(&bed, &renewed, here()).await;
    assert!(renewed.is_node() && renewed.host_id() == Some(guest.host));
    // The record lives on with it: the name is still its own.
    let fresh = self::token(&bed, &[NODE], false).await;
    let (kind, text) = told(Guest::new("DB-1", NODE).join(&bed, &fresh).await);
    assert_eq!(
        (kind, text.as_str()),
        (ErrorKind::AlreadyExists, "the name \"db-1\" is held in the cluster")
    );
    // A host that was put out gets nothing.
    let document = json!({"kind": "lock", "metadata": {"name": "l"}, "spec": {"target": {"server_id": guest.host}}});
    bed.service.create_resource(&bed.admin(), "lock", document, false).await.unwrap();
    assert_eq!(told(guest.join(&bed, &fresh).await).0, ErrorKind::Locked);
}

#[tokio::test]
async fn every_refused_token_is_told_apart_by_who_has_it() {
    let bed = Bed::new().await;
    let (good, once) = (token(&bed, &[NODE], false).await, token(&bed, &[NODE], true).await);
    let stranger = Secret::new("0123456789abcdef0123456789abcdef");
    let text = |outcome: Result<JoinReply>| {
        let (kind, text) = told(outcome);
        assert_eq!(kind, ErrorKind::Denied);
        text
    };
    assert_eq!(text(Guest::new("a", NODE).join(&bed, &stranger).await), "token not recognized");
    let wrong = Guest::new("a", PROXY).join(&bed, &good).await;
    assert_eq!(text(wrong), "the token is not for role Proxy");
    // One that is for one service: the first gets in, a refusal does not use it up, and two at once are one.
    assert_eq!(told(Guest::new("gate", NODE).join(&bed, &once).await).0, ErrorKind::AlreadyExists);
    let (a, b) = (Guest::new("one", NODE), Guest::new("two", NODE));
    let (a, b) = tokio::join!(a.join(&bed, &once), b.join(&bed, &once));
    let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
    won.unwrap();
    assert_eq!(text(lost), "token already used");
    assert_eq!(text(Guest::new("three", NODE).join(&bed, &once).await), "token already used");
    Guest::new("a", NODE).join(&bed, &good).await.unwrap();
    Guest::new("b", NODE).join(&bed, &good).await.unwrap();
    // Its end, also after it was swept away; and one that was removed is like none.
    bed.advance(Duration::hours(2));
    assert_eq!(text(Guest::new("c", NODE).join(&bed, &good).await), "token expired");
    bed.service.tend().await;
    assert_eq!(text(Guest::new("c", NODE).join(&bed, &good).await), "token expired");
    let removed = token(&bed, &[NODE], false).await;
    bed.service.delete_resource(&bed.admin(), "token", removed.expose()).await.unwrap();
    assert_eq!(text(Guest::new("c", NODE).join(&bed, &removed).await), "token not recognized");
    bed.advance(Duration::days(40));
    bed.service.tend().await;
    assert_eq!(text(Guest::new("c", NODE).join(&bed, &good).await), "token not recognized");
    let joins = bed.events().await;
    let refused = joins.iter().filter(|event| *event == "instance.join TJ002E").count();
    assert!(refused >= 8, "{joins:?}");
}

#[tokio::test]
async fn a_node_takes_no_name_by_which_others_are_meant() {
    let bed = Bed::new().await;
    let token = token(&bed, &[NODE, PROXY], false).await;
    let held = Guest { further: vec!["alias.example.org".to_owned()], ..Guest::new("db-1", NODE) };
    held.join(&bed, &token).await.unwrap();
    let door = Guest { further: vec!["door.example.org".to_owned()], ..Guest::new("door", PROXY) };
    door.join(&bed, &token).await.unwrap();
    let key = Keys::new().ssh.public_openssh();
    let sign = |hosts: &[&str], seconds: Option<u64>| HostCertRequest {
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        public_key: key.clone(),
        ttl_seconds: seconds,
    };
    bed.service.sign_host(&bed.admin(), sign(&["Signed.example.org"], None)).await.unwrap();
    bed.service.sign_host(&bed.admin(), sign(&["brief"], Some(3600))).await.unwrap();
    bed.service.sign_host(&bed.admin(), sign(&["brief"], Some(60))).await.unwrap();
    let openssh = json!({
        "kind": "node", "sub_kind": "openssh",
        "spec": {"addr": "10.0.0.9:22", "hostname": "plain"},
    });
    bed.service.create_resource(&bed.admin(), "node", openssh, false).await.unwrap();

    let other = HostId::random().to_string();
    let taken = [
        "localhost",
        "LOCALHOST.",
        "x.localhost",
        "127.0.0.1",
        "gate",
        "GATE",
        "gate.example.test",
        "example.test",
        "db-1",
        "Db-1.",
        "db-1.example.test",
        "alias.example.org",
        "door",
        "DOOR.example.org",
        "signed.example.org",
        "brief",
        "plain",
        "10.0.0.9",
        other.as_str(),
    ];
    for name in taken {
        let refused = told(Guest::new(name, NODE).join(&bed, &token).await);
        assert_eq!(refused.0, ErrorKind::AlreadyExists, "{name}: {}", refused.1);
        // Nor as one of several names; loopback names are everybody's.
        let further = vec!["fine".to_owned(), name.to_owned()];
        let outcome = Guest { further, ..Guest::new("spare", NODE) }.join(&bed, &token).await;
        let everybodys = ["localhost", "LOCALHOST.", "x.localhost", "127.0.0.1"].contains(&name);
        if !everybodys {
            assert_eq!(told(outcome).0, ErrorKind::AlreadyExists, "{name}");
        }
    }
    // What the names only look like is free.
    for name in ["db-10", "signed", "door2", "gates"] {
        Guest::new(name, NODE).join(&bed, &token).await.unwrap();
    }
    // A proxy may be one of several with a name, and not a node's.
    Guest::new("door", PROXY).join(&bed, &token).await.unwrap();
    assert_eq!(
        told(Guest::new("db-1", PROXY).join(&bed, &token).await).0,
        ErrorKind::AlreadyExists
    );
    // What was signed for an hour is free after it; the later, shorter certificate did not shorten that.
    bed.advance(Duration::minutes(30));
    assert!(Guest::new("brief", NODE).join(&bed, &token).await.is_err());
    bed.advance(Duration::minutes(31));
    let token = self::token(&bed, &[NODE], false).await;
    Guest::new("brief", NODE).join(&bed, &token).await.unwrap();
    // A host that has been away until its certificates ended gives its name back.
    bed.advance(Duration::days(31));
    let token = self::token(&bed, &[NODE], false).await;
    Guest::new("db-1", NODE).join(&bed, &token).await.unwrap();
    assert!(Guest::new("signed.example.org", NODE).join(&bed, &token).await.is_err(), "for ever");
}

#[tokio::test]
async fn an_id_in_use_is_given_only_to_its_host() {
    let bed = Bed::new().await;
    let token = token(&bed, &[NODE, PROXY], false).await;
    let guest = Guest::new("db-1", NODE);
    let joined = guest.caller(&bed, &token).await;
    let taken = ErrorKind::AlreadyExists;
    // Another with that id, under any name and role; and the auth service's own.
    for role in [NODE, PROXY] {
        let thief = Guest { host: guest.host, ..Guest::new("thief", role) };
        assert_eq!(told(thief.join(&bed, &token).await).0, taken);
    }
    let thief = Guest { host: host(), ..Guest::new("thief", NODE) };
    assert_eq!(told(thief.join(&bed, &token).await).0, taken);
    // The answer was lost: the same host asks with the same keys once more.
    guest.join(&bed, &token).await.unwrap();
    // It serves as a proxy too: it shows who it is, and needs a token for that.
    let proxy = Guest { host: guest.host, ..Guest::new("db-1", PROXY) };
    assert_eq!(told(proxy.join(&bed, &token).await).0, taken);
    let reply = bed.service.join(proxy.ask(&token), here(), Some(&joined)).await.unwrap();
    assert!(caller(&bed, &reply, here()).await.is_proxy());
    let stranger = Guest::new("other", NODE).caller(&bed, &token).await;
    let ask = Guest { host: guest.host, ..Guest::new("x", NODE) }.ask(&token);
    assert_eq!(told(bed.service.join(ask, here(), Some(&stranger)).await).0, taken);
}

#[tokio::test]
async fn a_node_is_there_while_it_says_so() {
    let bed = Bed::new().await;
    let token = token(&bed, &[NODE], false).await;
    let guest = Guest::new("db-1", NODE);
    let joined = guest.caller(&bed, &token).await;
    let service = &bed.service;
    let start = service.node_changes(None).await;
    assert!(start.nodes.is_empty());
    let reply = service.heartbeat(&joined, guest.node()).await.unwrap();
    assert_eq!(reply.again_seconds, 60);
    let news = service.node_changes(Some(start.revision)).await;
    assert_eq!((news.whole, news.nodes.len()), (false, 1));
    assert_eq!(news.nodes[0].metadata.expires, None, "that is the auth service's matter");
    // Saying the same again is no news, and is not written each time.
    let written = || async {
        let stored = service.store().resource(ResourceKind::Node, &guest.host.to_string()).await;
        stored.unwrap().unwrap().metadata().revision.clone()
    };
    let first = written().await;
    for _ in 0..4 {
        bed.advance(Duration::seconds(60));
        service.heartbeat(&joined, guest.node()).await.unwrap();
    }
    assert_eq!(written().await, first);
    assert_eq!(service.presence.view().revision, news.revision);
    bed.advance(Duration::seconds(70));
    service.heartbeat(&joined, guest.node()).await.unwrap();
    assert_ne!(written().await, first, "half of its life was over on the disk");
    let mut changed = guest.node();
    changed.metadata.labels.insert("env".to_owned(), "prod".to_owned());
    let before = written().await;
    service.heartbeat(&joined, changed.clone()).await.unwrap();
    assert_ne!(written().await, before);
    // Not heard of for its life: gone. Heard of again: there again.
    bed.advance(Duration::seconds(590));
    service.sweep();
    assert_eq!(service.presence.view().nodes.len(), 1);
    bed.advance(Duration::seconds(11));
    service.sweep();
    assert!(service.presence.view().nodes.is_empty());
    let listed = service.list_resources(&bed.admin(), "nodes").await.unwrap().items;
    assert!(listed.is_empty());
    service.heartbeat(&joined, changed).await.unwrap();
    assert_eq!(service.presence.view().nodes.len(), 1);
    service.withdraw(&joined).await.unwrap();
    assert!(service.presence.view().nodes.is_empty());
    let last = service.node_changes(Some(news.revision)).await;
    assert_eq!((last.nodes.len(), last.gone), (0, vec![guest.host]));
}

#[tokio::test]
async fn a_node_speaks_of_itself_only() {
    let bed = Bed::new().await;
    let token = token(&bed, &[NODE, PROXY], false).await;
    let (one, other) = (Guest::new("one", NODE), Guest::new("other", NODE));
    let (joined, _) = (one.caller(&bed, &token).await, other.caller(&bed, &token).await);
    let service = &bed.service;
    let denied = |outcome| assert_eq!(told(outcome).0, ErrorKind::Denied);
    denied(service.heartbeat(&joined, other.node()).await);
    let mut disguised = one.node();
    disguised.spec.hostname = "other".to_owned();
    denied(service.heartbeat(&joined, disguised).await);
    let door = Guest::new("door", PROXY);
    let proxy = door.caller(&bed, &token).await;
    denied(service.heartbeat(&proxy, door.node()).await);
    denied(service.heartbeat(&bed.admin(), one.node()).await);
    assert_eq!(told(service.withdraw(&proxy).await).0, ErrorKind::Denied);
    let mut wrong = one.node();
    wrong.spec.addr = "nowhere".to_owned();
    assert_eq!(told(service.heartbeat(&joined, wrong).await).0, ErrorKind::BadRequest);
    // An address that is nobody's is the one it comes from.
    let mut direct = one.node();
    (direct.spec.use_tunnel, direct.spec.addr) = (false, "0.0.0.0:3022".to_owned());
    service.heartbeat(&joined, direct).await.unwrap();
    let view = service.presence.view();
    assert_eq!(view.get(one.host).unwrap().spec.addr, format!("{}:3022", here().ip()));
    // Events and recordings: of its own sessions, in its own name.
    let session = shared_types::SessionId::random();
    let start = |server: HostId, forwarded: Option<HostId>| {
        let mut start = shared_events::SessionStart::default();
        start.session.sid = session.to_string();
        start.server.server_id = server.to_string();
        start.server.forwarded_by = forwarded.map(|id| id.to_string()).unwrap_or_default();
        vec![start.into()]
    };
    service.emit(&joined, start(one.host, None)).await.unwrap();
    for events in [start(other.host, None), start(other.host, Some(one.host))] {
        assert_eq!(told(service.emit(&joined, events).await).0, ErrorKind::BadRequest);
    }
    // A session of another host is neither told of nor recorded for.
    for thief in [&proxy, &caller(&bed, &other.join(&bed, &token).await.unwrap(), here()).await] {
        let id = thief.host_id().unwrap();
        assert_eq!(told(service.emit(thief, start(id, None)).await).0, ErrorKind::BadRequest);
        let part = bytes::Bytes::from_static(b"x");
        let upload = uuid::Uuid::new_v4();
        let refused = service.upload_part(thief, upload, &session, 1, part).await;
        assert_eq!(told(refused).0, ErrorKind::BadRequest);
    }
    let part = bytes::Bytes::from_static(b"x");
    service.upload_part(&joined, uuid::Uuid::new_v4(), &session, 1, part).await.unwrap();
    service.renew_sessions(&joined, &[session]).unwrap();
}

#[tokio::test]
async fn users_see_the_nodes_they_may_reach() {
    let bed = Bed::new().await;
    let token = token(&bed, &[NODE], false).await;
    for (name, env) in [("db-1", "prod"), ("db-2", "dev"), ("web-1", "prod")] {
        let guest = Guest::new(name, NODE);
        let joined = guest.caller(&bed, &token).await;
        let mut node = guest.node();
        node.metadata.labels.insert("env".to_owned(), env.to_owned());
        bed.service.heartbeat(&joined, node).await.unwrap();
    }
    bed.role("dev", json!({"logins": ["root"], "node_labels": {"env": "dev"}})).await;
    bed.role("nologin", json!({"node_labels": {"*": "*"}})).await;
    for user in ["dev", "nologin", "access", "auditor"] {
        bed.user(user, &[user], &["root"]).await;
    }
    let seen = |user: &'static str, ask: NodesQuery| {
        let bed = &bed;
        async move {
            let caller = if user == "admin" { bed.admin() } else { bed.caller(user).await };
            let reply = bed.service.nodes(&caller, &ask).await.unwrap();
            let names = reply.items.into_iter().map(|node| node.spec.hostname);
            names.collect::<Vec<_>>().join(" ")
        }
    };
    let all = NodesQuery::default;
    assert_eq!(seen("admin", all()).await, "db-1 db-2 web-1");
    assert_eq!(seen("access", all()).await, "db-1 db-2 web-1");
    assert_eq!(seen("dev", all()).await, "db-2");
    assert_eq!(seen("nologin", all()).await, "");
    assert_eq!(seen("auditor", all()).await, "");
    let labels = |text: &str| NodesQuery { labels: Some(text.to_owned()), ..all() };
    let search = |text: &str| NodesQuery { search: Some(text.to_owned()), ..all() };
    let query = |text: &str| NodesQuery { query: Some(text.to_owned()), ..all() };
    assert_eq!(seen("access", labels("env=prod")).await, "db-1 web-1");
    assert_eq!(seen("access", labels("env=prod,x=y")).await, "");
    // Host ids are searched too, and have letters up to f.
    assert_eq!(seen("access", search("WEB,prod")).await, "web-1");
    assert_eq!(
        seen("access", query("labels[\"env\"] == \"prod\" && hasPrefix(name, \"web\")")).await,
        "web-1"
    );
    assert_eq!(seen("dev", query("name == \"db-1\"")).await, "", "a filter shows nothing more");
    for bad in [labels("env"), query("name =="), search(&"x".repeat(5000))] {
        let refused = bed.service.nodes(&bed.admin(), &bad).await;
        assert_eq!(told(refused).0, ErrorKind::BadRequest);
    }
}

#[tokio::test]
async fn servers_are_registered_by_hand_and_agents_are_not() {
    let bed = Bed::new().await;
    let admin = bed.admin();
    let token = token(&bed, &[NODE], false).await;
    let service = &bed.service;
    let openssh = |name: Option<HostId>, env: &str| {
        let mut document = json!({
            "kind": "node", "sub_kind": "openssh", "metadata": {"labels": {"env": env}},
            "spec": {"addr": "10.0.0.9:22", "hostname": "plain"},
        });
        if let Some(name) = name {
            document["metadata"]["name"] = json!(name);
        }
        document
    };
    let made = service.create_resource(&admin, "node", openssh(None, "dev"), false).await.unwrap();
    let id = made.resource["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(made.created && made.resource["metadata"]["expires"].is_null());
    let view = service.presence.view();
    assert!(view.get(id.parse().unwrap()).unwrap().is_openssh(), "proxies are told");
    let host = id.parse().unwrap();
    service.create_resource(&admin, "node", openssh(Some(host), "prod"), true).await.unwrap();
    assert_eq!(service.presence.view().get(host).unwrap().metadata.labels["env"], "prod");
    bed.advance(Duration::days(60));
    service.sweep();
    assert!(service.presence.view().get(host).is_some(), "it needs no heartbeat");

    // An agent's node is not forged, and not written over, there or away.
    let token = {
        let _ = token;
        self::token(&bed, &[NODE], false).await
    };
    let guest = Guest::new("db-1", NODE);
    let joined = guest.caller(&bed, &token).await;
    let forged = |document| service.create_resource(&admin, "node", document, true);
    for sub_kind in ["", "teleport"] {
        let mut document = openssh(Some(HostId::random()), "dev");
        document["sub_kind"] = json!(sub_kind);
        assert_eq!(told(forged(document).await).0, ErrorKind::BadRequest);
    }
    assert_eq!(told(forged(openssh(Some(guest.host), "dev")).await).0, ErrorKind::BadRequest);
    service.heartbeat(&joined, guest.node()).await.unwrap();
    assert_eq!(told(forged(openssh(Some(guest.host), "dev")).await).0, ErrorKind::BadRequest);
    let mut own = service.read_resource(&admin, "node", &guest.host.to_string()).await.unwrap();
    own["metadata"]["labels"] = json!({"env": "prod"});
    let edited = service.update_resource(&admin, "node", &guest.host.to_string(), own, false).await;
    assert_eq!(told(edited).0, ErrorKind::BadRequest);

    // Removing: a registered server is forgotten, an agent is put out.
    service.delete_resource(&admin, "node", &id).await.unwrap();
    assert!(service.presence.view().get(host).is_none());
    service.delete_resource(&admin, "node", &guest.host.to_string()).await.unwrap();
    assert!(service.presence.view().get(guest.host).is_none());
    assert_eq!(told(guest.join(&bed, &token).await).0, ErrorKind::Locked);
    assert_eq!(told(service.heartbeat(&joined, guest.node()).await).0, ErrorKind::Denied);
    // Its name is free for the next.
    Guest::new("db-1", NODE).join(&bed, &token).await.unwrap();
    let gone = service.delete_resource(&admin, "node", &HostId::random().to_string()).await;
    assert_eq!(told(gone).0, ErrorKind::NotFound);
    let own = super::host().to_string();
    service
        .heartbeat(
            &bed.system(NODE),
            Node::new(own.clone(), NodeSpec { hostname: "gate".to_owned(), ..NodeSpec::default() }),
        )
        .await
        .unwrap();
    assert_eq!(told(service.delete_resource(&admin, "node", &own).await).0, ErrorKind::BadRequest);
    let events = bed.events().await;
    for event in [
        "node.created GH4001I",
        "node.updated GH4002I",
        "node.deleted GH4003I",
        "lock.created TLK00I",
    ] {
        assert!(events.contains(&event.to_owned()), "{event}: {events:?}");
    }
}

#[tokio::test]
async fn what_is_stored_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let settings = super::settings(folder.path());
    let bed = Bed::open(settings.clone()).await;
    let token = token(&bed, &[NODE, PROXY], false).await;
    let guest = Guest::new("db-1", NODE);
    let joined = guest.caller(&bed, &token).await;
    bed.service.heartbeat(&joined, guest.node()).await.unwrap();
    Guest::new("door", PROXY).join(&bed, &token).await.unwrap();
    let before = bed.service.presence.view();
    assert_eq!((before.nodes.len(), before.proxies.len()), (1, 1));
    bed.service.close().await;
    drop(bed);
    let bed = Bed::open(settings).await;
    let after = bed.service.presence.view();
    assert_eq!((&after.nodes, &after.proxies), (&before.nodes, &before.proxies));
    assert!(bed.service.node_changes(Some(before.revision)).await.whole);
    bed.advance(Duration::from_std(limits::PRESENCE_LIFE).unwrap());
    bed.service.sweep();
    assert!(bed.service.presence.view().nodes.is_empty());
}

#[tokio::test]
async fn the_inventory_knows_every_process() {
    let bed = Bed::new().await;
    let token = token(&bed, &[NODE, PROXY], false).await;
    let guest = Guest::new("db-1", NODE);
    let joined = guest.caller(&bed, &token).await;
    Guest::new("door", PROXY).join(&bed, &token).await.unwrap();
    bed.service.heartbeat(&joined, guest.node()).await.unwrap();
    bed.service.presence.saw(guest.host, "9.9.9", bed.service.now());
    let items = bed.service.inventory(&bed.admin()).await.unwrap().items;
    let shown: Vec<_> = items
        .iter()
        .map(|item| (item.hostname.as_str(), item.services[0], item.last_seen.is_some()))
        .collect();
    assert_eq!(
        shown,
        [("db-1", NODE, true), ("door", PROXY, false), ("gate", SystemRole::Auth, true)]
    );
    assert_eq!(items[0].version, "9.9.9");
    bed.role("nothing", json!({"logins": ["joe"]})).await;
    bed.user("joe", &["nothing"], &["joe"]).await;
    let refused = bed.service.inventory(&bed.caller("joe").await).await;
    assert_eq!(told(refused).0, ErrorKind::Denied);
    bed.user("ed", &["editor"], &["ed"]).await;
    bed.service.inventory(&bed.caller("ed").await).await.unwrap();
}

#[tokio::test]
async fn an_agent_of_databases_joins_by_its_id_alone() {
    const DB: SystemRole = SystemRole::Db;
    let bed = Bed::new().await;
    let token = token(&bed, &[DB, NODE], false).await;
    // Its certificates carry no name that clients or users could take for another host's.
    let guest = Guest { further: vec!["web.example.org".to_owned()], ..Guest::new("gate", DB) };
    let reply = guest.join(&bed, &token).await.unwrap();
    let cert = parse_certificate_line(&reply.ssh_cert).unwrap();
    let id = guest.host.to_string();
    assert_eq!(cert.valid_principals(), [format!("{id}.example.test"), id.clone()]);
    let der = shared_transport::tls::certs_from_pem(reply.tls_cert.as_bytes()).unwrap();
    let (_, read) = x509_parser::parse_x509_certificate(&der[0]).unwrap();
    let names = format!("{:?}", read.subject_alternative_name().unwrap().unwrap().value);
    assert!(names.contains(&id) && !names.contains("gate") && !names.contains("web."), "{names}");
    assert!(!names.contains("cluster.local") && !names.contains("localhost"), "{names}");
    let joined = caller(&bed, &reply, here()).await;
    assert!(joined.is_db() && joined.is_service() && !joined.is_node());
    // Nor does it hold one.
    let node = Guest::new("web", NODE);
    Guest::new("web", DB).join(&bed, &token).await.unwrap();
    node.join(&bed, &token).await.unwrap();
    Guest::new("web", DB).join(&bed, &token).await.unwrap();

    // Renewed, it is what it was; its id is its own; and what it may is not what a node may.
    let ask = shared_api::RenewRequest {
        node_name: "gate".to_owned(),
        ssh_public_key: guest.keys.ssh.public_openssh(),
        tls_public_key: guest.keys.tls.public().to_pem(),
        additional_principals: Vec::new(),
        public_addr: None,
    };
    let renewed = caller(&bed, &bed.service.renew(&joined, ask).await.unwrap(), here()).await;
    assert!(renewed.is_db() && renewed.host_id() == Some(guest.host));
    let thief = Guest { host: guest.host, ..Guest::new("thief", DB) };
    let (kind, _) = told(thief.join(&bed, &token).await);
    assert_eq!(kind, ErrorKind::AlreadyExists);
    assert_eq!(told(bed.service.heartbeat(&joined, guest.node()).await).0, ErrorKind::Denied);
    let only_node = self::token(&bed, &[NODE], false).await;
    assert_eq!(told(Guest::new("x", DB).join(&bed, &only_node).await).0, ErrorKind::Denied);

    // Put out by its id, it is locked, and what it served is gone.
    let served = |name: &str| {
        let spec = shared_types::resource::DatabaseSpec::new(shared_types::DbProtocol::Redis, "a");
        let database = shared_types::Database::new(name, spec);
        let servers = vec![shared_types::DatabaseServer::of(guest.host, "gate", database)];
        shared_api::DbPresence { servers }
    };
    bed.service.heartbeat_db(&joined, served("cache")).await.unwrap();
    let view = bed.service.presence.view();
    assert_eq!(view.databases[0].spec.hostname, "gate");
    bed.service.delete_resource(&bed.admin(), "db_server", &id).await.unwrap();
    assert!(bed.service.presence.view().databases.is_empty());
    let again = bed.service.heartbeat_db(&joined, served("cache")).await;
    assert!(again.is_err() && bed.service.presence.view().databases.is_empty());
    let der = der[0].to_vec();
    assert_eq!(told(bed.service.caller(&der, here()).await.map(drop)).0, ErrorKind::Locked);
    let inventory = bed.service.inventory(&bed.admin()).await.unwrap().items;
    assert!(inventory.iter().all(|instance| instance.host_id != guest.host));
}

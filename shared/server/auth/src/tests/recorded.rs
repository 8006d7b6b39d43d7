//! Uploads, listing and fetching of recordings, events of services.

use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::json;
use shared_api::{CompleteUpload, ErrorKind, RecordingsQuery};
use shared_events::{
    AuditEvent, DatabaseMetadata, DatabaseSessionEnd, DatabaseSessionStart, Metadata,
    ServerMetadata, SessionEnd, SessionMetadata, SessionStart, UserMetadata,
};
use shared_recording::{Encoder, Header, Limits};
use shared_types::{SessionId, SystemRole};
use uuid::Uuid;

use super::Bed;

fn user(name: &str) -> UserMetadata {
    UserMetadata { user: name.to_owned(), login: "root".to_owned(), ..UserMetadata::default() }
}

fn session(sid: SessionId) -> SessionMetadata {
    SessionMetadata { sid: sid.to_string(), ..SessionMetadata::default() }
}

fn server() -> ServerMetadata {
    ServerMetadata {
        server_id: super::host().to_string(),
        server_hostname: "db-1".to_owned(),
        ..ServerMetadata::default()
    }
}

fn start(sid: SessionId, who: &str) -> SessionStart {
    SessionStart {
        metadata: Metadata { time: chrono::Utc::now().into(), ..Metadata::default() },
        user: user(who),
        session: session(sid),
        server: server(),
        size: "80:25".to_owned(),
        ..SessionStart::default()
    }
}

/// A recording whose recorder was cut off after the start.
fn recording(sid: SessionId, who: &str) -> Vec<u8> {
    let header =
        Header { cluster: super::name("example.test"), session: sid, recorder: super::host() };
    let mut encoder = Encoder::new(header, Limits::default());
    let mut bytes = Vec::new();
    let mut event = start(sid, who).into();
    shared_events::AuditEvent::prepare(&mut event, chrono::Utc::now(), "example.test");
    bytes.extend(encoder.push(&event).unwrap().into_iter().flat_map(|slice| slice.bytes.to_vec()));
    bytes.extend(encoder.flush().into_iter().flat_map(|slice| slice.bytes.to_vec()));
    bytes
}

/// A database session's recording whose recorder was cut off after the start.
fn database_recording(sid: SessionId, who: &str) -> Vec<u8> {
    let header =
        Header { cluster: super::name("example.test"), session: sid, recorder: super::host() };
    let mut encoder = Encoder::new(header, Limits::default());
    let mut event = AuditEvent::from(DatabaseSessionStart {
        user: user(who),
        session: session(sid),
        server: server(),
        database: orders(),
        session_recording: "node".to_owned(),
        ..DatabaseSessionStart::default()
    });
    event.prepare(chrono::Utc::now(), "example.test");
    let mut slices: Vec<_> = encoder.push(&event).unwrap().into_iter().collect();
    slices.extend(encoder.flush());
    slices.iter().flat_map(|slice| slice.bytes.to_vec()).collect()
}

fn orders() -> DatabaseMetadata {
    DatabaseMetadata {
        db_service: "orders".to_owned(),
        db_protocol: "postgres".to_owned(),
        db_user: "writer".to_owned(),
        db_name: "app".to_owned(),
        ..DatabaseMetadata::default()
    }
}

async fn upload(bed: &Bed, sid: SessionId, bytes: &[u8], truncated: bool) {
    let proxy = bed.system(SystemRole::Proxy);
    let id = Uuid::new_v4();
    let part = Bytes::copy_from_slice(bytes);
    bed.service.upload_part(&proxy, id, &sid, 1, part.clone()).await.unwrap();
    bed.service.upload_part(&proxy, id, &sid, 1, part).await.unwrap();
    let whole = CompleteUpload { parts: 1, bytes: bytes.len() as u64, truncated };
    let more = CompleteUpload { parts: 2, ..whole.clone() };
    assert!(bed.service.complete_upload(&proxy, id, &sid, more).await.is_err());
    bed.service.complete_upload(&proxy, id, &sid, whole.clone()).await.unwrap();
    bed.service.complete_upload(&proxy, id, &sid, whole).await.unwrap();
}

#[tokio::test]
async fn a_recording_is_seen_by_its_user_and_by_auditors() {
    let bed = Bed::new().await;
    bed.user("joe", &["access"], &["joe"]).await;
    bed.user("max", &["access"], &["max"]).await;
    bed.user("ann", &["auditor"], &[]).await;
    bed.user("ed", &["editor"], &[]).await;
    let sid = SessionId::random();
    let bytes = recording(sid, "joe");
    upload(&bed, sid, &bytes, true).await;
    let events = bed.events().await;
    assert_eq!(events.iter().filter(|event| event.starts_with("session.upload")).count(), 1);
    assert_eq!(
        events.iter().filter(|event| event.starts_with("session.end")).count(),
        1,
        "{events:?}"
    );

    for (who, sees) in [("joe", true), ("max", false), ("ann", true)] {
        let caller = bed.caller(who).await;
        let listed =
            bed.service.recordings(&caller, RecordingsQuery::default()).await.unwrap().items;
        assert_eq!(listed.len(), usize::from(sees), "{who}");
        match bed.service.recording(&caller, &sid).await {
            Ok(stream) => {
                assert!(sees, "{who}");
                let got: Vec<Bytes> = stream.try_collect().await.unwrap();
                // What was uploaded, and the seal behind it.
                let seal = bed.service.seal_part(&sid).await.unwrap().unwrap();
                assert_eq!(got.concat(), [&bytes[..], &seal].concat());
            }
            Err(error) => {
                assert!(!sees, "{who}: {error}");
                let other = SessionId::random();
                let Err(unknown) = bed.service.recording(&caller, &other).await else {
                    panic!("found")
                };
                // What exists and may not be seen reads like what does not exist.
                let told = |error: crate::AuthError, sid: SessionId| {
                    error.into_answer().message.replace(&sid.to_string(), "SID")
                };
                assert_eq!(told(error, sid), told(unknown, other));
            }
        }
    }
    let editor = bed.caller("ed").await;
    assert_eq!(
        bed.service.recordings(&editor, RecordingsQuery::default()).await.unwrap_err().kind(),
        ErrorKind::Denied
    );
    let accesses = bed
        .events()
        .await
        .iter()
        .filter(|event| event.starts_with("session.recording.access"))
        .count();
    assert_eq!(accesses, 2);
}

#[tokio::test]
async fn a_database_session_is_listed_read_and_ended_like_any_other() {
    let bed = Bed::new().await;
    bed.user("joe", &["access"], &["joe"]).await;
    bed.user("max", &["access"], &["max"]).await;
    let sid = SessionId::random();
    upload(&bed, sid, &database_recording(sid, "joe"), true).await;
    let joe = bed.caller("joe").await;
    let listed = |ask: RecordingsQuery| {
        let (bed, joe) = (&bed, &joe);
        async move { bed.service.recordings(joe, ask).await.unwrap().items }
    };
    let found = listed(RecordingsQuery::default()).await;
    assert_eq!(found.len(), 1, "{found:?}");
    let end = &found[0];
    for (key, value) in [
        ("event", "db.session.end"),
        ("code", "TDB01I"),
        ("user", "joe"),
        ("db_service", "orders"),
        ("db_name", "app"),
        ("session_recording", "node"),
        ("recording_state", "truncated"),
    ] {
        assert_eq!(end[key], value, "{key} in {end}");
    }
    assert_eq!(end["participants"], json!(["joe"]));
    assert!(end["recovered"].as_str().unwrap().contains("made up"), "{end}");
    assert_eq!(
        end["recording_until"].as_str().unwrap()[..10],
        end["session_stop"].as_str().unwrap()[..10]
    );
    for (login, host, count) in
        [("writer", "ORDERS", 1), ("joe", "orders", 0), ("writer", "db-1", 0)]
    {
        let ask = RecordingsQuery {
            login: Some(login.to_owned()),
            host: Some(host.to_owned()),
            ..RecordingsQuery::default()
        };
        assert_eq!(listed(ask).await.len(), count, "{login} {host}");
    }
    assert!(bed.service.recording(&joe, &sid).await.is_ok());
    let max = bed.caller("max").await;
    assert!(bed.service.recording(&max, &sid).await.is_err());
    assert!(
        bed.service.recordings(&max, RecordingsQuery::default()).await.unwrap().items.is_empty()
    );
}

#[tokio::test]
async fn a_database_session_that_was_not_recorded_is_in_no_list_of_recordings() {
    let bed = Bed::new().await;
    bed.user("joe", &["access"], &["joe"]).await;
    let agent = bed.system(SystemRole::Db);
    let end = |mode: &str| DatabaseSessionEnd {
        user: user("joe"),
        session: session(SessionId::random()),
        database: orders(),
        session_recording: mode.to_owned(),
        ..DatabaseSessionEnd::default()
    };
    bed.service.emit(&agent, vec![end("off").into(), end("node").into()]).await.unwrap();
    let joe = bed.caller("joe").await;
    let found = bed.service.recordings(&joe, RecordingsQuery::default()).await.unwrap().items;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (&found[0]["session_recording"], &found[0]["recording_state"]),
        (&json!("node"), &json!("uploading"))
    );
}

#[tokio::test]
async fn a_removal_takes_the_right_and_is_on_record_first() {
    let bed = Bed::new().await;
    bed.user("joe", &["access"], &["joe"]).await;
    bed.user("ann", &["auditor"], &[]).await;
    let rule = |condition: &str| json!({"rules": [{"resources": ["session"], "verbs": ["delete"], "where": condition}]});
    bed.role("own", rule("contains(session.participants, user.metadata.name)")).await;
    bed.role("any", json!({"rules": [{"resources": ["session"], "verbs": ["delete"]}]})).await;
    bed.user("max", &["own"], &["max"]).await;
    bed.user("tidy", &["any"], &[]).await;
    let sid = SessionId::random();
    upload(&bed, sid, &recording(sid, "joe"), true).await;
    for (who, kind) in
        [("joe", ErrorKind::Denied), ("ann", ErrorKind::Denied), ("max", ErrorKind::NotFound)]
    {
        let refused = bed.service.remove_recording(&bed.caller(who).await, &sid).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{who}");
    }
    let removals = || async {
        let events = bed.events().await;
        events.into_iter().filter(|event| event.starts_with("session.recording.delete")).count()
    };
    assert_eq!(removals().await, 0);
    bed.service.remove_recording(&bed.caller("tidy").await, &sid).await.unwrap();
    assert_eq!(removals().await, 1);
    for session in [sid, SessionId::random()] {
        let caller = bed.caller("tidy").await;
        let gone = bed.service.remove_recording(&caller, &session).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
    assert_eq!(removals().await, 1, "nothing was removed");
}

#[tokio::test]
async fn listings_are_narrowed() {
    let bed = Bed::new().await;
    bed.user("ann", &["auditor"], &[]).await;
    let sid = SessionId::random();
    upload(&bed, sid, &recording(sid, "joe"), true).await;
    let ann = bed.caller("ann").await;
    let ask = |user: &str, login: &str, host: &str| {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        RecordingsQuery {
            user: some(user),
            login: some(login),
            host: some(host),
            ..RecordingsQuery::default()
        }
    };
    for (query, found) in [
        (ask("joe", "", ""), 1),
        (ask("max", "", ""), 0),
        (ask("", "root", ""), 1),
        (ask("", "joe", ""), 0),
        (ask("", "", "DB-1"), 1),
        (ask("", "", "db"), 0),
        (ask("joe", "root", "db-1"), 1),
    ] {
        let shown = format!("{query:?}");
        assert_eq!(
            bed.service.recordings(&ann, query).await.unwrap().items.len(),
            found,
            "{shown}"
        );
    }
}

#[tokio::test]
async fn uploads_belong_to_the_proxy_that_began_them() {
    let bed = Bed::new().await;
    let sid = SessionId::random();
    let id = Uuid::new_v4();
    let part = || Bytes::from_static(b"part");
    bed.service.upload_part(&bed.system(SystemRole::Proxy), id, &sid, 1, part()).await.unwrap();
    for role in [SystemRole::Auth, SystemRole::Admin] {
        let refused =
            bed.service.upload_part(&bed.system(role), id, &sid, 2, part()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
    }
    for part_number in [0, u64::MAX] {
        assert!(
            bed.service
                .upload_part(&bed.system(SystemRole::Proxy), id, &sid, part_number, part())
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn hosts_come_from_the_callers_own_sessions() {
    let bed = Bed::new().await;
    bed.user("joe", &["access"], &["joe"]).await;
    bed.user("max", &["access"], &["max"]).await;
    let proxy = bed.system(SystemRole::Proxy);
    let sid = SessionId::random();
    let end = SessionEnd {
        user: user("joe"),
        session: session(sid),
        server: server(),
        participants: vec!["joe".into()],
        ..SessionEnd::default()
    };
    bed.service.emit(&proxy, vec![start(sid, "joe").into(), end.into()]).await.unwrap();
    let all = shared_api::NodesQuery::default();
    let hosts = bed.service.nodes(&bed.caller("joe").await, &all).await.unwrap().visited;
    assert_eq!(hosts.iter().map(|host| host.hostname.as_str()).collect::<Vec<_>>(), ["db-1"]);
    assert!(bed.service.nodes(&bed.caller("max").await, &all).await.unwrap().visited.is_empty());
}

#[tokio::test]
async fn queries_need_all_three_rights_and_leave_a_trace() {
    let bed = Bed::new().await;
    bed.user("ann", &["auditor"], &[]).await;
    bed.role("half", json!({"rules": [{"resources": ["audit_query"], "verbs": ["list", "read"]}]}))
        .await;
    bed.user("half", &["half"], &[]).await;
    let ask = || shared_api::QueryRequest { sql: "select 1".to_owned(), days: None };
    let refused = bed.service.query(&bed.caller("half").await, ask()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    // The worker is not installed beside a test program; the question is on record all the same.
    let _ = bed.service.query(&bed.caller("ann").await, ask()).await;
    assert_eq!(
        bed.events()
            .await
            .iter()
            .filter(|event| event.starts_with("secreports.audit.query.run"))
            .count(),
        1
    );
}

fn other_proxy(bed: &Bed) -> crate::caller::Caller {
    let proxy = bed.system(SystemRole::Proxy);
    let identity = shared_pki::Identity {
        host_id: Some(shared_types::HostId::random()),
        ..proxy.identity().clone()
    };
    crate::caller::Caller::service(identity, super::here())
}

/// A proxy speaks of its own sessions and uploads for them, and for nobody else's.
#[tokio::test]
async fn a_session_is_one_proxys() {
    let bed = Bed::new().await;
    let (proxy, other) = (bed.system(SystemRole::Proxy), other_proxy(&bed));
    let sid = SessionId::random();
    bed.service.emit(&proxy, vec![start(sid, "joe").into()]).await.unwrap();
    let server = ServerMetadata { server_id: other.host_id().unwrap().to_string(), ..server() };
    let end =
        SessionEnd { user: user("joe"), session: session(sid), server, ..SessionEnd::default() };
    let refused = bed.service.emit(&other, vec![end.into()]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BadRequest);
    let part = Bytes::from_static(b"forged");
    let refused = bed.service.upload_part(&other, Uuid::new_v4(), &sid, 1, part).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BadRequest);
    let id = Uuid::new_v4();
    let part = || Bytes::from_static(b"mine");
    bed.service.upload_part(&proxy, id, &sid, 1, part()).await.unwrap();
    // Nor does an upload change hands.
    let elsewhere = SessionId::random();
    let refused = bed.service.upload_part(&other, id, &elsewhere, 1, part()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    let refused = bed.service.upload_part(&proxy, id, &elsewhere, 2, part()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BadRequest, "one upload, one session");
}

/// The end of a recording that was cut off is made here; what the recording says of other sessions and clusters is
/// not repeated in the audit log.
#[tokio::test]
async fn a_recording_tells_of_its_own_session_only() {
    let bed = Bed::new().await;
    let (sid, victim) = (SessionId::random(), SessionId::random());
    let header =
        Header { cluster: super::name("example.test"), session: sid, recorder: super::host() };
    let mut encoder = Encoder::new(header, Limits::default());
    let mut bytes = Vec::new();
    let foreign = SessionStart { session: session(sid), ..start(sid, "root") };
    let mut foreign: shared_events::AuditEvent = foreign.into();
    foreign.metadata_mut().cluster_name = "other.test".to_owned();
    let forged =
        SessionEnd { user: user("root"), session: session(victim), ..SessionEnd::default() };
    for (index, event) in (0..).zip([foreign, forged.into(), start(sid, "joe").into()]) {
        let mut event: shared_events::AuditEvent = event;
        event.metadata_mut().index = index;
        event.prepare(chrono::Utc::now(), "example.test");
        bytes.extend(
            encoder.push(&event).unwrap().into_iter().flat_map(|slice| slice.bytes.to_vec()),
        );
    }
    bytes.extend(encoder.flush().into_iter().flat_map(|slice| slice.bytes.to_vec()));
    upload(&bed, sid, &bytes, true).await;
    let now = bed.service.now();
    let day = chrono::Duration::days(1);
    let ends =
        bed.service.audit.search(now - day, now + day, &[SessionEnd::KIND], 10).await.unwrap();
    let [shared_events::AuditEvent::SessionEnd(end)] = ends.as_slice() else { panic!("{ends:?}") };
    assert_eq!(
        (end.session.sid.as_str(), end.user.user.as_str()),
        (sid.to_string().as_str(), "joe")
    );
    assert_eq!(end.metadata.cluster_name, "example.test");
}

/// An id that is no id would be kept in memory by the hundred thousand.
#[tokio::test]
async fn ids_of_events_are_short() {
    let bed = Bed::new().await;
    let mut event = start(SessionId::random(), "joe");
    event.metadata.uid = "x".repeat(100_000);
    let refused = bed.service.emit(&bed.system(SystemRole::Proxy), vec![event.into()]).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::BadRequest);
}

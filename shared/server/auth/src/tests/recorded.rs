//! Uploads, listing and fetching of recordings, events of services.

use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::json;
use shared_api::{CompleteUpload, ErrorKind, RecordingsQuery};
use shared_events::{
    Metadata, ServerMetadata, SessionEnd, SessionMetadata, SessionStart, UserMetadata,
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
                assert_eq!(got.concat(), bytes);
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
async fn uploads_belong_to_the_proxy_that_began_them() {
    let bed = Bed::new().await;
    let sid = SessionId::random();
    let id = Uuid::new_v4();
    let part = || Bytes::from_static(b"part");
    bed.service.upload_part(&bed.system(SystemRole::Proxy), id, &sid, 1, part()).await.unwrap();
    for role in [SystemRole::Node, SystemRole::Admin] {
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
    let hosts = bed.service.nodes(&bed.caller("joe").await).await.unwrap().items;
    assert_eq!(hosts.iter().map(|host| host.hostname.as_str()).collect::<Vec<_>>(), ["db-1"]);
    assert!(bed.service.nodes(&bed.caller("max").await).await.unwrap().items.is_empty());
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

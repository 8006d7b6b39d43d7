//! The upload completer, session trackers, and what became of recordings.

use std::time::Duration;

use bytes::Bytes;
use shared_api::{CompleteUpload, RecordingState, RecordingsQuery};
use shared_events::{
    AuditEvent, ServerMetadata, SessionMetadata, SessionRecordingFailed, SessionStart, UserMetadata,
};
use shared_recording::{Encoder, Header, Limits};
use shared_types::{SessionId, SystemRole};
use uuid::Uuid;

use super::Bed;

const PERIOD: Duration = Duration::from_secs(300);

fn start(sid: SessionId) -> AuditEvent {
    SessionStart {
        user: UserMetadata { user: "joe".into(), login: "root".into(), ..UserMetadata::default() },
        session: SessionMetadata { sid: sid.to_string(), ..SessionMetadata::default() },
        server: ServerMetadata {
            server_id: super::host().to_string(),
            ..ServerMetadata::default()
        },
        session_recording: "proxy-sync".to_owned(),
        ..SessionStart::default()
    }
    .into()
}

/// A recording that ends, where `whole`.
fn recording(sid: SessionId, whole: bool) -> Bytes {
    let header =
        Header { cluster: super::name("example.test"), session: sid, recorder: super::host() };
    let mut encoder = Encoder::new(header, Limits::default());
    let mut event = start(sid);
    event.prepare(chrono::Utc::now(), "example.test");
    let mut slices: Vec<_> = encoder.push(&event).unwrap().into_iter().collect();
    slices.extend(encoder.flush());
    slices.extend(whole.then(|| encoder.finish()).flatten());
    slices.into_iter().flat_map(|slice| slice.bytes.to_vec()).collect()
}

impl Bed {
    /// Lets time pass with the completer at work.
    async fn pass(&self, by: Duration) {
        let mut left = by;
        while !left.is_zero() {
            let step = left.min(PERIOD);
            self.advance(chrono::Duration::from_std(step).unwrap());
            self.service.complete_uploads(PERIOD).await;
            left -= step;
        }
    }

    async fn listed(&self, state: Option<RecordingState>) -> Vec<serde_json::Value> {
        let ask = RecordingsQuery { state, ..RecordingsQuery::default() };
        self.service.recordings(&self.admin(), ask).await.unwrap().items
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_streamed_recording_nobody_finishes_is_finished_after_the_life_of_a_tracker() {
    let bed = Bed::new().await;
    let proxy = bed.system(SystemRole::Proxy);
    let (sid, id) = (SessionId::random(), Uuid::new_v4());
    bed.service.emit(&proxy, vec![start(sid)]).await.unwrap();
    bed.service.upload_part(&proxy, id, &sid, 1, recording(sid, false)).await.unwrap();
    // While the proxy says that it runs, an idle session is left alone.
    for _ in 0..10 {
        bed.pass(10 * MINUTE).await;
        bed.service.renew_sessions(&proxy, &[sid]).unwrap();
    }
    bed.pass(25 * MINUTE).await;
    assert!(bed.listed(None).await.is_empty());
    bed.pass(15 * MINUTE).await;
    let listed = bed.listed(Some(RecordingState::Truncated)).await;
    assert_eq!(listed.len(), 1);
    assert!(listed[0]["recovered"].as_str().unwrap().contains("auth service"), "{}", listed[0]);
    assert!(listed[0]["recording_until"].is_string());
    assert!(bed.listed(Some(RecordingState::Complete)).await.is_empty());
    let events = bed.events().await;
    assert!(events.iter().any(|event| event.starts_with("session.upload ")), "{events:?}");
}

#[tokio::test]
async fn what_a_proxy_has_on_its_disk_is_waited_for() {
    let bed = Bed::new().await;
    let proxy = bed.system(SystemRole::Proxy);
    let (sid, id) = (SessionId::random(), Uuid::new_v4());
    let mut first = recording(sid, false).to_vec();
    // Filler, as the first of several large pieces.
    first.extend(1_u64.to_be_bytes());
    first.extend(0_u64.to_be_bytes());
    first.extend((5_u64 << 20).to_be_bytes());
    first.resize(first.len() + (5 << 20), 0);
    bed.service.upload_part(&proxy, id, &sid, 1, first.into()).await.unwrap();
    bed.pass(23 * 60 * MINUTE).await;
    assert!(bed.listed(None).await.is_empty());
    bed.pass(90 * MINUTE).await;
    assert_eq!(bed.service.recordings.uploads().await.unwrap(), []);
    assert_eq!(
        bed.events().await.iter().filter(|event| event.starts_with("session.upload")).count(),
        1
    );
    // The proxy that comes back after all is told to begin again, and what it has is kept.
    let late = bed.service.upload_part(&proxy, id, &sid, 2, recording(sid, true)).await;
    late.unwrap();
    let whole = CompleteUpload { parts: 2, bytes: 1, truncated: false };
    let again = bed.service.complete_upload(&proxy, id, &sid, whole).await.unwrap_err();
    assert_eq!(again.kind(), shared_api::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_service_that_stood_still_gives_proxies_the_time_to_be_heard() {
    let bed = Bed::new().await;
    let proxy = bed.system(SystemRole::Proxy);
    let (sid, id) = (SessionId::random(), Uuid::new_v4());
    bed.service.upload_part(&proxy, id, &sid, 1, recording(sid, false)).await.unwrap();
    bed.pass(10 * MINUTE).await;
    bed.advance(chrono::Duration::hours(2));
    bed.service.complete_uploads(PERIOD).await;
    assert_eq!(bed.service.recordings.uploads().await.unwrap().len(), 1);
    bed.service.renew_sessions(&proxy, &[sid]).unwrap();
    bed.pass(20 * MINUTE).await;
    assert_eq!(bed.service.recordings.uploads().await.unwrap().len(), 1);
}

#[tokio::test]
async fn each_recording_has_one_state() {
    let bed = Bed::new().await;
    let proxy = bed.system(SystemRole::Proxy);
    let sids: Vec<SessionId> = (0..3).map(|_| SessionId::random()).collect();
    for sid in &sids {
        let mut end = shared_events::SessionEnd::default();
        end.session.sid = sid.to_string();
        end.server.server_id = super::host().to_string();
        bed.service.emit(&proxy, vec![end.into()]).await.unwrap();
    }
    assert_eq!(bed.listed(Some(RecordingState::Uploading)).await.len(), 3);
    let bytes = recording(sids[0], true);
    let whole = CompleteUpload { parts: 1, bytes: bytes.len() as u64, truncated: false };
    let id = Uuid::new_v4();
    bed.service.upload_part(&proxy, id, &sids[0], 1, bytes).await.unwrap();
    bed.service.complete_upload(&proxy, id, &sids[0], whole).await.unwrap();
    for sid in [&sids[0], &sids[1]] {
        let mut failed = SessionRecordingFailed { reason: "no".into(), ..Default::default() };
        failed.session.sid = sid.to_string();
        bed.service.emit(&proxy, vec![failed.into()]).await.unwrap();
    }
    for (state, sid) in [
        (RecordingState::Complete, sids[0]),
        (RecordingState::Failed, sids[1]),
        (RecordingState::Uploading, sids[2]),
    ] {
        let listed = bed.listed(Some(state)).await;
        assert_eq!(listed.len(), 1, "{state}");
        assert_eq!(listed[0]["sid"], sid.to_string());
        assert_eq!(listed[0]["recording_state"], state.as_str());
    }
    assert_eq!(bed.listed(Some(RecordingState::Failed)).await[0]["recording_reason"], "no");
    assert_eq!(bed.listed(None).await.len(), 3);
}

impl Bed {
    /// Ends that were made up for a session, and failures told of its recording.
    async fn told_of(&self, sid: SessionId) -> (usize, usize) {
        let from = chrono::DateTime::UNIX_EPOCH;
        let to = chrono::DateTime::<chrono::Utc>::MAX_UTC;
        let kinds = ["session.end", "session.recording.failed"];
        let found = self.service.audit.search(from, to, &kinds, 100).await.unwrap();
        let of_session = |event: &&AuditEvent| {
            event.part::<SessionMetadata>().is_some_and(|session| session.sid == sid.to_string())
        };
        let found: Vec<_> = found.iter().filter(of_session).collect();
        let ends = |event: &&&AuditEvent| matches!(event, AuditEvent::SessionEnd(end) if !end.recovered.is_empty());
        let failed = |event: &&&AuditEvent| matches!(event, AuditEvent::SessionRecordingFailed(_));
        (found.iter().filter(ends).count(), found.iter().filter(failed).count())
    }
}

#[tokio::test]
async fn a_session_of_which_nothing_came_gets_an_end_when_nothing_more_can_come() {
    let bed = Bed::new().await;
    let proxy = bed.system(SystemRole::Proxy);
    let (streamed, kept, ended) = (SessionId::random(), SessionId::random(), SessionId::random());
    let mut on_disk = start(kept);
    if let AuditEvent::SessionStart(start) = &mut on_disk {
        start.session_recording = "proxy".to_owned();
    }
    let end = shared_events::SessionEnd {
        session: SessionMetadata { sid: ended.to_string(), ..SessionMetadata::default() },
        server: ServerMetadata {
            server_id: super::host().to_string(),
            ..ServerMetadata::default()
        },
        ..shared_events::SessionEnd::default()
    };
    let events = vec![start(streamed), on_disk, start(ended), end.into()];
    bed.service.emit(&proxy, events).await.unwrap();
    for _ in 0..10 {
        bed.pass(10 * MINUTE).await;
        bed.service.renew_sessions(&proxy, &[streamed, kept]).unwrap();
    }
    bed.pass(25 * MINUTE).await;
    assert_eq!(bed.told_of(streamed).await, (0, 0), "its host was heard of lately");
    bed.pass(15 * MINUTE).await;
    assert_eq!(bed.told_of(streamed).await, (1, 1));
    assert_eq!(bed.listed(Some(RecordingState::Failed)).await.len(), 1);
    assert_eq!(bed.told_of(kept).await, (0, 0), "its recording may be on the disk of its host");
    bed.pass(25 * 60 * MINUTE).await;
    assert_eq!(bed.told_of(kept).await, (1, 1));
    assert_eq!(bed.told_of(streamed).await, (1, 1), "once");
    assert_eq!(bed.told_of(ended).await, (0, 0));
}

//! The engine with both of its writers, against a disk that is full and an auth service that is away.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Instant;

use shared_events::{SessionEnd, SessionLeave, SessionStart};
use shared_recording::{Decoder, Header};
use shared_types::{HostId, SessionId};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::spool::{RecordingSpool, RecordingSpoolSettings};
use crate::testing::FakeAuthority;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);

fn encoder(session: SessionId) -> SessionRecorder {
    let header =
        Header { cluster: "example.com".parse().unwrap(), session, recorder: HostId::random() };
    SessionRecorder::new(header, limits(), None)
}

type Heard = Arc<Mutex<Vec<String>>>;

fn settings(on_trouble: OnTrouble, window: Option<Arc<Window>>) -> (RecorderSettings, Heard) {
    let heard = Heard::default();
    let notes = Arc::clone(&heard);
    let on_notice: OnNotice =
        Arc::new(move |notice| notes.lock().unwrap().push(format!("{notice:?}")));
    (RecorderSettings { bucket: None, on_trouble, on_notice, window, outlet: None }, heard)
}

fn stream(
    auth: &Arc<FakeAuthority>,
    session: SessionId,
    wait: Duration,
) -> (Recorder, Arc<Window>) {
    let limits = WindowLimits { age: Duration::from_millis(300), ..WindowLimits::new(wait) };
    let window = Arc::new(Window::new(limits));
    let authority: Arc<dyn crate::Authority> = Arc::<FakeAuthority>::clone(auth);
    let writer = StreamWriter::new(authority, session, Arc::clone(&window));
    let (settings, _) = settings(OnTrouble::End, Some(Arc::clone(&window)));
    (Recorder::spawn(encoder(session), Box::new(writer), settings), window)
}

/// What a recording plays, and its events in JSON.
fn played(bytes: &[u8]) -> (Vec<u8>, Vec<String>) {
    let mut decoder = Decoder::new(bytes);
    let (mut output, mut events) = (Vec::new(), Vec::new());
    while let Some(event) = decoder.next_event().unwrap() {
        match event {
            AuditEvent::SessionPrint(print) => output.extend_from_slice(&print.data),
            other => events.push(other.to_json()),
        }
    }
    (output, events)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_recording_is_whole_and_is_acknowledged_as_it_runs() {
    let (auth, session) = (Arc::new(FakeAuthority::new()), SessionId::random());
    let (recorder, window) = stream(&auth, session, LONG);
    let start = recorder.event(SessionStart::default().into()).await.unwrap();
    assert_eq!(start.metadata().index, 0);
    let mut sent = Vec::new();
    for n in 0..200_u32 {
        let data: Vec<u8> = (0..30_000_u32).map(|at| (at * n % 251) as u8).collect();
        recorder.output(&Bytes::from(data.clone())).await.unwrap();
        assert!(window.ahead() <= 256 * 1024);
        sent.extend(data);
    }
    recorder.output(&Bytes::from_static(b"last")).await.unwrap();
    sent.extend_from_slice(b"last");
    until("everything is acknowledged without an end", || window.ahead() == 0).await;
    recorder.last_event(SessionEnd::default().into()).await.unwrap();
    recorder.finish().await.unwrap();
    let (stored, complete) = auth.stored(&session).unwrap();
    assert!(!complete.truncated && complete.parts > 10);
    let (output, events) = played(&stored);
    assert!(output == sent, "{} of {} bytes", output.len(), sent.len());
    assert_eq!(events.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_stops_within_its_window_and_goes_on_when_auth_is_back() {
    let (auth, session) = (Arc::new(FakeAuthority::new()), SessionId::random());
    let (recorder, window) = stream(&auth, session, LONG);
    recorder.event(SessionStart::default().into()).await.unwrap();
    until("the start", || window.ahead() == 0).await;
    auth.set_away(true);
    let recorder = Arc::new(recorder);
    let taken = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (of_task, count) = (Arc::clone(&recorder), Arc::clone(&taken));
    let session_runs = tokio::spawn(async move {
        for _ in 0..100 {
            of_task.output(&Bytes::from(vec![b'x'; 10_000])).await.unwrap();
            count.fetch_add(10_000, Ordering::SeqCst);
        }
    });
    until("it stops", || window.is_closed()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let seen = taken.load(Ordering::SeqCst);
    assert!((200_000..=256 * 1024).contains(&seen), "{seen}");
    auth.set_away(false);
    session_runs.await.unwrap();
    let recorder = Arc::into_inner(recorder).unwrap();
    recorder.finish().await.unwrap();
    assert_eq!(played(&auth.stored(&session).unwrap().0).0.len(), 1_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_auth_never_takes_ends_its_session() {
    let (auth, session) = (Arc::new(FakeAuthority::new()), SessionId::random());
    auth.set_away(true);
    let (recorder, window) = stream(&auth, session, Duration::from_millis(300));
    recorder.output(&Bytes::from_static(b"a keystroke")).await.unwrap();
    let why = tokio::time::timeout(LONG, window.overdue()).await.unwrap();
    assert!(why.contains("has not acknowledged"), "{why}");
    // What the client has seen is not forgotten: it goes when auth is back.
    let ended = recorder.last_event(SessionLeave::default().into()).await.unwrap();
    assert_eq!(ended.metadata().index, 1);
    let finishing = tokio::spawn(async move { recorder.finish().await });
    auth.set_away(false);
    finishing.await.unwrap().unwrap();
    assert_eq!(played(&auth.stored(&session).unwrap().0).0, b"a keystroke");
}

async fn full_disk(
    on_trouble: OnTrouble,
    room_wait: Duration,
) -> (Arc<FakeAuthority>, Recorder, SessionId, Heard, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let auth = Arc::new(FakeAuthority::new());
    auth.set_away(true);
    let authority: Arc<dyn crate::Authority> = Arc::<FakeAuthority>::clone(&auth);
    let spool_settings = RecordingSpoolSettings {
        max_bytes: 21_500,
        room_wait,
        retry_first: Duration::from_millis(10),
        retry_max: Duration::from_millis(50),
        ..RecordingSpoolSettings::default()
    };
    let never = CancellationToken::new();
    let spool = RecordingSpool::open(dir.path(), authority, spool_settings, &never).await.unwrap();
    // Another recording takes the room, until auth takes it.
    let mut other = spool.begin(SessionId::random(), true).await.unwrap();
    let mut encoder_of_other = encoder(other.session());
    let mut noise = vec![0_u8; 19_000];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut noise);
    let mut slices = Vec::new();
    encoder_of_other.output(noise.into(), Utc::now(), &mut slices).unwrap();
    encoder_of_other.finish(Utc::now(), &mut slices).unwrap();
    for slice in &slices {
        other.write(slice, true).await.unwrap();
    }
    other.close().await.unwrap();
    let session = SessionId::random();
    let (settings, heard) = settings(on_trouble, None);
    let writer = spool.begin(session, true).await.unwrap();
    let recorder = Recorder::spawn(encoder(session), Box::new(writer), settings);
    // The spool goes on as long as somebody writes.
    tokio::spawn(async move {
        tokio::time::sleep(LONG).await;
        drop(spool);
    });
    (auth, recorder, session, heard, dir)
}

fn noise(len: usize) -> Bytes {
    let mut noise = vec![0_u8; len];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut noise);
    noise.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn best_effort_leaves_a_named_gap_where_the_disk_was_full() {
    let (auth, recorder, session, heard, _dir) = full_disk(OnTrouble::LeaveGap, SHORT).await;
    recorder.event(SessionStart::default().into()).await.unwrap();
    let first = noise(3000);
    recorder.output(&first).await.unwrap();
    until("the gap is told of", || !heard.lock().unwrap().is_empty()).await;
    assert!(heard.lock().unwrap()[0].contains("Full"), "{heard:?}");
    // The session goes on at its own speed.
    let began = Instant::now();
    for _ in 0..100 {
        recorder.output(&noise(10_000)).await.unwrap();
    }
    let resize = recorder.event(shared_events::Resize::default().into()).await;
    assert!(resize.is_ok() && began.elapsed() < LONG);
    auth.set_away(false);
    until("the end of the gap", || heard.lock().unwrap().len() == 2).await;
    let last = noise(2000);
    recorder.output(&last).await.unwrap();
    recorder.last_event(SessionEnd::default().into()).await.unwrap();
    recorder.finish().await.unwrap();
    until("the upload", || auth.stored(&session).is_some()).await;
    let (stored, complete) = auth.stored(&session).unwrap();
    assert!(!complete.truncated);
    let (output, events) = played(&stored);
    assert!(output == [first, last].concat(), "{} bytes", output.len());
    let gap = events.iter().find(|event| event.contains("session.output.gap")).unwrap();
    assert!(gap.contains("1000000") && gap.contains("3000"), "{gap}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_ends_where_the_disk_is_full_and_says_why() {
    let (_auth, recorder, _session, heard, _dir) = full_disk(OnTrouble::End, SHORT).await;
    recorder.event(SessionStart::default().into()).await.unwrap();
    let deadline = Instant::now() + LONG;
    let error = loop {
        assert!(Instant::now() < deadline);
        if let Err(error) = recorder.output(&noise(3000)).await {
            break error;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(error.to_string().contains("spool is full"), "{error}");
    assert!(heard.lock().unwrap().is_empty());
    assert!(recorder.finish().await.is_err());
}

/// The file of a recording that is being written below `folder`.
fn part_of(folder: &std::path::Path) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path()).find_map(
        |path| match path.is_dir() {
            true => part_of(&path),
            false => path.extension().is_some_and(|kind| kind == "part").then_some(path),
        },
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_is_on_disk_before_anybody_hears_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let authority: Arc<dyn crate::Authority> = Arc::new(FakeAuthority::new());
    let never = CancellationToken::new();
    let spool =
        RecordingSpool::open(dir.path(), authority, RecordingSpoolSettings::default(), &never);
    let spool = spool.await.unwrap();
    let session = SessionId::random();
    let writer = spool.begin(session, true).await.unwrap();
    let (settings, _) = settings(OnTrouble::LeaveGap, None);
    let recorder = Recorder::spawn(encoder(session), Box::new(writer), settings);
    recorder.event(SessionStart::default().into()).await.unwrap();
    // What a crash in this moment would leave.
    let left = std::fs::read(part_of(dir.path()).unwrap()).unwrap();
    let (_, events) = played(&left);
    assert!(events.len() == 1 && events[0].contains("session.start"), "{events:?}");
    recorder.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_stands_still_while_the_disk_is_full() {
    let (auth, recorder, session, _heard, _dir) = full_disk(OnTrouble::End, LONG).await;
    recorder.event(SessionStart::default().into()).await.unwrap();
    let mut sent = Vec::new();
    loop {
        let data = noise(100);
        let taken = tokio::time::timeout(Duration::from_millis(500), recorder.output(&data)).await;
        let Ok(taken) = taken else { break };
        taken.unwrap();
        sent.extend_from_slice(&data);
        assert!(sent.len() < 100_000, "it goes on unrecorded");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    auth.set_away(false);
    let last = Bytes::from_static(b"last");
    tokio::time::timeout(LONG, recorder.output(&last)).await.unwrap().unwrap();
    sent.extend_from_slice(&last);
    recorder.finish().await.unwrap();
    until("the upload", || auth.stored(&session).is_some()).await;
    assert!(played(&auth.stored(&session).unwrap().0).0 == sent);
}

/// Takes what is recorded in batches, slowly where told so.
#[derive(Default)]
struct Log {
    taken: Mutex<Vec<AuditEvent>>,
    slow: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl EventOutlet for Log {
    fn complete(&self, event: &mut AuditEvent) {
        event.metadata_mut().code = "X".to_owned();
    }

    fn logs(&self, event: &AuditEvent) -> bool {
        event.kind() != "session.leave"
    }

    async fn take(&self, events: Vec<AuditEvent>) {
        while self.slow.load(Ordering::SeqCst) {
            tokio::time::sleep(SHORT).await;
        }
        self.taken.lock().unwrap().extend(events);
    }
}

struct Batched {
    recorder: Recorder,
    session: SessionId,
    auth: Arc<FakeAuthority>,
    _spool: Arc<RecordingSpool>,
    _dir: tempfile::TempDir,
}

async fn with_outlet(log: &Arc<Log>) -> Batched {
    let dir = tempfile::tempdir().unwrap();
    let auth = Arc::new(FakeAuthority::new());
    let authority: Arc<dyn crate::Authority> = Arc::<FakeAuthority>::clone(&auth);
    let never = CancellationToken::new();
    let spool =
        RecordingSpool::open(dir.path(), authority, RecordingSpoolSettings::default(), &never);
    let (spool, session) = (spool.await.unwrap(), SessionId::random());
    let writer = spool.begin(session, true).await.unwrap();
    let (settings, _) = settings(OnTrouble::End, None);
    let outlet: Arc<dyn EventOutlet> = Arc::<Log>::clone(log);
    let settings = RecorderSettings { outlet: Some(outlet), ..settings };
    let recorder = Recorder::spawn(encoder(session), Box::new(writer), settings);
    recorder.event(SessionStart::default().into()).await.unwrap();
    Batched { recorder, session, auth, _spool: spool, _dir: dir }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batched_events_are_recorded_and_go_on_in_order_with_the_same_numbers() {
    let log = Arc::new(Log::default());
    let batched = with_outlet(&log).await;
    let Batched { recorder, session, auth, .. } = &batched;
    for n in 0..3000 {
        let mut events = vec![crate::testing::event(&n.to_string())];
        if n % 3 == 0 {
            events.push(SessionLeave::default().into());
        }
        recorder.events(&mut events).await.unwrap();
        assert!(events.is_empty());
    }
    let end = recorder.last_event(SessionEnd::default().into()).await.unwrap();
    let logged = log.taken.lock().unwrap().clone();
    assert_eq!(logged.len(), 3000, "all are handed on before the end is answered");
    recorder.finish().await.unwrap();
    assert!(recorder.events(&mut vec![crate::testing::event("late")]).await.is_err());
    for (n, event) in logged.iter().enumerate() {
        let metadata = event.metadata();
        let index = 1 + n as i64 + (n as i64 + 2) / 3;
        assert_eq!((metadata.uid.as_str(), metadata.index), (n.to_string().as_str(), index));
        assert_eq!(metadata.code, "X");
    }
    assert_eq!(end.metadata().index, 4001);
    until("the upload", || auth.stored(session).is_some()).await;
    let (_, recorded) = played(&auth.stored(session).unwrap().0);
    assert_eq!(recorded.len(), 4002);
    assert!(recorded[1].contains("\"code\":\"X\""), "{}", recorded[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outlet_that_takes_nothing_stops_the_session_and_loses_nothing() {
    let log = Arc::new(Log::default());
    let batched = with_outlet(&log).await;
    let recorder = &batched.recorder;
    log.slow.store(true, Ordering::SeqCst);
    let mut taken = 0;
    loop {
        let mut one = vec![crate::testing::event(&taken.to_string())];
        let put = tokio::time::timeout(Duration::from_millis(500), recorder.events(&mut one)).await;
        let Ok(put) = put else { break };
        put.unwrap();
        taken += 1;
        assert!(taken < 10_000, "it goes on without limit");
    }
    log.slow.store(false, Ordering::SeqCst);
    recorder.finish().await.unwrap();
    assert_eq!(log.taken.lock().unwrap().len(), taken);
}

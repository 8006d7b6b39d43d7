use shared_events::{AuditEvent, SessionPrint};
use shared_recording::{Decoder, Encoder, Header, Limits, Slice};
use shared_types::HostId;

use std::path::PathBuf;

use super::*;
use crate::authority::Authority;
use crate::spool::{RecordingSpool, RecordingSpoolSettings};
use crate::testing::FakeAuthority;

const LONG: Duration = Duration::from_secs(20);

fn settings() -> RecordingSpoolSettings {
    RecordingSpoolSettings {
        retry_first: Duration::from_millis(5),
        retry_max: Duration::from_millis(20),
        room_wait: Duration::from_millis(100),
        ..RecordingSpoolSettings::default()
    }
}

async fn open(
    dir: &Path,
    authority: &Arc<FakeAuthority>,
    settings: RecordingSpoolSettings,
) -> Arc<RecordingSpool> {
    let authority: Arc<dyn Authority> = Arc::<FakeAuthority>::clone(authority);
    RecordingSpool::open(dir, authority, settings, &CancellationToken::new()).await.unwrap()
}

/// A real recording of some slices, the last of which ends it.
fn slices(session: SessionId, count: usize, text: &[u8]) -> Vec<Slice> {
    let header =
        Header { cluster: "example.com".parse().unwrap(), session, recorder: HostId::random() };
    let mut encoder = Encoder::new(header, Limits::default());
    let mut out = Vec::new();
    for at in 0..count {
        let mut print = SessionPrint { data: text.to_vec().into(), ..SessionPrint::default() };
        print.metadata.index = at as i64;
        print.metadata.event = "print".to_owned();
        assert!(encoder.push(&print.into()).unwrap().is_none());
        out.extend(if at + 1 == count { encoder.finish() } else { encoder.flush() });
    }
    assert_eq!(out.len(), count);
    out
}

fn bytes(slices: &[Slice]) -> Vec<u8> {
    slices.iter().flat_map(|slice| slice.bytes.to_vec()).collect()
}

fn root(dir: &Path) -> PathBuf {
    dir.join("log/upload/streaming/default")
}

fn everything_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

async fn arrived(
    spool: &RecordingSpool,
    auth: &FakeAuthority,
    session: &SessionId,
) -> crate::testing::Stored {
    let wait = async {
        loop {
            if let Some(stored) = auth.stored(session) {
                return stored;
            }
            spool.drain(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("the recording arrives")
}

#[tokio::test]
async fn written_closed_and_uploaded_byte_for_byte() {
    let (dir, auth, session) =
        (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()), SessionId::random());
    let spool = open(dir.path(), &auth, RecordingSpoolSettings { piece: 300, ..settings() }).await;
    let slices = slices(session, 12, b"some output\r\n");
    let mut writer = spool.begin(session, true).await.unwrap();
    let mut so_far = 0;
    for slice in &slices {
        writer.write(slice, true).await.unwrap();
        so_far += slice.bytes.len() as u64;
        assert_eq!(spool.used(), so_far);
        let found = everything_below(&root(dir.path()));
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with(format!("{session}/1.part")), "{found:?}");
        assert_eq!(found[0].metadata().unwrap().len(), so_far);
    }
    writer.close().await.unwrap();
    let (stored, complete) = arrived(&spool, &auth, &session).await;
    assert_eq!(stored, bytes(&slices));
    assert!(complete.parts > 3 && !complete.truncated, "{complete:?}");
    assert!(spool.drain(LONG).await);
    assert_eq!(everything_below(&root(dir.path())), [] as [PathBuf; 0]);
    assert_eq!(spool.used(), 0);
}

#[tokio::test]
async fn auth_away_and_away_again_in_the_middle() {
    let (dir, auth, session) =
        (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()), SessionId::random());
    auth.set_away(true);
    let spool = open(dir.path(), &auth, RecordingSpoolSettings { piece: 200, ..settings() }).await;
    let slices = slices(session, 12, b"some output\r\n");
    let mut writer = spool.begin(session, true).await.unwrap();
    for slice in &slices {
        writer.write(slice, true).await.unwrap();
    }
    writer.close().await.unwrap();
    assert!(!spool.drain(Duration::from_millis(50)).await);
    assert_eq!(spool.waiting(), 1);
    // Two parts get through, then it is away again; the service restarts meanwhile.
    auth.set_away(false);
    auth.parts_left.store(2, Ordering::SeqCst);
    let deadline = Instant::now() + LONG;
    while auth.parts_left.load(Ordering::SeqCst) > 0 {
        spool.drain(Duration::from_millis(10)).await;
        assert!(Instant::now() < deadline);
    }
    drop(spool);
    auth.set_away(false);
    let spool = open(dir.path(), &auth, RecordingSpoolSettings { piece: 200, ..settings() }).await;
    let (stored, complete) = arrived(&spool, &auth, &session).await;
    assert_eq!(stored, bytes(&slices));
    assert!(!complete.truncated);
}

/// What a kill leaves behind, cut at every byte: the whole slices of it arrive.
#[tokio::test]
async fn a_crash_at_any_byte_leaves_whole_slices() {
    let session = SessionId::random();
    let slices = slices(session, 3, b"x");
    let all = bytes(&slices);
    let ends: Vec<usize> = slices
        .iter()
        .scan(0, |end, slice| {
            *end += slice.bytes.len();
            Some(*end)
        })
        .collect();
    for cut in 0..=all.len() {
        let (dir, auth) = (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()));
        let folder = root(dir.path())
            .join("multi")
            .join(Uuid::new_v4().to_string())
            .join(session.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("1.part"), &all[..cut]).unwrap();
        let spool = open(dir.path(), &auth, settings()).await;
        let whole = ends.iter().copied().filter(|end| *end <= cut).max().unwrap_or(0);
        if whole == 0 {
            assert!(spool.drain(LONG).await);
            assert!(auth.stored(&session).is_none());
        } else {
            let (stored, complete) = arrived(&spool, &auth, &session).await;
            assert_eq!(stored, all[..whole], "{cut}");
            assert!(complete.truncated);
            assert!(Decoder::new(std::io::Cursor::new(stored)).all(|event| event.is_ok()), "{cut}");
        }
        assert!(spool.drain(LONG).await, "{cut}");
        assert_eq!(everything_below(&root(dir.path())), [] as [PathBuf; 0], "{cut}");
        assert_eq!(spool.used(), 0, "{cut}");
    }
}

#[tokio::test]
async fn a_session_that_ends_without_closing_is_uploaded_as_cut_off() {
    let (dir, auth, session) =
        (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()), SessionId::random());
    let spool = open(dir.path(), &auth, settings()).await;
    let slices = slices(session, 3, b"x");
    let mut writer = spool.begin(session, true).await.unwrap();
    for slice in &slices[..2] {
        writer.write(slice, true).await.unwrap();
    }
    // While it is open nobody touches it.
    assert!(spool.drain(LONG).await);
    assert!(auth.stored(&session).is_none());
    drop(writer);
    let (stored, complete) = arrived(&spool, &auth, &session).await;
    assert_eq!(stored, bytes(&slices[..2]));
    assert!(complete.truncated);
}

#[tokio::test]
async fn a_crash_between_the_steps_of_closing_loses_and_doubles_nothing() {
    let (dir, auth, session) =
        (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()), SessionId::random());
    let all = bytes(&slices(session, 2, b"x"));
    let folder =
        root(dir.path()).join("multi").join(Uuid::new_v4().to_string()).join(session.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("1.part"), &all).unwrap();
    // Linked, the folder not yet removed.
    std::fs::hard_link(folder.join("1.part"), root(dir.path()).join(format!("{session}.tar")))
        .unwrap();
    let spool = open(dir.path(), &auth, settings()).await;
    let (stored, complete) = arrived(&spool, &auth, &session).await;
    assert_eq!(stored, all);
    assert!(!complete.truncated, "it was closed");
    assert!(spool.drain(LONG).await);
    assert_eq!(everything_below(&root(dir.path())), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn what_auth_never_takes_is_set_aside_with_the_reason() {
    let (dir, auth, session) =
        (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()), SessionId::random());
    auth.refuse_complete.store(true, Ordering::SeqCst);
    let spool = open(dir.path(), &auth, settings()).await;
    let mut writer = spool.begin(session, true).await.unwrap();
    writer.write(&slices(session, 1, b"x")[0], true).await.unwrap();
    writer.close().await.unwrap();
    assert!(spool.drain(LONG).await);
    let aside = dir.path().join("log/upload/corrupted/default");
    assert!(aside.join(format!("{session}.tar")).exists());
    assert_eq!(
        std::fs::read_to_string(aside.join(format!("{session}.error"))).unwrap(),
        "no recording"
    );
}

#[tokio::test]
async fn within_the_budget_writers_wait_and_then_hear_of_it() {
    let (dir, auth) = (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()));
    auth.set_away(true);
    let (first, second) = (SessionId::random(), SessionId::random());
    let whole = slices(first, 1, b"x");
    let limit = whole[0].bytes.len() as u64 + 10;
    let spool =
        open(dir.path(), &auth, RecordingSpoolSettings { max_bytes: limit, ..settings() }).await;
    let mut writer = spool.begin(first, true).await.unwrap();
    writer.write(&whole[0], true).await.unwrap();
    writer.close().await.unwrap();
    let other = slices(second, 1, b"x");
    let mut writer = spool.begin(second, true).await.unwrap();
    let err = writer.write(&other[0], true).await.unwrap_err();
    assert!(matches!(err, SpoolError::Full { .. }), "{err}");
    // An upload makes room, and the same slice may come again.
    auth.set_away(false);
    arrived(&spool, &auth, &first).await;
    assert!(spool.drain(LONG).await);
    writer.write(&other[0], true).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(arrived(&spool, &auth, &second).await.0, bytes(&other));
}

#[tokio::test]
async fn a_second_recording_of_a_session_never_replaces_the_first() {
    let (dir, auth, session) =
        (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()), SessionId::random());
    auth.set_away(true);
    let spool = open(dir.path(), &auth, settings()).await;
    let first = slices(session, 1, b"first");
    let second = slices(session, 1, b"second");
    for (at, text) in [&first, &second].into_iter().enumerate() {
        let mut writer = spool.begin(session, true).await.unwrap();
        writer.write(&text[0], true).await.unwrap();
        assert_eq!(writer.close().await.is_ok(), at == 0);
    }
    auth.set_away(false);
    auth.once.store(true, Ordering::SeqCst);
    assert_eq!(arrived(&spool, &auth, &session).await.0, bytes(&first));
    let aside = dir.path().join("log/upload/corrupted/default").join(format!("{session}.tar"));
    let deadline = Instant::now() + LONG;
    while !aside.exists() {
        spool.drain(Duration::from_millis(20)).await;
        assert!(Instant::now() < deadline);
    }
    assert_eq!(std::fs::read(aside).unwrap(), bytes(&second), "the second is not lost");
    assert_eq!(auth.stored(&session).unwrap().0, bytes(&first));
}

/// Auth finished the upload, and the crash came before the spool let go of it.
#[tokio::test]
async fn an_upload_that_was_finished_before_a_crash_is_finished_again_and_gone() {
    for answered in [true, false] {
        let (dir, auth, session) =
            (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()), SessionId::random());
        let all = bytes(&slices(session, 12, b"some output\r\n"));
        let upload = Uuid::new_v4();
        let half = all.len() / 2;
        for (number, piece) in [(1, &all[..half]), (2, &all[half..])] {
            let piece = Bytes::copy_from_slice(piece);
            auth.upload_part(upload, &session, number, piece).await.unwrap();
        }
        if answered {
            let whole = CompleteUpload { parts: 2, bytes: all.len() as u64, truncated: false };
            auth.complete_upload(upload, &session, whole).await.unwrap();
        }
        let root = root(dir.path());
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join(format!("{session}.tar")), &all).unwrap();
        let checkpoint =
            Checkpoint { parts: 2, offset: all.len() as u64, ..Checkpoint::new(upload, false) };
        save(&root, &session, &checkpoint).unwrap();
        // Another one was removed, its checkpoint was not.
        save(&root, &SessionId::random(), &checkpoint).unwrap();
        let spool = open(dir.path(), &auth, settings()).await;
        assert!(spool.drain(LONG).await);
        assert_eq!(auth.stored(&session).unwrap().0, all);
        assert_eq!(everything_below(&root), [] as [PathBuf; 0]);
        assert_eq!(spool.used(), 0, "what says how far an upload is takes no room");
    }
}

/// A session that gives up waiting takes no room for ever.
#[tokio::test]
async fn a_write_nobody_waits_for_leaves_the_budget_right() {
    let (dir, auth, session) =
        (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()), SessionId::random());
    let spool = open(dir.path(), &auth, settings()).await;
    let slices = slices(session, 2, b"x");
    let mut writer = spool.begin(session, true).await.unwrap();
    // The disk is busy: the write has its room and waits for its turn.
    let turns = spool.shared.disk.clone().acquire_many_owned(8).await.unwrap();
    let given_up =
        tokio::time::timeout(Duration::from_millis(20), writer.write(&slices[0], true)).await;
    assert!(given_up.is_err());
    assert_eq!(spool.used(), 0);
    drop(turns);
    for slice in &slices {
        writer.write(slice, true).await.unwrap();
    }
    writer.close().await.unwrap();
    assert_eq!(arrived(&spool, &auth, &session).await.0, bytes(&slices));
    assert!(spool.drain(LONG).await);
    assert_eq!(spool.used(), 0);
}

/// A slice that could not be written leaves nothing behind, not even when the recording is then closed.
#[tokio::test]
async fn what_a_failed_write_left_is_cut_off_before_the_recording_is_closed() {
    let (dir, auth, session) =
        (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()), SessionId::random());
    let spool = open(dir.path(), &auth, settings()).await;
    let slices = slices(session, 1, b"x");
    let mut writer = spool.begin(session, true).await.unwrap();
    writer.write(&slices[0], true).await.unwrap();
    let part = everything_below(&root(dir.path())).remove(0);
    let mut file = std::fs::OpenOptions::new().append(true).open(part).unwrap();
    std::io::Write::write_all(&mut file, b"half a slice").unwrap();
    writer.close().await.unwrap();
    assert_eq!(arrived(&spool, &auth, &session).await.0, bytes(&slices));
}

/// One recording that is never taken does not keep the others from arriving, and all of it can be seen.
#[tokio::test]
async fn one_bad_file_blocks_nobody_and_is_counted() {
    let (dir, auth) = (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()));
    auth.refuse_complete.store(true, Ordering::SeqCst);
    let spool = open(dir.path(), &auth, RecordingSpoolSettings { uploads: 1, ..settings() }).await;
    let write = async |session: SessionId| {
        let mut writer = spool.begin(session, true).await.unwrap();
        writer.write(&slices(session, 1, b"x")[0], true).await.unwrap();
        writer
    };
    write(SessionId::random()).await.close().await.unwrap();
    assert!(spool.drain(LONG).await);
    auth.refuse_complete.store(false, Ordering::SeqCst);
    auth.set_away(true);
    let waits: Vec<SessionId> = (0..3).map(|_| SessionId::random()).collect();
    for session in &waits {
        write(*session).await.close().await.unwrap();
    }
    let _runs = write(SessionId::random()).await;
    let deadline = Instant::now() + LONG;
    while spool.status().await.unwrap().failures == 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = spool.status().await.unwrap();
    assert_eq!((status.waiting, status.set_aside), (3, 1), "{status:?}");
    assert!(status.bytes > 0 && status.bytes == spool.used() && status.oldest.is_some());
    let mut listed = spool.waiting_sessions().await.unwrap();
    listed.sort_unstable();
    let mut wanted = waits.clone();
    wanted.sort_unstable();
    assert_eq!(listed, wanted);
    auth.set_away(false);
    for session in &waits {
        arrived(&spool, &auth, session).await;
    }
}

/// A recording of which nothing could be written has an end too, told as soon as somebody listens.
#[tokio::test]
async fn a_recording_without_a_slice_is_told_of_once() {
    let (dir, auth, session) =
        (tempfile::tempdir().unwrap(), Arc::new(FakeAuthority::new()), SessionId::random());
    auth.set_away(true);
    let spool = open(dir.path(), &auth, settings()).await;
    drop(spool.begin(session, true).await.unwrap());
    drop(spool);
    let spool = open(dir.path(), &auth, settings()).await;
    assert_eq!(spool.waiting(), 1);
    auth.set_away(false);
    assert!(spool.drain(LONG).await);
    let told: Vec<String> = auth.events().iter().map(AuditEvent::to_json).collect();
    let of_it = |text: &&String| {
        text.contains("session.recording.failed")
            && text.contains(&session.to_string())
            && text.contains("nothing of it was written")
    };
    assert_eq!((told.len(), told.iter().filter(of_it).count()), (1, 1), "{told:?}");
    assert!(everything_below(&root(dir.path()).join("multi")).is_empty());
}

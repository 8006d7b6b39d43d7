//! What every recording store must do, run against all of them: a folder, a real S3-compatible server and a real
//! server of Google's API.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shared_config::SessionsUri;
use shared_testkit::ObjectServer;
use shared_testkit::stores::{S3_KEY, S3_REGION, S3_SECRET};
use shared_types::SessionId;
use tokio::io::AsyncReadExt;

use super::{Completed, RecordingError, RecordingStore, StoreEnv, UploadId, open_recordings};

/// A store and what is behind it.
pub(super) struct Place {
    dir: tempfile::TempDir,
    pub(super) server: Option<ObjectServer>,
    pub(super) uri: SessionsUri,
    pub(super) env: StoreEnv,
}

/// The bucket of all tests, and the path in it.
pub(super) const BUCKET: &str = "audit-bucket";
pub(super) const PREFIX: &str = "records/of=us";

impl Place {
    pub(super) fn folder() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let uri = SessionsUri::Directory(dir.path().join("elsewhere"));
        Self { dir, server: None, uri, env: StoreEnv::default() }
    }

    pub(super) fn s3(more: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let server = ObjectServer::start_s3(&dir.path().join("server")).unwrap()?;
        server.make_bucket(BUCKET, true).unwrap();
        let text = format!(
            "s3://{BUCKET}/{PREFIX}?endpoint={}&insecure=true&region={S3_REGION}{more}",
            server.address()
        );
        let env =
            StoreEnv::of([("AWS_ACCESS_KEY_ID", S3_KEY), ("AWS_SECRET_ACCESS_KEY", S3_SECRET)]);
        Some(Self { dir, server: Some(server), uri: text.parse().unwrap(), env })
    }

    pub(super) fn gcs() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let server = ObjectServer::start_gcs(&dir.path().join("server")).unwrap()?;
        server.make_bucket(BUCKET, false).unwrap();
        let key = dir.path().join("key.json");
        let account =
            r#"{"private_key":"","private_key_id":"","client_email":"","disable_oauth":true}"#;
        std::fs::write(&key, account).unwrap();
        let text = format!(
            "gs://{BUCKET}/{PREFIX}?endpoint={}&credentialsPath={}",
            server.endpoint(),
            key.display()
        );
        let uri = text.parse().unwrap();
        Some(Self { dir, server: Some(server), uri, env: StoreEnv::default() })
    }

    pub(super) fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Opens the store, as a start of the auth service does.
    pub(super) fn open(&self) -> Arc<dyn RecordingStore> {
        open_recordings(Some(&self.uri), &self.data_dir(), &self.env).unwrap()
    }

    /// Whether recordings wait on the disk.
    pub(super) fn waits(&self) -> bool {
        let outbox = self.data_dir().join("log/records/outbox");
        std::fs::read_dir(outbox).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Until everything that was completed is where it belongs.
    pub(super) async fn arrived(&self) {
        until("recordings to arrive", || async { !self.waits() }).await;
    }
}

/// Polls with a deadline.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !check().await {
        assert!(Instant::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) fn session() -> SessionId {
    uuid::Uuid::new_v4().to_string().parse().unwrap()
}

/// Bytes without a pattern that blocks could hide.
pub(super) fn content(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    let mut all = Vec::with_capacity(bytes + 4);
    while all.len() < bytes {
        all.extend_from_slice(&next());
    }
    all.truncate(bytes);
    all
}

/// Uploads `content` in parts of `part` bytes and completes.
pub(super) async fn record(
    store: &Arc<dyn RecordingStore>,
    session: SessionId,
    content: &[u8],
    part: usize,
) -> Completed {
    let upload = UploadId::random();
    for (number, bytes) in (1..).zip(content.chunks(part)) {
        store.put_part(upload, session, number, Bytes::copy_from_slice(bytes)).await.unwrap();
    }
    store.complete(upload, session).await.unwrap()
}

pub(super) async fn read(store: &Arc<dyn RecordingStore>, session: SessionId) -> Vec<u8> {
    let mut reader = store.open(session).await.unwrap();
    let mut all = Vec::new();
    reader.read_to_end(&mut all).await.unwrap();
    assert_eq!(reader.bytes(), all.len() as u64);
    all
}

async fn put(
    store: &Arc<dyn RecordingStore>,
    upload: UploadId,
    session: SessionId,
    number: u32,
    text: &'static str,
) -> Result<u64, RecordingError> {
    let bytes = Bytes::from_static(text.as_bytes());
    store.put_part(upload, session, number, bytes).await.map(|part| part.bytes)
}

async fn parts_come_in_any_order_and_with_gaps(place: &Place, store: &Arc<dyn RecordingStore>) {
    let (session, upload) = (session(), UploadId::random());
    for (number, text) in [(10, "d"), (2, "b"), (1, "a"), (4, "c")] {
        assert_eq!(put(store, upload, session, number, text).await.unwrap(), 1);
    }
    let parts = store.parts(upload, session).await.unwrap();
    let numbers: Vec<u32> = parts.into_iter().map(|part| part.number).collect();
    assert_eq!(numbers, [1, 2, 4, 10]);
    assert!(store.uploads().await.unwrap().iter().any(|open| open.id == upload));
    assert!(matches!(store.open(session).await, Err(RecordingError::NotFound { .. })));
    assert_eq!(store.complete(upload, session).await.unwrap(), Completed::Stored { bytes: 4 });
    // It can be read at once, wherever it is by now, and again when it has arrived.
    assert_eq!(read(store, session).await, b"abcd");
    place.arrived().await;
    assert_eq!(read(store, session).await, b"abcd");
    assert_eq!(store.size(session).await.unwrap(), Some(4));
    assert!(store.uploads().await.unwrap().is_empty());
    let again = store.complete(upload, session).await.unwrap();
    assert_eq!(again, Completed::AlreadyStored { bytes: 4 }, "asked again after a lost answer");
}

async fn what_stands_behind_a_gap_is_put_aside(place: &Place, store: &Arc<dyn RecordingStore>) {
    let (session, upload) = (session(), UploadId::random());
    for (number, text) in [(1, "a"), (2, "b"), (4, "d"), (5, "e")] {
        put(store, upload, session, number, text).await.unwrap();
    }
    assert_eq!(store.cut_at_gap(upload, session).await.unwrap(), 2);
    assert_eq!(store.cut_at_gap(upload, session).await.unwrap(), 0);
    assert_eq!(store.complete(upload, session).await.unwrap(), Completed::Stored { bytes: 2 });
    place.arrived().await;
    assert_eq!(read(store, session).await, b"ab");
}

async fn a_part_may_be_sent_again_but_not_changed(place: &Place, store: &Arc<dyn RecordingStore>) {
    let (session, upload) = (session(), UploadId::random());
    put(store, upload, session, 1, "same").await.unwrap();
    put(store, upload, session, 1, "same").await.unwrap();
    let other = put(store, upload, session, 1, "diff").await;
    assert!(matches!(other, Err(RecordingError::PartDiffers { number: 1, .. })));
    assert!(matches!(
        put(store, upload, session, 0, "x").await,
        Err(RecordingError::BadPart { .. })
    ));
    assert!(matches!(
        put(store, upload, session, 2, "").await,
        Err(RecordingError::BadPart { .. })
    ));
    store.complete(upload, session).await.unwrap();
    place.arrived().await;
    assert_eq!(read(store, session).await, b"same");
}

async fn the_oldest_recording_wins(place: &Place, store: &Arc<dyn RecordingStore>) {
    let session = session();
    assert_eq!(record(store, session, b"first", 2).await, Completed::Stored { bytes: 5 });
    assert_eq!(record(store, session, b"forged", 9).await, Completed::Superseded { bytes: 5 });
    place.arrived().await;
    assert_eq!(record(store, session, b"forged", 9).await, Completed::Superseded { bytes: 5 });
    assert_eq!(record(store, session, b"fir5t", 9).await, Completed::Superseded { bytes: 5 });
    assert_eq!(record(store, session, b"first", 3).await, Completed::AlreadyStored { bytes: 5 });
    place.arrived().await;
    assert_eq!(read(store, session).await, b"first");
    assert!(store.uploads().await.unwrap().is_empty());
}

async fn an_upload_belongs_to_one_session(_: &Place, store: &Arc<dyn RecordingStore>) {
    let (own, other, upload) = (session(), session(), UploadId::random());
    put(store, upload, own, 1, "one").await.unwrap();
    let stolen = put(store, upload, other, 1, "x").await;
    assert!(matches!(stolen, Err(RecordingError::OtherSession { .. })));
    let stolen = store.complete(upload, other).await;
    assert!(matches!(stolen, Err(RecordingError::OtherSession { .. })));
    assert!(matches!(store.open(other).await, Err(RecordingError::NotFound { .. })));
    let unknown = store.complete(UploadId::random(), other).await;
    assert!(matches!(unknown, Err(RecordingError::NotFound { .. })));
    store.complete(upload, own).await.unwrap();
}

async fn an_upload_without_parts_leaves_nothing(_: &Place, store: &Arc<dyn RecordingStore>) {
    let session = session();
    let upload = store.create_upload(session).await.unwrap();
    assert_eq!(store.complete(upload, session).await.unwrap(), Completed::Empty);
    assert!(store.uploads().await.unwrap().is_empty());
    assert_eq!(store.size(session).await.unwrap(), None);
}

async fn removal_is_whole_and_may_be_repeated(place: &Place, store: &Arc<dyn RecordingStore>) {
    let session = session();
    assert!(!store.remove(session).await.unwrap());
    for arrived in [false, true] {
        record(store, session, b"to be removed", 4).await;
        record(store, session, b"and what came second", 4).await;
        if arrived {
            place.arrived().await;
        }
        assert!(store.remove(session).await.unwrap());
        assert!(!store.remove(session).await.unwrap());
        assert!(matches!(store.open(session).await, Err(RecordingError::NotFound { .. })));
        assert_eq!(store.size(session).await.unwrap(), None);
    }
    place.arrived().await;
    assert_eq!(store.size(session).await.unwrap(), None, "nothing brings it back");
}

async fn large_ones_are_read_in_any_pieces(place: &Place, store: &Arc<dyn RecordingStore>) {
    let session = session();
    let whole = content(21 << 20, 7);
    let bytes = whole.len() as u64;
    let done = record(store, session, &whole, 700_001).await;
    assert_eq!(done, Completed::Stored { bytes });
    place.arrived().await;
    assert!(read(store, session).await == whole, "other content came back");
    // A reader that stops early, and one that takes odd pieces.
    let mut reader = store.open(session).await.unwrap();
    let mut head = vec![0; 3_000_017];
    reader.read_exact(&mut head[..5]).await.unwrap();
    reader.read_exact(&mut head[5..]).await.unwrap();
    assert!(head == whole[..head.len()]);
    drop(reader);
    assert_eq!(record(store, session, &whole, 4 << 20).await, Completed::AlreadyStored { bytes });
}

async fn overlapping_requests_agree(place: &Place, store: &Arc<dyn RecordingStore>) {
    let (session, upload) = (session(), UploadId::random());
    for (number, text) in [(1, "1"), (2, "2")] {
        put(store, upload, session, number, text).await.unwrap();
    }
    let ends = (0..6).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.complete(upload, session).await })
    });
    let mut stored = 0;
    for end in ends.collect::<Vec<_>>() {
        match end.await.unwrap().unwrap() {
            Completed::Stored { bytes: 2 } => stored += 1,
            Completed::AlreadyStored { bytes: 2 } => {}
            other => panic!("{other:?}"),
        }
    }
    place.arrived().await;
    assert_eq!((stored, read(store, session).await.as_slice()), (1, b"12".as_slice()));
}

/// What was begun, and what was finished, is there after a start that follows a crash.
async fn a_crash_loses_nothing(place: &Place) {
    let (begun, upload, finished) = (session(), UploadId::random(), session());
    let store = place.open();
    put(&store, upload, begun, 1, "be").await.unwrap();
    record(&store, finished, b"finished", 3).await;
    drop(store);
    let store = place.open();
    assert_eq!(read(&store, finished).await, b"finished");
    assert!(store.uploads().await.unwrap().iter().any(|open| open.session == begun));
    put(&store, upload, begun, 2, "gun").await.unwrap();
    store.complete(upload, begun).await.unwrap();
    place.arrived().await;
    assert_eq!(read(&store, begun).await, b"begun");
    assert_eq!(read(&store, finished).await, b"finished");
}

async fn suite(place: Option<Place>) {
    let Some(place) = place else { return };
    let store = place.open();
    parts_come_in_any_order_and_with_gaps(&place, &store).await;
    what_stands_behind_a_gap_is_put_aside(&place, &store).await;
    a_part_may_be_sent_again_but_not_changed(&place, &store).await;
    the_oldest_recording_wins(&place, &store).await;
    an_upload_belongs_to_one_session(&place, &store).await;
    an_upload_without_parts_leaves_nothing(&place, &store).await;
    removal_is_whole_and_may_be_repeated(&place, &store).await;
    large_ones_are_read_in_any_pieces(&place, &store).await;
    overlapping_requests_agree(&place, &store).await;
    drop(store);
    a_crash_loses_nothing(&place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_conforms() {
    suite(Some(Place::folder())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms() {
    suite(Place::s3("")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcs_conforms() {
    suite(Place::gcs()).await;
}

/// The store goes away in the middle of an upload, and comes back.
async fn outlives_the_store(place: Option<Place>) {
    let Some(mut place) = place else { return };
    let store = place.open();
    let (large, while_away) = (session(), session());
    let whole = content(60 << 20, 3);
    record(&store, large, &whole, 8 << 20).await;
    // Somewhere in the middle: it takes longer than this.
    tokio::time::sleep(Duration::from_millis(100)).await;
    place.server.as_mut().unwrap().kill().unwrap();
    assert!(place.waits(), "the upload was over before the store was killed");
    // Sessions go on, end, and can be seen.
    assert_eq!(record(&store, while_away, b"away", 2).await, Completed::Stored { bytes: 4 });
    assert_eq!(read(&store, while_away).await, b"away");
    assert!(read(&store, large).await == whole);
    let unknown = store.open(session()).await.err().unwrap();
    assert!(matches!(unknown, RecordingError::Store(_)), "{unknown}");
    let removal = store.remove(while_away).await.err().unwrap();
    assert!(matches!(removal, RecordingError::Store(_)), "{removal}");
    // The auth service starts without it, too.
    drop(store);
    let store = place.open();
    assert_eq!(read(&store, while_away).await, b"away");
    place.server.as_mut().unwrap().restart().unwrap();
    place.arrived().await;
    assert!(read(&store, large).await == whole);
    assert_eq!(read(&store, while_away).await, b"away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_may_go_and_come_back() {
    outlives_the_store(Place::s3("")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcs_may_go_and_come_back() {
    outlives_the_store(Place::gcs()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_store_goes_into_the_folder_that_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let away: SessionsUri = "s3://audit?endpoint=127.0.0.1:1&insecure=true".parse().unwrap();
    let env = StoreEnv::of([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]);
    let session = session();
    let store = open_recordings(Some(&away), dir.path(), &env).unwrap();
    record(&store, session, b"waits", 2).await;
    drop(store);
    let store = open_recordings(None, dir.path(), &env).unwrap();
    assert_eq!(read(&store, session).await, b"waits");
    assert!(dir.path().join(format!("log/records/{session}.tar")).is_file());
    // And what was there before there was a store is still read, and stays the oldest.
    let store = open_recordings(Some(&away), dir.path(), &env).unwrap();
    assert_eq!(read(&store, session).await, b"waits");
    assert_eq!(record(&store, session, b"later", 2).await, Completed::Superseded { bytes: 5 });
}

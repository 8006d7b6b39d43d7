//! What only an object store can do: versions, abandoned uploads, faults; and how much memory uploads take.

use std::sync::atomic::{AtomicU64, Ordering};

use shared_config::SessionsUri;
use shared_testkit::stores::{S3_KEY, S3_SECRET};

use super::bucket::{Block, Written};
use super::fault::At;
use super::shipper::BLOCK;
use super::*;
use crate::recordings::conformance::{
    BUCKET, PREFIX, Place, content, read, record, session, until,
};

fn s3_uri(place: &Place) -> S3Uri {
    match &place.uri {
        SessionsUri::S3(uri) => uri.clone(),
        other => panic!("{other:?}"),
    }
}

fn key(session: SessionId) -> String {
    format!("{PREFIX}/{session}.tar")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_version_is_read_whatever_others_do() {
    let Some(place) = Place::s3("") else { return };
    let server = place.server.as_ref().unwrap();
    let store = place.open();
    let session = session();
    assert_eq!(store.url(session), format!("s3://{BUCKET}/{PREFIX}/{session}"));
    record(&store, session, b"as it was", 4).await;
    place.arrived().await;
    server.put(BUCKET, &key(session), "forged by somebody").unwrap();
    assert_eq!(read(&store, session).await, b"as it was");
    server.delete(BUCKET, &key(session)).unwrap();
    assert_eq!(read(&store, session).await, b"as it was");
    assert_eq!(record(&store, session, b"again!", 4).await, Completed::Superseded { bytes: 9 });
    // Removal leaves no version, and no deletion either.
    assert!(store.remove(session).await.unwrap());
    let left = server.s3_text(&format!("{BUCKET}?versions=&prefix={}", PREFIX));
    assert!(!left.unwrap().contains(&session.to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_somebody_wrote_first_stays_and_ours_is_kept() {
    let Some(mut place) = Place::s3("") else { return };
    let session = session();
    place.server.as_mut().unwrap().kill().unwrap();
    let store = place.open();
    record(&store, session, b"ours", 4).await;
    drop(store);
    place.server.as_mut().unwrap().restart().unwrap();
    place.server.as_ref().unwrap().put(BUCKET, &key(session), "older").unwrap();
    let store = place.open();
    place.arrived().await;
    assert_eq!(read(&store, session).await, b"older");
    let aside = place.data_dir().join("log/records/superseded");
    let kept = std::fs::read_dir(aside).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read(kept).unwrap(), b"ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_the_store_and_the_disk_leaves_one_recording() {
    let Some(mut place) = Place::s3("") else { return };
    let session = session();
    place.server.as_mut().unwrap().kill().unwrap();
    let store = place.open();
    record(&store, session, b"written, not yet let go", 4).await;
    drop(store);
    place.server.as_mut().unwrap().restart().unwrap();
    let server = place.server.as_ref().unwrap();
    server.put(BUCKET, &key(session), "written, not yet let go").unwrap();
    let store = place.open();
    place.arrived().await;
    assert_eq!(read(&store, session).await, b"written, not yet let go");
    assert!(!place.data_dir().join("log/records/superseded").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_a_crash_left_are_given_up() {
    for (more, kept) in [("", false), ("&complete_initiators=somebody-else", true)] {
        let Some(place) = Place::s3(more) else { return };
        let server = place.server.as_ref().unwrap();
        let bucket = S3::open(&s3_uri(&place), &place.env).unwrap();
        let session = session();
        let left = bucket.begin(&key(session), 1).await.unwrap();
        let open = || server.s3_text(&format!("{BUCKET}?uploads=&prefix={}", key(session)));
        assert!(open().unwrap().contains(&left));
        let store = place.open();
        let whole = content(9 << 20, 1);
        record(&store, session, &whole, 3 << 20).await;
        place.arrived().await;
        assert!(read(&store, session).await == whole);
        assert_eq!(open().unwrap().contains("<Upload>"), kept);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_objects_are_encrypted_unless_told_otherwise() {
    let Some(place) = Place::s3("&sse_kms_key=test-key") else { return };
    for (more, encrypted) in [("", true), ("&disablesse=true", false)] {
        let mut uri = s3_uri(&place);
        if !more.is_empty() {
            uri.encryption = shared_config::S3Encryption::BucketDefault;
        }
        let bucket = S3::open(&uri, &place.env).unwrap();
        let key = key(session());
        assert_eq!(bucket.put(&key, Bytes::from_static(b"x")).await.unwrap(), Written::Stored);
        assert_eq!(bucket.put(&key, Bytes::from_static(b"y")).await.unwrap(), Written::Exists);
        let server = place.server.as_ref().unwrap();
        let shown = server.s3_head(&format!("{BUCKET}/{key}")).unwrap().to_ascii_lowercase();
        assert_eq!(shown.contains("x-amz-server-side-encryption: aws:kms"), encrypted, "{shown}");
    }
    let mut uri = s3_uri(&place);
    uri.encryption = shared_config::S3Encryption::Kms { key: Some("no-such-key".into()) };
    let bucket = S3::open(&uri, &place.env).unwrap();
    let fault = bucket.put(&key(session()), Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Encryption, "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_name_bucket_key_step_and_remedy() {
    let Some(place) = Place::s3("") else { return };
    let env =
        |secret| StoreEnv::of([("AWS_ACCESS_KEY_ID", S3_KEY), ("AWS_SECRET_ACCESS_KEY", secret)]);
    let secret = "not-the-secret-of-the-store";
    let wrong = S3::open(&s3_uri(&place), &env(secret)).unwrap();
    let fault = wrong.check("p/").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Credentials, "{fault}");
    let shown = fault.to_string();
    for part in ["check that", "s3://audit-bucket/p/.write-check", "AWS_ACCESS_KEY_ID"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains(secret) && !shown.contains(S3_SECRET), "{shown}");

    let at = |change: fn(&mut S3Uri)| {
        let mut uri = s3_uri(&place);
        change(&mut uri);
        S3::open(&uri, &place.env).unwrap()
    };
    let fault = at(|uri| uri.bucket = "no-such-bucket".into()).oldest("x").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::NoBucket, "{fault}");
    assert!(fault.to_string().contains("create the bucket"), "{fault}");
    let fault = at(|uri| uri.region = Some("mars-1".into())).check("").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Region, "{fault}");
    let fault =
        at(|uri| uri.endpoint = Some("http://127.0.0.1:1".into())).check("").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
    at(|_| ()).check("").await.unwrap();
    let left = place.server.as_ref().unwrap().s3_text(&format!("{BUCKET}?uploads=")).unwrap();
    assert!(!left.contains(bucket::CHECK), "the check leaves nothing: {left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcs_faults_are_told_apart() {
    let Some(place) = Place::gcs() else { return };
    let SessionsUri::Gcs(mut uri) = place.uri.clone() else { panic!() };
    Gcs::open(&uri, &place.env).unwrap().check("").await.unwrap();
    uri.bucket = "no-such-bucket".into();
    let bucket = Gcs::open(&uri, &place.env).unwrap();
    assert_eq!(bucket.oldest("x").await.unwrap_err().kind, FaultKind::NoBucket);
    let session = session();
    let url = place.open().url(session);
    assert_eq!(url, format!("gs://{BUCKET}/{PREFIX}/{session}"));
    uri.credentials_path = Some("/no/such/key.json".into());
    assert_eq!(Gcs::open(&uri, &place.env).err().unwrap().kind, FaultKind::Credentials);
}

/// Counts the bytes that are on their way.
struct Meter {
    inner: S3,
    now: AtomicU64,
    most: AtomicU64,
    largest: AtomicU64,
}

impl Meter {
    async fn during<T>(&self, bytes: &Bytes, work: impl Future<Output = T>) -> T {
        let length = bytes.len() as u64;
        let now = self.now.fetch_add(length, Ordering::SeqCst) + length;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.largest.fetch_max(length, Ordering::SeqCst);
        let done = work.await;
        self.now.fetch_sub(length, Ordering::SeqCst);
        done
    }
}

#[async_trait]
impl Bucket for Meter {
    fn place(&self, key: &str) -> String {
        self.inner.place(key)
    }
    async fn check(&self, prefix: &str) -> Result<(), StoreFault> {
        self.inner.check(prefix).await
    }
    async fn oldest(&self, key: &str) -> Result<Option<Object>, StoreFault> {
        self.inner.oldest(key).await
    }
    async fn read(
        &self,
        key: &str,
        object: &Object,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, StoreFault> {
        self.inner.read(key, object, offset, length).await
    }
    async fn put(&self, key: &str, bytes: Bytes) -> Result<Written, StoreFault> {
        self.during(&bytes.clone(), self.inner.put(key, bytes)).await
    }
    async fn begin(&self, key: &str, total: u64) -> Result<String, StoreFault> {
        self.inner.begin(key, total).await
    }
    async fn block(&self, key: &str, upload: &str, block: Block) -> Result<String, StoreFault> {
        self.during(&block.bytes.clone(), self.inner.block(key, upload, block)).await
    }
    async fn finish(
        &self,
        key: &str,
        upload: &str,
        names: &[String],
        last: Block,
    ) -> Result<Written, StoreFault> {
        self.during(&last.bytes.clone(), self.inner.finish(key, upload, names, last)).await
    }
    async fn abort(&self, key: &str, upload: &str) -> Result<(), StoreFault> {
        self.inner.abort(key, upload).await
    }
    async fn abort_abandoned(&self, key: &str) -> Result<(), StoreFault> {
        self.inner.abort_abandoned(key).await
    }
    async fn remove(&self, key: &str) -> Result<bool, StoreFault> {
        self.inner.remove(key).await
    }
    fn at(&self, step: &'static str, key: &str) -> At {
        self.inner.at(step, key)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_mebibytes_take_two_blocks_of_memory() {
    let Some(place) = Place::s3("") else { return };
    let inner = S3::open(&s3_uri(&place), &place.env).unwrap();
    let zero = || AtomicU64::new(0);
    let meter = Arc::new(Meter { inner, now: zero(), most: zero(), largest: zero() });
    let base = place.data_dir().join("log/records");
    let store: Arc<dyn RecordingStore> =
        Arc::new(ObjectRecordings::new(meter.clone(), PREFIX, &base).unwrap());
    // Small container parts, as slices are; the store gets blocks.
    let part = content(1 << 20, 5);
    let mut sessions = Vec::new();
    for mebibytes in [200u32, 30, 30] {
        let (session, upload) = (session(), UploadId::random());
        for number in 1..=mebibytes {
            store.put_part(upload, session, number, Bytes::from(part.clone())).await.unwrap();
        }
        store.complete(upload, session).await.unwrap();
        sessions.push((session, u64::from(mebibytes) << 20));
    }
    until("all to arrive", || async { !place.waits() }).await;
    for (session, bytes) in sessions {
        assert_eq!(store.size(session).await.unwrap(), Some(bytes));
    }
    let most = meter.most.load(Ordering::SeqCst);
    assert_eq!(meter.largest.load(Ordering::SeqCst), BLOCK);
    assert!(most <= WORKERS as u64 * BLOCK, "{most} bytes were on their way at once");
}

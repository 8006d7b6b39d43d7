use std::fs;

use tokio::io::AsyncReadExt;

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    store: LocalRecordings,
    session: SessionId,
    upload: UploadId,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalRecordings::open(dir.path().join("log/records")).unwrap();
        let session = uuid::Uuid::new_v4().to_string().parse().unwrap();
        Self { dir, store, session, upload: UploadId::random() }
    }

    async fn put(&self, number: u32, text: &str) -> Result<PartInfo, RecordingError> {
        self.store
            .put_part(self.upload, self.session, number, Bytes::copy_from_slice(text.as_bytes()))
            .await
    }

    async fn complete(&self) -> Completed {
        self.store.complete(self.upload, self.session).await.unwrap()
    }

    async fn content(&self) -> String {
        let mut text = String::new();
        let mut reader = self.store.open(self.session).await.unwrap();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(reader.bytes(), text.len() as u64);
        text
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("log/records")
    }

    fn folder(&self) -> PathBuf {
        self.base().join(format!("multi/{}/{}", self.upload, self.session))
    }
}

#[tokio::test]
async fn parts_become_the_recording_in_numeric_order() {
    let f = Fixture::new();
    for (number, text) in [(10, "d"), (2, "b"), (1, "a"), (4, "c")] {
        assert_eq!(f.put(number, text).await.unwrap().bytes, 1);
    }
    assert!(f.folder().join("10.part").is_file());
    let numbers: Vec<_> = f
        .store
        .parts(f.upload, f.session)
        .await
        .unwrap()
        .into_iter()
        .map(|part| part.number)
        .collect();
    assert_eq!(numbers, [1, 2, 4, 10]);
    assert_eq!(f.store.uploads().await.unwrap().len(), 1);
    assert_eq!(f.complete().await, Completed::Stored { bytes: 4 });
    assert_eq!(f.content().await, "abcd");
    assert!(f.store.uploads().await.unwrap().is_empty());
    assert_eq!(fs::read_dir(f.base().join("multi")).unwrap().count(), 0);
    assert_eq!(
        f.complete().await,
        Completed::AlreadyStored { bytes: 4 },
        "asked again after a lost answer"
    );
    assert_eq!(f.store.size(f.session).await.unwrap(), Some(4));
}

#[tokio::test]
async fn a_part_may_be_sent_again_but_not_changed() {
    let f = Fixture::new();
    f.put(1, "same").await.unwrap();
    f.put(1, "same").await.unwrap();
    assert!(matches!(f.put(1, "diff").await, Err(RecordingError::PartDiffers { number: 1, .. })));
    assert!(matches!(f.put(1, "samesame").await, Err(RecordingError::PartDiffers { .. })));
    assert!(matches!(f.put(0, "x").await, Err(RecordingError::BadPart { .. })));
    assert!(matches!(f.put(2, "").await, Err(RecordingError::BadPart { .. })));
    f.complete().await;
    assert_eq!(f.content().await, "same");
}

#[tokio::test]
async fn the_oldest_recording_wins_and_the_other_is_kept() {
    let mut f = Fixture::new();
    f.put(1, "first").await.unwrap();
    f.complete().await;
    f.upload = UploadId::random();
    f.put(1, "forged").await.unwrap();
    assert_eq!(f.complete().await, Completed::Superseded { bytes: 5 });
    assert_eq!(f.content().await, "first");
    let kept = f.base().join(format!("superseded/{}/{}/1.part", f.upload, f.session));
    assert_eq!(fs::read_to_string(kept).unwrap(), "forged");
    assert!(f.store.uploads().await.unwrap().is_empty());
}

#[tokio::test]
async fn parts_behind_a_gap_are_kept_aside_and_go_with_the_recording() {
    let f = Fixture::new();
    for (number, text) in [(1, "one"), (3, "three"), (7, "seven")] {
        f.put(number, text).await.unwrap();
    }
    assert_eq!(f.store.cut_at_gap(f.upload, f.session).await.unwrap(), 2);
    assert_eq!(f.store.cut_at_gap(f.upload, f.session).await.unwrap(), 0);
    assert_eq!(f.complete().await, Completed::Stored { bytes: 3 });
    assert_eq!(f.content().await, "one");
    let aside = f.base().join("superseded");
    let kept = fs::read_dir(&aside).unwrap().next().unwrap().unwrap().path();
    let seven = kept.join(f.session.to_string()).join("7.part");
    assert_eq!(fs::read_to_string(seven).unwrap(), "seven");
    assert!(f.store.remove(f.session).await.unwrap());
    assert_eq!(fs::read_dir(&aside).unwrap().count(), 0);
    // Without a beginning nothing is cut.
    let (upload, session) = (UploadId::random(), SessionId::random());
    let bytes = bytes::Bytes::from_static(b"two");
    f.store.put_part(upload, session, 2, bytes).await.unwrap();
    assert_eq!(f.store.cut_at_gap(upload, session).await.unwrap(), 0);
}

#[tokio::test]
async fn a_crash_at_any_step_of_completion_is_made_good() {
    let f = Fixture::new();
    // Half a part was written.
    f.put(1, "one").await.unwrap();
    fs::write(f.folder().join("2.reservation"), "tw").unwrap();
    f.put(2, "two").await.unwrap();
    // Half of the whole was written.
    fs::write(f.folder().join("whole.reservation"), "on").unwrap();
    assert_eq!(f.complete().await, Completed::Stored { bytes: 6 });
    // The recording has its name, the parts are still there.
    fs::create_dir_all(f.folder()).unwrap();
    fs::write(f.folder().join("1.part"), "onet").unwrap();
    fs::write(f.folder().join("2.part"), "wo").unwrap();
    assert_eq!(f.complete().await, Completed::AlreadyStored { bytes: 6 });
    assert_eq!(f.content().await, "onetwo");
    assert!(!f.folder().exists());
}

#[tokio::test]
async fn an_upload_belongs_to_one_session() {
    let f = Fixture::new();
    f.put(1, "one").await.unwrap();
    let other: SessionId = uuid::Uuid::new_v4().to_string().parse().unwrap();
    let stolen = f.store.put_part(f.upload, other, 1, Bytes::from_static(b"x")).await;
    assert!(matches!(stolen, Err(RecordingError::OtherSession { .. })));
    assert!(matches!(
        f.store.complete(f.upload, other).await,
        Err(RecordingError::OtherSession { .. })
    ));
    assert!(matches!(f.store.open(other).await, Err(RecordingError::NotFound { .. })));
    assert!(matches!(
        f.store.complete(UploadId::random(), other).await,
        Err(RecordingError::NotFound { .. })
    ));
}

#[tokio::test]
async fn an_upload_without_parts_leaves_nothing() {
    let mut f = Fixture::new();
    f.upload = f.store.create_upload(f.session).await.unwrap();
    assert_eq!(f.store.uploads().await.unwrap().len(), 1);
    assert_eq!(f.complete().await, Completed::Empty);
    assert!(f.store.uploads().await.unwrap().is_empty());
    assert_eq!(f.store.size(f.session).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_requests_agree() {
    let f = Arc::new(Fixture::new());
    let puts = (0..16).map(|n| {
        let f = f.clone();
        tokio::spawn(async move {
            f.put(1 + n % 4, &format!("{}", 1 + n % 4)).await.map(|part| part.number)
        })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await.unwrap().unwrap();
    }
    let ends = (0..8).map(|_| {
        let f = f.clone();
        tokio::spawn(async move { f.complete().await })
    });
    let mut stored = 0;
    for end in ends.collect::<Vec<_>>() {
        match end.await.unwrap() {
            Completed::Stored { bytes: 4 } => stored += 1,
            Completed::AlreadyStored { bytes: 4 } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((stored, f.content().await.as_str()), (1, "1234"));
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let f = Fixture::new();
    f.put(1, "one").await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&f.folder()), mode(&f.folder().join("1.part"))), (0o700, 0o600));
    f.complete().await;
    assert_eq!(mode(&f.store.path(f.session)), 0o600);
}

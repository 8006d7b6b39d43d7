//! Brings finished recordings from auth's disk into the store.
//!
//! A recording leaves the disk only when the store has shown that it has it, whole. Until then everything may be
//! cut short anywhere: what was begun is begun again, and the object appears in one step. A store that is away
//! is tried again for as long as it takes; uploads go on where they were.
//!
//! Memory: each of [`WORKERS`] holds one block. A block is [`BLOCK`] long, and longer only where the object would
//! have more than [`MOST_BLOCKS`] of them, which is above 70 GiB.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use shared_types::SessionId;
use tokio::time::Instant;
use tokio_util::io::SyncIoBridge;
use tokio_util::sync::CancellationToken;

use super::bucket::{Block, Bucket, Object, Written};
use super::fault::{FaultKind, StoreFault};
use super::queue::{FileId, Progress, Queue, Waiting};
use super::reader::ObjectReader;
use crate::recordings::RecordingError;
use crate::recordings::local::{LocalRecordings, equal, failed};

/// How many recordings are uploaded at once.
pub(super) const WORKERS: usize = 2;
/// The size of a block: above the 5 MiB that S3 asks for, and a multiple of the 256 KiB that GCS asks for.
pub(super) const BLOCK: u64 = 8 << 20;
/// S3 takes 10,000.
const MOST_BLOCKS: u64 = 9_000;
const MIB: u64 = 1 << 20;
/// The first pause after a failure; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause of the store as a whole, and of one recording for whose sake alone it is.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_OWN_PAUSE: Duration = Duration::from_secs(300);
/// How often a store that stays away is spoken of.
const REPEAT: Duration = Duration::from_secs(600);

/// Brings finished recordings into the store.
pub(super) struct Shipper {
    pub(super) local: LocalRecordings,
    pub(super) bucket: Arc<dyn Bucket>,
    /// What stands before each name: empty, or with a slash at its end.
    pub(super) prefix: String,
    pub(super) queue: Queue,
    health: Mutex<Health>,
    /// Memory for blocks that is free, so that the allocator does not keep some for every thread that ever read one.
    buffers: Mutex<Vec<BytesMut>>,
}

/// What was last seen of the store.
#[derive(Debug, Default)]
struct Health {
    failures: u32,
    told: Option<(FaultKind, Instant)>,
}

/// What became of a try.
enum Tried {
    /// It is in the store.
    Stored,
    /// It was removed: there is nothing to do any more.
    Gone,
    /// Another file took its place.
    Anew,
}

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreFault),
    #[error(transparent)]
    Local(#[from] RecordingError),
}

/// The recording's file, opened once for all its blocks.
struct Source {
    file: Arc<File>,
    path: PathBuf,
    bytes: u64,
    id: FileId,
}

impl Shipper {
    pub(super) fn new(local: LocalRecordings, bucket: Arc<dyn Bucket>, prefix: &str) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self {
            local,
            bucket,
            prefix,
            queue: Queue::default(),
            health: Mutex::default(),
            buffers: Mutex::default(),
        }
    }

    /// The name of a recording in the store.
    pub(super) fn key(&self, session: SessionId) -> String {
        format!("{}{session}.tar", self.prefix)
    }

    /// Checks once that the store can be written, and says so; tries until it can.
    pub(super) async fn check(self: Arc<Self>, stop: CancellationToken) {
        let place = self.bucket.place(&self.prefix);
        loop {
            let Some(checked) = stop.run_until_cancelled(self.bucket.check(&self.prefix)).await
            else {
                return;
            };
            match checked {
                Ok(()) => {
                    tracing::info!(%place, waiting = self.queue.len(), "recordings go to the store");
                    self.works();
                    return;
                }
                Err(fault) => {
                    let pause = self.fails(&fault);
                    if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Uploads what waits, until it is stopped.
    pub(super) async fn work(self: Arc<Self>, stop: CancellationToken) {
        while let Some(mut waiting) = stop.run_until_cancelled(self.queue.next()).await {
            let session = waiting.session;
            let Some(tried) = stop.run_until_cancelled(self.ship(&mut waiting)).await else {
                return;
            };
            match tried {
                Ok(Tried::Stored) => self.works(),
                Ok(Tried::Gone) => {}
                Ok(Tried::Anew) => self.queue.again(waiting, Duration::ZERO),
                Err(failure) => {
                    let pause = match &failure {
                        Failure::Store(fault) if !fault.kind.is_of_one_object() => {
                            self.fails(fault)
                        }
                        failure => {
                            tracing::warn!(%session, error = %failure, "recording not uploaded, trying again");
                            Duration::ZERO
                        }
                    };
                    let own = backoff(waiting.failures, LONGEST_OWN_PAUSE);
                    // While the store is away the others wait as well, and this one no longer than they do.
                    let own = if pause.is_zero() { own } else { own.min(LONGEST_PAUSE) };
                    self.queue.again(waiting, own);
                    if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    fn works(&self) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.failures = 0;
        if health.told.take().is_some() {
            let place = self.bucket.place(&self.prefix);
            tracing::info!(%place, waiting = self.queue.len(), "the recording store can be written again");
        }
    }

    /// Remembers that the store does not work, says so now and then, and answers with a pause.
    fn fails(&self, fault: &StoreFault) -> Duration {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = backoff(health.failures, LONGEST_PAUSE);
        health.failures = health.failures.saturating_add(1);
        let now = Instant::now();
        let told =
            health.told.is_some_and(|(kind, when)| kind == fault.kind && now - when < REPEAT);
        if !told {
            health.told = Some((fault.kind, now));
            tracing::warn!(
                error = %fault,
                waiting = self.queue.len(),
                "the recording store cannot be used: recordings wait on this host's disk, and are uploaded once it can"
            );
        }
        pause
    }

    /// One try to bring a recording into the store.
    async fn ship(&self, waiting: &mut Waiting) -> Result<Tried, Failure> {
        let session = waiting.session;
        let Some(source) = self.source(session).await? else {
            // Removed. Nobody else adds it while its turn is ours.
            let _turn = self.local.turn(session).await;
            return Ok(self.end(session, None).await?);
        };
        let key = self.key(session);
        if waiting.progress.as_ref().is_some_and(|progress| progress.file != source.id) {
            waiting.progress = None;
        }
        if waiting.progress.is_none() {
            if let Some(object) = self.bucket.oldest(&key).await? {
                return self.settle(session, &source, object).await;
            }
            if source.bytes > BLOCK {
                self.abort_abandoned(&key).await?;
                let upload = self.bucket.begin(&key, source.bytes).await?;
                let block = block_size(source.bytes);
                let file = source.id;
                waiting.progress = Some(Progress { upload, names: Vec::new(), block, file });
            }
        }
        let tried = match &mut waiting.progress {
            None => self.put(session, &key, &source).await,
            Some(progress) => self.upload(session, &key, &source, progress).await,
        };
        if let Err(Failure::Store(fault)) = &tried
            && fault.kind.is_of_one_object()
        {
            waiting.progress = None;
        }
        tried
    }

    /// Cleans up after an earlier run. Without the permission to do so recordings are uploaded all the same.
    async fn abort_abandoned(&self, key: &str) -> Result<(), StoreFault> {
        match self.bucket.abort_abandoned(key).await {
            Err(fault) if matches!(fault.kind, FaultKind::Denied | FaultKind::NotImplemented) => {
                tracing::warn!(error = %fault, "uploads that a crash left behind cannot be cleaned up");
                Ok(())
            }
            done => done,
        }
    }

    /// A small recording, in one request.
    async fn put(&self, session: SessionId, key: &str, source: &Source) -> Result<Tried, Failure> {
        let bytes = source.read(self.buffer(), 0, source.bytes).await?;
        let _turn = self.local.turn(session).await;
        if self.file_id(session).await? != Some(source.id) {
            return Ok(self.end(session, Some(source.id)).await?);
        }
        let written = self.bucket.put(key, bytes.clone()).await;
        self.free(bytes);
        let written = written?;
        self.written(session, key, source, written).await
    }

    /// A large recording, from the block where it stands.
    async fn upload(
        &self,
        session: SessionId,
        key: &str,
        source: &Source,
        progress: &mut Progress,
    ) -> Result<Tried, Failure> {
        loop {
            let index = progress.names.len();
            let offset = index as u64 * progress.block;
            let left = source.bytes.saturating_sub(offset);
            let bytes = source.read(self.buffer(), offset, left.min(progress.block)).await?;
            let block = Block { index, offset, total: source.bytes, bytes: bytes.clone() };
            if left > progress.block {
                let name = self.bucket.block(key, &progress.upload, block).await;
                self.free(bytes);
                progress.names.push(name?);
                self.works();
                continue;
            }
            let _turn = self.local.turn(session).await;
            if self.file_id(session).await? != Some(source.id) {
                self.bucket.abort(key, &progress.upload).await?;
                return Ok(self.end(session, Some(source.id)).await?);
            }
            let written = self.bucket.finish(key, &progress.upload, &progress.names, block).await;
            self.free(bytes);
            let written = written?;
            if written == Written::Exists {
                self.bucket.abort(key, &progress.upload).await?;
            }
            return self.written(session, key, source, written).await;
        }
    }

    /// Lets go of the file once the store shows the object. The session's turn is the caller's.
    async fn written(
        &self,
        session: SessionId,
        key: &str,
        source: &Source,
        written: Written,
    ) -> Result<Tried, Failure> {
        let Some(object) = self.bucket.oldest(key).await? else {
            let at = self.bucket.at("find after writing", key);
            return Err(at
                .fault(FaultKind::Missing, "the store took it and does not show it")
                .into());
        };
        if written == Written::Stored && object.bytes == source.bytes {
            tracing::info!(%session, bytes = source.bytes, "recording is in the store");
            return Ok(self.let_go(session).await?);
        }
        self.settle_in_turn(session, source, object).await
    }

    /// The store has this session's recording already: this one goes when it is the same, and aside when not.
    async fn settle(
        &self,
        session: SessionId,
        source: &Source,
        object: Object,
    ) -> Result<Tried, Failure> {
        let _turn = self.local.turn(session).await;
        if self.file_id(session).await? != Some(source.id) {
            return Ok(self.end(session, Some(source.id)).await?);
        }
        self.settle_in_turn(session, source, object).await
    }

    async fn settle_in_turn(
        &self,
        session: SessionId,
        source: &Source,
        object: Object,
    ) -> Result<Tried, Failure> {
        let same = object.bytes == source.bytes && {
            let stored = ObjectReader::new(self.bucket.clone(), self.key(session), object);
            let stored = SyncIoBridge::new(stored);
            let path = source.path.clone();
            self.local
                .blocking(move |_| {
                    let kept = File::open(&path).map_err(failed("read", &path))?;
                    equal(stored, kept).map_err(failed("compare with the store", &path))
                })
                .await?
        };
        if !same {
            self.local.blocking(move |local| local.keep_finished_aside(session)).await?;
        }
        Ok(self.let_go(session).await?)
    }

    /// Removes the file, which is safe elsewhere, and forgets the session while nobody can add it.
    async fn let_go(&self, session: SessionId) -> Result<Tried, RecordingError> {
        self.local.blocking(move |local| local.remove_finished(session)).await?;
        self.queue.done(session);
        Ok(Tried::Stored)
    }

    /// Ends a try whose file is not the one it was of.
    async fn end(&self, session: SessionId, was: Option<FileId>) -> Result<Tried, RecordingError> {
        match self.file_id(session).await? {
            Some(now) if Some(now) != was => Ok(Tried::Anew),
            _ => {
                self.queue.done(session);
                Ok(Tried::Gone)
            }
        }
    }

    fn buffer(&self) -> BytesMut {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps the memory of a block for the next one, unless something still looks at it.
    fn free(&self, bytes: Bytes) {
        if let Ok(buffer) = bytes.try_into_mut() {
            let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
            if buffers.len() < WORKERS {
                buffers.push(buffer);
            }
        }
    }

    async fn source(&self, session: SessionId) -> Result<Option<Source>, RecordingError> {
        self.local
            .blocking(move |local| {
                let path = local.path(session);
                let file = match File::open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    file => file.map_err(failed("open", &path))?,
                };
                let found = file.metadata().map_err(failed("read", &path))?;
                let id = FileId(found.dev(), found.ino());
                Ok(Some(Source { file: Arc::new(file), path, bytes: found.len(), id }))
            })
            .await
    }

    async fn file_id(&self, session: SessionId) -> Result<Option<FileId>, RecordingError> {
        Ok(self.source(session).await?.map(|source| source.id))
    }
}

impl Source {
    async fn read(
        &self,
        mut into: BytesMut,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, RecordingError> {
        let (file, path) = (self.file.clone(), self.path.clone());
        let read = tokio::task::spawn_blocking(move || {
            into.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
            file.read_exact_at(&mut into, offset)?;
            Ok(into.freeze())
        });
        read.await.unwrap_or_else(|gone| Err(io::Error::other(gone))).map_err(failed("read", &path))
    }
}

/// The size of the blocks of an object.
fn block_size(bytes: u64) -> u64 {
    bytes.div_ceil(MOST_BLOCKS).next_multiple_of(MIB).max(BLOCK)
}

fn backoff(failures: u32, longest: Duration) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fit_what_stores_take() {
        for bytes in [BLOCK + 1, 70 << 30, 80 << 30, 5 << 40] {
            let block = block_size(bytes);
            assert!(block >= 5 << 20 && block.is_multiple_of(256 << 10));
            assert!(bytes.div_ceil(block) <= 10_000);
        }
        assert_eq!(block_size(70 << 30), BLOCK);
    }

    #[test]
    fn pauses_grow_to_their_bound() {
        assert_eq!(backoff(0, LONGEST_PAUSE), FIRST_PAUSE);
        assert_eq!(backoff(2, LONGEST_PAUSE), Duration::from_secs(2));
        assert_eq!(backoff(u32::MAX, LONGEST_PAUSE), LONGEST_PAUSE);
    }
}

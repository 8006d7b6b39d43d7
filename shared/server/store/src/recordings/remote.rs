//! Recordings in an object store, by way of auth's disk.
//!
//! Parts and finished recordings are made durable on this host first, as [`LocalRecordings`] does it; a finished
//! recording waits in the outbox until the store has it ([`shipper`]). So nothing that was acknowledged depends on
//! the store, sessions go on while it is away, and a recording can be read at any time: from the disk while it is
//! there, then from the store. Only the auth service writes to the store, and never over an object that is there.

mod bucket;
mod fault;
mod gcs;
mod http;
mod queue;
mod reader;
mod s3;
mod shipper;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use shared_config::{GcsUri, S3Uri};
use shared_types::SessionId;
use tokio_util::io::SyncIoBridge;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::bucket::{Bucket, Object};
use self::gcs::Gcs;
use self::reader::ObjectReader;
use self::s3::S3;
use self::shipper::{Shipper, WORKERS};
use super::{
    Completed, LocalRecordings, PartInfo, RecordingError, RecordingReader, RecordingStore,
    StoreEnv, Upload, UploadId,
};

pub use fault::{FaultKind, StoreFault};

/// How long a completion waits for the store's word on whether it has an older recording.
const ASK: Duration = Duration::from_secs(10);

/// Recordings in an object store, by way of auth's disk.
pub struct ObjectRecordings {
    shipper: Arc<Shipper>,
    /// Recordings of the time before there was a store.
    earlier: LocalRecordings,
    _running: DropGuard,
}

impl std::fmt::Debug for ObjectRecordings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.shipper.bucket.place(&self.shipper.prefix);
        f.debug_struct("ObjectRecordings").field("place", &place).finish_non_exhaustive()
    }
}

impl ObjectRecordings {
    /// A bucket of S3 or of a store that speaks like it; what waits is below `base`. Runs in a tokio runtime, and
    /// asks nothing of the store before it returns.
    pub fn s3(uri: &S3Uri, base: &Path, env: &StoreEnv) -> Result<Self, RecordingError> {
        Self::new(Arc::new(S3::open(uri, env)?), &uri.prefix, base)
    }

    /// A bucket of Google Cloud Storage.
    pub fn gcs(uri: &GcsUri, base: &Path, env: &StoreEnv) -> Result<Self, RecordingError> {
        Self::new(Arc::new(Gcs::open(uri, env)?), &uri.prefix, base)
    }

    fn new(bucket: Arc<dyn Bucket>, prefix: &str, base: &Path) -> Result<Self, RecordingError> {
        let earlier = LocalRecordings::open(base)?;
        let local = LocalRecordings::open_outbox(base)?;
        let waiting = local.list_finished()?;
        let shipper = Arc::new(Shipper::new(local, bucket, prefix));
        for session in waiting {
            shipper.queue.add(session);
        }
        let stop = CancellationToken::new();
        tokio::spawn(shipper.clone().check(stop.clone()));
        for _ in 0..WORKERS {
            tokio::spawn(shipper.clone().work(stop.clone()));
        }
        Ok(Self { shipper, earlier, _running: stop.drop_guard() })
    }

    fn local(&self) -> &LocalRecordings {
        &self.shipper.local
    }

    async fn oldest(&self, session: SessionId) -> Result<Option<Object>, StoreFault> {
        let key = self.shipper.key(session);
        let bucket = &self.shipper.bucket;
        tokio::time::timeout(ASK, bucket.oldest(&key)).await.unwrap_or_else(|_| {
            Err(bucket.at("look for", &key).fault(FaultKind::Unreachable, "no answer in time"))
        })
    }

    fn reader(&self, session: SessionId, object: Object) -> ObjectReader {
        ObjectReader::new(self.shipper.bucket.clone(), self.shipper.key(session), object)
    }

    /// Completes an upload for whose session the store has a recording. The older one stays.
    async fn complete_beside(
        &self,
        upload: UploadId,
        session: SessionId,
        object: Object,
    ) -> Result<Completed, RecordingError> {
        let bytes = object.bytes;
        let parts =
            match self.local().blocking(move |local| local.list_parts(upload, session)).await {
                // A repeated completion: the parts are gone because the recording is there.
                Err(RecordingError::NotFound { .. }) => {
                    return Ok(Completed::AlreadyStored { bytes });
                }
                parts => parts?,
            };
        if parts.is_empty() {
            self.local().blocking(move |local| local.remove_upload(upload)).await?;
            return Ok(Completed::Empty);
        }
        let size: u64 = parts.iter().map(|part| part.bytes).sum();
        let stored = SyncIoBridge::new(self.reader(session, object));
        self.local()
            .blocking(move |local| {
                if size == bytes && local.parts_match(upload, session, stored)? {
                    local.remove_upload(upload)?;
                    return Ok(Completed::AlreadyStored { bytes });
                }
                local.keep_upload_aside(upload)?;
                Ok(Completed::Superseded { bytes })
            })
            .await
    }
}

#[async_trait]
impl RecordingStore for ObjectRecordings {
    async fn create_upload(&self, session: SessionId) -> Result<UploadId, RecordingError> {
        self.local().create_upload(session).await
    }

    async fn put_part(
        &self,
        upload: UploadId,
        session: SessionId,
        number: u32,
        bytes: Bytes,
    ) -> Result<PartInfo, RecordingError> {
        self.local().put_part(upload, session, number, bytes).await
    }

    async fn complete(
        &self,
        upload: UploadId,
        session: SessionId,
    ) -> Result<Completed, RecordingError> {
        let local = self.local();
        let _turn = local.turn(session).await;
        local.blocking(move |local| local.owned(upload, session)).await?;
        if self.earlier.size(session).await?.is_some() {
            return self.earlier.blocking(move |earlier| earlier.finish(upload, session)).await;
        }
        let mut fault = None;
        if local.size(session).await?.is_none() {
            match self.oldest(session).await {
                Ok(Some(object)) => return self.complete_beside(upload, session, object).await,
                Ok(None) => {}
                // The shipper will find out, and put this one aside should it have come second.
                Err(unknown) => fault = Some(unknown),
            }
        }
        match (local.blocking(move |local| local.finish(upload, session)).await, fault) {
            // Perhaps it was completed before; only the store knows.
            (Err(RecordingError::NotFound { .. }), Some(fault)) => Err(fault.into()),
            (Ok(done), _) => {
                if matches!(done, Completed::Stored { .. } | Completed::AlreadyStored { .. }) {
                    self.shipper.queue.add(session);
                }
                Ok(done)
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn uploads(&self) -> Result<Vec<Upload>, RecordingError> {
        self.local().uploads().await
    }

    async fn parts(
        &self,
        upload: UploadId,
        session: SessionId,
    ) -> Result<Vec<PartInfo>, RecordingError> {
        self.local().parts(upload, session).await
    }

    async fn cut_at_gap(
        &self,
        upload: UploadId,
        session: SessionId,
    ) -> Result<usize, RecordingError> {
        self.local().cut_at_gap(upload, session).await
    }

    async fn open(&self, session: SessionId) -> Result<RecordingReader, RecordingError> {
        for local in [&self.earlier, self.local()] {
            match local.open(session).await {
                Err(RecordingError::NotFound { .. }) => {}
                found => return found,
            }
        }
        match self.oldest(session).await? {
            Some(object) => Ok(RecordingReader::new(object.bytes, self.reader(session, object))),
            None => Err(RecordingError::NotFound { session }),
        }
    }

    async fn size(&self, session: SessionId) -> Result<Option<u64>, RecordingError> {
        for local in [&self.earlier, self.local()] {
            if let Some(bytes) = local.size(session).await? {
                return Ok(Some(bytes));
            }
        }
        Ok(self.oldest(session).await?.map(|object| object.bytes))
    }

    async fn remove(&self, session: SessionId) -> Result<bool, RecordingError> {
        let local = self.local();
        let _turn = local.turn(session).await;
        // The store first: when it is away, nothing is removed, and the whole is tried again.
        let stored = self.shipper.bucket.remove(&self.shipper.key(session)).await?;
        let waiting = local
            .blocking(move |local| {
                let aside = local.remove_aside(session)?;
                Ok(local.remove_finished(session)? || aside)
            })
            .await?;
        let earlier = self.earlier.remove(session).await?;
        Ok(stored || waiting || earlier)
    }

    fn url(&self, session: SessionId) -> String {
        // As documented, without the name's ending.
        self.shipper.bucket.place(&format!("{}{session}", self.shipper.prefix))
    }
}

#[cfg(test)]
mod stub_tests;
#[cfg(test)]
mod tests;

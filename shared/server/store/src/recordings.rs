//! Where finished recordings and open uploads live.
//!
//! A recording arrives as numbered parts of an upload and becomes one object when the upload is
//! completed. Every step may be repeated: a part that is there already is accepted again when it is
//! the same, and a completed upload answers so once more. A finished recording never changes.

#[cfg(test)]
mod conformance;
mod local;
mod open;
mod remote;

use std::{
    fmt, io,
    pin::Pin,
    str::FromStr,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use shared_types::SessionId;
use tokio::io::{AsyncRead, ReadBuf};
use uuid::Uuid;

pub use local::LocalRecordings;
pub use open::{StoreEnv, open_recordings};
pub use remote::{FaultKind, ObjectRecordings, StoreFault};

/// The largest part.
pub const MAX_PART_BYTES: usize = 64 << 20;

/// Names one open upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub Uuid);

impl UploadId {
    /// A fresh one.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The text is no upload id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an upload id (must be GUID)")]
pub struct UploadIdError;

impl FromStr for UploadId {
    type Err = UploadIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Only the form that is written: ids become names of folders.
        let id = Uuid::try_parse(text).map(Self).map_err(|_| UploadIdError)?;
        if id.to_string() == text { Ok(id) } else { Err(UploadIdError) }
    }
}

/// Why a recording could not be stored or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordingError {
    /// There is no such recording or upload.
    #[error("recording for session {session} not found")]
    NotFound {
        /// Of which session.
        session: SessionId,
    },
    /// The part is there already, with other bytes.
    #[error("part {number} of upload {upload} exists with other content")]
    PartDiffers {
        /// Which upload.
        upload: UploadId,
        /// Which part.
        number: u32,
    },
    /// The upload belongs to another session.
    #[error("upload {upload} belongs to another session")]
    OtherSession {
        /// Which upload.
        upload: UploadId,
    },
    /// A part number of 0, or an empty or too large part.
    #[error("part {number} with {bytes} bytes is not acceptable")]
    BadPart {
        /// Its number.
        number: u32,
        /// Its size.
        bytes: usize,
    },
    /// The file system failed.
    #[error("{step} {path}")]
    Io {
        /// What was done.
        step: &'static str,
        /// To what.
        path: String,
        /// Why it failed.
        #[source]
        source: Arc<io::Error>,
    },
    /// The object store refused, or cannot be reached.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// One stored part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    /// Its number, from 1; gaps are legal.
    pub number: u32,
    /// Its size.
    pub bytes: u64,
    /// When it was written.
    pub modified: DateTime<Utc>,
}

/// One open upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its name.
    pub id: UploadId,
    /// Whose recording it is.
    pub session: SessionId,
    /// When it began.
    pub initiated: DateTime<Utc>,
}

/// How an upload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// It is now the recording.
    Stored {
        /// Its size.
        bytes: u64,
    },
    /// It was the recording already: a repeated completion.
    AlreadyStored {
        /// Its size.
        bytes: u64,
    },
    /// The session has an older, different recording, which stays; this upload is kept aside.
    Superseded {
        /// The size of the one that stays.
        bytes: u64,
    },
    /// It had no parts; nothing was stored.
    Empty,
}

/// A recording being read.
pub struct RecordingReader {
    bytes: u64,
    inner: Pin<Box<dyn AsyncRead + Send + Sync>>,
}

impl RecordingReader {
    /// What `inner` brings, `bytes` long.
    pub fn new(bytes: u64, inner: impl AsyncRead + Send + Sync + 'static) -> Self {
        Self { bytes, inner: Box::pin(inner) }
    }

    /// The whole size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl AsyncRead for RecordingReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_read(cx, buf)
    }
}

/// Where recordings are kept.
#[async_trait]
pub trait RecordingStore: Send + Sync + 'static {
    /// Begins an upload.
    async fn create_upload(&self, session: SessionId) -> Result<UploadId, RecordingError>;

    /// Stores one part, durable on `Ok`. An upload that is not known yet begins with it.
    async fn put_part(
        &self,
        upload: UploadId,
        session: SessionId,
        number: u32,
        bytes: Bytes,
    ) -> Result<PartInfo, RecordingError>;

    /// Turns the parts, in the order of their numbers, into the recording; durable on `Ok`.
    async fn complete(
        &self,
        upload: UploadId,
        session: SessionId,
    ) -> Result<Completed, RecordingError>;

    /// Open uploads, oldest first.
    async fn uploads(&self) -> Result<Vec<Upload>, RecordingError>;

    /// The parts of an open upload, by number.
    async fn parts(
        &self,
        upload: UploadId,
        session: SessionId,
    ) -> Result<Vec<PartInfo>, RecordingError>;

    /// Puts aside the parts of an open upload behind the first number that is missing: nothing says how much stood
    /// between. Answers with how many parts that were.
    async fn cut_at_gap(
        &self,
        upload: UploadId,
        session: SessionId,
    ) -> Result<usize, RecordingError>;

    /// Reads a finished recording.
    async fn open(&self, session: SessionId) -> Result<RecordingReader, RecordingError>;

    /// The size of a finished recording, if there is one.
    async fn size(&self, session: SessionId) -> Result<Option<u64>, RecordingError>;

    /// Removes a finished recording, every version of it and what was kept aside of it. `false` when there was
    /// none. Uploads that are still open stay.
    async fn remove(&self, session: SessionId) -> Result<bool, RecordingError>;

    /// What an audit event names as the place of a recording.
    fn url(&self, session: SessionId) -> String;
}

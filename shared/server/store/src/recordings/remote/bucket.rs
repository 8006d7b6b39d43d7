//! What every object store must be able to do for recordings.

use async_trait::async_trait;
use bytes::Bytes;

use super::fault::{At, StoreFault};

/// The name of the object that the check at the start begins, and never finishes.
pub(super) const CHECK: &str = ".write-check";

/// The oldest version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    /// Its size.
    pub(super) bytes: u64,
    /// Which version, where the store says.
    pub(super) version: Option<String>,
}

/// How writing an object ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It is there now.
    Stored,
    /// Another one was there before, and stays.
    Exists,
}

/// A piece of an object in an upload: neither the last one nor shorter than the store wants.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// Its place among the blocks, from 0.
    pub(super) index: usize,
    /// Its place in the object.
    pub(super) offset: u64,
    /// The size of the whole object.
    pub(super) total: u64,
    /// Its content.
    pub(super) bytes: Bytes,
}

/// A bucket, and the path in it. Nothing here retries: the caller does, and knows when to stop.
#[async_trait]
pub(super) trait Bucket: Send + Sync + 'static {
    /// How messages call an object, or with an empty key the place as a whole.
    fn place(&self, key: &str) -> String;

    /// Proves that objects whose names begin with `prefix` can be written, and leaves nothing.
    async fn check(&self, prefix: &str) -> Result<(), StoreFault>;

    /// The oldest version of an object, even when something newer or a deletion hides it.
    async fn oldest(&self, key: &str) -> Result<Option<Object>, StoreFault>;

    /// A range of a version.
    async fn read(
        &self,
        key: &str,
        object: &Object,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, StoreFault>;

    /// Writes a small object at once, unless there is one.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<Written, StoreFault>;

    /// Begins an upload in blocks; the object appears only when it is finished.
    async fn begin(&self, key: &str, total: u64) -> Result<String, StoreFault>;

    /// Uploads a block, and answers with what names it when finishing.
    async fn block(&self, key: &str, upload: &str, block: Block) -> Result<String, StoreFault>;

    /// Uploads the last block and makes the object of all, unless there is one.
    async fn finish(
        &self,
        key: &str,
        upload: &str,
        names: &[String],
        last: Block,
    ) -> Result<Written, StoreFault>;

    /// Gives an upload up. One that is gone counts as given up.
    async fn abort(&self, key: &str, upload: &str) -> Result<(), StoreFault>;

    /// Gives up uploads of this object that an earlier run began and did not end.
    async fn abort_abandoned(&self, key: &str) -> Result<(), StoreFault>;

    /// Removes every version of an object; `false` when there was none.
    async fn remove(&self, key: &str) -> Result<bool, StoreFault>;

    /// Where a step happens.
    fn at(&self, step: &'static str, key: &str) -> At {
        At { step, place: self.place(key) }
    }
}

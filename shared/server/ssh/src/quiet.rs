//! The tap of a session that somebody else records and tells of: the proxy in front.

use async_trait::async_trait;
use bytes::Bytes;
use shared_ssh::relay::{Ended, ForwardTap, Size, Start, Stream, Tap, Watch};

/// Sees nothing.
pub(crate) struct Quiet;

#[async_trait]
impl Tap for Quiet {
    async fn start(&self, _start: &Start) -> Result<Watch, String> {
        Ok(Watch::Nothing)
    }

    async fn output(&self, _stream: Stream, _data: &Bytes) -> Result<(), String> {
        Ok(())
    }

    async fn resize(&self, _size: Size) -> Result<(), String> {
        Ok(())
    }

    async fn end(&self, _ended: Ended) {}
}

#[async_trait]
impl ForwardTap for Quiet {
    async fn end(&self, _to_target: u64, _to_client: u64, _error: Option<String>) {}
}

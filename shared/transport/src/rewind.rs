//! A stream whose first bytes can be looked at before somebody reads them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// Holds what was looked at and gives it out first.
#[derive(Debug)]
pub struct Rewind<S> {
    seen: BytesMut,
    inner: S,
}

impl<S> Rewind<S> {
    /// Nothing looked at yet.
    pub fn new(inner: S) -> Self {
        Self { seen: BytesMut::new(), inner }
    }

    /// A stream of which somebody has read `seen` already.
    pub fn with_seen(inner: S, seen: &[u8]) -> Self {
        Self { seen: BytesMut::from(seen), inner }
    }

    /// What was looked at and not read.
    pub fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// The stream below, without what was looked at.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The stream below and what was looked at.
    pub fn into_parts(self) -> (S, BytesMut) {
        (self.inner, self.seen)
    }
}

impl<S: AsyncRead + Unpin> Rewind<S> {
    /// Waits for more bytes and looks at them, never holding more than `limit`. 0 is the peer's end, or the limit.
    /// Cancel safe.
    pub async fn look(&mut self, limit: usize) -> io::Result<usize> {
        let room = limit.saturating_sub(self.seen.len()).min(4096);
        if room == 0 {
            return Ok(0);
        }
        let mut chunk = [0_u8; 4096];
        let Some(chunk) = chunk.get_mut(..room) else { return Ok(0) };
        let n = self.inner.read(chunk).await?;
        self.seen.extend_from_slice(chunk.get(..n).unwrap_or_default());
        Ok(n)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let n = self.seen.len().min(buf.remaining());
        buf.put_slice(self.seen.get(..n).unwrap_or_default());
        self.seen.advance(n);
        if self.seen.is_empty() {
            self.seen = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_seen_is_read_once_and_in_order() {
        let mut stream = Rewind::new(&b"hello world"[..]);
        assert_eq!(stream.look(5).await.unwrap(), 5);
        assert_eq!(stream.seen(), b"hello");
        assert_eq!(stream.look(5).await.unwrap(), 0, "the limit holds");
        let mut all = Vec::new();
        let mut two = [0; 2];
        stream.read_exact(&mut two).await.unwrap();
        all.extend_from_slice(&two);
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"hello world");
    }
}

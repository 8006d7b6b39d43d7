//! A stream of which some was read, or said, before its user got it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// First the bytes, then the stream; and what was said already is not said again.
#[derive(Debug)]
pub(crate) struct Prefixed<S> {
    first: Bytes,
    /// How many of the next bytes written went out before.
    said: usize,
    stream: S,
}

impl<S> Prefixed<S> {
    /// `first` is read before anything of `stream`.
    pub(crate) fn new(first: Bytes, stream: S) -> Self {
        Self { first, said: 0, stream }
    }

    /// The same where the next `said` bytes that will be written have gone out already.
    pub(crate) fn having_said(self, said: usize) -> Self {
        Self { said, ..self }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let len = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first.split_to(len));
        // What is used up is not held for the life of the connection.
        if self.first.is_empty() {
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.said == 0 {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        let known = self.said.min(buf.len());
        let rest = buf.get(known..).unwrap_or_default();
        let more = if rest.is_empty() {
            0
        } else {
            ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?
        };
        self.said -= known;
        Poll::Ready(Ok(known + more))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_read_comes_first_and_what_was_said_is_said_once() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(b"more").await.unwrap();
        let mut stream = Prefixed::new(Bytes::from_static(b"SSH-2.0-x\r\n"), near).having_said(5);
        for part in [&b"abc"[..], b"defg", b"h"] {
            stream.write_all(part).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"fgh");
        drop(far);
        all.clear();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"SSH-2.0-x\r\nmore");
    }
}

//! Bytes both ways between two streams, with half-close and counts.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopySide {
    /// The first argument.
    First,
    /// The second argument.
    Second,
}

/// How much went which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes from the first to the second.
    pub first_to_second: u64,
    /// Bytes from the second to the first.
    pub second_to_first: u64,
}

/// Why copying ended before both sides were done.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One side failed.
    #[error("copy: the {} side failed", match .side { CopySide::First => "first", CopySide::Second => "second" })]
    Io {
        /// Which.
        side: CopySide,
        /// What had been copied.
        copied: Copied,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing moved for so long.
    #[error("copy: nothing moved for {} s", .idle.as_secs())]
    Idle {
        /// The limit.
        idle: Duration,
        /// What had been copied.
        copied: Copied,
    },
}

/// Copies until both sides have ended. A side's end is passed on as a half-close, the other way goes on.
/// With `idle`, ends when nothing moved either way for that long.
pub async fn copy_bidirectional<A, B>(
    first: A,
    second: B,
    idle: Option<Duration>,
) -> Result<Copied, CopyError>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    const BUFFER: usize = 32 * 1024;
    let (to_second, to_first) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let first_failed = Arc::new(AtomicBool::new(false));
    let mut first =
        Watched { inner: first, written: Arc::clone(&to_first), failed: Arc::clone(&first_failed) };
    let mut second =
        Watched { inner: second, written: Arc::clone(&to_second), failed: Arc::default() };
    let copied = || Copied {
        first_to_second: to_second.load(Ordering::Relaxed),
        second_to_first: to_first.load(Ordering::Relaxed),
    };

    let mut copy = std::pin::pin!(tokio::io::copy_bidirectional_with_sizes(
        &mut first,
        &mut second,
        BUFFER,
        BUFFER
    ));
    let mut before = copied();
    let done = loop {
        let Some(idle) = idle else { break copy.await };
        match tokio::time::timeout(idle, copy.as_mut()).await {
            Ok(done) => break done,
            Err(_) if copied() == before => return Err(CopyError::Idle { idle, copied: before }),
            Err(_) => before = copied(),
        }
    };
    match done {
        Ok(_) => Ok(copied()),
        Err(source) => {
            let side = if first_failed.load(Ordering::Relaxed) {
                CopySide::First
            } else {
                CopySide::Second
            };
            Err(CopyError::Io { side, copied: copied(), source })
        }
    }
}

struct Watched<S> {
    inner: S,
    written: Arc<AtomicU64>,
    failed: Arc<AtomicBool>,
}

impl<S> Watched<S> {
    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(polled, Poll::Ready(Err(_))) {
            self.failed.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.note(polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = &polled {
            self.written.fetch_add(*n as u64, Ordering::Relaxed);
        }
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_shutdown(cx) {
            // The peer is gone already; what it sent still has to get through.
            Poll::Ready(Err(err)) if err.kind() == io::ErrorKind::NotConnected => {
                Poll::Ready(Ok(()))
            }
            polled => self.note(polled),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn half_close_and_counts() {
        let (mut client, first) = tokio::io::duplex(1024);
        let (mut server, second) = tokio::io::duplex(1024);
        let copy = tokio::spawn(copy_bidirectional(first, second, Some(Duration::from_secs(30))));
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = String::new();
        server.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "request");
        // The other way still works after the client's end.
        server.write_all(b"the answer").await.unwrap();
        server.shutdown().await.unwrap();
        got.clear();
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "the answer");
        assert_eq!(
            copy.await.unwrap().unwrap(),
            Copied { first_to_second: 7, second_to_first: 10 }
        );
    }

    #[tokio::test]
    async fn idle_ends_it_and_movement_does_not() {
        let (mut client, first) = tokio::io::duplex(1024);
        let (_server, second) = tokio::io::duplex(1024);
        let copy =
            tokio::spawn(copy_bidirectional(first, second, Some(Duration::from_millis(600))));
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            client.write_all(b"x").await.unwrap();
        }
        let err = copy.await.unwrap().unwrap_err();
        assert!(
            matches!(err, CopyError::Idle { copied: Copied { first_to_second: 8, .. }, .. }),
            "{err}"
        );
    }

    #[tokio::test]
    async fn the_error_names_the_side() {
        let (mut client, first) = tokio::io::duplex(1024);
        let (server, second) = tokio::io::duplex(1024);
        drop(server);
        let copy = tokio::spawn(copy_bidirectional(first, second, None));
        client.write_all(b"x").await.unwrap();
        let err = copy.await.unwrap().unwrap_err();
        assert!(matches!(err, CopyError::Io { side: CopySide::Second, .. }), "{err}");
    }
}

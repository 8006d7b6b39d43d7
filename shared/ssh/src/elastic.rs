//! A stream whose writes do not wait, within a limit, and whose small reads are few.
//!
//! A russh loop that waits for its peer to read does not read itself. Where both ends are such loops, and each sends
//! more than the stream between them holds, both wait for ever. With this on one end that end always reads. What piles
//! up is bounded by the windows the peer granted, and by [`LIMIT`] for a peer that grants too much.
//!
//! russh reads the four bytes of a packet's length and then the packet. Here the first read takes a small packet whole,
//! which makes one system call of three (the last would find nothing); large reads go through as they are.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes beyond which a write waits after all.
const LIMIT: usize = 32 * 1024 * 1024;
/// A buffer larger than this is given back once it is empty.
const KEEP: usize = 64 * 1024;
/// A smaller read takes so much at once.
const AHEAD: usize = 2048;

pub(crate) struct Elastic<S> {
    stream: S,
    waiting: BytesMut,
    /// Read, and not asked for yet.
    ahead: BytesMut,
}

impl<S> Elastic<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, waiting: BytesMut::new(), ahead: BytesMut::new() }
    }
}

impl<S: AsyncWrite + Unpin> Elastic<S> {
    /// Writes what waits. Ready once nothing does.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        if self.waiting.capacity() > KEEP {
            self.waiting = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Elastic<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The loop always has a read going, so this is what carries the buffer on.
        if !self.waiting.is_empty()
            && let Poll::Ready(Err(err)) = self.drain(cx)
        {
            return Poll::Ready(Err(err));
        }
        if self.ahead.is_empty() {
            if buf.remaining() >= AHEAD {
                return Pin::new(&mut self.stream).poll_read(cx, buf);
            }
            let mut space = [MaybeUninit::uninit(); AHEAD];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            let (now, later) = read.filled().split_at(read.filled().len().min(buf.remaining()));
            buf.put_slice(now);
            self.ahead.extend_from_slice(later);
            return Poll::Ready(Ok(()));
        }
        let now = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(now));
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Elastic<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.drain(cx) {
            Poll::Ready(Ok(())) => {
                // What is tried once has to be tried again with the same bytes first, hence the whole of it.
                match Pin::new(&mut self.stream).poll_write(cx, buf) {
                    Poll::Pending => {
                        self.waiting.extend_from_slice(buf);
                        Poll::Ready(Ok(buf.len()))
                    }
                    done => done,
                }
            }
            Poll::Ready(Err(err)) => Poll::Ready(Err(err)),
            Poll::Pending if self.waiting.len() < LIMIT => {
                self.waiting.extend_from_slice(buf);
                Poll::Ready(Ok(buf.len()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.drain(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.stream).poll_flush(cx),
            Poll::Ready(Err(err)) => Poll::Ready(Err(err)),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_write_does_not_wait_and_nothing_is_lost_or_swapped() {
        let (near, mut far) = tokio::io::duplex(10);
        let mut stream = Elastic::new(near);
        let sent: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        for chunk in sent.chunks(777) {
            tokio::time::timeout(std::time::Duration::from_secs(5), stream.write_all(chunk))
                .await
                .unwrap()
                .unwrap();
        }
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            got
        });
        stream.shutdown().await.unwrap();
        assert!(reading.await.unwrap() == sent);
    }

    #[tokio::test]
    async fn reads_of_any_size_give_all_bytes_in_order() {
        let sent: Vec<u8> = (0..50_000_u32).map(|n| (n % 251) as u8).collect();
        let (near, mut far) = tokio::io::duplex(5000);
        let all = sent.clone();
        tokio::spawn(async move { far.write_all(&all).await.unwrap() });
        let mut stream = Elastic::new(near);
        let (mut got, mut size) = (Vec::new(), 1);
        loop {
            let mut chunk = vec![0; size];
            let read = stream.read(&mut chunk).await.unwrap();
            if read == 0 {
                break;
            }
            got.extend_from_slice(&chunk[..read]);
            size = size * 7 % 4099;
        }
        assert!(got == sent);
    }

    #[tokio::test]
    async fn reading_carries_the_buffer_on() {
        let (near, mut far) = tokio::io::duplex(10);
        let mut stream = Elastic::new(near);
        stream.write_all(&[1; 1000]).await.unwrap();
        let reading = tokio::spawn(async move { stream.read_u8().await });
        let mut got = vec![0; 1000];
        far.read_exact(&mut got).await.unwrap();
        far.write_u8(9).await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), 9);
    }
}

//! One stream of a tunnel as bytes both ways.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that one write takes.
const CHUNK: usize = super::FRAME as usize;

/// A connection through a tunnel. Shutting it down ends one direction; dropping it ends both.
pub struct TunnelStream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Received, and not read yet.
    rest: Bytes,
    ended: bool,
}

impl std::fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelStream").field("id", &self.recv.stream_id()).finish_non_exhaustive()
    }
}

impl TunnelStream {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { send, recv, rest: Bytes::new(), ended: false }
    }
}

/// A stream that the other side gave up is a reset connection; one that died with the tunnel was aborted.
fn broken(err: h2::Error) -> io::Error {
    let kind = match err.reason() {
        Some(Reason::CANCEL | Reason::REFUSED_STREAM | Reason::STREAM_CLOSED) => {
            io::ErrorKind::ConnectionReset
        }
        _ => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, err)
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(bytes)) => self.rest = bytes,
                // Who is done with reading and closes properly sends this, and means an end.
                Some(Err(err)) if err.reason() == Some(Reason::NO_ERROR) => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(err)) => return Poll::Ready(Err(broken(err))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = self.rest.len().min(buf.remaining());
        buf.put_slice(self.rest.get(..taken).unwrap_or_default());
        self.rest.advance(taken);
        // The window opens as things are read, not as they come.
        self.recv.flow_control().release_capacity(taken).map_err(broken)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len().min(CHUNK));
        let room = match ready!(self.send.poll_capacity(cx)) {
            Some(Ok(room)) => room.min(buf.len()),
            Some(Err(err)) => return Poll::Ready(Err(broken(err))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        let chunk = Bytes::copy_from_slice(buf.get(..room).unwrap_or_default());
        self.send.send_data(chunk, false).map_err(broken)?;
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task writes as soon as there is something.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.ended, true) {
            // The other side may have ended the stream already.
            let _ = self.send.send_data(Bytes::new(), true);
        }
        Poll::Ready(Ok(()))
    }
}

//! Whether the other side is still there, within seconds and at next to no cost.
//!
//! The agent asks; the proxy only looks whether anything came. So a proxy with a thousand idle agents answers two
//! hundred pings a second and keeps a timer for each.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long nothing may be heard.
pub const SILENCE: Duration = Duration::from_secs(15);

/// How often is asked and looked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How often an agent asks.
    pub(super) ask: Duration,
    /// How long it waits for the answer.
    pub(super) answer: Duration,
    /// How often a proxy looks; at the second look without news it is silent.
    pub(super) look: Duration,
}

impl Pace {
    /// An agent notices after [`SILENCE`] at the latest, a proxy after one look more.
    pub(super) const USUAL: Self = Self {
        ask: Duration::from_secs(5),
        answer: Duration::from_secs(10),
        look: Duration::from_millis(7500),
    };
}

/// The agent's heart.
pub(super) struct Heart {
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    asked: bool,
    pace: Pace,
}

impl Heart {
    pub(super) fn new(pings: PingPong, pace: Pace) -> Self {
        // The first at once: a proxy that takes connections and does nothing with them is found out.
        Self { pings, timer: Box::pin(tokio::time::sleep(Duration::ZERO)), asked: false, pace }
    }

    /// Pends while the proxy answers. May be dropped and called again.
    pub(super) async fn stopped(&mut self) {
        loop {
            let Self { pings, timer, asked, pace } = self;
            if *asked {
                tokio::select! {
                    biased;
                    pong = poll_fn(|cx| pings.poll_pong(cx)) => {
                        if pong.is_err() {
                            return;
                        }
                        *asked = false;
                        timer.as_mut().reset(Instant::now() + pace.ask);
                    }
                    () = timer.as_mut() => return,
                }
            } else {
                timer.as_mut().await;
                if pings.send_ping(Ping::opaque()).is_err() {
                    return;
                }
                *asked = true;
                timer.as_mut().reset(Instant::now() + pace.answer);
            }
        }
    }
}

/// A stream that counts what it reads.
pub(super) struct Heard<S> {
    stream: S,
    count: Arc<AtomicU64>,
}

impl<S> Heard<S> {
    pub(super) fn new(stream: S) -> (Self, Listener) {
        let count = Arc::new(AtomicU64::new(0));
        (Self { stream, count: Arc::clone(&count) }, Listener(count))
    }
}

/// Tells of silence on a [`Heard`].
pub(super) struct Listener(Arc<AtomicU64>);

impl Listener {
    /// Pends while something is heard.
    pub(super) async fn silence(&self, pace: Pace) {
        let mut before = self.0.load(Ordering::Relaxed);
        let mut silent = 0;
        while silent < 2 {
            tokio::time::sleep(pace.look).await;
            let now = self.0.load(Ordering::Relaxed);
            silent = if now == before { silent + 1 } else { 0 };
            before = now;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.count.fetch_add(read as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

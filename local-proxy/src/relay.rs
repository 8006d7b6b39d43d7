//! Bytes both ways between a client on this machine and the proxy: one task, one buffer for each direction, nothing
//! allocated on the way.
//!
//! What has arrived is taken as a whole before it is passed on, so that a burst costs few system calls and a single
//! question none more than it must: after a read that did not fill the buffer, tokio does not ask the socket again.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// Bytes held for each direction at most.
const BUFFER: usize = 64 * 1024;
/// How long a client may take to read the last words and close.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The program on this machine.
    Client,
    /// The proxy.
    Upstream,
}

/// How a connection ended.
#[derive(Debug)]
pub struct Ended {
    /// Bytes from the client.
    pub from_client: u64,
    /// Bytes to the client.
    pub to_client: u64,
    /// Which side broke, and how; none where both just ended.
    pub fault: Option<(Side, io::Error)>,
}

/// One direction.
struct Pipe {
    buf: Box<[u8]>,
    start: usize,
    end: usize,
    ended: bool,
    unflushed: bool,
    carried: u64,
}

/// Which end of a pipe a fault is at.
enum At {
    Reading(io::Error),
    Writing(io::Error),
}

impl Pipe {
    fn new() -> Self {
        let buf = vec![0; BUFFER].into_boxed_slice();
        Self { buf, start: 0, end: 0, ended: false, unflushed: false, carried: 0 }
    }

    /// Takes what there is; true when something came, or the end.
    fn fill<R: AsyncRead>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
    ) -> Result<bool, At> {
        let before = self.end;
        while !self.ended {
            let Some(room) = self.buf.get_mut(self.end..).filter(|room| !room.is_empty()) else {
                break;
            };
            let mut room = ReadBuf::new(room);
            match from.as_mut().poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if room.filled().is_empty() => self.ended = true,
                Poll::Ready(Ok(())) => self.end += room.filled().len(),
                // What came before is still passed on; the fault comes again with the next read.
                Poll::Ready(Err(_)) if self.end > self.start => break,
                Poll::Ready(Err(error)) => return Err(At::Reading(error)),
                Poll::Pending => break,
            }
        }
        Ok(self.end > before)
    }

    /// Passes on what it holds; true when something went.
    fn drain<W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut to: Pin<&mut W>,
    ) -> Result<bool, At> {
        let before = self.carried;
        while let Some(held) = self.buf.get(self.start..self.end).filter(|held| !held.is_empty()) {
            match to.as_mut().poll_write(cx, held) {
                Poll::Ready(Ok(0)) => return Err(At::Writing(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.start += written;
                    self.carried += written as u64;
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Err(At::Writing(error)),
                Poll::Pending => return Ok(self.carried > before),
            }
        }
        (self.start, self.end) = (0, 0);
        if self.unflushed
            && let Poll::Ready(flushed) = to.as_mut().poll_flush(cx)
        {
            flushed.map_err(At::Writing)?;
            self.unflushed = false;
        }
        Ok(self.carried > before)
    }

    /// Carries until nothing moves; ready when the reader's end has been passed on.
    fn poll<R: AsyncRead, W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
        mut to: Pin<&mut W>,
    ) -> Poll<Result<(), At>> {
        loop {
            let came = self.fill(cx, from.as_mut());
            let went = match came.and_then(|came| Ok((came, self.drain(cx, to.as_mut())?))) {
                Ok((came, went)) => came || went,
                Err(fault) => return Poll::Ready(Err(fault)),
            };
            if self.ended && self.start == self.end {
                return to.as_mut().poll_shutdown(cx).map_err(At::Writing);
            }
            if !went {
                return Poll::Pending;
            }
        }
    }
}

/// Carries bytes until the proxy's side has ended, or either breaks. The client's end is passed on and the answer to it
/// still comes back.
pub async fn relay<C, U>(client: &mut C, upstream: &mut U) -> Ended
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Pipe::new(), Pipe::new());
    let mut up_done = false;
    let done = poll_fn(|cx| {
        if !up_done {
            match up.poll(cx, Pin::new(&mut *client), Pin::new(&mut *upstream)) {
                Poll::Ready(Ok(())) => up_done = true,
                Poll::Ready(Err(At::Reading(error))) => {
                    return Poll::Ready(Some((Side::Client, error)));
                }
                // The proxy's side may have said why before it stopped listening: `down` tells.
                Poll::Ready(Err(At::Writing(_))) => up_done = true,
                Poll::Pending => {}
            }
        }
        match down.poll(cx, Pin::new(&mut *upstream), Pin::new(&mut *client)) {
            Poll::Ready(Ok(())) => Poll::Ready(None),
            Poll::Ready(Err(At::Reading(error))) => Poll::Ready(Some((Side::Upstream, error))),
            Poll::Ready(Err(At::Writing(error))) => Poll::Ready(Some((Side::Client, error))),
            Poll::Pending => Poll::Pending,
        }
    });
    let fault = done.await;
    Ended { from_client: up.carried, to_client: down.carried, fault }
}

/// Lets the client read the last words: a socket closed with unread input takes back what was sent on it.
pub async fn linger<C: AsyncRead + AsyncWrite + Unpin>(client: &mut C) {
    let read = async {
        client.shutdown().await?;
        let mut scrap = [0; 4096];
        while client.read(&mut scrap).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    let _ = tokio::time::timeout(LAST_WORDS, read).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn both_ways_and_the_answer_after_the_clients_end() {
        let (mut program, mut client) = duplex(1000);
        let (mut server, mut upstream) = duplex(77);
        let task = tokio::spawn(async move { relay(&mut client, &mut upstream).await });
        let question: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        let sent = question.clone();
        let asking = tokio::spawn(async move {
            program.write_all(&sent).await.unwrap();
            program.shutdown().await.unwrap();
            let mut answer = Vec::new();
            program.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert!(got == question);
        server.write_all(b"the answer").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(asking.await.unwrap(), b"the answer");
        let ended = task.await.unwrap();
        assert_eq!((ended.from_client, ended.to_client), (300_000, 10));
        assert!(ended.fault.is_none());
    }

    #[tokio::test]
    async fn the_proxys_last_words_come_through_though_it_does_not_listen() {
        let (mut program, mut client) = duplex(64 * 1024);
        let (mut server, mut upstream) = duplex(64 * 1024);
        server.write_all(b"go away").await.unwrap();
        drop(server);
        program.write_all(&[7; 1000]).await.unwrap();
        let ended = relay(&mut client, &mut upstream).await;
        assert_eq!(ended.to_client, 7);
        drop(client);
        let mut got = String::new();
        program.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "go away");
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_stops_the_sender() {
        let (program, mut client) = duplex(1024);
        let (mut server, mut upstream) = duplex(1024);
        let task = tokio::spawn(async move { relay(&mut client, &mut upstream).await });
        let mut taken = 0;
        let pour = async {
            loop {
                taken += server.write(&[1; 4096]).await.unwrap();
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(300), pour).await.is_err());
        assert!(taken <= BUFFER + 3 * 1024, "{taken} bytes are held");
        drop(program);
        let ended = task.await.unwrap();
        assert!(matches!(ended.fault, Some((Side::Client, _))), "{ended:?}");
    }
}

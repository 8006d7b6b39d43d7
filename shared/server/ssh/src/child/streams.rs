//! A child's input and output, without a thread of their own.

use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use super::tty::Master;

/// What the program reads. Shutting it down is the end of its input; a terminal has no such end (the client sends the
/// character for it).
#[derive(Debug)]
pub struct ChildInput(pub(super) Input);

#[derive(Debug)]
pub(super) enum Input {
    Pipe(pipe::Sender),
    Tty { writer: pipe::Sender, _hold: Arc<Master> },
    Closed,
}

/// What the program writes. With a terminal, the end is that no process has it open any more.
#[derive(Debug)]
pub struct ChildOutput(pub(super) Output);

#[derive(Debug)]
pub(super) enum Output {
    Pipe(pipe::Receiver),
    Tty { reader: pipe::Receiver, _hold: Arc<Master> },
}

/// Both directions of a terminal. A terminal is read and written like a pipe, so its descriptors are watched as one;
/// but a terminal that gave less than was asked for may have more at once, which a pipe would not.
pub(super) fn of_tty(master: &Arc<Master>) -> Result<(ChildInput, ChildOutput)> {
    let writer = pipe::Sender::from_owned_fd_unchecked(master.as_fd().try_clone_to_owned()?)?;
    let reader = pipe::Receiver::from_owned_fd_unchecked(master.as_fd().try_clone_to_owned()?)?;
    let input = Input::Tty { writer, _hold: Arc::clone(master) };
    Ok((ChildInput(input), ChildOutput(Output::Tty { reader, _hold: Arc::clone(master) })))
}

impl AsyncWrite for ChildInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        match &mut self.0 {
            Input::Pipe(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            Input::Closed => Poll::Ready(Err(Error::from(ErrorKind::BrokenPipe))),
            Input::Tty { writer, .. } => loop {
                ready!(writer.poll_write_ready(cx))?;
                match writer.try_write(bytes) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    done => return Poll::Ready(done),
                }
            },
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        if matches!(self.0, Input::Pipe(_)) {
            self.0 = Input::Closed;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ChildOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        match &mut self.0 {
            Output::Pipe(pipe) => Pin::new(pipe).poll_read(cx, buffer),
            Output::Tty { reader, .. } => loop {
                ready!(reader.poll_read_ready(cx))?;
                match reader.try_read(buffer.initialize_unfilled()) {
                    Ok(count) => {
                        buffer.advance(count);
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // Nobody has the terminal open any more.
                    Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            },
        }
    }
}

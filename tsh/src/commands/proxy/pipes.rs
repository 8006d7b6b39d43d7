//! Standard input and output without threads in between, where they are pipes.
//!
//! The pipes that OpenSSH makes for its ProxyCommand are this program's own, so that nobody is surprised by an end that
//! does not block. Everything else is read and written by threads.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe;

/// As much as is carried at once.
const CHUNK: usize = 64 * 1024;

fn own(fd: BorrowedFd<'_>) -> Option<File> {
    fd.try_clone_to_owned().ok().map(File::from)
}

/// Standard input.
pub(super) fn stdin() -> Pin<Box<dyn AsyncRead + Send>> {
    let pipe = own(io::stdin().as_fd()).and_then(|file| pipe::Receiver::from_file(file).ok());
    match pipe {
        Some(pipe) => Box::pin(pipe),
        None => Box::pin(tokio::io::stdin()),
    }
}

/// Standard output.
pub(super) fn stdout() -> Pin<Box<dyn AsyncWrite + Send>> {
    let pipe = own(io::stdout().as_fd()).and_then(|file| pipe::Sender::from_file(file).ok());
    match pipe {
        Some(pipe) => Box::pin(pipe),
        None => Box::pin(tokio::io::stdout()),
    }
}

/// Carries bytes to their end. Each piece is out before the next is taken.
pub(super) async fn copy<R, W>(from: &mut R, to: &mut W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buf = vec![0; CHUNK];
    loop {
        let read = from.read(&mut buf).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(buf.get(..read).unwrap_or_default()).await?;
        to.flush().await?;
    }
}

//! Standard input and output, each on a thread of its own: a stopped terminal or a slow pipe blocks that
//! thread and nothing else.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use shared_ssh::client::{ByteQueue, Control};
use tokio::sync::{mpsc, oneshot};

use super::escape::{Escapes, Typed};

/// As much as a pipe holds.
const CHUNK: usize = 64 * 1024;
/// Chunks read ahead of what the connection takes.
const READ_AHEAD: usize = 8;
/// How long to wait for a descriptor that somebody set to non-blocking.
const NOT_READY: Duration = Duration::from_millis(2);

/// Reads standard input to its end, once told to. With `escapes`, a terminal's `~.` closes the session.
pub(super) fn read_stdin(
    escapes: Option<mpsc::Sender<Control>>,
    start: oneshot::Receiver<()>,
) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        if start.blocking_recv().is_err() {
            return;
        }
        let mut escape = escapes.map(|control| (Escapes::default(), control));
        let mut buffer = vec![0; CHUNK];
        loop {
            let len = match rustix::io::read(rustix::stdio::stdin(), buffer.as_mut_slice()) {
                Ok(0) => return,
                Ok(len) => len,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    std::thread::sleep(NOT_READY);
                    continue;
                }
                Err(_) => return,
            };
            let read = buffer.get(..len).unwrap_or_default();
            let bytes = match &mut escape {
                None => Bytes::copy_from_slice(read),
                Some((escapes, control)) => match escapes.filter(read) {
                    Typed::Input(bytes) => bytes.into(),
                    Typed::Help => {
                        eprint!("{}", super::escape::HELP);
                        continue;
                    }
                    Typed::End => {
                        // An error means that it has ended already.
                        let _ = control.blocking_send(Control::Close);
                        return;
                    }
                },
            };
            if !bytes.is_empty() && sender.blocking_send(bytes).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Standard output or standard error.
pub(super) struct Output {
    queue: Arc<ByteQueue>,
    done: oneshot::Receiver<()>,
}

impl Output {
    pub(super) fn stdout() -> Self {
        Self::start(rustix::stdio::stdout())
    }

    pub(super) fn stderr() -> Self {
        Self::start(rustix::stdio::stderr())
    }

    fn start(fd: BorrowedFd<'static>) -> Self {
        let queue = Arc::new(ByteQueue::new());
        let (sender, done) = oneshot::channel();
        let taken = Arc::clone(&queue);
        std::thread::spawn(move || {
            while let Some(bytes) = taken.take_blocking() {
                if write_all(fd, &bytes).is_err() {
                    taken.break_off();
                    break;
                }
                taken.written(bytes.len());
            }
            // Nobody waits any more when the program is ending.
            let _ = sender.send(());
        });
        Self { queue, done }
    }

    pub(super) fn queue(&self) -> Arc<ByteQueue> {
        Arc::clone(&self.queue)
    }

    /// Waits until everything is written.
    pub(super) async fn finish(self) {
        self.queue.end();
        let _ = self.done.await;
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => std::thread::sleep(NOT_READY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

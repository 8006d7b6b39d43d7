//! Standard input and output.
//!
//! A terminal is read and written by the session's own thread, through an open file of our own that never blocks: a
//! keystroke and its echo then cross no thread. Everything else, and a terminal that takes no more, has a thread: a
//! stopped terminal or a slow pipe blocks that and nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use shared_ssh::client::{ByteQueue, Control};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::escape::{Escapes, Typed};

/// As much as a pipe holds.
const CHUNK: usize = 64 * 1024;
/// As much as a terminal gives at once.
const TERMINAL_CHUNK: usize = 4096;
/// Chunks read ahead of what the connection takes.
const READ_AHEAD: usize = 8;
/// How long to wait for a descriptor that somebody set to non-blocking.
const NOT_READY: Duration = Duration::from_millis(2);

/// Opens the terminal behind a descriptor once more, without waiting. The descriptor itself is shared with the shell
/// and others, who would be surprised by one that does not block. None where it is no terminal or cannot be opened.
fn own_terminal(fd: BorrowedFd<'_>, access: OFlags) -> Option<OwnedFd> {
    let name = rustix::termios::ttyname(fd, Vec::new()).ok()?;
    let flags = access | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let own = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).ok()?;
    let device = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).ok().map(|stat| stat.st_rdev);
    (device(fd) == device(own.as_fd())).then_some(own)
}

/// What becomes of bytes that were read.
enum Input {
    Send(Bytes),
    Nothing,
    /// Somebody typed the end.
    End(mpsc::Sender<Control>),
}

/// Looks for escapes, where somebody types.
struct Typing(Option<(Escapes, mpsc::Sender<Control>)>);

impl Typing {
    fn new(control: Option<mpsc::Sender<Control>>) -> Self {
        Self(control.map(|control| (Escapes::default(), control)))
    }

    fn take(&mut self, read: &[u8]) -> Input {
        let Some((escapes, control)) = &mut self.0 else {
            return Input::Send(Bytes::copy_from_slice(read));
        };
        match escapes.filter(read) {
            Typed::Input(bytes) if bytes.is_empty() => Input::Nothing,
            Typed::Input(bytes) => Input::Send(bytes.into()),
            Typed::Help => {
                eprint!("{}", super::escape::HELP);
                Input::Nothing
            }
            Typed::End => Input::End(control.clone()),
        }
    }
}

/// Reads standard input to its end, once told to. With `escapes`, a terminal's `~.` closes the session.
pub(super) fn read_stdin(
    escapes: Option<mpsc::Sender<Control>>,
    start: oneshot::Receiver<()>,
) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let typing = Typing::new(escapes);
    let own = own_terminal(rustix::stdio::stdin(), OFlags::RDONLY);
    // Unchecked because it is no pipe; what can be polled and read is all that is needed.
    match own.and_then(|own| pipe::Receiver::from_owned_fd_unchecked(own).ok()) {
        Some(terminal) => drop(tokio::spawn(read_terminal(terminal, typing, start, sender))),
        None => drop(std::thread::spawn(move || read_blocking(typing, start, &sender))),
    }
    receiver
}

async fn read_terminal(
    mut terminal: pipe::Receiver,
    mut typing: Typing,
    start: oneshot::Receiver<()>,
    sender: mpsc::Sender<Bytes>,
) {
    if start.await.is_err() {
        return;
    }
    let mut buffer = vec![0; TERMINAL_CHUNK];
    loop {
        let len = match terminal.read(&mut buffer).await {
            Ok(0) => return,
            Ok(len) => len,
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        match typing.take(buffer.get(..len).unwrap_or_default()) {
            Input::Send(bytes) => {
                if sender.send(bytes).await.is_err() {
                    return;
                }
            }
            Input::Nothing => {}
            Input::End(control) => {
                // An error means that it has ended already.
                let _ = control.send(Control::Close).await;
                return;
            }
        }
    }
}

fn read_blocking(mut typing: Typing, start: oneshot::Receiver<()>, sender: &mpsc::Sender<Bytes>) {
    if start.blocking_recv().is_err() {
        return;
    }
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
        match typing.take(buffer.get(..len).unwrap_or_default()) {
            Input::Send(bytes) => {
                if sender.blocking_send(bytes).is_err() {
                    return;
                }
            }
            Input::Nothing => {}
            Input::End(control) => {
                let _ = control.blocking_send(Control::Close);
                return;
            }
        }
    }
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
        let queue = match own_terminal(fd, OFlags::WRONLY) {
            // What it does not take, for whatever reason, the thread writes or fails to write.
            Some(own) => ByteQueue::with_shortcut(Box::new(move |bytes| {
                rustix::io::write(&own, bytes).unwrap_or_default()
            })),
            None => ByteQueue::new(),
        };
        let queue = Arc::new(queue);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_opened_once_more_and_blocks_nobody_else() {
        let pty =
            rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)
                .unwrap();
        rustix::pty::grantpt(&pty).unwrap();
        rustix::pty::unlockpt(&pty).unwrap();
        let name = rustix::pty::ptsname(&pty, Vec::new()).unwrap();
        let shared =
            rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty())
                .unwrap();
        let own = own_terminal(shared.as_fd(), OFlags::WRONLY).unwrap();
        assert!(!rustix::fs::fcntl_getfl(&shared).unwrap().contains(OFlags::NONBLOCK));
        // Nobody reads at the other end: it takes some, and then says that it is full instead of waiting.
        let mut taken = 0;
        let full = loop {
            match rustix::io::write(&own, &[b'x'; 4096]) {
                Ok(len) => taken += len,
                Err(err) => break err,
            }
            assert!(taken < 16 << 20);
        };
        assert_eq!(full, Errno::AGAIN);
        assert!(taken > 0);
    }

    #[test]
    fn what_is_no_terminal_is_not_opened_again() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(own_terminal(file.as_fd(), OFlags::RDONLY).is_none());
    }
}

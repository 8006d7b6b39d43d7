//! The socket between the daemon and `teleport exec`.
//!
//! Daemon to child: four bytes, the length of what follows, with the descriptors attached; then JSON. Child to daemon:
//! nothing when it died, [`READY`] when the program is about to start, and a [`Failure`] as JSON when it will not. The
//! socket closes with the start of the program, which is how the daemon learns of it.

use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::account::Refusal;
use super::spec::ChildSpec;

/// The child's last word before it becomes the program.
pub(super) const READY: u8 = b'R';

/// The most that either side says; the kernel takes far less as arguments and environment.
pub(super) const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Input, output and errors; or the terminal alone.
const MAX_DESCRIPTORS: usize = 3;

/// What the child is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) spec: ChildSpec,
    /// The terminal's name, if there is one.
    pub(super) tty: Option<String>,
}

/// Why the program does not run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    /// The host does not let this login in.
    Refused(Refusal),
    /// A step failed.
    Step { step: String, cause: String },
}

impl Failure {
    /// For `map_err`.
    pub(super) fn step<E: std::fmt::Display>(step: &str) -> impl FnOnce(E) -> Self + '_ {
        move |cause| Self::Step { step: step.to_owned(), cause: cause.to_string() }
    }
}

/// Sends the length and the descriptors. Does not wait: nothing is in the socket's buffer yet.
pub(super) fn send_descriptors(
    socket: &UnixStream,
    length: usize,
    descriptors: &[BorrowedFd<'_>],
) -> std::io::Result<()> {
    let header = u32::try_from(length)
        .ok()
        .filter(|&length| length as usize <= MAX_MESSAGE)
        .ok_or_else(|| std::io::Error::other("command and environment are too long"))?
        .to_be_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(std::io::Error::other("too many descriptors"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(&header)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == header.len() { Ok(()) } else { Err(std::io::ErrorKind::WriteZero.into()) }
}

/// The child's end: takes the order and the descriptors.
pub(super) fn receive(socket: &mut UnixStream) -> Result<(Order, Vec<OwnedFd>), Failure> {
    let (length, descriptors) =
        receive_descriptors(socket.as_fd()).map_err(Failure::step("take descriptors"))?;
    if length > MAX_MESSAGE {
        return Err(Failure::Step { step: "read order".into(), cause: "too long".into() });
    }
    let mut text = vec![0; length];
    socket.read_exact(&mut text).map_err(Failure::step("read order"))?;
    let order = serde_json::from_slice(&text).map_err(Failure::step("read order"))?;
    Ok((order, descriptors))
}

fn receive_descriptors(socket: BorrowedFd<'_>) -> std::io::Result<(usize, Vec<OwnedFd>)> {
    let mut header = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut header)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if got.bytes != header.len() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok((u32::from_be_bytes(header) as usize, descriptors))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::child::Program;

    fn order() -> Order {
        let spec = ChildSpec {
            login: shared_types::Login::new("root").unwrap(),
            program: Program::Exec(vec![0xff, b'a']),
            pty: None,
            client_env: Vec::new(),
            env: vec![("A".into(), "1".into())],
            permit_user_env: false,
        };
        Order { spec, tty: Some("/dev/pts/0".into()) }
    }

    #[test]
    fn order_and_descriptors_arrive() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let text = serde_json::to_vec(&order()).unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        send_descriptors(&here, text.len(), &[write.as_fd()]).unwrap();
        here.write_all(&text).unwrap();
        let (got, descriptors) = receive(&mut there).unwrap();
        assert_eq!(got.spec, order().spec);
        assert_eq!(descriptors.len(), 1);
        drop((write, descriptors));
        assert_eq!(rustix::io::read(&read, &mut [0; 8]).unwrap(), 0, "the only writers are gone");
    }

    #[test]
    fn broken_orders_are_errors() {
        for bytes in [&b""[..], b"\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x04nope", b"\0\0\0\x09{}"] {
            let (mut here, mut there) = UnixStream::pair().unwrap();
            here.write_all(bytes).unwrap();
            drop(here);
            assert!(receive(&mut there).is_err(), "{bytes:?}");
        }
        let (here, _there) = UnixStream::pair().unwrap();
        assert!(send_descriptors(&here, MAX_MESSAGE + 1, &[]).is_err());
    }
}

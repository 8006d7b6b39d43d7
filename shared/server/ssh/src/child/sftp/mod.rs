//! An SFTP server, version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions (OpenSSH `PROTOCOL` §4).
//!
//! It runs as the login, in a process of its own, and is as simple as that allows: one thread reads a request, does
//! it, appends the answer to what goes out, and writes when no request is left to read. What the login may do, the
//! kernel decides. Memory is bounded by the packet size, the number of handles by the process's limit.
//!
//! Packets are taken apart and put together by `russh-sftp`, but for three things: its server loop (it goes on after
//! errors it cannot recover from, and answers each request by itself), its request types (names are text there, and
//! bytes on disk), and the two requests that carry file contents, which are read and written in place.
//!
//! Where clients disagree with the draft, OpenSSH's behaviour counts: see `docs/deviations.md`.

mod attributes;
mod extensions;
mod handles;
mod listing;
mod paths;
mod server;
mod stream;
mod wire;

use std::fs::File;
use std::io::Result;
use std::os::fd::AsFd;

pub use server::serve;

/// Serves standard input and output until the client is done.
pub fn serve_stdio() -> Result<()> {
    let input = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    serve(input, output)
}

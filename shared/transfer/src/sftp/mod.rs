//! Both directions of an SFTP server.
//!
//! The client's side decides what the server is asked (`up`), the server's side what came of it (`down`). Heads of
//! packets are collected, data is passed over and hashed on its way. Where a policy forbids something, a packet that
//! might be forbidden is held back until it is whole, and left out where it is.

mod down;
mod files;
mod pending;
mod request;
mod up;
pub(crate) mod wire;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use self::files::{Files, Id};
use self::pending::Requests;
use crate::observer::{Book, Settings};

/// What the next byte of one side is.
enum Next {
    /// Of a packet's head.
    Head,
    /// Content of a file, of which so much is left.
    Content { left: u64, of: Option<Id> },
    /// The rest of a packet that says nothing more.
    Rest { left: u64 },
}

/// One side of the conversation.
struct Side {
    head: Vec<u8>,
    next: Next,
}

impl Side {
    fn new() -> Self {
        Self { head: Vec::new(), next: Next::Head }
    }

    /// Collects up to `wanted` bytes of a head; answers how many were taken.
    fn collect(&mut self, data: &[u8], wanted: usize) -> usize {
        let taken = wanted.saturating_sub(self.head.len()).min(data.len());
        self.head.extend_from_slice(data.get(..taken).unwrap_or_default());
        taken
    }

    /// Whether a packet begins with the next byte.
    fn is_between(&self) -> bool {
        matches!(self.next, Next::Head) && self.head.is_empty()
    }

    /// The head is read; so much of the packet is left.
    fn rest(&mut self, left: u64) {
        self.head.clear();
        self.next = if left == 0 { Next::Head } else { Next::Rest { left } };
    }

    /// The head is read; content follows.
    fn content(&mut self, left: u64, of: Option<Id>) {
        self.head.clear();
        self.next = if left == 0 { Next::Head } else { Next::Content { left, of } };
    }
}

/// How much of `data` belongs to a part of which `left` is missing.
fn part(data: &[u8], left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(data.len())
}

pub(crate) struct Sftp {
    settings: Settings,
    client: Side,
    server: Side,
    /// Whether both sides have said their version.
    client_version: bool,
    server_version: bool,
    /// Bytes of the client's packet that were held back.
    held: usize,
    /// Whether the client's packet, or the rest of it, is left out.
    omitting: bool,
    files: Files,
    requests: Requests,
    /// Refusals for the client.
    replies: VecDeque<Bytes>,
    working_directory: String,
}

impl Sftp {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            client: Side::new(),
            server: Side::new(),
            client_version: false,
            server_version: false,
            held: 0,
            omitting: false,
            files: Files::default(),
            requests: Requests::default(),
            replies: VecDeque::new(),
            working_directory: String::new(),
        }
    }

    pub(crate) fn working_directory(&self) -> &str {
        &self.working_directory
    }

    /// The next refusal, where the server's side is between two packets.
    pub(crate) fn reply(&mut self) -> Option<Bytes> {
        if self.server_version && self.server.is_between() {
            self.replies.pop_front()
        } else {
            None
        }
    }

    pub(crate) fn owes_reply(&self) -> bool {
        !self.replies.is_empty()
    }

    pub(crate) fn finish(&mut self, now: Duration, book: &mut Book) {
        self.files.finish(now, book);
        self.requests.clear();
        self.replies.clear();
    }
}

#[cfg(test)]
mod tests;

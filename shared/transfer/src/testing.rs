//! A conversation by hand.

use std::time::Duration;

use bytes::Bytes;

use crate::sftp::wire;
use crate::{Forbidden, Limits, Observer, Policy, Record, Settings, Tool};

pub(crate) const ALL: Policy = Policy { upload: true, download: true };
pub(crate) const UPLOAD: Policy = Policy { upload: true, download: false };
pub(crate) const DOWNLOAD: Policy = Policy { upload: false, download: true };

/// A packet in the making.
pub(crate) struct Packet(Vec<u8>);

impl Packet {
    /// With a request id.
    pub(crate) fn new(kind: u8, id: u32) -> Self {
        Self([&[kind][..], &id.to_be_bytes()].concat())
    }

    pub(crate) fn text(mut self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        self.0.extend((text.len() as u32).to_be_bytes());
        self.0.extend(text);
        self
    }

    pub(crate) fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(crate) fn u64(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        [&(self.0.len() as u32).to_be_bytes()[..], &self.0].concat()
    }
}

pub(crate) fn open(id: u32, path: &str, flags: u32) -> Vec<u8> {
    Packet::new(wire::OPEN, id).text(path).u32(flags).u32(0).done()
}

pub(crate) fn close(id: u32, handle: &str) -> Vec<u8> {
    Packet::new(wire::CLOSE, id).text(handle).done()
}

pub(crate) fn write(id: u32, handle: &str, offset: u64, data: &[u8]) -> Vec<u8> {
    Packet::new(wire::WRITE, id).text(handle).u64(offset).text(data).done()
}

pub(crate) fn read(id: u32, handle: &str, offset: u64, length: u32) -> Vec<u8> {
    Packet::new(wire::READ, id).text(handle).u64(offset).u32(length).done()
}

pub(crate) fn handle(id: u32, handle: &str) -> Vec<u8> {
    Packet::new(wire::HANDLE, id).text(handle).done()
}

pub(crate) fn status(id: u32, code: u32) -> Vec<u8> {
    Packet::new(wire::STATUS, id).u32(code).text("").text("").done()
}

pub(crate) fn data(id: u32, data: &[u8]) -> Vec<u8> {
    Packet::new(wire::DATA, id).text(data).done()
}

/// Who says what, in order.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    Client(Vec<u8>),
    Server(Vec<u8>),
}

/// The version of both sides, and then this.
pub(crate) fn after_versions(lines: Vec<Line>) -> Vec<Line> {
    let mut all = vec![
        Line::Client(Packet::new(wire::INIT, 3).done()),
        Line::Server(Packet::new(wire::VERSION, 3).text("limits@openssh.com").text("1").done()),
    ];
    all.extend(lines);
    all
}

/// What came of a conversation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) to_server: Vec<u8>,
    pub(crate) to_client: Vec<u8>,
    pub(crate) records: Vec<Record>,
    pub(crate) end: Option<String>,
}

pub(crate) fn settings(policy: Policy) -> Settings {
    Settings { policy, hash: true, limits: Limits::default() }
}

/// Has a conversation, in pieces of lengths that `cut` says.
pub(crate) fn talk(
    tool: &Tool,
    settings: Settings,
    lines: &[Line],
    mut cut: impl FnMut() -> usize,
) -> Outcome {
    let mut observer = Observer::new(tool, settings);
    let mut outcome = Outcome::default();
    for (second, line) in lines.iter().enumerate() {
        let now = Duration::from_secs(second as u64);
        let (Line::Client(bytes) | Line::Server(bytes)) = line;
        let mut rest = Bytes::from(bytes.clone());
        while !rest.is_empty() {
            let piece = rest.split_to(cut().clamp(1, rest.len()));
            let onward = match line {
                Line::Client(_) => observer.input(piece, now),
                Line::Server(_) => observer.output(piece, now),
            };
            match (onward, line) {
                (Ok(pieces), Line::Client(_)) => outcome.to_server.extend(pieces.concat()),
                (Ok(pieces), Line::Server(_)) => outcome.to_client.extend(pieces.concat()),
                (Err(Forbidden(why)), _) => {
                    outcome.end = Some(why);
                    outcome.records.extend(observer.take());
                    return outcome;
                }
            }
        }
        while let Some(reply) = observer.reply() {
            outcome.to_client.extend(reply);
        }
    }
    observer.finish(Duration::from_secs(lines.len() as u64));
    outcome.records.extend(observer.take());
    outcome
}

/// Has it in one piece each.
pub(crate) fn sftp(policy: Policy, lines: Vec<Line>) -> Outcome {
    talk(&Tool::Sftp, settings(policy), &after_versions(lines), || usize::MAX)
}

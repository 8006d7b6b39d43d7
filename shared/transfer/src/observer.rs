//! The observer of one program.

use std::time::Duration;

use bytes::Bytes;

use crate::command::Tool;
use crate::record::{Record, Totals};
use crate::scp::Scp;
use crate::sftp::Sftp;
use crate::{Direction, FileRecord};

/// What may be copied. Whatever changes files on the server is an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// To the server.
    pub upload: bool,
    /// From the server.
    pub download: bool,
}

impl Policy {
    /// Whether nothing is forbidden.
    #[must_use]
    pub fn allows_all(self) -> bool {
        self.upload && self.download
    }

    /// Whether this way is open.
    #[must_use]
    pub fn allows(self, direction: Direction) -> bool {
        match direction {
            Direction::Upload => self.upload,
            Direction::Download => self.download,
        }
    }
}

/// How much an observer remembers at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests without an answer.
    pub requests: usize,
    /// Open files and folders.
    pub handles: usize,
    /// Bytes of names of both.
    pub names: usize,
    /// Bytes of a request that is no data.
    pub request: usize,
    /// Refusals that the client has not read.
    pub refusals: usize,
}

impl Default for Limits {
    /// Beyond what clients do: OpenSSH's server has some 1,000 handles, its client 64 requests.
    fn default() -> Self {
        Self {
            requests: 4096,
            handles: 2048,
            names: 1024 * 1024,
            request: 64 * 1024,
            refusals: 1024,
        }
    }
}

/// How one program is observed.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What may be copied.
    pub policy: Policy,
    /// Whether content is hashed.
    pub hash: bool,
    /// What is remembered.
    pub limits: Limits,
}

/// The session has to end: the text is for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forbidden(pub String);

/// Losing track, inside.
pub(crate) struct Lost(pub(crate) String);

impl Lost {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Where records go.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) records: Vec<Record>,
    pub(crate) totals: Totals,
}

impl Book {
    pub(crate) fn operation(&mut self, operation: crate::Operation) {
        self.totals.operations += 1;
        self.records.push(Record::Operation(operation));
    }

    pub(crate) fn file(&mut self, file: FileRecord) {
        self.totals.files += 1;
        self.records.push(Record::File(file));
    }
}

enum Protocol {
    Sftp(Box<Sftp>),
    Scp(Box<Scp>),
    /// Only counted.
    Bytes,
    /// Neither understood nor told any more.
    Untracked,
}

/// Sees one program from its start to its end. Times are since any fixed moment.
pub struct Observer {
    protocol: Protocol,
    policy: Policy,
    book: Book,
}

impl Observer {
    /// An observer for `tool`, which [`Tool::permitted`] has let start.
    #[must_use]
    pub fn new(tool: &Tool, settings: Settings) -> Self {
        let protocol = match tool {
            Tool::Sftp => Protocol::Sftp(Box::new(Sftp::new(settings))),
            Tool::Scp { direction, .. } => Protocol::Scp(Box::new(Scp::new(*direction, settings))),
            Tool::Rsync { .. } => Protocol::Bytes,
        };
        Self { protocol, policy: settings.policy, book: Book::default() }
    }

    /// Input of the program. Answers what goes on to it.
    pub fn input(&mut self, data: Bytes, now: Duration) -> Result<Vec<Bytes>, Forbidden> {
        match &mut self.protocol {
            Protocol::Sftp(sftp) => match sftp.input(data, &mut self.book) {
                Ok(onward) => Ok(onward),
                Err((lost, onward)) => self.lost(lost, now).map(|()| onward),
            },
            Protocol::Scp(scp) => {
                let seen = scp.input(&data, now, &mut self.book);
                seen.or_else(|lost| self.lost(lost, now)).map(|()| vec![data])
            }
            Protocol::Bytes => {
                self.book.totals.written += data.len() as u64;
                Ok(vec![data])
            }
            Protocol::Untracked => Ok(vec![data]),
        }
    }

    /// Output of the program. Answers what goes on to the client.
    pub fn output(&mut self, data: Bytes, now: Duration) -> Result<Vec<Bytes>, Forbidden> {
        match &mut self.protocol {
            Protocol::Sftp(sftp) => match sftp.output(data.clone(), now, &mut self.book) {
                Ok(onward) => Ok(onward),
                Err(lost) => self.lost(lost, now).map(|()| vec![data]),
            },
            Protocol::Scp(scp) => {
                let seen = scp.output(&data, now, &mut self.book);
                seen.or_else(|lost| self.lost(lost, now)).map(|()| vec![data])
            }
            Protocol::Bytes => {
                self.book.totals.read += data.len() as u64;
                Ok(vec![data])
            }
            Protocol::Untracked => Ok(vec![data]),
        }
    }

    /// What has to be said to the client in the server's place, if the output so far ends between two packets.
    pub fn reply(&mut self) -> Option<Bytes> {
        match &mut self.protocol {
            Protocol::Sftp(sftp) => sftp.reply(),
            _ => None,
        }
    }

    /// Whether something has to be said in the server's place, now or once its packet has ended.
    #[must_use]
    pub fn owes_reply(&self) -> bool {
        matches!(&self.protocol, Protocol::Sftp(sftp) if sftp.owes_reply())
    }

    /// What was told and not taken yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.book.records.len()
    }

    /// Takes what happened so far.
    pub fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.book.records)
    }

    /// The program has ended: what was open is told.
    pub fn finish(&mut self, now: Duration) {
        match &mut self.protocol {
            Protocol::Sftp(sftp) => sftp.finish(now, &mut self.book),
            Protocol::Scp(scp) => scp.finish(now, &mut self.book),
            Protocol::Bytes | Protocol::Untracked => {}
        }
        self.protocol = Protocol::Untracked;
    }

    /// Everything so far, in numbers.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.book.totals
    }

    /// The folder that relative names begin at, where the server told.
    #[must_use]
    pub fn working_directory(&self) -> &str {
        match &self.protocol {
            Protocol::Sftp(sftp) => sftp.working_directory(),
            _ => "",
        }
    }

    fn lost(&mut self, Lost(reason): Lost, now: Duration) -> Result<(), Forbidden> {
        self.finish(now);
        let forbidden = Forbidden(format!(
            "the file transfer cannot be followed ({reason}), and your role allows only some of it"
        ));
        self.book.records.push(Record::Untracked { reason });
        if self.policy.allows_all() { Ok(()) } else { Err(forbidden) }
    }
}

//! The loop, and who does which request.

use std::io::{ErrorKind, Read, Result, Write};
use std::os::unix::fs::FileExt;

use russh_sftp::protocol::StatusCode;

use super::attributes::{self, Target};
use super::handles::{Handle, Handles};
use super::listing::{self, Owners};
use super::stream::Packets;
use super::wire::{
    self, Answer, MAX_PACKET, OVERHEAD, One, OneWith, Open, Outcome, Refused, Two, kind, parse,
};
use super::{extensions, paths};

/// Answers are written at the latest when they are this long.
const FLUSH: usize = MAX_PACKET;

/// The most that one READ gives.
const MAX_READ: usize = MAX_PACKET - OVERHEAD;

/// Serves a client until it closes its side. An error is the end too: of the streams, or because what came is no SFTP.
pub fn serve(input: impl Read, mut output: impl Write) -> Result<()> {
    let mut packets = Packets::new(input);
    let mut server = Server::new();
    loop {
        if (!packets.ready() && !server.out.is_empty()) || server.out.len() >= FLUSH {
            match output.write_all(&server.out).and_then(|()| output.flush()) {
                // The client went without waiting for answers.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                other => other?,
            }
            server.out.clear();
        }
        let Some(packet) = packets.next()? else {
            return Ok(());
        };
        server.answer(packet)?;
    }
}

struct Server {
    greeted: bool,
    handles: Handles,
    owners: Owners,
    /// Answers that were not written yet.
    out: Vec<u8>,
}

impl Server {
    fn new() -> Self {
        Self {
            greeted: false,
            handles: Handles::new(),
            owners: Owners::default(),
            out: Vec::with_capacity(FLUSH + MAX_PACKET),
        }
    }

    /// Answers one packet.
    fn answer(&mut self, packet: &[u8]) -> Result<()> {
        let Some((&kind, mut body)) = packet.split_first() else {
            return Ok(());
        };
        if kind == kind::INIT {
            self.greeted = true;
            return wire::put_body(&mut self.out, kind::VERSION, &extensions::greeting());
        }
        let no_sftp =
            |what: &str| Err(std::io::Error::new(ErrorKind::InvalidData, what.to_owned()));
        if !self.greeted {
            return no_sftp("request before greeting");
        }
        let Some(id) = wire::take_u32(&mut body) else {
            return no_sftp("request without number");
        };
        let outcome = match kind {
            kind::READ => match self.read(id, body) {
                Ok(()) => return Ok(()),
                Err(refused) => Err(refused),
            },
            kind::WRITE => self.write(body),
            _ => self.perform(kind, body),
        };
        wire::put(&mut self.out, id, outcome)
    }

    /// READ, straight into the answer.
    fn read(&mut self, id: u32, mut body: &[u8]) -> std::result::Result<(), Refused> {
        let request = (|| {
            let handle = wire::take_text(&mut body)?;
            Some((handle, wire::take_u64(&mut body)?, wire::take_u32(&mut body)? as usize))
        })();
        let (handle, offset, length) = request.ok_or_else(bad_message)?;
        let file = self.handles.file(handle)?;
        let packet = self.out.len();
        // Length of the packet, type, request, length of the contents.
        let contents = packet + 13;
        self.out.resize(contents + length.min(MAX_READ), 0);
        let got = loop {
            match file.read_at(&mut self.out[contents..], offset) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let got = match got {
            Ok(got) if got > 0 || length == 0 => got,
            other => {
                self.out.truncate(packet);
                other?;
                return Err(Refused::new(StatusCode::Eof));
            }
        };
        self.out.truncate(contents + got);
        let number = |value: usize| u32::try_from(value).expect("reads are bounded").to_be_bytes();
        let header = &mut self.out[packet..contents];
        header[..4].copy_from_slice(&number(got + 9));
        header[4] = kind::DATA;
        header[5..9].copy_from_slice(&id.to_be_bytes());
        header[9..].copy_from_slice(&number(got));
        Ok(())
    }

    /// WRITE, straight from the packet.
    fn write(&self, mut body: &[u8]) -> Outcome {
        let request = (|| {
            let handle = wire::take_text(&mut body)?;
            Some((handle, wire::take_u64(&mut body)?, wire::take_text(&mut body)?))
        })();
        let (handle, offset, contents) = request.ok_or_else(bad_message)?;
        self.handles.file(handle)?.write_all_at(contents, offset)?;
        Ok(Answer::Done)
    }

    fn perform(&mut self, kind: u8, body: &[u8]) -> Outcome {
        match kind {
            kind::OPEN => {
                let Open { path, flags, attributes } = parse(body)?;
                self.handles.room()?;
                let file = paths::open(&path.path(), flags, &attributes)?;
                Ok(Answer::Handle(self.handles.add(Handle::File(file))))
            }
            kind::OPENDIR => {
                let One { what } = parse(body)?;
                self.handles.room()?;
                let folder = paths::open_folder(&what.path())?;
                Ok(Answer::Handle(self.handles.add(Handle::Folder(folder))))
            }
            kind::READDIR => {
                let One { what } = parse(body)?;
                let entries = listing::next(self.handles.folder(&what.0)?, &mut self.owners)?;
                if entries.is_empty() {
                    Err(Refused::new(StatusCode::Eof))
                } else {
                    Ok(Answer::Names(entries))
                }
            }
            kind::CLOSE => {
                let One { what } = parse(body)?;
                drop(self.handles.remove(&what.0)?);
                Ok(Answer::Done)
            }
            kind::FSTAT => {
                let One { what } = parse(body)?;
                let stat = rustix::fs::fstat(self.handles.file(&what.0)?)?;
                Ok(Answer::Attributes(attributes::of(&stat)))
            }
            kind::FSETSTAT => {
                let OneWith { what, attributes } = parse(body)?;
                attributes::set(Target::File(self.handles.file(&what.0)?), &attributes)?;
                Ok(Answer::Done)
            }
            kind::EXTENDED => {
                let mut body = body;
                let name = wire::take_text(&mut body).ok_or_else(bad_message)?;
                extensions::perform(name, body, &self.handles)
            }
            _ => on_path(kind, body),
        }
    }
}

/// Requests that need nothing open.
fn on_path(kind: u8, body: &[u8]) -> Outcome {
    match kind {
        kind::STAT | kind::LSTAT => {
            let One { what } = parse(body)?;
            paths::stat(&what.path(), kind == kind::STAT)
        }
        kind::SETSTAT => {
            let OneWith { what, attributes } = parse(body)?;
            attributes::set(Target::Path(&what.path()), &attributes)?;
            Ok(Answer::Done)
        }
        kind::REMOVE => {
            let One { what } = parse(body)?;
            rustix::fs::unlink(what.path())?;
            Ok(Answer::Done)
        }
        kind::MKDIR => {
            let OneWith { what, attributes } = parse(body)?;
            paths::make_folder(&what.path(), &attributes)
        }
        kind::RMDIR => {
            let One { what } = parse(body)?;
            rustix::fs::rmdir(what.path())?;
            Ok(Answer::Done)
        }
        kind::REALPATH => {
            let One { what } = parse(body)?;
            paths::real_path(&what.path())
        }
        kind::RENAME => {
            let Two { first, second } = parse(body)?;
            paths::rename(&first.path(), &second.path())
        }
        kind::READLINK => {
            let One { what } = parse(body)?;
            paths::read_link(&what.path())
        }
        kind::SYMLINK => {
            let Two { first, second } = parse(body)?;
            paths::symlink(&first.path(), &second.path())
        }
        _ => Err(Refused::new(StatusCode::OpUnsupported)),
    }
}

fn bad_message() -> Refused {
    Refused::new(StatusCode::BadMessage)
}

#[cfg(test)]
mod tests;

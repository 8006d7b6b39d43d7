//! From the server to the client.

use std::time::Duration;

use bytes::Bytes;

use super::files::{File, Open, listed};
use super::pending::Pending;
use super::wire::{self, Fields};
use super::{Next, Sftp, part};
use crate::Direction;
use crate::observer::{Book, Lost};
use crate::record::{Action, Operation};
use crate::stream::Onward;
use crate::text;

impl Sftp {
    /// Output, with refusals between its packets.
    pub(crate) fn output(
        &mut self,
        data: Bytes,
        now: Duration,
        book: &mut Book,
    ) -> Result<Vec<Bytes>, Lost> {
        let mut onward = Onward::new(data.clone());
        let mut at = 0;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            self.say(at, &mut onward);
            match &mut self.server.next {
                Next::Head => {
                    let wanted = wire::answer_head(&self.server.head)?;
                    at += self.server.collect(rest, wanted);
                    if self.server.head.len() >= wire::answer_head(&self.server.head)? {
                        self.answer(now, book)?;
                    }
                }
                Next::Content { left, of } => {
                    let length = part(rest, *left);
                    *left -= length as u64;
                    let (done, of) = (*left == 0, *of);
                    if let Some(file) = of.and_then(|id| self.files.file(id)) {
                        file.content(rest.get(..length).unwrap_or_default());
                    }
                    at += length;
                    if done {
                        self.server.next = Next::Head;
                    }
                }
                Next::Rest { left } => {
                    let length = part(rest, *left);
                    *left -= length as u64;
                    if *left == 0 {
                        self.server.next = Next::Head;
                    }
                    at += length;
                }
            }
        }
        self.say(data.len(), &mut onward);
        Ok(onward.finish())
    }

    /// Puts refusals between two packets.
    fn say(&mut self, at: usize, onward: &mut Onward) {
        while let Some(reply) = self.reply() {
            onward.insert(at, reply);
        }
    }

    /// The head of an answer is there.
    fn answer(&mut self, now: Duration, book: &mut Book) -> Result<(), Lost> {
        let head = std::mem::take(&mut self.server.head);
        let left = wire::length(&head)?.saturating_sub(head.len() as u64);
        let kind = head.get(4).copied().unwrap_or_default();
        let mut fields = Fields(head.get(wire::PREFIX..).unwrap_or_default());
        let first = fields.u32()?;
        if kind == wire::VERSION {
            if self.server_version || first > 3 {
                return Err(Lost::new("sftp: the server answers with another version"));
            }
            self.server_version = true;
        } else {
            let pending = self.requests.remove(first)?;
            if kind == wire::DATA {
                return self.data(pending, &mut fields, left, book);
            }
            self.settle(kind, pending, fields, now, book)?;
        }
        self.server.rest(left);
        Ok(())
    }

    /// The head of a `DATA`, with its content to come.
    fn data(
        &mut self,
        pending: Pending,
        fields: &mut Fields<'_>,
        left: u64,
        book: &mut Book,
    ) -> Result<(), Lost> {
        let bytes = u64::from(fields.u32()?);
        if bytes != left {
            return Err(Lost::new("sftp: data is not as long as its packet"));
        }
        let Pending::Read { id, offset } = pending else {
            return Err(Lost::new("sftp: data that nobody asked for"));
        };
        book.totals.read += bytes;
        let mut hashed = None;
        if let Some(id) = id
            && let Some(file) = self.files.file(id)
        {
            file.was_read(bytes);
            if file.content_at(Direction::Download, offset) {
                hashed = Some(id);
            }
        }
        self.server.content(bytes, hashed);
        Ok(())
    }

    /// An answer other than data.
    fn settle(
        &mut self,
        kind: u8,
        pending: Pending,
        mut fields: Fields<'_>,
        now: Duration,
        book: &mut Book,
    ) -> Result<(), Lost> {
        match kind {
            wire::STATUS => {
                let code = fields.u32()?;
                // Servers of early drafts say no more.
                let said = fields.begin_of_string().unwrap_or_default();
                self.status(code, wire::failure(code, said), pending, now, book);
                Ok(())
            }
            wire::HANDLE => self.handle(fields.string()?, pending, now, book),
            wire::ATTRS => {
                // Only flags and size were kept.
                let size = if fields.u32()? & 1 != 0 { Some(fields.u64()?) } else { None };
                match (pending, size) {
                    (Pending::Stat { path }, Some(size)) => self.files.remember(path, size),
                    (Pending::FStat { id: Some(id) }, size) => {
                        if let Some(file) = self.files.file(id) {
                            file.size = size.or(file.size);
                        }
                    }
                    _ => {}
                }
                Ok(())
            }
            wire::NAME => {
                let count = fields.u32()?;
                match pending {
                    Pending::RealPath { of_nothing: true } if count > 0 => {
                        self.working_directory = text::name(fields.begin_of_string()?);
                    }
                    Pending::ReadDir { id: Some(id) } => listed(self.files.get(id), book),
                    _ => {}
                }
                Ok(())
            }
            // `EXTENDED_REPLY`
            _ => Ok(()),
        }
    }

    fn handle(
        &mut self,
        handle: &[u8],
        pending: Pending,
        now: Duration,
        book: &mut Book,
    ) -> Result<(), Lost> {
        let open = match pending {
            Pending::Open { path, flags } => {
                let operation = Operation::new(Action::Open, path.clone());
                book.operation(Operation { flags: Some(flags), ..operation });
                let size = self.files.size(&path);
                Open::File(Box::new(File::new(path, flags, size, self.settings.hash, now)))
            }
            Pending::OpenDir { path } => {
                book.operation(Operation::new(Action::OpenDir, path.clone()));
                Open::Folder { path, listed: false }
            }
            _ => return Err(Lost::new("sftp: a handle that nobody asked for")),
        };
        self.files.insert(handle, open, &self.settings.limits)
    }

    fn status(
        &mut self,
        code: u32,
        error: Option<String>,
        pending: Pending,
        now: Duration,
        book: &mut Book,
    ) {
        match pending {
            Pending::Open { path, flags } => book.operation(Operation {
                flags: Some(flags),
                error,
                ..Operation::new(Action::Open, path)
            }),
            Pending::OpenDir { path } => {
                book.operation(Operation { error, ..Operation::new(Action::OpenDir, path) });
            }
            Pending::Operation(operation) => book.operation(Operation { error, ..operation }),
            Pending::FSetStat { id, operation } => {
                let length = operation.attributes.and_then(|attributes| attributes.size);
                if error.is_none()
                    && let (Some(length), Some(file)) =
                        (length, id.and_then(|id| self.files.file(id)))
                {
                    file.set_length(length);
                }
                book.operation(Operation { error, ..operation });
            }
            Pending::Write { id, bytes } => {
                let file = id.and_then(|id| self.files.file(id));
                match (file, error) {
                    (Some(file), Some(why)) => file.failed(why),
                    (Some(file), None) => file.was_written(bytes),
                    (None, _) => {}
                }
                if code == wire::FX_OK {
                    book.totals.written += bytes;
                }
            }
            Pending::Read { id: Some(id), offset } => {
                if let Some(file) = self.files.file(id) {
                    match error {
                        Some(_) if code == wire::FX_EOF => file.ends_at(offset),
                        Some(why) => file.failed(why),
                        None => {}
                    }
                }
            }
            // Whatever the server says, it is closed (§6.3).
            Pending::Close { id: Some(id) } => match self.files.remove(id) {
                Some(Open::File(mut file)) => {
                    if let Some(why) = error {
                        file.failed(why);
                    }
                    book.file(file.close(now, false));
                }
                Some(Open::Folder { .. }) | None => {}
            },
            _ => {}
        }
    }
}

//! From the client to the server.

use bytes::Bytes;

use super::pending::Pending;
use super::request::Request;
use super::wire::{self, Fields};
use super::{Next, Sftp, part};
use crate::Direction;
use crate::command::Refusal;
use crate::observer::{Book, Lost};
use crate::record::{Action, Operation};
use crate::stream::Onward;

/// The version that is read here. Whoever offers more is taken at this one, which every server and client speaks.
const VERSION: u32 = 3;

impl Sftp {
    /// Input. Where the track is lost, what goes on all the same comes with it.
    pub(crate) fn input(
        &mut self,
        data: Bytes,
        book: &mut Book,
    ) -> Result<Vec<Bytes>, (Lost, Vec<Bytes>)> {
        let mut onward = Onward::new(data.clone());
        match self.walk(&data, &mut onward, book) {
            Ok(()) => Ok(onward.finish()),
            Err(lost) => {
                if self.held > 0 {
                    let held = self.client.head.get(..self.held).unwrap_or_default();
                    let mut pieces = vec![Bytes::copy_from_slice(held)];
                    pieces.extend(onward.finish());
                    return Err((lost, pieces));
                }
                Err((lost, onward.finish()))
            }
        }
    }

    fn walk(&mut self, data: &[u8], onward: &mut Onward, book: &mut Book) -> Result<(), Lost> {
        let mut at = 0;
        // Where the packet begins, or what of it is in this piece.
        let mut begin = 0;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            match &mut self.client.next {
                Next::Head => {
                    if self.client.head.is_empty() {
                        begin = at;
                    }
                    let wanted =
                        wire::request_head(&self.client.head, self.settings.limits.request)?;
                    at += self.client.collect(rest, wanted);
                    self.heads(begin, at, onward, book)?;
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
                        self.client.next = Next::Head;
                    }
                }
                Next::Rest { left } => {
                    let length = part(rest, *left);
                    *left -= length as u64;
                    let done = *left == 0;
                    if self.omitting {
                        onward.omit(at, at + length);
                    }
                    at += length;
                    if done {
                        self.client.next = Next::Head;
                        self.omitting = false;
                    }
                }
            }
        }
        if !self.client.head.is_empty() {
            if self.may_be_changed() {
                onward.omit(begin, data.len());
                self.held = self.client.head.len();
            } else {
                self.go_on(begin, onward);
            }
        }
        Ok(())
    }

    /// Whether the packet that has begun may not go on before it is known.
    fn may_be_changed(&self) -> bool {
        let policy = self.settings.policy;
        let allowed_data = policy.upload && self.client.head.get(4) == Some(&wire::WRITE);
        !self.client_version || !policy.allows_all() && !allowed_data
    }

    /// More of a head is there; acts once it is all there.
    fn heads(
        &mut self,
        begin: usize,
        at: usize,
        onward: &mut Onward,
        book: &mut Book,
    ) -> Result<(), Lost> {
        let wanted = wire::request_head(&self.client.head, self.settings.limits.request)?;
        if self.client.head.len() < wanted {
            return Ok(());
        }
        if !self.client_version {
            return self.init(begin, at, onward);
        }
        let kind = self.client.head.get(4).copied().unwrap_or_default();
        let mut fields = Fields(self.client.head.get(wire::PREFIX..).unwrap_or_default());
        let id = fields.u32()?;
        if self.requests.contains(id) {
            return Err(Lost::new("sftp: a request id is used twice"));
        }
        if kind == wire::WRITE {
            return self.write(id, begin, at, onward, book);
        }
        let request = Request::parse(kind, fields.0)?;
        match request.forbidden(self.settings.policy) {
            Some(direction) => {
                self.refuse(id, self.refused(request), direction, book)?;
                onward.omit(begin, at);
                self.held = 0;
            }
            None => {
                self.go_on(begin, onward);
                let pending = self.pending(request);
                self.requests.insert(id, pending, &self.settings.limits)?;
            }
        }
        self.client.rest(0);
        Ok(())
    }

    /// What was held back goes on, in front of what is in this piece.
    fn go_on(&mut self, begin: usize, onward: &mut Onward) {
        if self.held > 0 {
            let held = self.client.head.get(..self.held).unwrap_or_default();
            onward.insert(begin, Bytes::copy_from_slice(held));
            self.held = 0;
        }
    }

    fn init(&mut self, begin: usize, at: usize, onward: &mut Onward) -> Result<(), Lost> {
        let head = &mut self.client.head;
        if head.get(4) != Some(&wire::INIT) {
            return Err(Lost::new("sftp: the client does not begin with its version"));
        }
        let version = Fields(head.get(wire::PREFIX..).unwrap_or_default()).u32()?;
        if version > VERSION
            && let Some(place) = head.get_mut(wire::PREFIX..wire::WITH_ID)
        {
            place.copy_from_slice(&VERSION.to_be_bytes());
        }
        onward.omit(begin, at);
        onward.insert(at, Bytes::copy_from_slice(head));
        self.held = 0;
        self.client_version = true;
        self.client.rest(0);
        Ok(())
    }

    /// The head of a `WRITE`, with its data to come.
    fn write(
        &mut self,
        id: u32,
        begin: usize,
        at: usize,
        onward: &mut Onward,
        book: &mut Book,
    ) -> Result<(), Lost> {
        let head = &self.client.head;
        let mut fields = Fields(head.get(wire::WITH_ID..).unwrap_or_default());
        let file = self.files.id(fields.string()?);
        let (offset, bytes) = (fields.u64()?, u64::from(fields.u32()?));
        if wire::length(head)? != head.len() as u64 + bytes {
            return Err(Lost::new("sftp: data is not as long as its packet"));
        }
        if !self.settings.policy.upload {
            let operation = Operation::new(Action::Write, self.files.path(file));
            self.refuse(id, operation, Direction::Upload, book)?;
            onward.omit(begin, at);
            self.held = 0;
            self.omitting = bytes > 0;
            self.client.rest(bytes);
            return Ok(());
        }
        self.go_on(begin, onward);
        let mut hashed = None;
        if let Some(id) = file
            && let Some(file) = self.files.file(id)
            && file.content_at(Direction::Upload, offset)
        {
            hashed = Some(id);
        }
        self.requests.insert(id, Pending::Write { id: file, bytes }, &self.settings.limits)?;
        self.client.content(bytes, hashed);
        Ok(())
    }

    /// What will be known when the answer comes.
    fn pending(&mut self, request: Request) -> Pending {
        let id = |handle: &[u8]| self.files.id(handle);
        match request {
            Request::Open { path, flags, .. } => Pending::Open { path, flags },
            Request::OpenDir { path } => Pending::OpenDir { path },
            Request::Close { handle } => Pending::Close { id: id(&handle) },
            Request::Read { handle, offset } => Pending::Read { id: id(&handle), offset },
            Request::Stat { path } => Pending::Stat { path },
            Request::FStat { handle } => Pending::FStat { id: id(&handle) },
            Request::FSetStat { handle, attributes } => {
                let id = id(&handle);
                let operation = Operation {
                    attributes: Some(attributes),
                    ..Operation::new(Action::FSetStat, self.files.path(id))
                };
                Pending::FSetStat { id, operation }
            }
            Request::ReadDir { handle } => Pending::ReadDir { id: id(&handle) },
            Request::RealPath { path } => {
                Pending::RealPath { of_nothing: path.is_empty() || path == "." }
            }
            Request::Operation(operation) => Pending::Operation(operation),
            Request::CopyData { from, to } => Pending::Operation(self.copy(&from, &to)),
            Request::Harmless | Request::Unknown { .. } => Pending::Other,
        }
    }

    /// A copy inside the server: what is written no longer comes from here.
    fn copy(&mut self, from: &[u8], to: &[u8]) -> Operation {
        let (from, to) = (self.files.id(from), self.files.id(to));
        if let Some(file) = to.and_then(|id| self.files.file(id)) {
            file.copied_inside();
        }
        let target = Some(self.files.path(to));
        Operation { target, ..Operation::new(Action::Write, self.files.path(from)) }
    }

    /// A forbidden request, as it is told.
    fn refused(&self, request: Request) -> Operation {
        let named =
            |action, handle: &[u8]| Operation::new(action, self.files.path(self.files.id(handle)));
        match request {
            Request::Operation(operation) => operation,
            Request::Open { path, flags, .. } => {
                Operation { flags: Some(flags), ..Operation::new(Action::Open, path) }
            }
            Request::Read { handle, .. } => named(Action::Read, &handle),
            Request::FSetStat { handle, attributes } => {
                Operation { attributes: Some(attributes), ..named(Action::FSetStat, &handle) }
            }
            Request::CopyData { to, .. } => named(Action::Write, &to),
            Request::Unknown { name } => Operation::new(Action::Extended, name),
            _ => Operation::new(Action::Extended, String::new()),
        }
    }

    fn refuse(
        &mut self,
        id: u32,
        operation: Operation,
        direction: Direction,
        book: &mut Book,
    ) -> Result<(), Lost> {
        let why = direction.refusal();
        book.operation(Operation { error: Some(why.to_owned()), refused: true, ..operation });
        if self.replies.len() >= self.settings.limits.refusals {
            return Err(Lost::new("sftp: the client asks on and reads no refusal"));
        }
        self.replies.push_back(wire::refusal(id, why));
        Ok(())
    }
}

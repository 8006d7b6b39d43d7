//! What may change what passes: for sessions whose tap asks for it, and for no others.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;

use super::tap::{Stream, Tap, Watch};

/// Sees both directions of one program, and decides what goes on. Methods may wait; what waits here, waits everywhere.
#[async_trait]
pub trait Filter: Send + Sync + 'static {
    /// Input, before the program gets it; answers what it gets instead. An error ends the session with that text.
    async fn input(&self, data: Bytes) -> Result<Vec<Bytes>, String>;

    /// Standard output, before the client gets it; answers what it gets instead. An error ends the session.
    async fn output(&self, data: Bytes) -> Result<Vec<Bytes>, String>;

    /// Pends until the client has to be told what the program did not say, between two pieces of output. Whoever
    /// passes output asks for this, and for nothing else meanwhile. May be dropped at any time and loses nothing.
    async fn reply(&self) -> Bytes;
}

/// What goes on.
pub(crate) enum Onward {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Iterator for Onward {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::One(data) => {
                let data = std::mem::take(data);
                *self = Self::Many(Vec::new());
                Some(data)
            }
            Self::Many(pieces) if pieces.is_empty() => None,
            Self::Many(pieces) => Some(pieces.remove(0)),
        }
    }
}

/// What the tap of one channel wants, once its program may start.
#[derive(Default)]
pub(crate) struct Watching(OnceLock<Watch>);

impl Watching {
    /// The program may start. What comes from now on is shown.
    pub(crate) fn decide(&self, watch: Watch) {
        let _ = self.0.set(watch);
    }

    fn filter(&self) -> Option<&Arc<dyn Filter>> {
        match self.0.get() {
            Some(Watch::Filter(filter)) => Some(filter),
            _ => None,
        }
    }

    /// Input, as it goes on. What comes before there is a program to read it is thrown away, as an sshd does: a target
    /// that kept it would give it to the program past the filter.
    pub(crate) async fn input(&self, data: Bytes) -> Result<Onward, String> {
        match self.0.get() {
            None => Ok(Onward::Many(Vec::new())),
            Some(Watch::Filter(filter)) => filter.input(data).await.map(Onward::Many),
            Some(_) => Ok(Onward::One(data)),
        }
    }

    /// Output, as it goes on, once the tap has seen it.
    pub(crate) async fn output(
        &self,
        tap: &dyn Tap,
        stream: Stream,
        data: Bytes,
    ) -> Result<Onward, String> {
        match self.0.get() {
            Some(Watch::Output) => tap.output(stream, &data).await.map(|()| Onward::One(data)),
            Some(Watch::Filter(filter)) if stream == Stream::Stdout => {
                filter.output(data).await.map(Onward::Many)
            }
            _ => Ok(Onward::One(data)),
        }
    }

    /// What the client has to be told between two pieces of output. To be asked for anew with each.
    pub(crate) async fn reply(&self) -> Bytes {
        match self.filter() {
            Some(filter) => filter.reply().await,
            None => std::future::pending().await,
        }
    }
}

//! Where a reader is in a chain, and what may come next.

use shared_types::SessionId;

use super::{Hash, Header, Link, slice_hash};
use crate::seal::{EndState, Seal};

/// What is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// A slice without a link in a chained recording, or a link in an unchained one.
    #[error("slice has no link to the one before it")]
    NoLink,
    /// Bytes behind the content that are no link.
    #[error("bytes behind the slice's content are no link")]
    Malformed,
    /// The number is not the next one: slices are missing, doubled or swapped.
    #[error("slice is number {found} of the recording where {expected} should be")]
    Sequence {
        /// The number that should be there.
        expected: u64,
        /// The number that is there.
        found: u64,
    },
    /// The hash of the link before differs.
    #[error("slice does not follow the one before it")]
    Previous,
    /// The slice's bytes are not those that were recorded.
    #[error("slice was altered")]
    Altered,
    /// Something follows the recording's end.
    #[error("slice stands behind the end of the recording")]
    BehindEnd,
    /// The seal says another end, number of slices or head.
    #[error("seal of the auth service is not for these slices")]
    Seal,
    /// The recording is not the one asked for.
    #[error("recording is of session {found}")]
    OtherSession {
        /// The session it is of.
        found: SessionId,
    },
}

/// How far a recording's chain holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainStatus {
    /// There is no chain: recorded by another program.
    Unsigned,
    /// Whole and unaltered, as far as the chain can tell.
    Intact,
    /// Altered, cut or put together in another way at this slice.
    Broken {
        /// Number of the slice in the file, from 0.
        slice: u64,
        /// What is wrong.
        why: String,
    },
    /// Unaltered as far as it goes, and its end is missing.
    MissingEnd,
}

/// Follows a chain, slice by slice.
#[derive(Clone, Debug, Default)]
pub struct ChainState {
    expect: Option<SessionId>,
    progress: Progress,
}

#[derive(Clone, Debug, Default)]
enum Progress {
    #[default]
    Start,
    Unsigned,
    Chained {
        origin: Header,
        next: u64,
        head: Hash,
        ended: bool,
        sealed: bool,
    },
}

impl ChainState {
    /// A chain that must be that of this session.
    #[must_use]
    pub fn of_session(session: SessionId) -> Self {
        Self { expect: Some(session), progress: Progress::Start }
    }

    /// What the recording says it is.
    #[must_use]
    pub fn origin(&self) -> Option<&Header> {
        match &self.progress {
            Progress::Chained { origin, .. } => Some(origin),
            _ => None,
        }
    }

    /// Number of slices and head so far.
    #[must_use]
    pub fn head(&self) -> Option<(u64, Hash)> {
        match &self.progress {
            Progress::Chained { next, head, .. } => Some((*next, *head)),
            _ => None,
        }
    }

    /// Whether there is a chain, and whether it has ended.
    pub(crate) fn ended(&self) -> Option<bool> {
        match &self.progress {
            Progress::Chained { ended, .. } => Some(*ended),
            _ => None,
        }
    }

    /// Whether nothing may follow any more.
    pub(crate) fn closed(&self) -> bool {
        matches!(
            self.progress,
            Progress::Chained { ended: true, .. } | Progress::Chained { sealed: true, .. }
        )
    }

    /// Takes the seal behind the last slice. Its signature is for the verifier.
    pub(crate) fn accept_seal(&mut self, body: &[u8]) -> Result<(), ChainFault> {
        let seal = Seal::from_body(body).ok_or(ChainFault::Malformed)?.received;
        let Progress::Chained { origin, next, head, ended, sealed } = &mut self.progress else {
            return Err(ChainFault::NoLink);
        };
        if std::mem::replace(sealed, true) {
            return Err(ChainFault::BehindEnd);
        }
        let complete = seal.state == EndState::Complete;
        let fits = (seal.session, seal.slices, seal.head, complete)
            == (origin.session, *next, *head, *ended);
        if fits { Ok(()) } else { Err(ChainFault::Seal) }
    }

    /// Takes the next slice: its stored bytes in two pieces, and what follows them in the body.
    pub(crate) fn accept(
        &mut self,
        header: &[u8],
        content: &[u8],
        rest: &[u8],
    ) -> Result<(), ChainFault> {
        // Older writers counted padding into the body.
        if rest.iter().all(|byte| *byte == 0) {
            return self.accept_unlinked();
        }
        let link = Link::decode(rest).ok_or(ChainFault::Malformed)?;
        let fits = link.slice == slice_hash(header, content);
        self.accept_link(&link, fits)
    }

    /// Takes the next slice, which has no link.
    pub(crate) fn accept_unlinked(&mut self) -> Result<(), ChainFault> {
        match self.progress {
            Progress::Start | Progress::Unsigned => {
                self.progress = Progress::Unsigned;
                Ok(())
            }
            Progress::Chained { .. } => Err(ChainFault::NoLink),
        }
    }

    /// Takes the next slice, by its link, and whether that is for the slice's bytes.
    pub(crate) fn accept_link(&mut self, link: &Link, fits: bool) -> Result<(), ChainFault> {
        let (expected, previous) = match &self.progress {
            Progress::Unsigned => return Err(ChainFault::NoLink),
            Progress::Start => (0, link.origin.as_ref().map(Header::origin)),
            Progress::Chained { .. } if self.closed() => return Err(ChainFault::BehindEnd),
            Progress::Chained { next, head, .. } => (*next, Some(*head)),
        };
        if link.seq != expected {
            return Err(ChainFault::Sequence { expected, found: link.seq });
        }
        if previous != Some(link.previous) {
            return Err(ChainFault::Previous);
        }
        if !fits {
            return Err(ChainFault::Altered);
        }
        let head = link.head();
        match (&mut self.progress, link.origin.clone()) {
            (Progress::Chained { next, head: last, ended, .. }, None) => {
                *next = expected.saturating_add(1);
                *last = head;
                *ended = link.end;
            }
            (Progress::Start, Some(origin)) => {
                if let Some(found) =
                    Some(origin.session).filter(|found| self.expect.is_some_and(|e| e != *found))
                {
                    return Err(ChainFault::OtherSession { found });
                }
                let ended = link.end;
                self.progress = Progress::Chained { origin, next: 1, head, ended, sealed: false };
            }
            _ => return Err(ChainFault::Previous),
        }
        Ok(())
    }
}

//! What was done to a recording since it was recorded.
//!
//! [`verify`] walks the slices, follows the chain, and checks every checkpoint and the seal against the recording
//! authority. The first thing that is wrong is named. What is out of place is looked for elsewhere in the file, so that
//! moved, missing, doubled and foreign slices are told apart; memory stays that of one slice.

mod misplaced;
mod verdict;
mod vouch;

use std::io::{self, Read, Seek};

use chrono::{DateTime, Utc};
use shared_pki::TrustedAuthority;
use shared_types::SessionId;

use crate::chain::{ChainFault, ChainState, Hash, Header, Link};
use crate::decoder::Fault;
use crate::decoder::parts::Parts;
use crate::decoder::records::Records;
use crate::seal::{EndState, Received, Seal};
use vouch::Vouch;

pub use verdict::{Place, Verdict, warning};

/// What [`verify`] found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The one thing to know.
    pub verdict: Verdict,
    /// What the recording says it is.
    pub origin: Option<Header>,
    /// Slices that are whole and in their place.
    pub slices: u64,
    /// The chain's head with the last of them.
    pub head: Option<Hash>,
    /// How many of them the recorder's checkpoints vouch for.
    pub signed: u64,
    /// When the last of these checkpoints was made.
    pub last_signed: Option<DateTime<Utc>>,
    /// What the auth service says it received, where the recording has its valid seal.
    pub seal: Option<Received>,
}

/// Verifies a recording against the recording authority of its cluster. With a session, it must be that one's.
/// Fails only where reading fails.
pub fn verify<R: Read + Seek>(
    source: R,
    authority: &TrustedAuthority,
    session: Option<SessionId>,
) -> io::Result<Report> {
    let mut verifier = Verifier {
        parts: Parts::new(source),
        records: Records::new(),
        chain: session.map_or_else(ChainState::default, ChainState::of_session),
        vouch: Vouch::new(authority),
        place: Place { slice: 0, offset: 0 },
        seal: None,
    };
    let verdict = match verifier.walk() {
        Ok(()) => verifier.conclude(),
        Err(Stop::Verdict(verdict)) => verdict,
        Err(Stop::Read(error)) => return Err(error),
    };
    let head = verifier.chain.head();
    Ok(Report {
        verdict,
        origin: verifier.chain.origin().cloned(),
        slices: head.map_or(0, |(slices, _)| slices),
        head: head.map(|(_, head)| head),
        signed: verifier.vouch.signed(),
        last_signed: verifier.vouch.last_signed(),
        seal: verifier.seal,
    })
}

/// Why the walk ended early.
enum Stop {
    Verdict(Verdict),
    Read(io::Error),
}

impl From<Verdict> for Stop {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

struct Verifier<'a, R> {
    parts: Parts<R>,
    records: Records,
    chain: ChainState,
    vouch: Vouch<'a>,
    /// The slice in hand.
    place: Place,
    seal: Option<Received>,
}

impl<R: Read + Seek> Verifier<'_, R> {
    fn walk(&mut self) -> Result<(), Stop> {
        loop {
            let read = self.parts.next();
            self.place.offset = self.parts.start();
            let whole = match read {
                Ok(false) => return Ok(()),
                Ok(true) => true,
                // The slice itself is there, and may say more.
                Err(Fault::ShortPadding { .. }) => false,
                Err(fault) => return Err(self.unreadable(fault)),
            };
            if self.parts.body().is_empty() {
                self.filler()?;
            } else if Seal::is_meant(self.parts.body()) {
                self.sealed()?;
            } else {
                self.slice()?;
            }
            if !whole {
                return Err(self.torn().into());
            }
            if !self.parts.zero() && self.chain.ended().is_some() {
                return Err(self.not_canonical("padding is not zero"));
            }
        }
    }

    fn filler(&self) -> Result<(), Stop> {
        if self.chain.closed() {
            return Err(self.not_canonical("filler behind the end"));
        }
        Ok(())
    }

    fn slice(&mut self) -> Result<(), Stop> {
        let place = self.place;
        let piece = match Piece::of(&self.parts, &mut self.records) {
            Ok(piece) => piece,
            Err(_) if self.chain.closed() => {
                return Err(self.not_canonical("bytes behind the end are no slice"));
            }
            Err(fault) => return Err(Verdict::Edited { place, why: fault.to_string() }.into()),
        };
        let first = self.chain.head().is_none();
        let accepted = match &piece.link {
            None => self.chain.accept_unlinked(),
            Some(link) => self.chain.accept_link(link, piece.fits),
        };
        match accepted {
            Ok(()) => {}
            Err(ChainFault::OtherSession { found }) => {
                let why = format!("recording is of session {found}");
                return Err(Verdict::Foreign { place, why }.into());
            }
            Err(fault) => return Err(self.out_of_place(&piece, &fault)),
        }
        if let (Some(link), Some(origin)) = (&piece.link, self.chain.origin()) {
            if first {
                self.vouch.belongs(origin).map_err(|why| Verdict::Foreign { place, why })?;
            }
            self.vouch.checkpoint(link, origin, place)?;
        }
        self.place.slice += 1;
        Ok(())
    }

    fn sealed(&mut self) -> Result<(), Stop> {
        let place = self.place;
        let edited = |why: &str| Verdict::Edited { place, why: why.to_owned() };
        let Some((seal, (next, head))) = Seal::from_body(self.parts.body()).zip(self.chain.head())
        else {
            return Err(edited("seal of the auth service is malformed").into());
        };
        if self.seal.is_some() {
            return Err(self.not_canonical("bytes behind the seal"));
        }
        if self.parts.header() != crate::format::header(self.parts.body().len() as u64) {
            return Err(self.not_canonical("header of the auth service's seal"));
        }
        if !self.vouch.sealed(&seal) {
            return Err(edited("signature of the auth service's seal does not fit").into());
        }
        let received = seal.received;
        if self.chain.origin().is_some_and(|origin| origin.session != received.session) {
            let why = format!("seal is of session {}", received.session);
            return Err(Verdict::Foreign { place, why }.into());
        }
        if received.slices > next {
            let count = received.slices - next;
            return Err(Verdict::Removed { place, first: next, count }.into());
        }
        let complete = received.state == EndState::Complete;
        if (received.slices, received.head, Some(complete)) != (next, head, self.chain.ended()) {
            return Err(edited("auth service received other slices than these").into());
        }
        if received.bytes != place.offset {
            return Err(self.not_canonical("filler that the auth service did not receive"));
        }
        // Nothing but the bookkeeping of what may follow is left to do.
        self.chain.accept_seal(self.parts.body()).map_err(|fault| edited(&fault.to_string()))?;
        self.seal = Some(received);
        Ok(())
    }

    /// The file goes on, but what follows is no part, or it ends within one.
    fn unreadable(&mut self, fault: Fault) -> Stop {
        let place = self.place;
        match fault {
            Fault::Read(error) => Stop::Read(error),
            Fault::Encrypted | Fault::OldArchive => {
                Verdict::Unreadable { why: fault.to_string() }.into()
            }
            _ if self.chain.closed() => self.not_canonical("bytes behind the end"),
            // Whoever cuts a slice cuts its link, which comes last; whoever changes its length does not.
            Fault::ShortBody { .. } if self.has_link() => {
                Verdict::Edited { place, why: "length of the slice was altered".to_owned() }.into()
            }
            Fault::ShortHeader | Fault::ShortBody { .. } => self.torn().into(),
            fault => Verdict::Edited { place, why: fault.to_string() }.into(),
        }
    }

    /// Whether the body in hand, which should be longer, has a whole link in it.
    fn has_link(&mut self) -> bool {
        let body = self.parts.body();
        let Ok(content) = self.records.open(body) else { return false };
        let rest = body.get(content..).unwrap_or_default();
        crate::gzip::empty_member_at(rest).is_some_and(|link| Link::decode(link).is_some())
    }

    fn torn(&self) -> Verdict {
        let slices = self.chain.head().map_or(self.place.slice, |(slices, _)| slices);
        Verdict::Truncated {
            slices,
            offset: self.seal.as_ref().map_or(self.place.offset, |seal| seal.bytes),
            since: self.vouch.last_signed(),
        }
    }

    fn not_canonical(&self, why: &str) -> Stop {
        Verdict::NotCanonical { place: self.place, why: why.to_owned() }.into()
    }

    /// Everything that is there fits together.
    fn conclude(&self) -> Verdict {
        let slices = self.chain.head().map_or(0, |(slices, _)| slices);
        match self.chain.ended() {
            None if self.place.slice > 0 => Verdict::Unsigned,
            None | Some(false) => self.torn(),
            Some(true) if self.vouch.signed() == slices || self.seal.is_some() => Verdict::Intact,
            Some(true) => Verdict::Unvouched { signed: self.vouch.signed(), slices },
        }
    }
}

/// A slice, as far as it tells by itself.
struct Piece {
    link: Option<Link>,
    /// The link is for these bytes.
    fits: bool,
}

impl Piece {
    fn of<R: Read>(parts: &Parts<R>, records: &mut Records) -> Result<Self, Fault> {
        let body = parts.body();
        let content = records.open(body)?;
        records.clear();
        let (stored, rest) = body.split_at_checked(content).unwrap_or((body, &[]));
        if rest.iter().all(|byte| *byte == 0) {
            return Ok(Self { link: None, fits: false });
        }
        let link = Link::decode(rest).ok_or(ChainFault::Malformed)?;
        let fits = link.slice == crate::chain::slice_hash(parts.header(), stored);
        Ok(Self { link: Some(link), fits })
    }
}

#[cfg(test)]
mod tests;

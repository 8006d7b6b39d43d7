//! What a slice that does not continue the chain is.

use std::io::{Read, Seek};

use super::verdict::{Place, Verdict};
use super::{Piece, Stop, Verifier};
use crate::chain::{ChainFault, Hash, Link};
use crate::decoder::Fault;

impl<R: Read + Seek> Verifier<'_, R> {
    /// Names what is wrong with the slice in hand. The walk ends with it.
    pub(super) fn out_of_place(&mut self, piece: &Piece, fault: &ChainFault) -> Stop {
        let place = self.place;
        let edited = || Verdict::Edited { place, why: fault.to_string() };
        let closed = self.chain.closed();
        let verdict = match piece.link.as_ref().filter(|_| piece.fits) {
            None if closed => return self.not_canonical("bytes behind the end are no slice"),
            None => Ok(edited()),
            Some(link) => match self.chain.head().zip(self.chain.origin().cloned()) {
                // A link in a recording that began without a chain.
                None if place.slice > 0 => Ok(edited()),
                None => self.beginning(link, place, fault),
                Some((reached, origin)) => match &link.origin {
                    Some(other) if *other != origin => Ok(Verdict::Foreign {
                        place,
                        why: format!("slice is of session {} in {}", other.session, other.cluster),
                    }),
                    _ => self.elsewhere(link, reached, &origin.origin(), fault),
                },
            },
        };
        match verdict {
            Ok(verdict) => verdict.into(),
            Err(stop) => stop,
        }
    }

    /// The file does not begin with a first slice.
    fn beginning(
        &mut self,
        link: &Link,
        place: Place,
        fault: &ChainFault,
    ) -> Result<Verdict, Stop> {
        if link.seq == 0 {
            return Ok(Verdict::Edited { place, why: fault.to_string() });
        }
        let from = self.parts.end();
        if self.find(from, None, |link| link.seq == 0)? {
            return Ok(Verdict::Reordered { place, expected: 0, found: link.seq });
        }
        Ok(Verdict::Removed { place, first: 0, count: link.seq })
    }

    /// The chain goes on otherwise, or is at its end.
    fn elsewhere(
        &mut self,
        link: &Link,
        (next, head): (u64, Hash),
        origin: &Hash,
        fault: &ChainFault,
    ) -> Result<Verdict, Stop> {
        let place = self.place;
        let behind = self.parts.end();
        let here = link.head();
        if self.find(0, Some(place.offset), |other| other.head() == here)? {
            return Ok(Verdict::Repeated { place, slice: link.seq });
        }
        let own = self.vouch.knows(link, origin);
        let foreign =
            || Verdict::Foreign { place, why: "slice is of another recording".to_owned() };
        if own == Some(false) {
            return Ok(foreign());
        }
        if self.chain.closed() {
            return Ok(Verdict::NotCanonical { place, why: fault.to_string() });
        }
        if link.seq > next {
            let found = link.seq;
            if self.find(behind, None, |other| other.seq == next && other.previous == head)? {
                return Ok(Verdict::Reordered { place, expected: next, found });
            }
            return Ok(Verdict::Removed { place, first: next, count: found - next });
        }
        // Not the slice that was recorded under this number, or not after these slices.
        Ok(match own {
            Some(true) => Verdict::Edited { place, why: fault.to_string() },
            _ => foreign(),
        })
    }

    /// Whether there is such a slice between two places of the file; what is no slice ends the search.
    fn find(
        &mut self,
        from: u64,
        until: Option<u64>,
        wanted: impl Fn(&Link) -> bool,
    ) -> Result<bool, Stop> {
        self.parts.seek(from)?;
        loop {
            match self.parts.next() {
                Ok(true) if until.is_none_or(|until| self.parts.start() < until) => {}
                Err(Fault::Read(error)) => return Err(error.into()),
                _ => return Ok(false),
            }
            let Ok(piece) = Piece::of(&self.parts, &mut self.records) else { continue };
            if piece.link.filter(|_| piece.fits).is_some_and(|link| wanted(&link)) {
                return Ok(true);
            }
        }
    }
}

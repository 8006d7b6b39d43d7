//! Places for connections that nobody has logged in on yet.
//!
//! There is a bounded number of them, and whoever comes gets one: where all are taken, the connection that has had its
//! place longest ends. A login takes well under a second and idlers stay for a minute, so idlers go first, however many
//! there are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The places.
#[derive(Debug)]
pub(crate) struct Startups {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By age, and what ends each.
    places: BTreeMap<u64, CancellationToken>,
}

/// One place, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    of: Arc<Startups>,
    number: u64,
}

impl Startups {
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), taken: Mutex::default() }
    }

    /// A place for a connection that `stop` ends, which may be cancelled as long as the place is held.
    pub(crate) fn enter(self: &Arc<Self>, stop: CancellationToken) -> Place {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.places.len() >= self.most
            && let Some((_, oldest)) = taken.places.pop_first()
        {
            tracing::debug!("too many connections before login, the oldest ends");
            oldest.cancel();
        }
        let number = taken.next;
        taken.next += 1;
        taken.places.insert(number, stop);
        Place { of: Arc::clone(self), number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_and_who_is_in_does_not_count() {
        let startups = Arc::new(Startups::new(2));
        let stops: Vec<_> = (0..5).map(|_| CancellationToken::new()).collect();
        let ended = || stops.iter().map(CancellationToken::is_cancelled).collect::<Vec<_>>();
        let enter = |number: usize| startups.enter(stops[number].clone());
        let (first, second) = (enter(0), enter(1));
        assert_eq!(ended(), [false; 5]);
        // The first one has logged in.
        drop(first);
        let third = enter(2);
        assert_eq!(ended(), [false; 5]);
        let fourth = enter(3);
        assert_eq!(ended(), [false, true, false, false, false]);
        // The place of one that was ended is given back once.
        drop(second);
        let _fifth = enter(4);
        assert_eq!(ended(), [false, true, true, false, false]);
        drop((third, fourth));
        assert_eq!(startups.taken.lock().unwrap().places.len(), 1);
    }
}

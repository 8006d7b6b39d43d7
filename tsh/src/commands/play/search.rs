//! Searching beside playback: a thread reads the recording and tells when matches come.

use std::sync::mpsc::SyncSender;

use shared_recording::grep::{Hits, Pattern};

use super::source::Source;
use super::terminal::Message;

/// Matches that are kept; the first ones of more.
const MOST: usize = 100_000;

/// A search that is going on or done.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) pattern: Pattern,
    number: u64,
    /// When matches come, in milliseconds since the first output, in order.
    times: Vec<u64>,
    done: bool,
    /// Where to go on from as soon as there is a match behind it, and whether a match right there
    /// counts.
    wanted: Option<(u64, bool)>,
}

/// What became of a wish for a match.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    At(u64),
    NotYet,
    No,
}

impl Search {
    /// Begins to search the whole recording.
    pub(super) fn begin(
        source: &Source,
        pattern: Pattern,
        number: u64,
        to: &SyncSender<Message>,
    ) -> Self {
        let hits = Hits::new(source.decoder(), pattern.clone());
        let to = to.clone();
        std::thread::spawn(move || {
            // Of a damaged recording, what is before the damage is searched.
            for hit in hits.map_while(Result::ok).take(MOST) {
                if to.send(Message::Match { number, at_ms: hit.at_ms }).is_err() {
                    return;
                }
            }
            to.send(Message::Searched { number }).ok();
        });
        Self { pattern, number, times: Vec::new(), done: false, wanted: None }
    }

    /// Whether a message is of this search and not of one before.
    pub(super) fn is(&self, number: u64) -> bool {
        self.number == number
    }

    pub(super) fn add(&mut self, at_ms: u64) {
        let place = self.times.partition_point(|time| *time <= at_ms);
        self.times.insert(place, at_ms);
    }

    pub(super) fn end(&mut self) {
        self.done = true;
    }

    /// Wishes for the next match behind a time, or right at it.
    pub(super) fn want(&mut self, behind: u64, or_at: bool) {
        self.wanted = Some((behind, or_at));
    }

    /// Answers the wish; an answered one is over.
    pub(super) fn answer(&mut self) -> Option<Found> {
        let (behind, or_at) = self.wanted?;
        let at = self.times.partition_point(|time| *time < behind || (!or_at && *time == behind));
        let found = match self.times.get(at) {
            Some(time) => Found::At(*time),
            None if self.done => Found::No,
            None => return Some(Found::NotYet),
        };
        self.wanted = None;
        Some(found)
    }

    /// The last match before a time, as far as it was searched.
    pub(super) fn before(&self, time: u64) -> Option<u64> {
        let at = self.times.partition_point(|found| *found < time);
        self.times.get(at.checked_sub(1)?).copied()
    }

    /// `3 matches`, or how many so far.
    pub(super) fn count(&self) -> String {
        let (count, more) = (self.times.len(), if self.done { "" } else { "…" });
        format!("{count} match{}{more}", if count == 1 { "" } else { "es" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_answered_when_it_can_be() {
        let mut search = Search {
            pattern: "x".parse().unwrap(),
            number: 1,
            times: Vec::new(),
            done: false,
            wanted: None,
        };
        assert_eq!(search.answer(), None);
        search.want(10, false);
        search.add(10);
        assert_eq!(search.answer(), Some(Found::NotYet));
        search.add(30);
        search.add(20);
        assert_eq!(search.answer(), Some(Found::At(20)));
        assert_eq!(search.answer(), None, "an answered wish is over");
        search.want(10, true);
        assert_eq!(search.answer(), Some(Found::At(10)));
        search.end();
        search.want(30, false);
        assert_eq!(search.answer(), Some(Found::No));
        assert_eq!((search.before(30), search.before(10)), (Some(20), None));
        assert_eq!(search.count(), "3 matches");
    }
}

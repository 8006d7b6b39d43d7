//! The verdict, in a word and in a sentence.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::chain::ChainStatus;

/// Where in the file something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which slice of the file, from 0.
    pub slice: u64,
    /// The byte at which it begins.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slice {} at byte {}", self.slice, self.offset)
    }
}

/// What was found about a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it was recorded, from the beginning to the end the recorder gave it, and vouched for.
    Intact,
    /// There is no chain: recorded by another program, or the chain was taken off.
    Unsigned,
    /// The chain holds to its end, but nobody vouches for all of it: recorded without a key, or the checkpoints were
    /// taken off.
    Unvouched {
        /// So many slices are vouched for.
        signed: u64,
        /// Of so many.
        slices: u64,
    },
    /// Unaltered as far as it goes, but without its end: lost, or cut off.
    Truncated {
        /// So many whole slices are there.
        slices: u64,
        /// The first byte that belongs to none of them.
        offset: u64,
        /// The time of the last checkpoint: what came after it is missing.
        since: Option<DateTime<Utc>>,
    },
    /// Bytes of a slice were changed.
    Edited {
        /// Which slice.
        place: Place,
        /// How it shows.
        why: String,
    },
    /// A slice stands before one that it should follow.
    Reordered {
        /// Where.
        place: Place,
        /// The number of the slice that should be there.
        expected: u64,
        /// The number of the slice that is there.
        found: u64,
    },
    /// Slices are missing.
    Removed {
        /// Where they should be.
        place: Place,
        /// The number of the first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// A slice stands there a second time.
    Repeated {
        /// Where.
        place: Place,
        /// Its number.
        slice: u64,
    },
    /// A slice, or all of them, are of another recording.
    Foreign {
        /// Where the first is.
        place: Place,
        /// How it shows.
        why: String,
    },
    /// Nothing of the session was changed, but the file is not what the recorder wrote.
    NotCanonical {
        /// Where.
        place: Place,
        /// What is there.
        why: String,
    },
    /// A checkpoint is of a key that the authority does not vouch for, or did not when it was used.
    UnknownKey {
        /// Where.
        place: Place,
        /// What is wrong with the key.
        why: String,
    },
    /// The file is of a kind that cannot be verified.
    Unreadable {
        /// What it is.
        why: String,
    },
}

impl Verdict {
    /// One word, for scripts.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Unsigned => "unsigned",
            Self::Unvouched { .. } => "unvouched",
            Self::Truncated { .. } => "truncated",
            Self::Edited { .. } => "edited",
            Self::Reordered { .. } => "reordered",
            Self::Removed { .. } => "removed",
            Self::Repeated { .. } => "repeated",
            Self::Foreign { .. } => "foreign",
            Self::NotCanonical { .. } => "not_canonical",
            Self::UnknownKey { .. } => "unknown_key",
            Self::Unreadable { .. } => "unreadable",
        }
    }

    /// Where something is wrong, if it is at one place.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Intact | Self::Unsigned | Self::Unvouched { .. } | Self::Unreadable { .. } => {
                None
            }
            Self::Truncated { slices, offset, .. } => {
                Some(Place { slice: *slices, offset: *offset })
            }
            Self::Edited { place, .. }
            | Self::Reordered { place, .. }
            | Self::Removed { place, .. }
            | Self::Repeated { place, .. }
            | Self::Foreign { place, .. }
            | Self::NotCanonical { place, .. }
            | Self::UnknownKey { place, .. } => Some(*place),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intact => write!(f, "intact"),
            Self::Unsigned => {
                write!(f, "unsigned: no hash chain, so it is not known whether it was altered")
            }
            Self::Unvouched { signed: 0, slices } => {
                write!(f, "unvouched: none of its {slices} slices has a checkpoint")
            }
            Self::Unvouched { signed, slices } => {
                write!(f, "unvouched: checkpoints vouch for the first {signed} of {slices} slices")
            }
            Self::Truncated { slices, offset, since } => {
                write!(
                    f,
                    "truncated: the end is missing from byte {offset}, after {slices} slices"
                )?;
                match since {
                    Some(time) => write!(
                        f,
                        ", last signed {}",
                        time.to_rfc3339_opts(SecondsFormat::Secs, true)
                    ),
                    None => Ok(()),
                }
            }
            Self::Edited { place, why } => write!(f, "edited: {place}: {why}"),
            Self::Reordered { place, expected, found } => {
                write!(f, "reordered: {place}: slice {found} stands where {expected} should be")
            }
            Self::Removed { place, first, count: 1 } => {
                write!(f, "removed slice: {place}: slice {first} is missing")
            }
            Self::Removed { place, first, count } => {
                let last = first.saturating_add(*count).saturating_sub(1);
                write!(f, "removed slices: {place}: slices {first} to {last} are missing")
            }
            Self::Repeated { place, slice } => {
                write!(f, "repeated slice: {place}: slice {slice} stands there again")
            }
            Self::Foreign { place, why } => write!(f, "foreign slice: {place}: {why}"),
            Self::NotCanonical { place, why } => write!(f, "not canonical: {place}: {why}"),
            Self::UnknownKey { place, why } => write!(f, "unknown key: {place}: {why}"),
            Self::Unreadable { why } => write!(f, "unreadable: {why}"),
        }
    }
}

/// What to tell somebody who plays a recording, without an authority at hand: nothing where the chain holds to its end
/// or there is none.
#[must_use]
pub fn warning(status: &ChainStatus) -> Option<String> {
    match status {
        ChainStatus::Intact | ChainStatus::Unsigned => None,
        ChainStatus::MissingEnd => Some("the recording's end is missing".to_owned()),
        ChainStatus::Broken { slice, why } => {
            Some(format!("the recording was altered at part {slice}: {why}"))
        }
    }
}

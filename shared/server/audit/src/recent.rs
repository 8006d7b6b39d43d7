//! The ids of the last events, so that what is sent again after a lost answer is not written again.

use std::collections::{HashSet, VecDeque};

use uuid::Uuid;

/// An id, small for what they all are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Id {
    Uuid(Uuid),
    Text(Box<str>),
}

impl Id {
    fn of(uid: &str) -> Self {
        Uuid::try_parse(uid).map_or_else(|_| Self::Text(uid.into()), Self::Uuid)
    }
}

/// A window over the last ids.
#[derive(Debug)]
pub(crate) struct Recent {
    known: HashSet<Id>,
    order: VecDeque<Id>,
    window: usize,
}

impl Recent {
    /// Remembers up to `window` ids.
    pub(crate) fn new(window: usize) -> Self {
        Self { known: HashSet::new(), order: VecDeque::new(), window }
    }

    /// Whether it is among the last ones.
    pub(crate) fn contains(&self, uid: &str) -> bool {
        !uid.is_empty() && self.known.contains(&Id::of(uid))
    }

    /// Remembers one more; an event without an id is never the same as another.
    pub(crate) fn insert(&mut self, uid: &str) {
        if uid.is_empty() || self.window == 0 {
            return;
        }
        let id = Id::of(uid);
        if !self.known.insert(id.clone()) {
            return;
        }
        if self.order.len() >= self.window
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_first() {
        let mut recent = Recent::new(2);
        recent.insert("");
        for uid in ["a", "b", "b", "0b6f4a2e-9b0a-4a52-8d29-0f2b5d0a7f11"] {
            recent.insert(uid);
        }
        assert!(!recent.contains("a") && !recent.contains(""));
        assert!(recent.contains("b") && recent.contains("0B6F4A2E-9B0A-4A52-8D29-0F2B5D0A7F11"));
    }
}

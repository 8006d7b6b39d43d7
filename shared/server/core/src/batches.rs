//! Events in batches that one request to the auth service takes.

use shared_api::limits;
use shared_events::AuditEvent;

/// Batches under construction.
#[derive(Default)]
pub(crate) struct Batches {
    full: Vec<Vec<AuditEvent>>,
    open: Vec<AuditEvent>,
    size: usize,
}

impl Batches {
    /// Adds an event that packs into so many bytes.
    pub(crate) fn add(&mut self, event: AuditEvent, packed: usize) {
        // As sent it is a third longer, and quoted.
        let size = packed + packed / 2 + 4;
        let fits =
            self.open.len() < limits::MAX_EVENTS && self.size + size <= limits::MAX_EVENT_BATCH;
        if !fits && !self.open.is_empty() {
            self.full.push(std::mem::take(&mut self.open));
            self.size = 0;
        }
        self.size += size;
        self.open.push(event);
    }

    /// All of them, in order; none is empty.
    pub(crate) fn into_batches(mut self) -> Vec<Vec<AuditEvent>> {
        if !self.open.is_empty() {
            self.full.push(self.open);
        }
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::event;

    #[test]
    fn neither_too_many_nor_too_long() {
        let batches = |count: usize, packed: usize| {
            let mut batches = Batches::default();
            (0..count).for_each(|n| batches.add(event(&n.to_string()), packed));
            batches.into_batches().iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(batches(0, 10), [] as [usize; 0]);
        assert_eq!(batches(limits::MAX_EVENTS + 1, 10), [limits::MAX_EVENTS, 1]);
        assert_eq!(batches(3, limits::MAX_EVENT_BATCH / 4), [2, 1]);
        // One that is too long goes alone; the auth service says what it thinks of it.
        assert_eq!(batches(2, limits::MAX_EVENT_BATCH), [1, 1]);
    }
}

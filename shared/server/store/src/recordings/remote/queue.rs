//! Which recordings wait for the store, and which is tried next.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use shared_types::SessionId;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A recording that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) session: SessionId,
    /// How often it did not work.
    pub(super) failures: u32,
    /// When it is tried next.
    pub(super) due: Instant,
    /// An upload that has begun.
    pub(super) progress: Option<Progress>,
}

/// How far an upload in blocks is. Kept in memory: after a restart it begins anew.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// The store's name of the upload.
    pub(super) upload: String,
    /// What the store calls the blocks it has.
    pub(super) names: Vec<String>,
    /// The size of each block but the last.
    pub(super) block: u64,
    /// Which file it is of, so that one that took its place is not mixed with it.
    pub(super) file: FileId,
}

/// Device and number of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId(pub(super) u64, pub(super) u64);

/// The recordings that wait, each once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lists: Mutex<Lists>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Lists {
    waiting: Vec<Waiting>,
    /// Waiting or in work.
    known: HashSet<SessionId>,
}

impl Queue {
    /// Adds a recording, unless it is known.
    pub(super) fn add(&self, session: SessionId) {
        self.with(|lists| {
            if lists.known.insert(session) {
                let due = Instant::now();
                lists.waiting.push(Waiting { session, failures: 0, due, progress: None });
            }
        });
        self.changed.notify_one();
    }

    /// Takes a recording back that did not work out.
    pub(super) fn again(&self, mut waiting: Waiting, pause: Duration) {
        waiting.failures = waiting.failures.saturating_add(1);
        waiting.due = Instant::now() + pause;
        self.with(|lists| lists.waiting.push(waiting));
        self.changed.notify_one();
    }

    /// Forgets a recording that is in work.
    pub(super) fn done(&self, session: SessionId) {
        self.with(|lists| lists.known.remove(&session));
    }

    /// How many wait or are in work.
    pub(super) fn len(&self) -> usize {
        self.with(|lists| lists.known.len())
    }

    /// Waits for the next one that is due.
    pub(super) async fn next(&self) -> Waiting {
        loop {
            let changed = self.changed.notified();
            let due = match self.with(Lists::take_due) {
                Ok(waiting) => {
                    // Another worker may take another.
                    self.changed.notify_one();
                    return waiting;
                }
                Err(due) => due,
            };
            match due {
                Some(due) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Lists) -> T) -> T {
        work(&mut self.lists.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Lists {
    /// The one that is due first, or when that will be.
    fn take_due(&mut self) -> Result<Waiting, Option<Instant>> {
        let first = self.waiting.iter().enumerate().min_by_key(|(_, waiting)| waiting.due);
        match first.map(|(place, waiting)| (place, waiting.due)) {
            None => Err(None),
            Some((_, due)) if due > Instant::now() => Err(Some(due)),
            Some((place, _)) => Ok(self.waiting.swap_remove(place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionId {
        uuid::Uuid::new_v4().to_string().parse().unwrap()
    }

    #[tokio::test]
    async fn each_waits_once_and_the_first_due_goes_first() {
        let queue = Queue::default();
        let (a, b) = (session(), session());
        queue.add(a);
        queue.add(a);
        let taken = queue.next().await;
        assert_eq!((taken.session, queue.len()), (a, 1));
        queue.add(a);
        queue.again(taken, Duration::from_millis(300));
        queue.add(b);
        assert_eq!(queue.next().await.session, b, "a is not due yet");
        queue.done(b);
        let again = queue.next().await;
        assert_eq!((again.session, again.failures), (a, 1));
        queue.done(a);
        assert_eq!(queue.len(), 0);
        let nothing = queue.with(Lists::take_due).err();
        assert_eq!(nothing, Some(None), "a repeated add is one recording");
    }
}
